"""A preflight as one self-contained page: a heat map for each figure, with the numbers in its cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.preflight.result import Network, Preflight, Way, rate
from harness.report.template import filled

_TEMPLATE = Path(__file__).with_name("page.html.j2")
STEPS = 5  # shades of a heat map


@dataclass(frozen=True, kw_only=True)
class Cell:
    """From one node to another."""

    text: str
    shade: str  # a class: "s1" (worst) to "s5" (best), "failed", "none"
    title: str


@dataclass(frozen=True, kw_only=True)
class Map:
    """One figure of one network."""

    title: str
    best: str  # which values are good
    nodes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def render(found: Preflight) -> str:
    return filled(_TEMPLATE, found=found, maps={each.name: maps(each) for each in found.networks})


def maps(network: Network) -> list[Map]:
    """The heat maps of a network."""
    if not network.ways:
        return []
    return [
        _map(network, "Throughput", "higher is better", _bits, rate),
        _map(network, "Round trip", "lower is better", _trip, lambda ms: f"{ms:.2f} ms", lower=True),
        _map(network, "MTU of the path", "bytes", _mtu, lambda mtu: f"{mtu:.0f}"),
    ]


def _bits(way: Way) -> float | None:
    return way.bits_per_second


def _trip(way: Way) -> float | None:
    return way.latency_ms


def _mtu(way: Way) -> float | None:
    return way.mtu or None


def _map(
    network: Network,
    title: str,
    best: str,
    value: Callable[[Way], float | None],
    shown: Callable[[float], str],
    *,
    lower: bool = False,
) -> Map:
    by_pair, nodes = network.by_pair, network.nodes
    values = [number for way in network.ways if (number := value(way)) is not None]

    def cell(one: str, other: str) -> Cell:
        way = by_pair.get((one, other))
        if way is None:
            return Cell(text="" if one == other else "not measured", shade="none", title="")
        number, what = value(way), f"{one} to {other}"
        if number is None or way.wrong:
            text = f"✗ {shown(number)}" if number is not None else "✗"
            return Cell(text=text, shade="failed", title=f"{what}: {'; '.join(way.wrong) or 'not measured'}")
        return Cell(
            text=shown(number), shade=f"s{shade(number, values, lower=lower)}", title=f"{what}: {shown(number)}"
        )

    rows = tuple((one, tuple(cell(one, other) for other in nodes)) for one in nodes)
    return Map(title=title, best=best, nodes=nodes, rows=rows)


def shade(number: float, values: list[float], *, lower: bool) -> int:
    """The shade of a value among others, from 1 (worst) to 5 (best); values that hardly differ are all best."""
    least, most = min(values), max(values)
    if most <= least * 1.1:
        return STEPS
    share = (number - least) / (most - least)
    return 1 + min(STEPS - 1, int((1 - share if lower else share) * STEPS))
