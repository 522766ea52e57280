"""A network's software: fixtures that fit together, patches, images."""

from __future__ import annotations

import re
from ipaddress import ip_network
from itertools import combinations
from typing import Any

import pytest
import yaml

from harness.cluster import software
from harness.cluster.software import Patch, Software
from tests.rigs.objects import thing

NETWORKS = ("bridge", "calico", "canal", "flannel", "macvlan", "ptp", "weave")


def test_every_network_can_be_had_on_a_real_cluster(known: dict[str, Software]) -> None:
    assert set(NETWORKS) <= set(known)


@pytest.mark.parametrize("network", ["calico", "canal"])
@pytest.mark.parametrize(
    ("entry", "felix"),
    [
        ("netfilter: iptables filter :cali-fw-cali1f0c3b2a - ", True),
        ("netfilter: iptables filter -A cali-from-wl-dispatch -i cali1f0c3b2a -g cali-fw-cali1f0c3b2a", True),
        ("netfilter: ipset cali40xyz", True),
        ("netfilter: iptables nat :CNI-7a1b - ", False),
        ("interfaces: cali1f0c3b2a", False),
        ("routes: 10.245.1.66 dev cali1f0c3b2a scope link", False),
        ("addresses: calico 10.245.1.66 k8s-pod-network.0123", False),
    ],
)
def test_felix_removes_its_rules_and_nothing_else(
    known: dict[str, Software], network: str, entry: str, felix: bool
) -> None:
    [tidies] = known[network].tidying
    assert bool(re.search(tidies.matches, entry)) is felix


def test_subnets_of_networks_that_stand_beside_each_other_do_not_overlap(known: dict[str, Software]) -> None:
    for one, other in combinations(known, 2):
        if other in known[one].conflicts:
            continue
        for subnet in known[one].subnets:
            assert not any(ip_network(subnet).overlaps(ip_network(each)) for each in known[other].subnets), (one, other)


def test_conflicts_are_mutual_and_explained(known: dict[str, Software]) -> None:
    for name, network in known.items():
        for rival in network.conflicts:
            assert name in known[rival].conflicts
            assert network.conflict_reason


def test_no_configuration_of_a_network_comes_before_genie(known: dict[str, Software]) -> None:
    assert all(network.conf > "00-genie.conf" for network in known.values())


@pytest.mark.parametrize(
    ("into", "change", "result"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": [{"name": "x", "v": 1}]}, {"a": [{"name": "x", "w": 2}]}, {"a": [{"name": "x", "v": 1, "w": 2}]}),
        ({"a": [{"name": "x"}]}, {"a": [{"name": "y"}]}, {"a": [{"name": "x"}, {"name": "y"}]}),
        ({"a": [{"name": "x"}, {"name": "y"}]}, {"a": [{"name": "x", "$patch": "delete"}]}, {"a": [{"name": "y"}]}),
        ({"e": [{"name": "", "valueFrom": 1}]}, {"e": [{"name": "", "value": 2}]}, {"e": [{"name": "", "value": 2}]}),
        ({}, {"a": [{"name": "x"}]}, {"a": [{"name": "x"}]}),
        ({"m": [{"name": "x", "at": 1}, {"name": "x", "at": 2}]}, {"m": [{"name": "y"}]},
         {"m": [{"name": "x", "at": 1}, {"name": "x", "at": 2}, {"name": "y"}]}),
    ],
)  # fmt: skip
def test_merge(into: dict[str, Any], change: dict[str, Any], result: dict[str, Any]) -> None:
    assert software.merge(into, change) == result


def patch(**output: Any) -> Patch:
    return Patch.model_validate({"why": "a test", **output})


def test_a_patch_that_fits_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="Deployment gone: no such object"):
        software.patched([thing("Pod", "a")], (patch(kind="Deployment", name="gone", drop=True),))


def test_patches_change_copies() -> None:
    original = [thing("ConfigMap", "a", data={"conf": '{"x": {"y": 1}}'}), thing("Pod", "b")]
    patches = (
        patch(kind="ConfigMap", **{"json-in": {"conf": {"x": {"z": 2}}}}),
        patch(kind="Pod", name="b", drop=True),
    )
    changed = software.patched(original, patches)
    assert yaml.safe_load(changed[0]["data"]["conf"]) == {"x": {"y": 1, "z": 2}}
    assert [each["metadata"]["name"] for each in changed] == ["a"]
    assert original[0]["data"]["conf"] == '{"x": {"y": 1}}'


def test_images_of_all_containers_each_once() -> None:
    pod = {"initContainers": [{"image": "one"}], "containers": [{"image": "two"}, {"image": "one"}]}
    assert software.images(
        [thing("DaemonSet", "a", spec={"template": {"spec": pod}}), thing("Pod", "b", spec=pod)]
    ) == (
        "one",
        "two",
    )


def test_a_node_has_its_own_version_of_a_configuration() -> None:
    assert software.for_node({"a": ["10.1.{n}.0/24", 7], "b": True}, 3) == {"a": ["10.1.3.0/24", 7], "b": True}


def test_a_networks_own_objects_come_along_with_their_images() -> None:
    pod = thing("Pod", "etcd", spec={"containers": [{"image": "etcd:1"}]})
    data = {"software": "x", "conf": "10-x.conf", "subnets": ["10.1.0.0/16"], "objects": [pod]}
    found = Software.model_validate(data).objects()
    assert found == [pod]
    assert software.images(found) == ("etcd:1",)


def test_an_image_of_the_control_plane_is_borrowed_not_pulled() -> None:
    pods = [thing("Pod", "etcd", spec={"containers": [{"image": "{{ image of etcd }}"}, {"image": "other:1"}]})]
    assert software.images(pods) == ("other:1",)
    assert software.borrowed(pods) == {"etcd"}
    lent = software.with_borrowed(pods, {"etcd": "far/etcd:3", "kube-proxy": "far/proxy:1"})
    assert software.images(lent) == ("far/etcd:3", "other:1")
