"""The times of a report's calls, for the plots of the page."""

from __future__ import annotations

from harness.conformance.published import ConformanceReport
from harness.report import plots

_ROUNDS = "deterministic"  # the check that repeats the same calls, alone on its machine
_FEW = 5


def timing(report: ConformanceReport, verb: str) -> plots.Timing | None:
    """A verb's calls: those of the equal rounds, or of all checks if these are too few."""
    rounds = [time for check in report.checks if check.name == _ROUNDS for time in check.calls.get(verb, ())]
    every = [time for check in report.checks for time in check.calls.get(verb, ())]
    return plots.timing(verb, rounds if len(rounds) >= _FEW else every)
