"""A scenario's life, on a cluster in memory: what is created and removed, what is found, and what its failures say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.contract import ProbeError
from tests.rigs.fake_cluster import FakeCluster
from tests.rigs.scenarios import PODS, Runner, two


def test_a_life_from_namespace_to_nothing(go: Runner) -> None:
    outcome, cluster = go(
        two(
            "interfaces: {pod: both, eth0: calico, eth1: weave}",
            "addresses: {pods: [both, peer], network: weave, count: 1}",
            "default-route: {pod: both, network: calico}",
            "routes: {pod: both, has: [{to: 10.2.0.0/16, interface: eth1}], lacks: [{to: default, interface: eth1}]}",
            "status-ip: {pod: both, network: calico}",
            "reach: {from: both, to: peer, over: weave, both-ways: true, from-network: weave, seen-as: weave}",
            "reach: {from: peer, to: both}",
            "other-node: [both, peer]",
            "annotations: {pod: peer, has: {cni: weave, gone: {absent: true}}}",
            "check-passes: [both, peer]",
        )
    )
    assert outcome.verdict == "passed", outcome.failures
    assert cluster.store == {}
    assert [stage.name for stage in outcome.stages] == [
        *("prepare", "create both, peer", "expect", "delete both, peer", "after delete", "remove the namespace")
    ]
    assert "udp 10.2.0.13" in cluster.history


def test_files_in_net_d_are_there_for_the_time_of_the_scenario(go: Runner) -> None:
    outcome, cluster = go(
        """\
scenario: x
networks: [weave]
net-d: {"80-blue.conf": {name: "{{ scenario }}", type: bridge}}
pods: {a: {annotations: {cni: weave}}}
"""
    )
    assert outcome.verdict == "passed", outcome.failures
    assert cluster.history == ["net.d {'80-blue.conf': {'name': 'it', 'type': 'bridge'}}", "net.d back"]


def test_the_first_network_is_whichever_the_nodes_have_first(go: Runner) -> None:
    text = (
        "scenario: x\nnetworks: [first-of-node]\npods: {a: }\nexpect: [{interfaces: {pod: a, eth0: first-of-node}}]\n"
    )
    outcome, _ = go(text)
    assert (outcome.verdict, outcome.networks) == ("passed", ("bridge",)), outcome.failures
    assert "eth0 has no address of first-of-node" in go.fails(text.replace("a: }", "a: {annotations: {cni: weave}}}"))
    outcome, _ = go(text, offers={})
    assert outcome.reason == "the harness does not know the nodes' first network"


def test_evidence_is_collected_while_the_pods_are_there(go: Runner, tmp_path: Path) -> None:
    outcome, _ = go(two("default-route: {pod: both, network: weave}"))
    texts = {path: (tmp_path / path).read_text() for path in outcome.evidence}
    assert "genie's log\n" in texts.values()
    assert any("eth1 up, 10.2.0.12/16 (weave)" in text for text in texts.values())
    names = [stage.name for stage in outcome.stages]
    assert names.index("collect evidence") < names.index("delete both, peer")


def test_only_pods_of_a_failure_are_kept(go: Runner) -> None:
    outcome, cluster = go(PODS, keep=True)
    assert (outcome.verdict, outcome.notes, cluster.store) == ("passed", (), {})
    outcome, cluster = go(two("interfaces: {pod: both, eth0: weave}"), keep=True)
    assert outcome.verdict == "failed"
    assert f"/api/v1/namespaces/{outcome.namespace}" in cluster.store
    assert outcome.notes == (f"kept: namespace {outcome.namespace} with both, peer",)


def test_a_backend_that_breaks_is_no_failure_of_the_plugin(go: Runner, cluster: FakeCluster) -> None:
    def breaks(node: str) -> Any:
        raise ZeroDivisionError("no node")

    cluster.inventory = breaks  # type: ignore[method-assign]
    outcome, _ = go(PODS, cluster=cluster)
    assert (outcome.verdict, outcome.reason) == (
        "broken",
        "the harness or its backend failed: ZeroDivisionError: no node",
    )
    assert "Traceback" in str(outcome.failures)


@pytest.mark.parametrize("away", ["API server", "node", "disk"])
def test_a_failure_on_a_cluster_that_does_not_work_is_no_failure_of_the_plugin(
    go: Runner, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    """The cluster breaks while a check runs, so the check fails."""
    asked = cluster.ask

    def breaks(*args: Any, **named: Any) -> Any:
        if away == "API server":
            monkeypatch.setattr(cluster, "_answer", lambda *_: (503, {"message": "no etcd"}))
        elif away == "node":
            monkeypatch.setattr(cluster, "inventory", lambda node: asked("no", "pod", {}))
        else:
            monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
        raise ProbeError("no answer")

    monkeypatch.setattr(cluster, "ask", breaks)
    outcome, _ = go(two("interfaces: {pod: both, eth0: calico}"), cluster=cluster)
    assert outcome.verdict == "broken"
    assert {"API server": "no etcd (HTTP 503)", "node": "a node does not answer", "disk": "no space is left"}[
        away
    ] in outcome.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("networks: [canal]", "canal is missing: its image cannot be had"),
        ("networks: [contiv]", "no network contiv here (known: bridge, calico, canal, flannel, weave)"),
        ("networks: []\nneeds: [services]", "the fake backend cannot do this here: services"),
    ],
)
def test_what_cannot_be_done_is_skipped_with_the_reason(go: Runner, text: str, reason: str) -> None:
    outcome, _ = go(f"scenario: x\n{text}\npods: {{a: }}\n")
    assert (outcome.verdict, outcome.reason) == ("skipped", reason)


def test_a_misspelt_network_is_no_skip(go: Runner) -> None:
    reported = go.fails("scenario: x\nnetworks: [wevae]\npods: {a: }\n")
    assert "unknown network 'wevae'; did you mean 'weave'?" in reported
