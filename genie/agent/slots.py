"""Which plugins may run now: at most so many at once of one network and one verb, those of earlier calls first.

A slot is held while one plugin runs and no longer, so nobody who holds one waits for another, nor for the API server or
the kubelet. A network whose plugin hangs keeps its own slots alone, and a DEL never waits behind an ADD. `use` is the
only way to a slot, and gives it back however its block ends.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

Key = tuple[str, str]
"""The source of a network's configuration and the verb. A network's name will not do: whoever may create a
NetworkAttachmentDefinition can give it the name of another's network."""


class Slots:
    """Slots of a size for each key. A key nobody uses takes no memory."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._taken: dict[Key, int] = {}
        self._waiting: dict[Key, list[tuple[float, int, asyncio.Future[None]]]] = {}
        self._numbers = count()

    @property
    def taken(self) -> int:
        return sum(self._taken.values())

    @property
    def waiting(self) -> int:
        return sum(not future.done() for heap in self._waiting.values() for _, _, future in heap)

    @asynccontextmanager
    async def use(self, key: Key, order: float, waits: set[asyncio.Future[None]]) -> AsyncIterator[None]:
        """Hold a slot of this key.

        Args:
            order: whoever has the lowest comes first, then whoever came first.
            waits: has the wait for the slot in it while there is one; an exception that is set there ends it.
        """
        await self._take(key, order, waits)
        try:
            yield
        finally:
            self._give(key)

    async def _take(self, key: Key, order: float, waits: set[asyncio.Future[None]]) -> None:
        if self._taken.get(key, 0) < self.size:
            self._taken[key] = self._taken.get(key, 0) + 1
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting.setdefault(key, []), (order, next(self._numbers), future))
        waits.add(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and not future.exception():
                self._give(key)  # it was handed over in the same moment
            raise
        finally:
            waits.discard(future)

    def _give(self, key: Key) -> None:
        """Hand the slot to whoever waits, or put it back."""
        heap = self._waiting.get(key, [])
        while heap:
            _, _, future = heapq.heappop(heap)
            if not future.done():
                future.set_result(None)
                return
        self._waiting.pop(key, None)
        self._taken[key] -= 1
        if not self._taken[key]:
            del self._taken[key]
