"""The end of a run: its exit code, and the outcomes of scenarios that did not run. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from harness.exits import ORDER, Exit
from harness.report.outcome import Outcome, Verdict
from harness.scenario.file import Scenario

_BY_VERDICT: dict[Verdict, Exit] = {
    "failed": Exit.FAILED,
    "blocked": Exit.FAILED,  # every ADD of its network fails
    "broken": Exit.BROKEN,
    "not run": Exit.BROKEN,
}
_BY_PYTEST: dict[int, Exit] = {
    pytest.ExitCode.INTERNAL_ERROR: Exit.BROKEN,
    pytest.ExitCode.USAGE_ERROR: Exit.USAGE,
    pytest.ExitCode.NO_TESTS_COLLECTED: Exit.NOTHING,
}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known at the end of a run."""

    status: int = 0  # pytest's own
    others_failed: bool = False  # tests that are no scenarios
    mistaken: bool = False  # a scenario file could not be read
    interrupted: bool = False
    leaked: bool = False
    untested: str = ""
    ended: Exit = Exit.PASSED  # of a run that ended before its first scenario
    outcomes: Sequence[Outcome] = ()


def code(facts: Facts) -> Exit:
    """The exit code of a run: the first of `ORDER` that applies."""
    # pytest's "failed" is no part of this, because it counts broken scenarios, too.
    found = {facts.ended, _BY_PYTEST.get(facts.status, Exit.PASSED)}
    found |= {_of(each) for each in facts.outcomes}
    applies = {
        Exit.INTERRUPTED: facts.interrupted,
        Exit.USAGE: facts.mistaken,
        Exit.FAILED: facts.leaked or facts.others_failed,
        Exit.NOTHING: bool(facts.untested),
    }
    found |= {exit for exit, does in applies.items() if does}
    if facts.status == pytest.ExitCode.INTERRUPTED and found == {Exit.PASSED}:  # also pytest's for a mistake in a file
        return Exit.INTERRUPTED
    return min(found, key=ORDER.index)


def _of(outcome: Outcome) -> Exit:
    """The exit code for one scenario: that of its verdict, unless known-failures.yaml changes it."""
    if outcome.overdue:
        return Exit.FAILED
    return Exit.PASSED if outcome.known else _BY_VERDICT.get(outcome.verdict, Exit.PASSED)


def without_run(scenario: Scenario, verdict: Verdict, reason: str, networks: tuple[str, ...] = ()) -> Outcome:
    """The outcome of a scenario that did not run.

    networks: by their names on the cluster, if there is one.
    """
    return Outcome(
        name=scenario.name,
        title=scenario.title,
        file=scenario.file,
        networks=networks or scenario.networks,
        group=scenario.group,
        verdict=verdict,
        seconds=0.0,
        reason=reason,
    )
