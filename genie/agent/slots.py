"""Decides which plugins may run now: a limited number for each network and verb, those of earlier calls first.

A slot is held only while one plugin runs, so a holder never waits for another slot, the API server or the kubelet. A
plugin that hangs blocks only its own network's slots, and a DEL never waits behind an ADD. `use` is the only way to get
a slot, and always gives it back at the end of its block.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

Key = tuple[str, str]
"""The source of a network's configuration and the verb. The name would not be safe: a user who may create a
NetworkAttachmentDefinition can give it the name of another network."""


class Slots:
    """A number of slots for each key. An unused key takes no memory."""

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

        order: the lowest comes first, then the one that waited longest.
        waits: contains the future of the wait while it lasts; an exception set on it ends the wait.
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
                self._give(key)  # it was passed on at the same moment
            raise
        finally:
            waits.discard(future)

    def _give(self, key: Key) -> None:
        """Pass the slot to the next waiting plugin, or free it."""
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
