"""How much is done, counted rather than timed: lines of Python that run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def lines_run(work: Callable[[], object]) -> int:
    """How many lines of Python this runs, in whatever it calls too."""
    count = 0

    def trace(_: FrameType, event: str, __: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    work()  # what is compiled or cached at first is not counted
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def is_linear(make: Callable[[int], Callable[[], object]], size: int) -> bool:
    """Whether twice the size takes about twice the lines, and not four times. make: the work of a size."""
    once, twice = (lines_run(make(n)) for n in (size, 2 * size))
    return twice <= 2.5 * once
