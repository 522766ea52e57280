"""Finds leftovers of pods on the nodes, also while other scenarios run there.

For a scenario that runs alone, every new entry on a node is a leftover. Under pytest-xdist several scenarios share the
nodes, so a new entry may belong to another scenario and disappear soon. A scenario then fails only for entries with its
mark: the container IDs and addresses of its pods while they ran, or its namespace. (With the ability "living-left-out",
inventories omit everything of living pods, so every entry that stays while the scenario waits is a leak.) The scenario
only notes other entries (`unclaimed`). At the end of the run, `Sweep` compares the nodes with their state at the start,
and names the scenarios that noted each remaining entry. So no leak is missed, and no scenario fails because of another
one.

A network's daemon may remove entries by itself, some time after a pod is gone; the network's description says which,
and how long that takes. A scenario only notes these. `Sweep` gives them their time, and reports those that stay.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from harness.contract import LIVING_LEFT_OUT, Cluster, Facts, Inventory, Tidying
from harness.waiting import limit, unchanged, until_nothing

_ID = re.compile(r"\b[0-9a-f]{32,64}\b")


def take(cluster: Cluster) -> dict[str, Inventory]:
    """The inventories of all nodes now."""
    nodes = cluster.facts.nodes
    with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as pool:
        return dict(zip(nodes, pool.map(cluster.inventory, nodes), strict=True))


def beyond(now: Mapping[str, Inventory], before: Mapping[str, Inventory]) -> list[str]:
    """The new entries, one line each with the node."""
    return [f"{node}: {line}" for node, found in now.items() for line in found.beyond(before[node])]


def tidied(line: str, facts: Facts) -> tuple[str, Tidying] | None:
    """The network with a daemon that removes this entry by itself, and how."""
    entry = line.partition(": ")[2]  # without the node
    found = ((name, each) for name, all_of in facts.tidies.items() for each in all_of if re.search(each.matches, entry))
    return next(found, None)


@dataclass
class Ledger:
    """The leftovers of one scenario."""

    cluster: Cluster
    namespace: str
    alone: bool  # no other scenario runs at the same time
    before: dict[str, Inventory] = field(default_factory=dict)
    _marks: set[str] = field(default_factory=set)
    _own: set[str] = field(default_factory=set)
    _stayed: set[str] | None = None  # in every look so far

    def open(self) -> None:
        """Take the inventories before the first pod."""
        self.before = take(self.cluster)
        self._marks = {self.namespace}

    def note(self, addresses: Iterable[str]) -> None:
        """Learn the marks of its running pods and their addresses."""
        if self.alone or LIVING_LEFT_OUT in self.cluster.facts.abilities:
            return
        new = beyond(take(self.cluster), self.before)
        own = set(addresses)
        self._marks |= {found for line in new if own & _words(line) for found in _ID.findall(line)}
        self._own |= {line for line in new if (self._marks | own) & _words(line) or self._marked(line)}

    def left(self) -> list[str]:
        """Its leftovers on the nodes now; the caller repeats this until there are none or the time is over."""
        new = [line for line in beyond(take(self.cluster), self.before) if not tidied(line, self.cluster.facts)]
        if self.alone:
            return new
        if LIVING_LEFT_OUT in self.cluster.facts.abilities:
            self._stayed = set(new) if self._stayed is None else self._stayed & set(new)
            return sorted(self._stayed)
        return [line for line in new if line in self._own or self._marked(line)]

    def unclaimed(self) -> list[str]:
        """New entries on the nodes that may belong to another scenario, or that a daemon is about to remove."""
        facts = self.cluster.facts
        if self.alone and not facts.tidies:
            return []
        new = beyond(take(self.cluster), self.before)
        return [line for line in new if tidied(line, facts)] if self.alone else new

    def _marked(self, line: str) -> bool:
        return any(mark in line for mark in self._marks)


def _words(line: str) -> set[str]:
    """The words of a line; an address also without its prefix length."""
    words = set(re.split(r"[\s,/()]+", line))
    return words | {word.rstrip(".") for word in words}


@dataclass
class Sweep:
    """The nodes' state before the first scenario, to compare with after the last one."""

    cluster: Cluster
    before: dict[str, Inventory] = field(default_factory=dict)

    def open(self) -> None:
        """Take the inventories before the first scenario."""
        self.before = take(self.cluster)

    def left(self, unclaimed: Mapping[str, Iterable[str]], within: float = 20.0) -> list[str]:
        """The remaining entries, each with the scenarios that noted it; waits for entries that will disappear.

        within: seconds for what no daemon removes; less if nothing changes any more.
        """
        facts, begin = self.cluster.facts, time.monotonic()
        stay = unchanged(facts.settles)

        def in_vain(remaining: list[str]) -> bool:
            stays = stay(remaining)
            if awaited := [found[1].within for line in remaining if (found := tidied(line, facts))]:
                return time.monotonic() - begin > limit(max(within, *awaited))
            return stays or time.monotonic() - begin > limit(within)

        longest = max((each.within for all_of in facts.tidies.values() for each in all_of), default=0.0)
        remains = until_nothing(
            lambda: beyond(take(self.cluster), self.before), max(within, longest), hopeless=in_vain, longest=1.0
        )
        return [f"{line} ({self._noted(line, unclaimed)})" for line in remains]

    def _noted(self, line: str, unclaimed: Mapping[str, Iterable[str]]) -> str:
        names = [name for name, lines in unclaimed.items() if line in set(lines)] or ["no scenario noted it"]
        if found := tidied(line, self.cluster.facts):
            network, each = found
            names.append(f"{network} has not removed it within {each.within:g} s ({each.why})")
        return ", ".join(names)
