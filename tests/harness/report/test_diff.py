"""What changed between two runs, and which changes are worse."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.__main__ import main
from harness.report.diff import TITLES, Difference, as_json, compare, markdown, text
from harness.report.known import Entry, KnownFailure
from harness.report.outcome import VERDICTS, Outcome, Stage, Verdict
from tests.rigs.runs import outcome, report, saved

DAY = datetime.date(2027, 1, 31)
GONE = None
RUNS = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(VERDICTS))


def compared(before: list[Outcome], after: list[Outcome], known: dict[str, Entry] | None = None) -> Difference:
    return compare(report(*before), report(*after), known or {}, DAY)


def where(found: Difference, scenario: str = "a") -> set[str]:
    return {key for key, changes in found.changes.items() if scenario in [each.scenario for each in changes]}


@pytest.mark.parametrize(
    ("before", "after", "key", "code"),
    [
        ("passed", "failed", "new", 1),
        ("skipped", "failed", "new", 1),
        (GONE, "failed", "new", 1),
        ("broken", "blocked", "new", 1),
        ("failed", "failed", "still", 0),
        ("blocked", "failed", "still", 0),
        ("failed", "passed", "fixed", 0),
        ("passed", "skipped", "skips", 1),
        ("failed", "skipped", "skips", 1),
        ("not run", "skipped", "skips", 1),
        (GONE, "skipped", "", 0),
        ("passed", "broken", "lost", 3),
        ("failed", "not run", "lost", 3),
        ("passed", GONE, "lost", 3),
        ("skipped", GONE, "lost", 3),
        (GONE, "not run", "lost", 3),
        ("broken", "not run", "", 0),
        ("passed", "passed", "", 0),
        ("skipped", "passed", "", 0),
    ],
)
def test_each_change_has_its_place_and_its_exit_code(
    before: Verdict | None, after: Verdict | None, key: str, code: int
) -> None:
    old, new = ([outcome(verdict, "a")] if verdict else [] for verdict in (before, after))
    found = compared(old, new)
    assert where(found) == ({key} if key else set())
    assert found.code == code


@given(RUNS, RUNS)
def test_a_scenario_is_in_one_place_and_nothing_changes_between_equal_runs(
    before: dict[str, Verdict], after: dict[str, Verdict]
) -> None:
    old, new = ([outcome(verdict, name) for name, verdict in run.items()] for run in (before, after))
    found = compared(old, new)
    assert all(len(where(found, name)) <= 1 for name in "abcdef")
    same = compared(new, new)
    assert same.code == 0
    assert {key for key, changes in same.changes.items() if changes} <= {"still"}


def test_a_failure_that_is_another_one_is_shown_with_the_earlier_one() -> None:
    def failing(failure: str) -> Outcome:
        return outcome("failed", "a", stages=(Stage(name="create a", seconds=1.0, failure=failure),))

    [same] = compared([failing("no answer of 10.1.0.7 in 3 s")], [failing("no answer of 10.1.0.9 in 4 s")]).changes[
        "still"
    ]
    [other] = compared([failing("no address")], [failing("no route")]).changes["still"]
    assert "before" not in same.text
    assert other.text == "failed: create a: no route (before: create a: no address)"


def test_slower_is_more_than_noise_and_than_the_machine_explains() -> None:
    def timed(*seconds: float) -> list[Outcome]:
        return [outcome("passed", f"s{at}", seconds=each) for at, each in enumerate(seconds)]

    assert where(compared(timed(4, 4, 4, 4), timed(4, 4, 4, 9)), "s3") == {"slower"}
    assert compared(timed(4, 4, 4, 4), timed(4, 4, 4, 9)).code == 0
    assert compared(timed(4, 4, 4, 4), timed(9, 9, 9, 9)).changes["slower"] == (), "the machine is slower"
    assert compared(timed(0.1, 0.1, 0.1), timed(0.1, 0.1, 1.5)).changes["slower"] == (), "a second is noise"
    assert compared(timed(9, 9, 9), timed(9, 9, 12)).changes["slower"] == (), "a third is noise"


def test_known_failures_do_not_count_until_they_pass_or_are_over() -> None:
    known = KnownFailure(scenario="a", owner="@ann", reason="issue 7", expires=DAY)
    entry = {"a": Entry(known=known, place="k.yaml:2")}
    over = {"a": replace(entry["a"], known=known.model_copy(update={"expires": DAY - datetime.timedelta(days=1)}))}
    passed, failed = outcome("passed", "a"), outcome("failed", "a")
    for before, after, entries, key, code in (
        (passed, [failed], entry, {"known"}, 0),
        (failed, [failed], entry, {"known"}, 0),
        (failed, [passed], entry, {"overdue"}, 1),
        (failed, [failed], over, {"overdue"}, 1),
        (outcome("passed", "b"), [outcome("passed", "b")], over, {"overdue"}, 1),
        (passed, [replace(failed, known="known failure of @ann")], {}, {"known"}, 0),
    ):
        found = compared([before], after, entries)
        assert (where(found), found.code) == (key, code)


def test_markdown_shows_what_a_plugin_wrote_and_does_not_obey_it() -> None:
    evil = "</td><script>|@all\n# x [a](http://b) `c`"
    found = compared(
        [outcome("passed", "a")], [outcome("failed", "a", stages=(Stage(name=evil, seconds=1, failure=evil),))]
    )
    shown = markdown(found)
    assert "### ❌ Scenarios: new failures (1)" in shown
    [row] = [line for line in shown.splitlines() if line.startswith("| `a`")]
    assert row.count("|") == 3
    assert not set("<@[`") & set(row.removeprefix("| `a`"))


def test_the_command_prints_each_form_with_the_same_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = saved(report(outcome("passed", "a"), outcome("failed", "b")), tmp_path / "base")
    head = saved(report(outcome("failed", "a"), outcome("passed", "b")), tmp_path / "head")
    known = tmp_path / "known.yaml"
    known.write_text("known-failures: [{scenario: a, owner: ann, reason: it is, expires: 2999-12-31}]")
    assert main(["report", "diff", str(base), str(head)]) == 1
    shown = capsys.readouterr().out
    assert "New failures (1)\n  a: failed: create a: no address\n" in shown
    assert "Fixed (1)\n  b: failed before, now passed: create a: no address\n" in shown
    assert main(["report", "diff", str(base), str(head), "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert [each["scenario"] for each in data["new"]] == ["a"]
    assert data["exit"] == 1
    assert main(["report", "diff", str(base), str(head), "--markdown", "--known-failures", str(known)]) == 0
    assert "### ✅ Scenarios: known failures (1), fixed (1)" in capsys.readouterr().out
    known.write_text("known-failures: [{scenario: a}]")
    assert main(["report", "diff", str(base), str(head), "--known-failures", str(known)]) == 4
    assert f"{known}:1:18: known-failures[0].owner: is missing" in capsys.readouterr().err
    assert main(["report", "diff", str(base / "report.json"), str(known)]) == 4


def test_every_kind_of_change_has_a_title_in_every_form() -> None:
    found = compared([], [])
    assert set(found.changes) == set(TITLES) == set(as_json(found)) - {"base", "head", "exit"}
    assert text(found).endswith("Nothing changed.\n")
