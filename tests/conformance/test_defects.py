"""Each seeded defect is found by the check for it, with the right component at fault.

Three defects of each check are tried; GENIE_DEFECTS=all tries all, as does `nox -s defects` with all checks on each.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.conformance.checks import load
from harness.conformance.findings import Verdict
from harness.conformance.run import run
from tests.rigs.defects import Defect, subject, table

pytestmark = pytest.mark.root
_OF_CHECK = 3


def _chosen() -> list[Defect]:
    """All defects, or the first and the newest ones of each check."""
    of_check: dict[str, list[Defect]] = {}
    for defect in table():
        of_check.setdefault(defect.check, []).append(defect)
    few = os.environ.get("GENIE_DEFECTS") != "all"
    return [each for found in of_check.values() for each in (found[:1] + found[1:][1 - _OF_CHECK :] if few else found)]


DEFECTS = _chosen()


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch, namespace: Callable[[], object]) -> None:
    """Use ten containers at once instead of fifty, in a fifth of the time."""
    namespace()  # or skip
    monkeypatch.setattr(load, "MANY", 10)


@pytest.mark.parametrize("defect", DEFECTS, ids=[defect.name for defect in DEFECTS])
def test_found(defect: Defect, tmp_path: Path, cni_bin: str) -> None:
    tested = subject(tmp_path, defect, [Path(cni_bin)])
    if defect.version and defect.version not in tested.versions:
        pytest.skip(f"the host-local found here does not support {defect.version}, which {defect.check} needs")
    results = run(tested, only=[defect.check], rounds=defect.rounds, again=0, alone=True)
    [found] = [result for result in results if result.check.name == defect.check]
    reasons = [trial.reason for trial in found.trials]
    is_found = found.verdict in (Verdict.FAILED, Verdict.WARNED)
    assert is_found, f"{defect.check} {found.verdict}: {reasons}; {defect.sentence}"
    blamed = {finding["fault"] for trial in found.trials for finding in trial.findings}
    assert blamed == {defect.blame}
