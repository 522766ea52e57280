"""A preflight in the terminal: one table for each network, then what is wrong."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.preflight.result import Network, Preflight, Way, rate

_WORDS = {None: ("n/a", "dim"), "": ("✓", "green")}


def show(found: Preflight, console: Console) -> None:
    for network in found.networks:
        _show_network(network, found, console)
    for name, reason in found.missing.items():
        console.print(Text(f"{name}: not measured: {reason}", style="yellow"))
    wrong = sum(len(network.wrong) for network in found.networks)
    names = ", ".join(network.name for network in found.networks) or "no network"
    verdict = f"✓ preflight passes: {names}" if found.passed else f"✗ preflight fails: {wrong} findings on {names}"
    console.print(Text(f"{verdict} ({found.seconds:.0f} s)", style="bold green" if found.passed else "bold red"))


def _show_network(network: Network, found: Preflight, console: Console) -> None:
    console.print(
        Text(f"{network.name} ({'a stand-in: ' if network.kind == 'stand-in' else ''}{network.software})", style="bold")
    )
    if network.ways:
        sample = ", a sample of the pairs" if found.sampled else ""
        console.print(Text(f"from ↓ to →: round trip, MTU of the path, throughput{sample}", style="dim"))
        console.print(_ways(network) if len(found.nodes) <= 6 else _list(network))
    if network.spots:
        console.print(_spots(network))
    for note in network.notes:
        console.print(Text(f"  {note}", style="dim"))
    for line in network.wrong:
        console.print(Text(f"  ✗ {line}", style="red"))
    for line in network.slow:
        console.print(Text(f"  ! {line}", style="yellow"))
    console.print()


def _ways(network: Network) -> Table:
    """A matrix of nodes."""
    by_pair, nodes = network.by_pair, network.nodes
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("", *nodes):
        table.add_column(column)
    for one in nodes:
        table.add_row(one, *(_cell(by_pair.get((one, other))) for other in nodes))
    return table


def _list(network: Network) -> Table:
    """A row for each pair, for clusters whose matrix does not fit into a terminal."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("from", "to", "result"):
        table.add_column(column)
    for way in network.ways:
        table.add_row(way.one, way.other, _cell(way))
    return table


def _cell(way: Way | None) -> Text:
    if way is None:
        return Text("·", style="dim")
    figures = [f"{way.latency_ms:.2f} ms" if way.latency_ms is not None else "", str(way.mtu or "")]
    shown = ", ".join(each for each in (*figures, rate(way.bits_per_second)) if each)
    return Text(f"{'✗' if way.wrong else '✓'} {shown}", style="red" if way.wrong else "green")


def _spots(network: Network) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("node", "DNS", "Service", "hairpin"):
        table.add_column(column)
    for spot in network.spots:
        table.add_row(
            spot.node, *(Text(*_WORDS.get(each, ("✗", "red"))) for each in (spot.dns, spot.service, spot.hairpin))
        )
    return table
