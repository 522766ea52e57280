"""Logicalnetworks and Physicalnetworks, and their changes of a configuration."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.cni.errors import CniError
from genie.select import logical
from genie.select.networks import Directory
from tests.rigs.core import Node, network
from tests.rigs.networks import conf, one, refused


def define(node: Node, spec: Any, physical: Any = None) -> None:
    node.kube.objects["LogicalNetwork", "blue", "red"] = {"spec": spec}
    if physical is not None:
        node.kube.objects["PhysicalNetwork", "blue", "phys"] = {"spec": physical}


@pytest.fixture
def macvlan(node: Node) -> Node:
    ipam = {
        "type": "host-local",
        "dataDir": "/kept",
        "ranges": [[{"subnet": "10.5.0.0/16"}]],
        "gateway": "10.5.0.1",
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.5.0.1"}, {"dst": "10.96.0.0/12", "gw": "10.20.1.9", "mtu": 1400}],
    }
    node.write("10-macvlan.conf", conf("macvlan", "macvlan", master="eth0", ipam=ipam))
    return node


def test_a_logical_network_gets_the_physical_ones_interface_and_subnet(macvlan: Node) -> None:
    physical = {"refer_nic": "eth7", "sharedStatus": {"plugin": "macvlan", "subnet": "10.20.0.0/16"}}
    define(macvlan, {"physicalNet": "phys", "sub_subnet": "10.20.1.0/24"}, physical)
    (plugin,) = one(macvlan, "red", "logical").plugins
    assert plugin["master"] == "eth7"
    assert plugin["ipam"] == {
        "type": "host-local",
        "dataDir": "/kept",
        "subnet": "10.20.1.0/24",
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.96.0.0/12", "gw": "10.20.1.9", "mtu": 1400}],
    }


def test_a_logical_network_takes_the_whole_physical_one(macvlan: Node) -> None:
    define(macvlan, {"physicalNet": "phys"}, {"sharedStatus": {"plugin": "macvlan", "subnet": "10.20.0.0/16"}})
    (plugin,) = one(macvlan, "red", "logical").plugins
    assert (plugin["ipam"]["subnet"], plugin["master"]) == ("10.20.0.0/16", "eth0")


def test_a_logical_network_without_a_subnet_keeps_the_plugins(macvlan: Node) -> None:
    define(macvlan, {"plugin": "macvlan"})
    assert "ranges" in one(macvlan, "red", "logical").plugins[0]["ipam"], "no subnet asked for: nothing is changed"


@pytest.mark.parametrize(
    ("spec", "physical", "complaint"),
    [
        ({}, None, "Logicalnetwork blue/red: expected plugin, or physicalNet"),
        (None, None, "there is no Logicalnetwork blue/red with a spec"),
        ({"physicalNet": "none"}, None, "there is no Physicalnetwork blue/none"),
        ({"physicalNet": "phys"}, {}, "expected plugin, or physicalNet"),
        (
            {"physicalNet": "phys"},
            {"sharedStatus": ["x"]},
            "Physicalnetwork blue/phys: sharedStatus: expected an object",
        ),
        ({"plugin": 5}, None, "Logicalnetwork blue/red: plugin: expected a string, found 5"),
        ({"plugin": "gone"}, None, "no network 'gone'"),
        ({"plugin": "macvlan", "sub_subnet": "10.1.0.0/33"}, None, "Logicalnetwork blue/red: subnet: "),
        ({"plugin": "macvlan", "sub_subnet": "ten"}, None, "Logicalnetwork blue/red: subnet: "),
        (
            {"physicalNet": "phys", "plugin": "macvlan"},
            {"sharedStatus": {"plugin": "weave", "dedicatedNet": True}},
            "plugin: 'macvlan', but Physicalnetwork blue/phys is dedicated to 'weave'",
        ),
        (
            {"physicalNet": "phys", "sub_subnet": "10.21.1.0/24"},
            {"sharedStatus": {"plugin": "macvlan", "subnet": "10.20.0.0/16"}},
            "sub_subnet 10.21.1.0/24 is not within the physical network's 10.20.0.0/16",
        ),
        (
            {"physicalNet": "phys", "sub_subnet": "fd00::/64"},
            {"sharedStatus": {"plugin": "macvlan", "subnet": "10.20.0.0/16"}},
            "sub_subnet fd00::/64 is not within",
        ),
    ],
)
def test_logical_networks_that_cannot_be(macvlan: Node, spec: Any, physical: Any, complaint: str) -> None:
    define(macvlan, spec, physical)
    assert complaint in refused(macvlan, "red", "logical")


def test_ipv6_takes_the_place_of_ipv4() -> None:
    before = network("b", {"type": "bridge", "ipam": {"ranges": [], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}})
    after = logical.with_subnet(before, "fd00:1::5/64")
    assert after.plugins[0]["ipam"] == {"type": "host-local", "subnet": "fd00:1::/64", "routes": [{"dst": "::/0"}]}


@pytest.mark.parametrize(("plugin", "ipam"), [("bridge", "host-local"), ("weave-net", "weave-ipam")])
def test_a_plugin_without_ipam_gets_the_usual_one_with_the_subnet(plugin: str, ipam: str) -> None:
    after = logical.with_subnet(network(plugin), "10.1.0.0/16")
    assert after.plugins[0]["ipam"] == {"type": ipam, "subnet": "10.1.0.0/16"}


def test_the_shared_configuration_is_not_written_to(macvlan: Node) -> None:
    directory = Directory(str(macvlan.net_d))
    found = directory.find("macvlan")
    assert found is not None
    before = json.dumps(found.plugins)
    logical.with_underlay(logical.with_subnet(found, "10.20.0.0/16"), "eth7")
    assert json.dumps(found.plugins) == before


@pytest.mark.parametrize(("kind", "key"), [*logical.UNDERLAY_KEY.items()])
def test_the_underlay_goes_into_plugins_that_take_one(kind: str, key: str) -> None:
    after = logical.with_underlay(network("x", {"type": kind}, {"type": "tuning"}), "eth7")
    assert after.plugins == ({"type": kind, key: "eth7"}, {"type": "tuning"})


@given(
    st.text(max_size=12) | st.sampled_from(["10.1.2.0/24", "fd00::/64", "10.1.2.3", "0.0.0.0/0"]), st.text(max_size=12)
)
def test_any_subnet_is_taken_or_refused(subnet: str, within: str) -> None:
    try:
        logical.with_subnet(network("b", {"type": "bridge"}), subnet, within=within, where="x")
    except CniError as error:
        assert error.code == 7
