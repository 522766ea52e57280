"""known-failures.yaml: mistakes with their place; an entry excuses a failure until its last day, and nothing else."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from harness.report.known import Entry, KnownFailure, judged, read
from harness.report.outcome import VERDICTS, Verdict
from harness.yamlfile import Mistakes
from tests.rigs.runs import outcome

DAY = datetime.date(2027, 1, 31)
LATER = DAY + datetime.timedelta(days=1)
ENTRY = Entry(
    known=KnownFailure(scenario="weave", owner="@ann", reason="issue 7", expires=DAY), place="known-failures.yaml:2"
)
ONE = "  - {scenario: weave, owner: '@ann', reason: issue 7, expires: 2027-01-31}\n"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file_is_read_with_the_places_of_its_entries(tmp_path: Path) -> None:
    path = written(tmp_path / "k.yaml", f"known-failures:\n{ONE}")
    assert read(path) == {"weave": Entry(known=ENTRY.known, place=f"{path}:2")}
    assert read(written(path, "known-failures: []")) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "k.yaml:1:1: the file is empty"),
        ("- a", "k.yaml:1:1: expected a mapping with known-failures, a list"),
        (f"known-failures:\n{ONE}{ONE}", "k.yaml:3:16: known-failures[1].scenario: weave is already in"),
        ("known-failures:\n  - {scenario: a}\n", "k.yaml:2:5: known-failures[0].owner: is missing"),
        (f"known-failures:\n{ONE.replace('issue 7', '')}", "reason: expected a string, got nothing"),
        (f"known-failures:\n{ONE.replace('2027-01-31', 'never')}", "expires: expected a date such as 2027-01-31"),
        (f"known-failures:\n{ONE.replace('2027-01-31', '7')}", "expires: expected a date such as 2027-01-31"),
        (f"known-failures:\n{ONE.replace('owner', 'ower')}", "unknown key; did you mean 'owner'?"),
        ("known-failure: []", "unknown key; did you mean 'known-failures'?"),
        (None, "k.yaml:1:1: cannot be read: No such file or directory"),
    ],
)
def test_a_mistake_has_file_line_and_field(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "k.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Mistakes) as found:
        read(path)
    assert message in str(found.value)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_only_a_failure_is_excused_and_only_until_the_last_day(verdict: Verdict) -> None:
    plain = outcome(verdict, "weave")
    in_time, too_late = judged(plain, ENTRY, DAY), judged(plain, ENTRY, LATER)
    assert judged(plain, None, DAY) == plain
    assert bool(in_time.known) == (verdict == "failed")
    assert bool(in_time.overdue) == (verdict == "passed")
    assert too_late.known == ""
    assert bool(too_late.overdue) == (verdict in ("failed", "passed"))
    for each in (in_time, too_late):
        assert each.verdict == verdict
        assert not (each.known or each.overdue) or "known failure of @ann until 2027-01-31: issue 7" in (
            each.known or each.overdue
        )
