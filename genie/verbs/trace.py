"""The steps of a call and their times, for one line in the log. Contains no secrets."""

from __future__ import annotations

import time
from typing import Any

from genie.cni.execute import Executor, Outcome, PassingExecutor, PluginCall


class StepTimes:
    """genie's own time in milliseconds by step, without the waiting for delegates.

    If delegates run at the same time, the wait ends when any of them ends or starts.
    """

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def done(self, step: str) -> None:
        """Attribute the time since the last call to this step."""
        before, self._last = self._last, time.perf_counter()
        self.ms[step] = self.ms.get(step, 0.0) + (self._last - before) * 1000

    def waited(self) -> None:
        """Drop the time since the last call: it was spent waiting."""
        self._last = time.perf_counter()


class RecordingExecutor(PassingExecutor):
    """An executor that records the plugins that it ran."""

    def __init__(self, inner: Executor, steps: StepTimes) -> None:
        super().__init__(inner)
        self.steps = steps
        self.calls: list[dict[str, Any]] = []

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
