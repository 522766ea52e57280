"""Runs a scenario again: one that the environment broke, and on request one that failed, to see how often it does.

Nothing is repeated in silence: the outcome has all runs, and one failure of several is a failure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness.report.outcome import Attempt, Outcome
from harness.report.words import short


def repeated(
    run: Callable[[], Outcome],
    *,
    retry_broken: int,
    rerun: int,
    ended: Callable[[], str],
    recover: Callable[[], object],
) -> Outcome:
    """The outcome of a scenario, with its repetitions.

    retry_broken: how often it may run again if the environment broke it. rerun: how often it runs again if it
    failed. ended: why nothing more may begin; empty if something may. recover: waits until the environment works.
    """
    runs = [run()]
    while runs[-1].verdict == "broken" and len(runs) <= retry_broken and not ended():
        recover()
        runs.append(run())
    if runs[-1].verdict == "failed":
        while rerun and not ended():
            rerun -= 1
            runs.append(run())
    if len(runs) > 1 and runs[-1].verdict == "not run":  # interrupted; the runs before have a verdict
        runs.pop()
    shown = next((each for each in reversed(runs) if each.verdict == "failed"), runs[-1])
    others = [
        Attempt(verdict=each.verdict, seconds=each.seconds, reason=short(each)) for each in runs if each is not shown
    ]
    return replace(shown, attempts=tuple(others)) if others else shown
