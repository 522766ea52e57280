"""Checks of pods' nodes."""

from __future__ import annotations

from tests.rigs.scenarios import Runner, two


def test_pods_on_two_nodes_are_not_on_one(go: Runner) -> None:
    text = go.fails(two("same-node: [both, peer]"))
    assert "expected these on one node: both is on" in text
    assert "peer is on" in text
