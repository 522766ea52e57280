"""The only loop that waits: for a condition and never for a fixed time, with growing pauses and a deadline.

Limits are those of an idle machine with ordinary cores. `limit` stretches them on a slow or busy one, also while a wait
goes on, so a test does not fail because the machine was busy. A wait whose condition is met does not take longer.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


_USUAL = 0.005  # seconds of an ordinary core for `_work`
_MOST = 4.0  # the largest factor: an error must be reported at some time


class NotReady(Exception):
    """A condition was not met in time; the message has the last state."""


def limit(seconds: float) -> float:
    """A limit in seconds, stretched for this machine as it is now."""
    busy = os.getloadavg()[0] / _cores()
    return seconds * min(_MOST, _slowness() * max(1.0, busy))


@functools.cache
def _cores() -> float:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    cores = float(len(affinity(0)) if affinity else os.cpu_count() or 1)
    with suppress(OSError, ValueError):  # a container's share; "max" is none
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, int(quota) / int(period))
    return cores


@functools.cache
def _slowness() -> float:
    """How much slower a core is than an ordinary one, at least 1. Time in which other processes run does not count."""

    def work() -> float:
        begin = time.thread_time()
        sum(number * number for number in range(50_000))
        return time.thread_time() - begin

    return max(1.0, min(work() for _ in range(3)) / _USUAL)


def until_nothing(
    look: Callable[[], T], within: float, *, hopeless: Callable[[T], bool] = lambda _: False, longest: float = 0.4
) -> T:
    """Call `look` until it returns a false value or the time is over; returns its last result.

    look: returns a description of the missing part; a false value ends the wait. within: seconds, see `limit`.
    hopeless: whether there is no point in waiting. longest: the longest pause between two calls, in seconds.
    """
    for _ in _pauses(within, longest):
        if not (found := look()) or hopeless(found):
            return found
    return look()


def unchanged(seconds: float) -> Callable[[object], bool]:
    """For `hopeless`: whether what was found has stayed the same for so long, see `limit`."""
    last, since = object(), 0.0

    def is_unchanged(found: object) -> bool:
        nonlocal last, since
        if found != last:
            last, since = found, time.monotonic()
        return time.monotonic() - since >= limit(seconds)

    return is_unchanged


def retry(action: Callable[[], T], within: float, again: Callable[[Exception], bool], *, longest: float = 0.4) -> T:
    """Repeat an action until it succeeds; returns its result, or raises its last error after `within` seconds, see
    `limit`.

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
    begin, pause = time.monotonic(), 0.02
    while (left := begin + limit(within) - time.monotonic()) > 0:
        yield
        time.sleep(min(pause, left, longest))
        pause *= 1.5
