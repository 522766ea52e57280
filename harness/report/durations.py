"""How long scenarios took: a small file to commit or to cache, by which a later run is cut into equal shards."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.report.outcome import RAN, Outcome
from harness.report.published import KIND, ScenarioReport
from harness.report.reading import BadReport, checked, kind, load, report_in


@dataclass(frozen=True, kw_only=True)
class Durations:
    """Seconds by scenario."""

    seconds: dict[str, float]


def of(outcomes: Iterable[Outcome]) -> Durations:
    """The durations of the scenarios that ran."""
    return Durations(seconds={each.name: round(each.seconds, 1) for each in outcomes if each.verdict in RAN})


def text(durations: Durations) -> str:
    """The file: one scenario a line, in the order of names, so that a change of one is a change of one line."""
    return json.dumps(dict(sorted(durations.seconds.items())), indent=0) + "\n"


def read(path: Path) -> Durations:
    """The durations of such a file, or of a report.json.

    Raises BadReport: it is neither.
    """
    path = report_in(path)
    data = load(path)
    if kind(data) == KIND:
        return of(checked(path, data, ScenarioReport).scenarios)
    if not isinstance(data, dict):
        raise BadReport(f"{path}: expected a report.json, or an object with seconds by scenario")
    for name, seconds in data.items():
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
            raise BadReport(f"{path}: {name}: expected seconds, got {json.dumps(seconds)[:100]}")
    return Durations(seconds={name: float(seconds) for name, seconds in data.items()})
