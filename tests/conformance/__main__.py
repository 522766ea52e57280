"""All checks on each defect: `python -m tests.conformance [NAME ...]`, as root; hours for all of them, minutes for one.

The check for a defect must find it; only the other checks that the table lists for the defect may fail, too. Without a
name, the example without a defect runs first, and must pass everything.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from harness.conformance.checks import load
from harness.conformance.findings import Verdict
from harness.conformance.run import Checked, run
from tests.rigs.defects import CONFS, Defect, subject, table

_WELL = (Verdict.PASSED, Verdict.SKIPPED, Verdict.BLOCKED)


def _unexpected(defect: Defect, results: list[Checked]) -> list[str]:
    """The differences from the table."""
    found = {result.check.name: result for result in results if result.verdict not in _WELL}
    found = {name: result for name, result in found.items() if name == defect.check or not _is_ipams(result)}
    wrong = [
        f"{name} {result.verdict}: {next((each['headline'] for trial in result.trials for each in trial.findings), '')}"
        for name, result in found.items()
        if name != defect.check and not name.startswith(defect.also)
    ]
    return wrong if defect.check in found or not defect.check else [*wrong, f"{defect.check} does not find it"]


def _is_ipams(result: Checked) -> bool:
    """Whether a finding is about the ipam plugin alone: host-local collects nothing."""
    findings = [each for trial in result.trials for each in trial.findings]
    return bool(findings) and all(each["fault"] == "ipam plugin" for each in findings)


def _run(defect: Defect) -> bool:
    """Run all checks; returns whether the result is as in the table."""
    with tempfile.TemporaryDirectory() as directory:
        tested = subject(Path(directory), defect)
        wrong = _unexpected(defect, run(tested, rounds=defect.rounds, again=0))
    print(
        "\n    ".join([f"{'✗' if wrong else '✓'} {defect.name or f'the example with {defect.conf}'}", *wrong]),
        flush=True,
    )
    return not wrong


def main(names: list[str]) -> int:
    """Returns 0 if all results are as in the table."""
    load.MANY = 10
    none = Defect(name="", sentence="", check="", blame="", also=(), conf="", version="1.1.0", rounds=5)
    right = [replace(none, conf=conf) for conf in CONFS]
    known = {defect.name: defect for defect in table()}
    chosen = [known[name] for name in names] if names else [*right, *known.values()]
    wrong = [defect for defect in chosen if not _run(defect)]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
