"""Failures of a run by their cause: scenarios that failed in the same way are one finding."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.report.alike import alike
from harness.report.outcome import VERDICTS, Outcome
from harness.report.words import in_one_line

_LONG = 1000  # characters of a failure that decide about its cause
BAD = ("failed", "broken", "blocked", "not run")
_PLUGIN = re.compile(r"plugin type=|failed \((?:add|del)\)|CNI", re.IGNORECASE)
_POD = re.compile(r"^(?:create|delete|recreate) (.+)$")


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Scenarios with one verdict that failed in the same way; the first shows it best."""

    id: str
    verdict: str
    headline: str
    outcomes: tuple[Outcome, ...]

    @property
    def first(self) -> Outcome:
        return self.outcomes[0]

    @property
    def networks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for outcome in self.outcomes for name in outcome.networks))


def causes(outcomes: Iterable[Outcome]) -> tuple[Cause, ...]:
    """The causes, failures first, then those of most scenarios; known failures last."""
    groups: dict[tuple[str, bool, str], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.verdict in BAD or outcome.overdue:
            groups.setdefault((outcome.verdict, bool(outcome.known), _key(outcome)), []).append(outcome)
    ordered = sorted(groups.items(), key=lambda each: _rank(each[0][0], each[0][1], each[1]))
    return tuple(
        Cause(id=f"cause-{number}", verdict=verdict, headline=headline(found[0]), outcomes=tuple(found))
        for number, ((verdict, _, _), found) in enumerate(ordered, 1)
    )


def _rank(verdict: str, known: bool, found: list[Outcome]) -> tuple[bool, int, int, str]:
    return known, [*VERDICTS].index(verdict), -len(found), found[0].name  # type: ignore[arg-type]


def headline(outcome: Outcome) -> str:
    """The failure in one line, without its place."""
    if outcome.reason or not outcome.failures:
        return outcome.reason or outcome.overdue or outcome.verdict
    return in_one_line(outcome.failures[0][1][:_LONG])


def _key(outcome: Outcome) -> str:
    """The failure without what differs between scenarios: names of the scenario, its namespace and its pods."""
    pods = {name for stage in outcome.stages if (of := _POD.match(stage.name)) for name in of[1].split(", ")}
    text = headline(outcome)
    own = {outcome.namespace, outcome.name, *pods} - {"", *outcome.networks}  # a scenario can be named like its network
    for name in sorted(own, key=len, reverse=True):
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "#", text)
    return alike(text)


def ranked(outcome: Outcome) -> tuple[str, ...]:
    """The evidence, the most telling file first: of the pod that the failure names, and of the right kind.

    A plugin's calls explain its error, events a pod that does not start; what the probe saw explains the rest.
    """
    text = " ".join(part[:_LONG] for failure in outcome.failures[:1] for part in failure)
    best: tuple[str, ...]
    if _PLUGIN.search(text):
        best = ("cni-calls", "agent.log", "genie", "containerd.log", "events")
    elif any(word in text for word in ("Pending", "ready", "running")):
        best = ("events", "cni-calls", "genie", "pods.json")
    else:
        best = ("seen", "pod.txt", "network.txt", "genie", "events")

    def rank(name: str) -> tuple[int, bool, str]:
        file = Path(name).name
        kind = next((at for at, start in enumerate(best) if start in file), len(best))
        return kind, not set(Path(name).parts[2:-1] or ("",)) & set(re.findall(r"[\w-]+", text)), name

    return tuple(sorted(outcome.evidence, key=rank))
