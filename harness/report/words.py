"""A failure as text, for pytest's FAILURES section and JUnit: the failure, the pod's state, and files to read."""

from __future__ import annotations

import os
from pathlib import Path

from harness.report.outcome import Outcome


def failure(outcome: Outcome, report: Path) -> str:
    """The complete text, for readers who see nothing else."""
    lines = [f"{outcome.title} ({outcome.file})", ""]
    for where, what in outcome.failures:
        first, *rest = what.splitlines() or [""]
        lines += [f"✗ {where}", f"    {first}", *(f"    {line}" for line in rest), ""]
    lines += ["steps: " + ", ".join(f"{stage.name} {stage.seconds:.1f} s" for stage in outcome.stages)]
    lines += list(outcome.notes)
    if outcome.evidence:
        lines += ["look at next:", *(f"    {_near(report / each)}" for each in _first(outcome.evidence))]
    return "\n".join(lines)


def short(outcome: Outcome) -> str:
    """The failure, or the reason for another verdict, in one line; first what is known of it."""
    before = "; ".join(each for each in (outcome.known or outcome.overdue, outcome.rate) if each)
    if not outcome.failures:
        return "; ".join(each for each in (before, outcome.reason) if each)
    where, what = outcome.failures[0]
    text = f"{where}: {in_one_line(what)}"
    return f"{before}; {text}" if before else text


def in_one_line(failure: str) -> str:
    """The first line of a failure, with the next one if it only announces that."""
    first, *rest = failure.splitlines() or [""]
    return f"{first} {rest[0].strip()}" if first.endswith(":") and rest else first


def _first(evidence: tuple[str, ...], most: int = 12) -> list[str]:
    """Files to look at, the most useful first."""
    ranked = sorted(evidence, key=lambda name: (not Path(name).name.startswith(("genie", "seen", "events")), name))
    return ranked[:most]


def _near(path: Path) -> str:
    """A path relative to the current directory if possible."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("../..") else relative
