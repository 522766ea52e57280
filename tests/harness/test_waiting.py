"""Waiting ends on success, if there is no hope, and when the time is over; never before a last look."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import waiting
from harness.waiting import limit, retry, unchanged, until_nothing


def test_it_ends_with_the_first_look_that_finds_nothing() -> None:
    left = ["a", "b", ""]
    assert until_nothing(lambda: left.pop(0), 10) == ""
    assert left == []


def test_without_time_there_is_one_look() -> None:
    left = ["a", "b"]
    assert until_nothing(lambda: left.pop(0), 0) == "a"
    assert left == ["b"]


def test_what_is_hopeless_is_not_waited_for() -> None:
    assert until_nothing(lambda: "gone for good", 3600, hopeless=lambda found: "for good" in found) == "gone for good"


def test_what_does_not_change_any_more_is_not_waited_for() -> None:
    left = [["a", "b"], ["b"], ["b"], []]
    assert until_nothing(lambda: left.pop(0), 3600, hopeless=unchanged(0.001)) == ["b"]
    assert left == [[]]


def test_what_still_changes_is_waited_for() -> None:
    left = [["a"], ["b"], ["a"], []]
    assert until_nothing(lambda: left.pop(0), 3600, hopeless=unchanged(0.001)) == []


def test_an_error_that_may_pass_is_tried_again_and_another_is_not() -> None:
    errors: list[Exception] = [OSError(), OSError()]

    def action() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert retry(action, 10, lambda error: isinstance(error, OSError)) == "done"
    errors.append(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        retry(action, 10, lambda error: isinstance(error, OSError))


def test_the_last_error_is_raised_when_the_time_is_over() -> None:
    def action() -> None:
        raise OSError("not yet")

    with pytest.raises(OSError, match="not yet"):
        retry(action, 0.05, lambda error: True)


@pytest.mark.parametrize(
    ("load", "cores", "slowness", "expected"),
    [
        (0.0, 2.0, 1.0, 10.0),
        (2.0, 2.0, 1.0, 10.0),  # every core is busy, and nothing waits for one
        (6.0, 2.0, 1.0, 30.0),
        (0.0, 64.0, 2.5, 25.0),  # slow cores
        (1.0, 0.5, 1.0, 20.0),  # a container with half a core
        (4.0, 2.0, 2.0, 40.0),
        (9999.0, 1.0, 9.0, 40.0),  # an error is reported at some time
    ],
)
def test_limits_grow_with_a_slow_or_busy_machine(
    load: float, cores: float, slowness: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(waiting, "_cores", lambda: cores)
    monkeypatch.setattr(waiting, "_slowness", lambda: slowness)
    assert limit(10.0) == expected


def test_a_machine_that_becomes_busy_during_a_wait_gets_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    factors = iter([1.0, 1e9])
    monkeypatch.setattr(waiting, "limit", lambda seconds: seconds * next(factors, 1e9))
    left = ["a"] * 20 + [""]
    assert until_nothing(lambda: left.pop(0), 0.01, longest=0.01) == ""


def test_this_machine_has_cores_and_a_speed() -> None:
    assert waiting._cores() > 0
    assert waiting._slowness() >= 1


SLEEPERS = {
    "harness/waiting.py": "the loop",
    "harness/flow.py": "stands alone in pods",
    "harness/embedded/kubelet.py": "the period of full lists",
    "harness/embedded/control.py": "the period of full lists",
    "harness/embedded/rest.py": "the pause before a broken watch is started again",
}


def test_nothing_else_sleeps() -> None:
    root = Path(waiting.__file__).parents[1]
    found = {str(path.relative_to(root)) for path in root.glob("harness/**/*.py") if "time.sleep(" in path.read_text()}
    assert found == set(SLEEPERS)
