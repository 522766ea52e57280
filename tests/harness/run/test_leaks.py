"""Leftovers of pods on nodes, and the scenario that is responsible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.run.leaks import Sweep
from tests.rigs.fake_cluster import FakeCluster
from tests.rigs.scenarios import PODS, Runner, failures, two


def test_a_leak_is_found_at_once_by_a_scenario_that_is_alone(go: Runner) -> None:
    reported = go.fails(PODS, faults=("leak",))
    assert "left on the nodes:" in reported
    assert "one: addresses: weave 10.2.0.12" in reported


def test_a_leak_is_found_beside_others_and_theirs_is_not_charged(go: Runner) -> None:
    cluster = FakeCluster(faults=("leak",))
    ask = cluster.ask

    def another_comes(namespace: str, pod: str, request: Mapping[str, Any]) -> dict[str, Any]:
        cluster.stranger.add("weave 10.2.0.77 " + "b" * 64 + "/eth0")
        return ask(namespace, pod, request)

    cluster.ask = another_comes  # type: ignore[method-assign]
    outcome, _ = go(two("interfaces: {pod: both, eth0: calico, eth1: weave}"), cluster=cluster, shared=True)
    text = failures(outcome)
    assert "10.2.0.12" in text
    assert "10.2.0.77" not in text
    assert any("10.2.0.77" in line for line in outcome.unclaimed)


def test_what_stays_is_a_leak_where_inventories_leave_out_the_living(go: Runner) -> None:
    assert "10.2.0.12" in go.fails(PODS, faults=("leak",), living_left_out=True, shared=True)


def test_the_sweep_names_who_had_seen_what_remains(cluster: FakeCluster) -> None:
    sweep = Sweep(cluster)
    sweep.open()
    assert sweep.left({}, within=0) == []
    cluster.leaked = {"weave 10.2.0.99 someone/eth0", "weave 10.2.0.98 nobody/eth0"}
    noted = {"a": ["one: addresses: weave 10.2.0.99 someone/eth0"], "b": []}
    assert sweep.left(noted, within=0) == [
        "one: addresses: weave 10.2.0.98 nobody/eth0 (no scenario noted it)",
        "one: addresses: weave 10.2.0.99 someone/eth0 (a)",
    ]
