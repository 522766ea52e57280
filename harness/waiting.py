"""The one way to wait: for a condition and never for a time, with pauses that grow and a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


class NotReady(Exception):
    """A condition did not come about in time; the message has what was seen last."""


def until_nothing(
    look: Callable[[], T], within: float, *, hopeless: Callable[[T], bool] = lambda _: False, longest: float = 0.4
) -> T:
    """Look until nothing is wrong any more; returns what the last look found, a false value when all is well.

    Args:
        look: returns what is still missing or wrong; a false value ends the wait.
        within: seconds.
        hopeless: whether waiting longer is of no use.
        longest: the longest pause between two looks, in seconds.
    """
    for _ in _pauses(within, longest):
        if not (found := look()) or hopeless(found):
            return found
    return look()


def retry(action: Callable[[], T], within: float, again: Callable[[Exception], bool], *, longest: float = 0.4) -> T:
    """Do something until it succeeds; returns its result, or raises its last error when `within` seconds are over.

    Args:
        again: whether an error may go away by itself; any other is raised at once.
    """
    for _ in _pauses(within, longest):
        try:
            return action()
        except Exception as error:
            if not again(error):
                raise
    return action()


def _pauses(within: float, longest: float) -> Iterator[None]:
    """Yields at once and then after each pause, until the time is over: the last turn is the caller's, at the end."""
    deadline, pause = time.monotonic() + within, 0.02
    while (left := deadline - time.monotonic()) > 0:
        yield
        time.sleep(min(pause, left, longest))
        pause *= 1.5
