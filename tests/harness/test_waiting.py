"""Waiting ends on success, if there is no hope, and when the time is over; never before a last look."""

from __future__ import annotations

import pytest

from harness.waiting import retry, until_nothing


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
