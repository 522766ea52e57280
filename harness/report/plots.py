"""The times of calls as small pictures inside the page."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

VERBS = ("ADD", "DEL")
_BINS, _WIDTH, _HEIGHT = 48, 240, 28


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One verb's calls of one plugin or network, in seconds."""

    verb: str
    seconds: tuple[float, ...]  # sorted

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def most(self) -> float:
        """The 95th percentile."""
        return self.seconds[max(0, math.ceil(0.95 * len(self.seconds)) - 1)]


def timing(verb: str, seconds: Iterable[float]) -> Timing | None:
    """A verb's calls; None if there is none with a time."""
    found = tuple(sorted(each for each in seconds if each >= 0))
    return Timing(verb=verb, seconds=found) if found else None


@dataclass(frozen=True, kw_only=True)
class Times:
    """The pictures of one plugin or network, by verb."""

    name: str
    plots: tuple[tuple[Timing, Markup] | None, ...]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A logarithmic axis that all pictures of a page share, in seconds."""

    low: float
    high: float

    def x(self, seconds: float) -> float:
        """The position on the axis, from 0 to 1."""
        return min(1.0, max(0.0, math.log(max(seconds, self.low) / self.low) / math.log(self.high / self.low)))

    @property
    def ticks(self) -> tuple[float, ...]:
        found = [10.0**power for power in range(-5, 4)]
        return tuple(each for each in found if self.low <= each <= self.high)


def scale(timings: Sequence[Timing]) -> Scale:
    """The smallest range between powers of ten that contains all values."""
    every = [time for timing in timings for time in (timing.seconds[0], timing.seconds[-1])] or [0.01, 0.1]
    low = 10.0 ** math.floor(math.log10(max(min(every), 1e-4)))
    high = 10.0 ** math.ceil(math.log10(max(*every, low * 1.01)))
    return Scale(low=low, high=max(high, low * 10))


def shown(seconds: float) -> str:
    """A time as text."""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def svg(timing: Timing, axis: Scale, name: str) -> str:
    """The histogram of times, with the median as a line."""
    bins = [0] * _BINS
    for time in timing.seconds:
        bins[min(_BINS - 1, int(axis.x(time) * _BINS))] += 1
    step, top = _WIDTH / _BINS, max(bins)
    bars = "".join(
        f"M{at * step:g} {_HEIGHT}v-{max(1.5, count / top * (_HEIGHT - 2)):.3g}h{step - 1:g}V{_HEIGHT}z"
        for at, count in enumerate(bins)
        if count
    )
    ticks = "".join(f"M{axis.x(tick) * _WIDTH:.4g} 0V{_HEIGHT}" for tick in axis.ticks)
    middle = f"{axis.x(timing.median) * _WIDTH:.4g}"
    words = escape(
        f"{name}: {len(timing.seconds)} calls of {timing.verb} from {shown(timing.seconds[0])} to "
        f"{shown(timing.seconds[-1])}, median {shown(timing.median)}"
    )
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{words}" '
        f'preserveAspectRatio="none"><path class="tick" d="{ticks}"/><path class="bars" d="{bars}"/>'
        f'<path class="median" d="M{middle} 0V{_HEIGHT}"/></svg>'
    )


def times(rows: Iterable[tuple[str, Sequence[Timing | None]]]) -> tuple[Scale, list[Times]]:
    """The pictures of all rows on one axis; a row is a name and its calls by verb. Rows without calls are left out."""
    every = list(rows)
    axis = scale([timing for _, row in every for timing in row if timing])
    return axis, [
        Times(name=name, plots=tuple((each, Markup(svg(each, axis, name))) if each else None for each in row))
        for name, row in every
        if any(row)
    ]
