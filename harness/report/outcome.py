"""The outcomes of scenarios and of a run: plain data for the reports.

pytest-xdist workers send outcomes to the controller, so they convert to JSON and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.contract import Facts

Verdict = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A check with its failure; `failure` is empty if it passed."""

    check: str
    seconds: float
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The outcome of a step of a scenario."""

    name: str
    seconds: float
    failure: str = ""  # of the step itself; each check has its own
    findings: tuple[Finding, ...] = ()

    @property
    def failures(self) -> list[str]:
        """All failures of this step."""
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
    reason: str = ""  # why it was skipped
    stages: tuple[Stage, ...] = ()
    namespace: str = ""
    evidence: tuple[str, ...] = ()  # files, relative to the report's directory
    unclaimed: tuple[str, ...] = ()  # leftovers on the nodes, perhaps another scenario's; for the end of the run
    notes: tuple[str, ...] = ()  # kept pods, and how to look at them
    worker: str = ""

    @property
    def failures(self) -> list[tuple[str, str]]:
        """All failures, each as (place, text)."""
        found = []
        for stage in self.stages:
            if stage.failure:
                found.append((stage.name, stage.failure))
            found += [(finding.check, finding.failure) for finding in stage.findings if finding.failure]
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self, dict_factory=_plain)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """And back."""
        stages = tuple(
            Stage(**{**stage, "findings": tuple(Finding(**finding) for finding in stage["findings"])})
            for stage in data["stages"]
        )
        lists = {key: tuple(data[key]) for key in ("networks", "evidence", "unclaimed", "notes")}
        return cls(**{**data, **lists, "stages": stages})


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
