"""Why a scenario cannot run on a cluster: pure decisions over what the cluster has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract import NETWORK_RESTART, Facts
from harness.run.skips import why_not
from harness.scenario.reading import parse
from tests.rigs.fake_cluster import facts
from tests.rigs.scenarios import PODS

LATER = {
    "after another": '{cni: "bridge, calico@net1"}',
    "beside the default network": '{k8s.v1.cni.cncf.io/networks: "other, kube-system/calico@net1"}',
    "in JSON": "{k8s.v1.cni.cncf.io/networks: [{name: calico}]}",
}


@pytest.fixture
def first_only() -> Facts:
    """A cluster with a calico that works only as a pod's first network."""
    offers = facts().offers
    return facts(offers={**offers, "calico": replace(offers["calico"], first_only="by its nature")})


@pytest.mark.parametrize("annotations", LATER.values(), ids=LATER)
def test_what_a_network_can_only_do_as_a_pods_first_is_skipped_elsewhere(annotations: str, first_only: Facts) -> None:
    scenario = parse(f"scenario: x\nnetworks: [bridge, calico]\npods:\n  a: {{annotations: {annotations}}}\n")
    reason = "calico works as a pod's first network only, and a has it later: by its nature"
    assert why_not(scenario, first_only) == reason
    assert why_not(scenario, facts()) == ""


@pytest.mark.parametrize("annotation", ["calico,bridge", "calico", "bridge,calico-2"])
def test_as_a_pods_first_network_it_is_not_skipped(annotation: str, first_only: Facts) -> None:
    pods = f"{{a: {{annotations: {{cni: '{annotation}'}}}}}}"
    assert why_not(parse(f"scenario: x\nnetworks: [bridge, calico]\npods: {pods}\n"), first_only) == ""


def test_a_daemon_that_a_network_does_not_have_cannot_be_restarted() -> None:
    steps = (
        "[{create: a}, {stays-connected: {from: a, to: a, over: weave, steps: [{with-network-restart: {of: weave}}]}}]"
    )
    scenario = parse(f"scenario: x\nnetworks: [weave]\npods: {{a: {{}}}}\nsteps: {steps}\n")
    offers, able = facts().offers, frozenset({NETWORK_RESTART})
    assert "cannot do this here: network-restart" in why_not(scenario, facts())
    assert why_not(scenario, facts(abilities=able)) == "weave has no daemon of its own here that could be restarted"
    with_daemon = {**offers, "weave": replace(offers["weave"], daemons=("kube-system/weave-net",))}
    assert why_not(scenario, facts(offers=with_daemon, abilities=able)) == ""


def test_one_node_is_not_two() -> None:
    assert "two nodes" in why_not(parse(PODS), facts(nodes=("one",)))


def test_a_host_port_needs_a_network_that_declares_port_mappings() -> None:
    pods = "{a: {annotations: {cni: weave}, ports: [{host-port: 80}]}}"
    scenario = parse(f"scenario: x\nnetworks: [weave]\npods: {pods}\n")
    offers = facts().offers
    without = facts(offers={**offers, "weave": replace(offers["weave"], host_ports=False)})
    assert why_not(scenario, without) == "weave declares no capability portMappings, and a has a host port"
    assert why_not(scenario, facts()) == ""


@pytest.mark.parametrize("spec", ["{plugin: weave, sub_subnet: 10.2.5.0/24}", "{sharedStatus: {plugin: weave}}"])
def test_a_logical_network_needs_an_ipam_plugin(spec: str) -> None:
    kind = "Logicalnetwork" if "sub_" in spec else "Physicalnetwork"
    thing = f"{{apiVersion: alpha.network.k8s.io/v1, kind: {kind}, metadata: {{name: blue}}, spec: {spec}}}"
    scenario = parse(f"scenario: x\nnetworks: [weave]\nobjects: [{thing}]\npods: {{a: {{}}}}\n")
    offers = facts().offers
    without = facts(offers={**offers, "weave": replace(offers["weave"], ipam=False)})
    expected = "weave has no `ipam` in its configuration, where a logical network's subnet would be put"
    assert why_not(scenario, without) == expected
    assert why_not(scenario, facts()) == ""
