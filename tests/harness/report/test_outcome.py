"""Every verdict is in every report with its word and its count, and only a scenario that passed counts as passed."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.report import of_run, write
from harness.report.outcome import VERDICTS, Attempt, Outcome, Run, Verdict, counted
from harness.report.terminal import Terminal
from harness.report.words import failure, short
from tests.rigs.runs import outcome, ran


def printed(run: Run) -> str:
    """What the terminal shows of a run."""
    file = io.StringIO()
    writer = SimpleNamespace(_file=file, hasmarkup=False, fullwidth=160)
    terminal = Terminal(SimpleNamespace(_tw=writer, section=lambda title: file.write(f"{title}\n")))
    for each in run.outcomes:
        terminal.show(each)
    terminal.show_summary(run, None, notes=False)
    return file.getvalue()


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_has_its_word_and_its_count_in_every_report(verdict: Verdict, tmp_path: Path) -> None:
    run = ran(outcome(verdict), outcome(verdict, name="another", file="another.yaml"), outcome("passed", name="good"))
    counts = {verdict: 3} if verdict == "passed" else {verdict: 2, "passed": 1}
    assert of_run(run).counts == counts
    page = write(run, tmp_path).read_text(encoding="utf-8")
    text = printed(run)
    for name, count in counts.items():
        assert f" {count} {name}</b>" in page
        header = next(line.split() for line in text.replace("not run", "not-run").splitlines() if "network " in line)
        row = next(line.split() for line in text.splitlines() if line.strip().startswith("weave"))
        assert row[header.index(name.replace(" ", "-"))] == str(count)
    assert ("1/3" in page) == (verdict not in ("passed", "skipped")), "of three, two did not pass"
    assert "Every scenario that ran passes" not in page or verdict in ("passed", "skipped")


@pytest.mark.parametrize("verdict", ["broken", "blocked", "not run"])
def test_a_rare_verdict_is_a_word_in_its_line(verdict: Verdict) -> None:
    assert f"{verdict}: " in printed(ran(outcome(verdict))).splitlines()[0]


def test_the_page_of_a_run_that_was_stopped_begins_with_the_reason(tmp_path: Path) -> None:
    run = ran(outcome("passed"), outcome("not run"), code=3, why="the deadline of 300 s was over")
    page = write(run, tmp_path).read_text(encoding="utf-8")
    assert "<h1>the deadline of 300 s was over</h1>" in page
    assert "Exit code 3" in page


def test_earlier_runs_of_a_scenario_are_a_rate() -> None:
    attempts = tuple(Attempt(verdict=each, seconds=1.0) for each in ("failed", "passed", "failed", "passed"))
    flaky = outcome("passed", attempts=attempts)
    assert (flaky.rate, short(flaky)) == ("2 of 5 failed", "2 of 5 failed")
    assert Outcome.from_json(flaky.to_json()) == flaky
    assert outcome("failed").rate == ""
    retried = outcome("failed", attempts=(Attempt(verdict="broken", seconds=1.0, reason="no disk"),))
    assert short(retried) == "1 of 2 failed, 1 of 2 broken; create a: no address"


@pytest.mark.parametrize("verdict", [each for each in VERDICTS if each not in ("failed", "passed", "skipped")])
def test_every_report_has_the_reason_and_all_runs_of_what_the_environment_stopped(
    verdict: Verdict, tmp_path: Path
) -> None:
    attempts = (Attempt(verdict="broken", seconds=0.25, reason="no disk"),) * 2
    rate = "3 of 3 broken" if verdict == "broken" else f"2 of 3 broken, 1 of 3 {verdict}"
    bad = outcome(verdict, reason="the API server is away", attempts=attempts)
    page = write(ran(bad), tmp_path).read_text(encoding="utf-8")
    finding, scenario = page.split('<h2 id="scenarios">')
    junit = failure(bad, tmp_path)
    for text in (short(bad), printed(ran(bad)), finding, scenario, junit):
        assert "the API server is away" in text
        assert all(part in text for part in rate.split(", ")), text
    assert junit.splitlines()[1] == f"{verdict}: the API server is away", "JUnit has no such verdicts"
    assert junit.count("    broken after 0.2 s: no disk") == 2


def test_counts_are_in_the_order_of_reports() -> None:
    assert list(counted(["passed", "skipped", "failed", "passed"]).items()) == [
        ("failed", 1),
        ("passed", 2),
        ("skipped", 1),
    ]
