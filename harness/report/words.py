"""A failure as text, for pytest's FAILURES section and JUnit: the failure, the pod's state, and files to read."""

from __future__ import annotations

import os
import re
from pathlib import Path

from harness.report.outcome import Outcome

#: What the kubelet and the runtime write before the plugin's words for an ADD that failed.
BEFORE_WORDS = re.compile(
    r"failed to setup network for sandbox \S+ (?:plugin type=\S+(?: name=\S+)? failed \(add\): )?", re.IGNORECASE
)


def failure(outcome: Outcome, report: Path) -> str:
    """The complete text, for readers who see nothing else."""
    lines = [f"{outcome.title} ({outcome.file})", *_verdict(outcome), ""]
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
    text = outcome.reason  # why the failure of a broken scenario says nothing
    if outcome.failures and not text:
        where, what = outcome.failures[0]
        text = f"{where}: {in_one_line(what)}"
    return "; ".join(each for each in (outcome.known or outcome.overdue, outcome.rate, text) if each)


def _verdict(outcome: Outcome) -> list[str]:
    """The verdict with its reason, and the other runs of the scenario."""
    lines = [f"{outcome.verdict}: {outcome.reason}"] if outcome.reason else []
    if outcome.attempts:
        lines += [f"{len(outcome.attempts) + 1} runs: {outcome.rate or 'all passed'}"]
        lines += [f"    {each.verdict} after {each.seconds:.1f} s: {each.reason}" for each in outcome.attempts]
    return lines


def in_one_line(failure: str) -> str:
    """The first line of a failure, with the next one if it only announces that; of an ADD, the plugin's words."""
    first, *rest = failure.splitlines() or [""]
    return f"{first} {BEFORE_WORDS.split(rest[0])[-1].strip()}" if first.endswith(":") and rest else first


def _first(evidence: tuple[str, ...], most: int = 12) -> list[str]:
    """Files to look at, the most useful first."""
    ranked = sorted(evidence, key=lambda name: (not Path(name).name.startswith(("genie", "seen", "events")), name))
    return ranked[:most]


def _near(path: Path) -> str:
    """A path relative to the current directory if possible."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("../..") else relative
