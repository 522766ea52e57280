"""Which pairs of nodes are measured, and which of them at the same time."""

from __future__ import annotations

import random
from collections.abc import Sequence

Pair = tuple[str, str]
ALL_UP_TO = 10  # nodes; above, a sample of pairs is measured


def pairs(nodes: Sequence[str], seed: int = 0) -> list[Pair]:
    """Ordered pairs of nodes: all of them, or above ten nodes a sample in which each node sends and receives alike.

    The sample has about as many pairs as ten nodes have, and at least one for each node.
    """
    if len(nodes) <= ALL_UP_TO:
        return [(one, other) for one in nodes for other in nodes if one != other]
    circle = list(nodes)
    random.Random(seed).shuffle(circle)
    rounds = max(1, ALL_UP_TO * (ALL_UP_TO - 1) // len(circle))
    return [(one, circle[(at + by) % len(circle)]) for by in range(1, rounds + 1) for at, one in enumerate(circle)]


def rounds(wanted: Sequence[Pair]) -> list[list[Pair]]:
    """The pairs in rounds: in a round, no node takes part twice, so no measurement slows down another."""
    found: list[list[Pair]] = []
    busy: list[set[str]] = []
    for pair in wanted:
        at = next((number for number, nodes in enumerate(busy) if not nodes & set(pair)), len(found))
        if at == len(found):
            found.append([])
            busy.append(set())
        found[at].append(pair)
        busy[at] |= set(pair)
    return found
