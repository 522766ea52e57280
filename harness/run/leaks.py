"""Whether pods left something behind on the nodes, also while other scenarios run there.

A scenario that has the cluster for itself simply compares: whatever is on a node and was not there before is its own.
Under pytest-xdist several scenarios share the nodes, and a difference may be another's, come a moment ago and gone in
the next. Then a scenario answers at once for what bears its mark: entries that name the container IDs or addresses
that its pods had while they ran, or its namespace. (A backend whose inventories leave out what living pods have,
feature "living-left-out", makes it simpler: what stays there all the time that a scenario waits is nobody's, so it is
a leak.) The rest it only notes (`unclaimed`), and when the run is over and nothing should be anywhere, `Sweep`
compares the nodes with how they were at first, and names the scenarios that had seen each thing that remains. So a
leak is never missed, and never charged to a scenario because of its neighbour.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from harness.contract import LIVING_LEFT_OUT, Cluster, Inventory
from harness.waiting import until_nothing

_ID = re.compile(r"\b[0-9a-f]{32,64}\b")


def take(cluster: Cluster) -> dict[str, Inventory]:
    """What is on every node now."""
    nodes = cluster.facts.nodes
    with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as pool:
        return dict(zip(nodes, pool.map(cluster.inventory, nodes), strict=True))


def beyond(now: Mapping[str, Inventory], before: Mapping[str, Inventory]) -> list[str]:
    """What is there now and was not before, one line each with its node."""
    return [f"{node}: {line}" for node, found in now.items() for line in found.beyond(before[node])]


@dataclass
class Ledger:
    """What one scenario answers for."""

    cluster: Cluster
    namespace: str
    alone: bool  # nothing else runs on the cluster meanwhile
    before: dict[str, Inventory] = field(default_factory=dict)
    _marks: set[str] = field(default_factory=set)
    _own: set[str] = field(default_factory=set)
    _stayed: set[str] | None = None  # in every look so far

    def open(self) -> None:
        """Before the first pod."""
        self.before = take(self.cluster)
        self._marks = {self.namespace}

    def note(self, addresses: Iterable[str]) -> None:
        """While its pods are there, with these addresses: learn their marks."""
        if self.alone or LIVING_LEFT_OUT in self.cluster.facts.abilities:
            return
        new = beyond(take(self.cluster), self.before)
        own = set(addresses)
        self._marks |= {found for line in new if own & _words(line) for found in _ID.findall(line)}
        self._own |= {line for line in new if (self._marks | own) & _words(line) or self._marked(line)}

    def left(self) -> list[str]:
        """What is left of it on the nodes; to be asked again until nothing is or time is over."""
        new = beyond(take(self.cluster), self.before)
        if self.alone:
            return new
        if LIVING_LEFT_OUT in self.cluster.facts.abilities:
            self._stayed = set(new) if self._stayed is None else self._stayed & set(new)
            return sorted(self._stayed)
        return [line for line in new if line in self._own or self._marked(line)]

    def unclaimed(self) -> list[str]:
        """What is new on the nodes and may be another's."""
        return [] if self.alone else beyond(take(self.cluster), self.before)

    def _marked(self, line: str) -> bool:
        return any(mark in line for mark in self._marks)


def _words(line: str) -> set[str]:
    """The words of a line; an address counts without its prefix length too."""
    words = set(re.split(r"[\s,/()]+", line))
    return words | {word.rstrip(".") for word in words}


@dataclass
class Sweep:
    """The nodes before the first scenario of a run, to compare with when the last one is over."""

    cluster: Cluster
    before: dict[str, Inventory] = field(default_factory=dict)

    def open(self) -> None:
        """Before the first scenario."""
        self.before = take(self.cluster)

    def left(self, unclaimed: Mapping[str, Iterable[str]], within: float = 20.0) -> list[str]:
        """What remains, each line with the scenarios that had noted it; waits for what is on its way out."""
        remains = until_nothing(lambda: beyond(take(self.cluster), self.before), within)
        suspects = {
            line: [name for name, lines in unclaimed.items() if line in set(lines)] or ["no scenario noted it"]
            for line in remains
        }
        return [f"{line} ({', '.join(names)})" for line, names in suspects.items()]
