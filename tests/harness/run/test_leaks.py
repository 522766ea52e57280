"""Leftovers of pods on nodes, and the scenario that is responsible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from harness.contract import Facts, Inventory, Tidying
from harness.run.leaks import Sweep
from tests.rigs.fake_cluster import FakeCluster, facts
from tests.rigs.scenarios import PODS, Runner, failures, two


def test_a_leak_is_found_at_once_by_a_scenario_that_is_alone(go: Runner) -> None:
    reported = go.fails(PODS, faults=("leak",))
    assert "left on the nodes:" in reported
    assert "one: addresses: weave 10.2.0.12" in reported


def test_a_leak_is_known_as_soon_as_nothing_changes_any_more(go: Runner) -> None:
    cluster = FakeCluster(faults=("leak",), settles=1e-6)
    sweep = Sweep(cluster)
    sweep.open()
    outcome, _ = go(PODS, cluster=cluster, hurry=1000.0)
    assert "left on the nodes:" in failures(outcome)
    assert sweep.left({}, within=3600)


def test_a_scenario_that_says_how_long_waits_so_long(go: Runner) -> None:
    cluster, looks = FakeCluster(faults=("leak",), settles=0.0), iter(range(1000))
    inventory = cluster.inventory

    def removed_later(node: str) -> Inventory:
        if cluster.leaked and next(looks) > 4:
            cluster.leaked.clear()
        return inventory(node)

    cluster.inventory = removed_later  # type: ignore[method-assign]
    text = PODS + "after-delete: [{nothing-left: {within: 3600}}]\n"
    assert go(text, cluster=cluster, hurry=1.0)[0].verdict == "passed"


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


TIDY = Tidying(matches=r"^addresses: weave 10\.2\.", within=30.0, why="its daemon looks every few seconds")


def with_daemon() -> Facts:
    """The facts of a cluster whose weave removes its addresses by itself."""
    usual = facts()
    return replace(usual, offers=dict(usual.offers) | {"weave": replace(usual.offers["weave"], tidies=(TIDY,))})


@pytest.mark.parametrize("shared", [False, True])
def test_what_a_daemon_removes_by_itself_fails_no_scenario(go: Runner, shared: bool) -> None:
    cluster = FakeCluster(faults=("leak",))
    cluster.facts = with_daemon()
    outcome, _ = go(PODS.replace('"calico,weave"', "weave"), cluster=cluster, shared=shared)
    assert outcome.verdict == "passed", outcome.failures
    assert any("weave 10.2.0.11" in line for line in outcome.unclaimed), "it is noted for the end of the run"


def test_what_a_daemon_does_not_remove_is_as_bad_as_before(go: Runner) -> None:
    cluster = FakeCluster(faults=("leak",))
    cluster.facts = with_daemon()
    text = failures(go(PODS, cluster=cluster)[0])
    assert "10.1.0.11" in text, "calico has no such daemon"
    assert "10.2.0.12" not in text


def test_the_sweep_gives_a_daemon_its_time_and_no_more(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.facts = with_daemon()
    sweep, looks = Sweep(cluster), iter(range(1000))
    sweep.open()
    slow, lost = "weave 10.2.0.99 someone/eth0", "calico 10.1.0.98 nobody/eth0"
    cluster.leaked = {slow}
    inventory = cluster.inventory

    def removed_later(node: str) -> Inventory:
        if next(looks) > 4:
            cluster.leaked.discard(slow)
        return inventory(node)

    monkeypatch.setattr(cluster, "inventory", removed_later)
    assert sweep.left({}, within=0) == []
    cluster.leaked = {lost}
    assert sweep.left({}, within=0) == [f"one: addresses: {lost} (no scenario noted it)"], "it does not wait 30 s"


def test_what_stays_in_spite_of_its_daemon_is_told_apart(cluster: FakeCluster) -> None:
    usual = with_daemon()
    hasty = replace(usual.offers["weave"], tidies=(replace(TIDY, within=0.1),))
    cluster.facts = replace(usual, offers=dict(usual.offers) | {"weave": hasty})
    sweep = Sweep(cluster)
    sweep.open()
    cluster.leaked = {"weave 10.2.0.99 someone/eth0"}
    [line] = sweep.left({"a": ["one: addresses: weave 10.2.0.99 someone/eth0"]}, within=0)
    assert line.endswith("(a, weave has not removed it within 0.1 s (its daemon looks every few seconds))")
