"""The state read from the kernel is the same as the output of `ip`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from harness.conformance import kernel
from harness.embedded import linux

pytestmark = pytest.mark.root
SETUP = """\
link add br0 type bridge
link add v0 mtu 1400 type veth peer v1
link set v0 master br0
link set br0 up
link set v0 up
addr add 10.1.0.1/24 dev br0
addr add 10.1.0.2/24 dev br0
addr add fd00::1/64 dev br0 nodad
route add 10.5.0.0/16 via 10.1.0.9 mtu 1300 advmss 1200 metric 7
route add 10.6.0.0/16 dev br0 table 1000
route add fd01::/64 via fd00::9
route add 10.9.0.0/16 via inet6 fd00::9
route add default via 10.1.0.9
rule add from 10.1.0.0/24 table 1000 priority 512
rule add iif br0 fwmark 5 table 100 priority 511
"""


def test_links_addresses_routes_and_rules(namespace: Callable[[], Any]) -> None:
    net = linux.new_net_namespace() if namespace() else 0
    with linux.within(net):
        subprocess.run(["ip", "-batch", "-"], input=SETUP, text=True, check=True)
        found = kernel.look()
        links: list[dict[str, Any]] = json.loads(subprocess.check_output(["ip", "-json", "addr"]))
    names = {link.index: link.name for link in found.links}
    assert {(each.name, each.index, each.mac, each.mtu) for each in found.links} == {
        (each["ifname"], each["ifindex"], each["address"], each["mtu"]) for each in links
    }
    assert {(each.name, each.kind, names.get(each.master, ""), each.up) for each in found.links} >= {
        ("br0", "bridge", "", True), ("v0", "veth", "br0", True), ("v1", "veth", "", False),
    }  # fmt: skip
    assert found.link("br0") is not None
    assert [each.cidr for each in found.addresses if names[each.link] == "br0"] == [
        "10.1.0.1/24", "10.1.0.2/24", "fd00::1/64",
    ]  # fmt: skip
    br0 = next(index for index, name in names.items() if name == "br0")
    routes = {each.dst: each for each in found.routes}
    assert routes["10.5.0.0/16"] == kernel.Route(
        dst="10.5.0.0/16", gw="10.1.0.9", link=br0, priority=7, mtu=1300, advmss=1200
    )
    assert routes["10.6.0.0/16"].table == 1000
    assert (routes["fd01::/64"].gw, routes["10.9.0.0/16"].gw) == ("fd00::9", "fd00::9")
    assert routes["0.0.0.0/0"].gw == "10.1.0.9"
    assert routes["10.1.0.0/24"].by_kernel
    assert {"IPv4 priority 512 src 10.1.0.0/24 table 1000", "IPv4 priority 511 iifname br0 fwmark 5 table 100"} <= (
        found.rules
    )
