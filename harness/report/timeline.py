"""A run as a picture: a row for each worker, a bar for each scenario, and before it the time that it waited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from harness.report.outcome import Outcome

_WIDTH, _HEIGHT = 1000, 20
_SHORT = 0.05  # seconds: a shorter wait is none


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One worker."""

    worker: str
    picture: Markup


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """All workers, on one axis."""

    lanes: tuple[Lane, ...]
    seconds: float  # the whole width
    waits: tuple[Outcome, ...]  # those that waited longest for others, longest first


def timeline(outcomes: Sequence[Outcome]) -> Timeline | None:
    """The picture of these outcomes; None if they have no times."""
    timed = [each for each in outcomes if each.began > 0]
    if not timed:
        return None
    start = min(each.began - each.waited for each in timed)
    whole = max(each.began + each.seconds for each in timed) - start or 1.0
    workers = sorted({each.worker for each in timed}, key=lambda name: (len(name), name))
    return Timeline(
        lanes=tuple(
            Lane(worker=name, picture=_lane(name, [each for each in timed if each.worker == name], start, whole))
            for name in workers
        ),
        seconds=whole,
        waits=tuple(sorted((each for each in timed if each.waited > _SHORT), key=lambda each: -each.waited)[:5]),
    )


def _lane(worker: str, outcomes: Sequence[Outcome], start: float, whole: float) -> Markup:
    def bar(kind: str, begin: float, seconds: float, title: str) -> str:
        x, width = (begin - start) / whole * _WIDTH, max(1.0, seconds / whole * _WIDTH - 0.8)
        rectangle = f'<rect class="{kind}" x="{x:.4g}" width="{width:.4g}" height="{_HEIGHT}">'
        return f"{rectangle}<title>{escape(title)}</title></rect>"

    bars = []
    for each in sorted(outcomes, key=lambda each: each.began):
        if each.waited > _SHORT:
            title = f"{each.name} waited {each.waited:.1f} s"
            bars.append(bar("wait", each.began - each.waited, each.waited, title))
        kind = each.verdict.replace(" ", "-")
        bars.append(bar(kind, each.began, each.seconds, f"{each.name}: {each.verdict}, {each.seconds:.1f} s"))
    busy = sum(each.seconds for each in outcomes)
    words = f"{worker or 'the only worker'}: {len(outcomes)} scenarios, {busy:.1f} of {whole:.1f} s"
    return Markup(  # numbers, and escaped names
        f'<svg class="lane" viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(words)}">{"".join(bars)}</svg>'
    )
