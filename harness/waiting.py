"""The only loop that waits: for a condition and never for a fixed time, with growing pauses and a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


class NotReady(Exception):
    """A condition was not met in time; the message has the last state."""


def until_nothing(
    look: Callable[[], T], within: float, *, hopeless: Callable[[T], bool] = lambda _: False, longest: float = 0.4
) -> T:
    """Call `look` until it returns a false value or the time is over; returns its last result.

    Args:
        look: returns a description of the missing part; a false value ends the wait. within: seconds. hopeless: whether
        there is no point in waiting. longest: the longest pause between two calls, in seconds.
    """
    for _ in _pauses(within, longest):
        if not (found := look()) or hopeless(found):
            return found
    return look()


def retry(action: Callable[[], T], within: float, again: Callable[[Exception], bool], *, longest: float = 0.4) -> T:
    """Repeat an action until it succeeds; returns its result, or raises its last error after `within` seconds.

    Args:
        again: whether an error may disappear by itself; any other is raised at once.
    """
    for _ in _pauses(within, longest):
        try:
            return action()
        except Exception as error:
            if not again(error):
                raise
    return action()


def _pauses(within: float, longest: float) -> Iterator[None]:
    """Yield at once and after each pause until the time is over, and a last time at the deadline."""
    deadline, pause = time.monotonic() + within, 0.02
    while (left := deadline - time.monotonic()) > 0:
        yield
        time.sleep(min(pause, left, longest))
        pause *= 1.5
