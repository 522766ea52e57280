"""Measures work by the number of executed lines of Python, not by time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def lines_run(work: Callable[[], object]) -> int:
    """The number of executed lines of Python, including called functions."""
    count = 0

    def trace(_: FrameType, event: str, __: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    work()  # a first run fills caches, so they are not counted
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def is_linear(make: Callable[[int], Callable[[], object]], size: int) -> bool:
    """Whether twice the size needs about twice the lines, and not four times. make: returns the work of a size."""
    once, twice = (lines_run(make(n)) for n in (size, 2 * size))
    return twice <= 2.5 * once
