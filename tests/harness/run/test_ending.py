"""The exit code of a run, from what is known at its end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.exits import ORDER, Exit
from harness.report.outcome import VERDICTS, Verdict
from harness.run.ending import Facts, code, without_run
from harness.scenario.reading import parse

SCENARIO = parse("scenario: x\nnetworks: [weave]\npods: {a: }\n", "scenarios/x.yaml")


def ended(*verdicts: Verdict, **more: Any) -> Exit:
    return code(Facts(outcomes=[without_run(SCENARIO, each, "") for each in verdicts], **more))


@pytest.mark.parametrize(
    ("expected", "verdicts", "more"),
    [
        (0, ["passed", "skipped"], {}),
        (1, ["passed", "failed", "broken", "not run"], {"status": 1}),
        (1, ["passed", "blocked"], {"status": 1}),
        (1, ["passed"], {"leaked": True}),
        (1, ["passed"], {"others_failed": True, "status": 1}),
        (3, ["passed", "broken"], {"status": 1}),
        (3, ["passed", "not run"], {}),
        (3, [], {"ended": Exit.BROKEN, "status": 3}),
        (4, ["failed"], {"mistaken": True, "status": 2}),
        (4, [], {"mistaken": True, "status": 2}),
        (1, [], {"others_failed": True, "status": 2}),
        (5, ["skipped"], {"untested": "nothing was tested"}),
        (5, [], {"status": 5}),
        (130, ["failed", "not run"], {"interrupted": True, "status": 2}),
        (130, ["passed"], {"status": 2}),
    ],
)
def test_the_worst_counts(expected: int, verdicts: list[Verdict], more: dict[str, Any]) -> None:
    assert ended(*verdicts, **more) == expected


@given(st.lists(st.sampled_from(VERDICTS)), st.sampled_from(["passed", "skipped"]), st.integers(0, 5))
def test_one_more_success_changes_no_code_and_only_successes_are_0(
    verdicts: list[Verdict], good: Verdict, status: int
) -> None:
    found = ended(*verdicts, status=status)
    assert found in ORDER
    assert ended(*verdicts, good, status=status) == found
    assert (found == 0) == (set(verdicts) <= {"passed", "skipped"} and status in (0, 1))
