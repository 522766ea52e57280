"""The outcomes of scenarios and of a run: plain data for the reports.

pytest-xdist workers send outcomes to the controller, so they convert to JSON and back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from harness.contract import Facts
from harness.values import in_bits

Verdict = Literal["passed", "failed", "broken", "blocked", "not run", "skipped"]
"""`broken`: the environment stopped it, so it says nothing about the plugin. `blocked`: every ADD of its network failed
in the same way before. `not run`: the run ended before it. Only `passed` is a success."""

VERDICTS: tuple[Verdict, ...] = ("failed", "broken", "blocked", "not run", "passed", "skipped")
"""All verdicts, the most important first: the order of every report."""

RAN = frozenset[Verdict](("failed", "broken", "passed"))
"""The verdicts of scenarios that made pods, so their time means something."""


def counted(verdicts: Iterable[Verdict]) -> Counter[Verdict]:
    """How often each verdict occurs, in the order of reports and without zeros."""
    counts = Counter(verdicts)
    return Counter({verdict: counts[verdict] for verdict in VERDICTS if counts[verdict]})


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Another run of a scenario that was repeated: it was broken, or `--rerun` repeats what failed."""

    verdict: Verdict
    seconds: float
    reason: str = ""  # its first failure, in one line


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured value."""

    name: str
    value: float
    unit: str  # "ms", "bit/s"

    def __str__(self) -> str:
        shown = in_bits(self.value, 4) if self.unit == "bit/s" else f"{self.value:.4g} {self.unit}"
        return f"{self.name}: {shown}"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A check with its failure; `failure` is empty if it passed."""

    check: str
    seconds: float
    failure: str = ""
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The outcome of a step of a scenario."""

    name: str
    seconds: float
    failure: str = ""  # of the step itself; each check has its own
    findings: tuple[Finding, ...] = ()
    figures: tuple[Figure, ...] = ()  # of the step itself

    @property
    def failures(self) -> list[str]:
        own = [self.failure] if self.failure else []
        return own + [finding.failure for finding in self.findings if finding.failure]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a scenario."""

    name: str
    title: str
    file: str
    networks: tuple[str, ...]
    group: str
    verdict: Verdict
    seconds: float
    reason: str = ""  # why it was skipped, blocked, or not run
    stages: tuple[Stage, ...] = ()
    namespace: str = ""
    evidence: tuple[str, ...] = ()  # files, relative to the report's directory
    unclaimed: tuple[str, ...] = ()  # leftovers on the nodes, perhaps another scenario's; for the end of the run
    notes: tuple[str, ...] = ()  # kept pods, and how to look at them
    worker: str = ""
    began: float = 0.0  # seconds since the epoch, of the last run of it
    waited: float = 0.0  # seconds before that, for other scenarios that must not run at the same time
    calls: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    """The seconds of the plugins' calls, by network and verb; empty if the cluster does not know."""
    known: str = ""  # why its failure does not decide the exit code: the entry of known-failures.yaml
    overdue: str = ""  # why such an entry decides it: the scenario passes, or the entry is over
    attempts: tuple[Attempt, ...] = ()  # its other runs, oldest first

    @property
    def rate(self) -> str:
        """How many of several runs did not pass: `2 of 5 failed`; empty after a single run."""
        verdicts = [each.verdict for each in self.attempts] + [self.verdict]
        if len(verdicts) == 1:
            return ""
        bad = {verdict: count for verdict, count in counted(verdicts).items() if verdict != "passed"}
        return ", ".join(f"{count} of {len(verdicts)} {verdict}" for verdict, count in bad.items())

    @property
    def failures(self) -> list[tuple[str, str]]:
        """All failures, each as (place, text)."""
        found = []
        for stage in self.stages:
            if stage.failure:
                found.append((stage.name, stage.failure))
            found += [(finding.check, finding.failure) for finding in stage.findings if finding.failure]
        return found

    @property
    def figures(self) -> list[Figure]:
        """All measured values, in order."""
        found: list[Figure] = []
        for stage in self.stages:
            found += [*stage.figures, *(figure for finding in stage.findings for figure in finding.figures)]
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self, dict_factory=_plain)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        stages = tuple(
            Stage(**{**stage, "findings": tuple(map(_finding, stage["findings"])), "figures": _figures(stage)})
            for stage in data["stages"]
        )
        lists = {key: tuple(data[key]) for key in ("networks", "evidence", "unclaimed", "notes")}
        attempts = tuple(Attempt(**attempt) for attempt in data.get("attempts", ()))
        return cls(**{**data, **lists, "stages": stages, "attempts": attempts})


def _finding(data: Mapping[str, Any]) -> Finding:
    return Finding(**{**data, "figures": _figures(data)})


def _figures(data: Mapping[str, Any]) -> tuple[Figure, ...]:
    return tuple(Figure(**each) for each in data.get("figures", ()))


def _plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in pairs}


@dataclass(frozen=True, kw_only=True)
class Run:
    """The outcome of a run, for its reports."""

    facts: Facts
    outcomes: tuple[Outcome, ...]
    leaked: tuple[str, ...]  # leftovers on the nodes at the end
    seconds: float
    start_seconds: float  # the part of these for the cluster's start
    code: int = 0  # the exit code of the run
    why: str = ""  # why it is not 0, in one sentence, if no scenario's failure explains it
    began: float = 0.0  # seconds since the epoch
    command: tuple[str, ...] = ()
    shard: str = ""  # "2/3"
    selected: tuple[str, ...] = ()  # the names of all selected scenarios, those of other shards too
    scenarios_sha256: str = ""  # over their names and files
    binaries: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """The plugins: name and SHA-256, with the nodes that have exactly this file."""
