"""CHECK: every delegate with its result, then genie's routes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from genie.cni.execute import Outcome
from genie.kernel.netlink import Rule
from tests.rigs.core import (
    Node,
    SeenCall,
    failing,
)
from tests.rigs.kernel import FakeKernel


def routed(node: Node) -> None:
    """Make each delegate set and report a default route, by the gateway of its network."""

    def act(call: SeenCall) -> Outcome | None:
        if call.verb != "ADD":
            return None
        result = {**node.executor.result(call), "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.8.0.0/16"}]}
        return Outcome(status=0, stdout=json.dumps(result).encode())

    node.executor.act = act


def test_check_finds_routes_that_somebody_changed(node: Node) -> None:
    routed(node)
    node.add("calico,weave-net")
    node.ok("CHECK")
    node.kernel.there = [one for one in node.kernel.there if not isinstance(one, Rule)]
    error = node.fails("CHECK")
    assert error["code"] == 999 and "somebody changed the routes" in error["msg"]
    assert error["details"] == "missing: rule from 10.2.0.2 lookup 2001"


def test_check_asks_every_delegate_with_its_own_result(node: Node) -> None:
    node.add("calico,weave-net")
    node.kube.away = True
    node.ok("CHECK")
    checks = [call for call in node.executor.calls if call.verb == "CHECK"]
    assert [(call.plugin, call.ifname) for call in checks] == [("calico", "eth0"), ("weave-net", "eth1")]
    assert [call.stdin["prevResult"]["ips"][0]["address"] for call in checks] == ["10.1.0.2/24", "10.2.0.2/24"]


@pytest.mark.parametrize("asked", ["calico,weave-net", "weave-net,calico"])
def test_check_does_not_ask_for_routes_that_genie_took_away(node: Node, asked: str) -> None:
    routed(node)
    node.add(asked)
    node.ok("CHECK")
    checks = [call for call in node.executor.calls if call.verb == "CHECK"]
    given = [{route["dst"] for route in call.stdin["prevResult"].get("routes", ())} for call in checks]
    assert given == [{"0.0.0.0/0", "10.8.0.0/16"}, set()]


def test_check_where_the_routes_cannot_be_read(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise OSError(2, "No such file or directory")

    node.add("calico,weave-net")
    monkeypatch.setattr(FakeKernel, "routes", away)
    error = node.fails("CHECK")
    assert error["code"] == 5 and "cannot read the routes in /var/run/netns/web" in error["msg"]


def test_check_tells_what_a_delegate_found(node: Node) -> None:
    node.add("calico,weave-net")
    node.executor.act = failing("weave-net", "CHECK", code=200, msg="eth1 has lost its address")
    error = node.fails("CHECK")
    assert (error["code"], error["msg"][-25:]) == (200, "eth1 has lost its address")


def test_check_of_what_is_not_attached(node: Node) -> None:
    node.kept = {"cniVersion": "1.0.0", "ips": []}
    assert node.fails("CHECK")["code"] == 3


@pytest.mark.parametrize(
    ("kept", "code", "complaint"),
    [
        (None, 7, "CHECK: prevResult: expected the result of the ADD, found nothing"),
        ({"cniVersion": "1.0.0", "ips": [{"address": "ten"}]}, 6, "ips[0]: address"),
        ({"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.3/24"}]}, 7, "CHECK: prevResult: expected 10.1.0.2/24"),
    ],
)
def test_check_consults_prev_result(node: Node, kept: Any, code: int, complaint: str) -> None:
    """Specification, section 2, "CHECK": "the plugin must consult the prevResult"."""
    node.add("calico")
    node.kept = kept
    error = node.fails("CHECK")
    assert error["code"] == code and complaint in error["msg"]
    assert node.executor.made("CHECK") == []


def test_check_of_an_add_that_was_cut_off(node: Node) -> None:
    """Not code 3, because that would mean that there is nothing to clean up."""
    node.add("calico")
    (path,) = (node.root / "state").glob("*.json")
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    error = node.fails("CHECK")
    assert error["code"] == 999 and "never came to an end" in error["msg"]


def test_check_takes_what_a_later_plugin_of_the_chain_added(node: Node) -> None:
    node.add("calico")
    node.kept = {**node.kept, "ips": [*node.kept["ips"], {"address": "10.99.0.1/32"}], "dns": {"domain": "x"}}
    node.ok("CHECK")
