"""What a call did and how long each step of it took, for one line in a log; it holds no secret."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from genie.cni.execute import Executor, Outcome, PluginCall

T = TypeVar("T")


class StepTimes:
    """Where genie's own time goes: milliseconds by step, the waiting for delegates left out.

    Of delegates that run at once, each one's end or beginning ends the wait.
    """

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def done(self, step: str) -> None:
        """Attribute the time since the last call to this step."""
        before, self._last = self._last, time.perf_counter()
        self.ms[step] = round(self.ms.get(step, 0.0) + (self._last - before) * 1000, 3)

    def waited(self) -> None:
        """Attribute the time since the last call to no step: it was spent waiting."""
        self._last = time.perf_counter()


class RecordingExecutor:
    """An executor that notes what it ran."""

    def __init__(self, inner: Executor, steps: StepTimes) -> None:
        self.inner, self.steps = inner, steps
        self.calls: list[dict[str, Any]] = []

    async def claim(self, path: str) -> None:
        await self.inner.claim(path)

    async def run(self, call: PluginCall) -> Outcome:
        self.steps.done("requests")
        outcome = await self.inner.run(call)
        self.steps.waited()
        self.calls.append(
            {
                "plugin": call.binary.rpartition("/")[2],
                "verb": call.env.get("CNI_COMMAND", ""),
                "ifname": call.env.get("CNI_IFNAME", ""),
                "status": outcome.status,
                "ms": round(outcome.seconds * 1000, 3),
            }
        )
        return outcome

    async def gather(self, *work: Coroutine[Any, Any, T]) -> list[T | BaseException]:
        return await self.inner.gather(*work)

    def in_thread(self, work: Callable[[], T], *, waits: bool = False) -> Awaitable[T]:
        return self.inner.in_thread(work, waits=waits)
