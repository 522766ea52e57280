"""A state that measures: connections between pods that must survive other steps."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import Field

from harness.checks.base import join
from harness.checks.reaching import targets_of
from harness.contract import ProbeError
from harness.model import Many, Milliseconds, NetworkName, PodName
from harness.steps.base import Around
from harness.steps.scene import Scene
from harness.waiting import NotReady, limit

CONNECT = 15.0  # seconds that the first answers may take
AGAIN = 30.0  # seconds that an exec session may take after a restart of the kubelet or the runtime


class StaysConnected(Around):
    """Hold connections between two pods over a network during these steps: none breaks, and no gap between answers is
    longer than the limit.
    """

    key = "stays-connected"
    example = "stays-connected: {from: one, to: two, over: weave, at-most: 500ms, steps: [{with-restart: {of: agent}}]}"

    from_: PodName
    to: PodName
    over: NetworkName
    protocols: Many[Literal["tcp", "udp"]] = ("tcp", "udp")
    at_most: Milliseconds = Field(default=1000.0, description="The longest gap, such as 500ms or 2s; 1s by default.")

    def __str__(self) -> str:
        return f"stay connected from {self.from_} to {self.to} over {self.over}"

    @contextmanager
    def state(self, scene: Scene) -> Iterator[None]:
        name = secrets.token_hex(4)
        if wrong := scene.view.until(lambda: self._connect(scene, name), CONNECT):
            raise NotReady(wrong)
        yield
        before = {_way(flow): flow["answers"] for flow in self._report(scene, name)}
        scene.view.until(lambda: self._unanswered(scene, name, before), self.at_most / 1000 + AGAIN)
        flows = self._report(scene, name, end=True)
        for flow in flows:
            scene.view.figures[f"longest gap of {_way(flow)} from {self.from_} to {self.to} over {self.over}"] = (
                flow["longest_ms"],
                "ms",
            )
        if wrong := join(*(self._wrong(flow) for flow in flows)):
            raise NotReady(wrong)

    def _connect(self, scene: Scene, name: str) -> str | None:
        """Start the flows; the text of a failure, or None."""
        view = scene.view
        looks = view.look(self.from_), view.look(self.to)
        targets = targets_of(view, looks[1], self.over)
        if not targets:
            return join(f"{self.to} has no address of {self.over}", view.describe(*looks, networks=[self.over]))
        flows = [{"protocol": each, "address": str(target)} for target in targets for each in self.protocols]
        found = self._ask(scene, {"op": "hold", "name": name, "flows": flows, "timeout": limit(CONNECT)})
        silent = [f"{_way(flow)}: no answer" for flow in found.get("flows", ()) if not flow["answers"]]
        wrong = [*([found["error"]] if "error" in found else []), *found.get("failed", ()), *silent]
        if not wrong:
            return None
        self._ask(scene, {"op": "held", "name": name, "end": True})
        return join(f"{self.from_} cannot connect to {self.to}: {'; '.join(wrong)}", view.describe(*looks))

    def _unanswered(self, scene: Scene, name: str, before: dict[str, int]) -> str | None:
        """The flows that were not answered after the steps, unless it is clear already that they fail."""
        late = [
            _way(flow)
            for flow in self._report(scene, name)
            if not flow["broken"] and flow["answers"] <= before[_way(flow)] and flow["open_ms"] <= self.at_most
        ]
        return ", ".join(late) or None

    def _report(self, scene: Scene, name: str, *, end: bool = False) -> list[dict[str, Any]]:
        """The flows now. A restart of the kubelet or the runtime ends exec sessions, so the first try may fail."""
        found: dict[str, Any] = {}

        def ask() -> str | None:
            found.update(self._ask(scene, {"op": "held", "name": name, "end": end}))
            return None

        if wrong := scene.view.until(ask, AGAIN):
            raise ProbeError(wrong)
        if "error" in found:
            raise ProbeError(f"{self.from_}: {found['error']}")
        return list(found["flows"])

    def _ask(self, scene: Scene, request: dict[str, Any]) -> dict[str, Any]:
        return scene.view.ask(self.from_, request)

    def _wrong(self, flow: dict[str, Any]) -> str:
        way = f"{flow['protocol']} from {self.from_} to {self.to} at {flow['address']} over {self.over}"
        if flow["broken"]:
            return f"{way} broke: {flow['broken']}, after {flow['answers']} answers"
        if flow["longest_ms"] <= self.at_most:
            return ""
        gaps = [f"{ms:g} ms after {at:.1f} s" for at, ms in flow["gaps"]]
        if flow["open_ms"] > self.at_most:
            gaps.append(f"no answer for the last {flow['open_ms']:g} ms")
        longest = f"had a gap of {flow['longest_ms']:g} ms, expected at most {self.at_most:g}"
        return f"{way} {longest} (gaps: {', '.join(gaps)})"


def _way(flow: dict[str, Any]) -> str:
    return f"{flow['protocol']} to {flow['address']}"
