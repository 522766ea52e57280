"""Repetitions: what is broken runs again, what failed is counted, and no failure disappears."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report.outcome import VERDICTS, Outcome, Verdict
from harness.run.ending import without_run
from harness.run.repeating import repeated
from harness.scenario.reading import parse

SCENARIO = parse("scenario: x\nnetworks: [weave]\npods: {a: }\n", "scenarios/x.yaml")


def after(verdicts: Sequence[Verdict], *, retry: int = 0, rerun: int = 0, ended: str = "") -> Outcome:
    """The outcome of a scenario with these verdicts, one after the other; then it passes."""
    good: list[Verdict] = ["passed"]
    runs = iter([*verdicts, *good * 20])
    one = without_run(SCENARIO, "passed", "")
    return repeated(
        lambda: replace(one, verdict=next(runs)),
        retry_broken=retry,
        rerun=rerun,
        ended=lambda: ended,
        recover=lambda: None,
    )


@pytest.mark.parametrize(
    ("verdicts", "retry", "rerun", "verdict", "rate"),
    [
        (["failed"], 2, 0, "failed", ""),
        (["broken"], 0, 4, "broken", ""),
        (["broken", "broken"], 2, 0, "passed", "2 of 3 broken"),
        (["broken", "broken", "broken"], 2, 0, "broken", "3 of 3 broken"),
        (["failed", "passed", "failed"], 0, 4, "failed", "2 of 5 failed"),
        (["broken", "failed"], 1, 2, "failed", "1 of 4 failed, 1 of 4 broken"),
        (["failed", "not run"], 0, 1, "failed", ""),
    ],
)
def test_the_rate_is_reported(verdicts: list[Verdict], retry: int, rerun: int, verdict: str, rate: str) -> None:
    outcome = after(verdicts, retry=retry, rerun=rerun)
    assert (outcome.verdict, outcome.rate) == (verdict, rate)


def test_nothing_is_repeated_after_the_end() -> None:
    assert after(["broken"], retry=3, ended="interrupted").attempts == ()


def test_what_the_environment_broke_runs_again_when_that_works_again() -> None:
    works = False

    def recover() -> None:
        nonlocal works
        works = True

    def run() -> Outcome:
        return without_run(SCENARIO, "passed" if works else "broken", "")

    outcome = repeated(run, retry_broken=1, rerun=0, ended=str, recover=recover)
    assert (outcome.verdict, outcome.rate) == ("passed", "1 of 2 broken")


@given(st.lists(st.sampled_from(VERDICTS), max_size=8), st.integers(0, 3), st.integers(0, 3))
def test_a_failure_is_never_lost(verdicts: list[Verdict], retry: int, rerun: int) -> None:
    outcome = after(verdicts, retry=retry, rerun=rerun)
    if "failed" in [each.verdict for each in outcome.attempts] or verdicts[:1] == ["failed"]:
        assert outcome.verdict == "failed"
