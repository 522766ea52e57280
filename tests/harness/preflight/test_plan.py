"""Which pairs of nodes a preflight measures."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from harness.preflight.plan import ALL_UP_TO, pairs, rounds

NODES = st.integers(0, 300).map(lambda count: [f"node-{number}" for number in range(count)])


@given(NODES)
def test_each_node_sends_and_receives_alike(nodes: list[str]) -> None:
    found = pairs(nodes)
    assert len(set(found)) == len(found)
    assert all(one != other for one, other in found)
    if len(nodes) <= ALL_UP_TO:
        assert len(found) == len(nodes) * (len(nodes) - 1)
        return
    assert len(nodes) <= len(found) <= max(len(nodes), 90)
    for side in (0, 1):
        assert set(Counter(pair[side] for pair in found).values()) == {len(found) // len(nodes)}
        assert {pair[side] for pair in found} == set(nodes)


@given(NODES)
def test_no_node_takes_part_twice_in_a_round(nodes: list[str]) -> None:
    wanted = pairs(nodes)
    found = rounds(wanted)
    assert sorted(pair for turn in found for pair in turn) == sorted(wanted)
    for turn in found:
        taking_part = [node for pair in turn for node in pair]
        assert len(set(taking_part)) == len(taking_part) > 0
