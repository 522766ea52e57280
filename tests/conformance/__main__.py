"""All checks on each defect: `python -m tests.conformance [NAME ...]`, as root; hours for all of them, minutes for one.

The check for a defect must find it; only the other checks that the table lists for the defect may fail, too. Without a
name, the example without a defect runs first, and must pass everything.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from harness.conformance.checks import load
from harness.conformance.findings import Verdict
from harness.conformance.run import Checked, run
from tests.rigs.defects import CONFS, Defect, subject, table

_JOBS = 4  # of one defect: a check mostly waits for the kernel
_KILLS = 4
_RIGHT = Defect(name="", sentence="", check="", blame="", also=(), conf="subnet", version="1.1.0", rounds=5)
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
    trials = ((name, trial) for name, result in found.items() for trial in result.trials)
    faults = {finding["fault"]: name for name, trial in trials for finding in trial.findings}
    wrong += [f"{name} blames the {fault}" for fault, name in faults.items() if fault != (defect.blame or fault)]
    return wrong if defect.check in found or not defect.check else [*wrong, f"{defect.check} does not find it"]


def _is_ipams(result: Checked) -> bool:
    """Whether a finding is about the ipam plugin alone: host-local collects nothing."""
    findings = [each for trial in result.trials for each in trial.findings]
    return bool(findings) and all(each["fault"] == "ipam plugin" for each in findings)


def _run(defect: Defect, only: Sequence[str] = ()) -> bool:
    """Run all checks, or some; returns whether the result is as in the table."""
    with tempfile.TemporaryDirectory() as directory:
        tested = subject(Path(directory), defect)
        results = run(tested, only=only, rounds=defect.rounds, again=0, kills=_KILLS, jobs=_JOBS)
    wrong = _unexpected(defect, results)
    print(
        "\n    ".join([f"{'✗' if wrong else '✓'} {defect.name or f'the example with {defect.conf}'}", *wrong]),
        flush=True,
    )
    return not wrong


@cache
def _called() -> dict[str, set[str]]:
    """The verbs that each check calls, by the example without a defect; empty if it calls none or is skipped."""
    with tempfile.TemporaryDirectory() as directory:
        results = run(subject(Path(directory), _RIGHT), rounds=1, again=0, kills=1, jobs=_JOBS)
    called = {each.check.name: {verb for trial in each.trials for verb in trial.calls} for each in results}
    for check in (each.check for each in results if each.check.batch):
        together = (each.check.name for each in results if each.check.batch == check.batch)
        called[check.name] = {verb for name in together for verb in called[name]}
    return called


def _concerned(defect: Defect) -> list[str]:
    """The checks in which a defect can show; empty: any."""
    return [name for name, verbs in _called().items() if not verbs or verbs & {*defect.verbs}] if defect.verbs else []


def main(names: list[str]) -> int:
    """Returns 0 if all results are as in the table."""
    load.MANY = 10
    known = {defect.name: defect for defect in table()}
    if unknown := [name for name in names if name not in known]:
        print(f"no defect {', '.join(unknown)}: `fixtures/plugins/defects.py --list` lists them")
        return 2
    right = [replace(_RIGHT, conf=conf) for conf in CONFS]
    chosen = [known[name] for name in names] if names else [*right, *known.values()]
    wrong = [defect for defect in chosen if not _run(defect, _concerned(defect))]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
