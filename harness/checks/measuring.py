"""Checks that measure: their figures are in the report, also if there is no limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from harness.checks.base import Check, join
from harness.checks.reaching import targets_of
from harness.model import NetworkName, PodName

if TYPE_CHECKING:
    from harness.checks.view import View


class Throughput(Check):
    """One pod sends to another over a network as fast as TCP can; the report has the figure."""

    key = "throughput"
    example = "throughput: {from: one, to: two, over: weave, at-least: 100000000}"

    from_: PodName
    to: PodName
    over: NetworkName
    at_least: int = Field(default=0, ge=0, description="Bits of payload per second.")
    seconds: float = Field(default=1.0, gt=0, le=60, description="The duration of one measurement.")

    def attempt(self, view: View) -> str | None:
        looks = view.look(self.from_), view.look(self.to)
        targets = targets_of(view, looks[1], self.over)
        if not targets:
            return join(f"{self.to} has no address of {self.over}", view.describe(*looks, networks=[self.over]))
        wrong = [text for target in targets if (text := self._wrong(view, str(target)))]
        return join(*wrong, view.describe(*looks, networks=[self.over])) if wrong else None

    def _wrong(self, view: View, target: str) -> str:
        way = f"from {self.from_} to {self.to} at {target} over {self.over}"
        answer = throughput(view, self.from_, self.to, target, self.seconds)
        if "error" in answer:
            return f"tcp {way}: {answer['error']}"
        if (name := answer.get("name")) and name.rpartition("/")[2] != self.to:
            return f"tcp {way}: {name} answered, expected {self.to}: two pods have one address"
        view.figures[f"throughput {way} ({answer['tool']})"] = answer["bits_per_second"], "bit/s"
        if answer["bits_per_second"] >= self.at_least:
            return ""
        return f"throughput {way} is {answer['bits_per_second']} bit/s, expected at least {self.at_least}"


def throughput(view: View, own: str, other: str, address: str, seconds: float) -> dict[str, Any]:
    """Measure from one pod to an address of another: by iperf3 if both pods' image has it, else by the probe.

    Returns `bits_per_second` and `tool`, or `error`.
    """

    def ask(pod: str, **request: Any) -> dict[str, Any]:
        return view.ask(pod, {**request, "seconds": seconds, "timeout": seconds + 15})

    port = ask(other, op="serve-iperf3").get("port", 0)
    return ask(own, op="throughput", address=address, iperf3=port)
