"""A run's report: as text for a terminal, and as plain data with a version and a schema."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from harness.conformance.checks import interrupted, load
from harness.conformance.findings import Verdict
from harness.conformance.run import Checked
from harness.conformance.spec import VERSIONS
from harness.conformance.subject import Subject
from harness.exits import Exit
from harness.report.origin import version

API_VERSION, KIND = "conformance.genie.dev/v1alpha1", "ConformanceReport"
_MARKS = {"passed": "✓", "failed": "✗", "warned": "?", "flaky": "~", "blocked": "·", "skipped": "-", "broken": "!"}


def as_json(subject: Subject, results: Sequence[Checked], seconds: float, rounds: int) -> dict[str, Any]:
    """The report as plain data.

    rounds: of ADD and DEL that were asked for.
    """
    counted = Counter(result.verdict.value for result in results)
    kernel = os.uname()
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "implementation": subject.described(),
        "environment": {"kernel": kernel.release, "machine": kernel.machine, "harness": version()},
        "extent": extent(results, rounds),
        "seconds": round(seconds, 2),
        "summary": {verdict.value: counted[verdict.value] for verdict in Verdict},
        "checks": [_checked(result) for result in results],
    }


def extent(results: Sequence[Checked], rounds: int) -> dict[str, Any]:
    """The extent of the tests, for comparisons of two reports."""
    versions = {trial.version for result in results for trial in result.trials if trial.version}
    return {
        "checks": len(results),
        "versions": [version for version in VERSIONS if version in versions],
        "rounds": rounds,
        "kills": interrupted.MOMENTS,
        "atOnce": load.MANY,
    }


def _checked(result: Checked) -> dict[str, Any]:
    reasons = list(dict.fromkeys(trial.reason for trial in result.trials if trial.reason))
    calls: dict[str, list[float]] = {}
    for trial in result.trials:
        for verb, times in trial.calls.items():
            calls.setdefault(verb, []).extend(round(each, 4) for each in times)
    return {
        **result.check.describe(),
        "url": result.check.section.url,
        "verdict": result.verdict.value,
        "versions": {trial.version: trial.verdict.value for trial in result.trials if trial.version},
        "seconds": round(sum(trial.seconds for trial in result.trials), 3),
        **({"reason": "; ".join(reasons)} if reasons else {}),
        "findings": merged_findings(result),
        "calls": calls,
        "notes": [note for trial in result.trials for note in trial.notes],
    }


def merged_findings(result: Checked) -> list[dict[str, Any]]:
    """The findings of a check; the same finding in several versions counts once."""
    found: dict[str, dict[str, Any]] = {}
    for trial in result.trials:
        for finding in trial.findings:
            alike = finding["headline"].replace(trial.version, "VERSION") if trial.version else finding["headline"]
            first = found.setdefault(alike, {**finding, "versions": []})
            if trial.version and trial.version not in first["versions"]:
                first["versions"].append(trial.version)
    return list(found.values())


def line(result: Checked) -> str:
    """A check as one line for a terminal, with its findings below."""
    reason = next((trial.reason for trial in result.trials if trial.reason), "")
    more = f"  ({reason.strip().splitlines()[-1]})" if reason and result.verdict != Verdict.PASSED else ""
    lines = [f"{_MARKS[result.verdict.value]} {result.check.name}: {result.check.sentence}{more}"]
    for finding in merged_findings(result):
        only = "recommended; " if finding["strength"] == "should" else ""
        lines += [
            f"    {only}{finding['fault']}: {finding['headline']}",
            f"    {'; '.join([*finding['versions'], finding['section']['title']])}: {finding['demand']}",
        ]
    notes = dict.fromkeys(note for trial in result.trials for note in trial.notes if "stand-in" in note)
    return "\n".join([*lines, *(f"    {note}" for note in notes)])


def status(results: Sequence[Checked]) -> int:
    """The exit status: 0 if all that the specification demands is so, 1 if not, 5 if nothing was tested."""
    found = {result.verdict for result in results}
    if found & {Verdict.FAILED, Verdict.FLAKY, Verdict.BROKEN}:
        return 1
    return 0 if found & {Verdict.PASSED, Verdict.WARNED} else Exit.NOTHING


def summary(results: Sequence[Checked], seconds: float) -> str:
    """The last line."""
    return ", ".join([*_counts(results), f"{seconds:.0f} s"])


def _counts(results: Sequence[Checked]) -> Iterator[str]:
    counted = Counter(result.verdict for result in results)
    for verdict in Verdict:
        if counted[verdict]:
            yield f"{counted[verdict]} {verdict.value}"


def dump(report: dict[str, Any], yaml: bool = False) -> str:
    if yaml:
        import yaml as library

        return str(library.safe_dump(report, sort_keys=False, allow_unicode=True, width=120))
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"
