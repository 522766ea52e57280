"""The links of a cluster: the underlay that connects its nodes, and a node's bridges, tunnels and routes for networks.

The underlay is a bridge in the run's network namespace, where the API server listens; each node has a veth pair to it.
The links of a network come as plain data (see `catalog.setup`) and are made once, before the first pod.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from harness.embedded import linux
from harness.values import ipv6_of

UNDERLAY = "underlay"
PREFIX = 24
_PREFIX6 = 120
_NO_DAD = 2  # use an address at once
_LOCAL_TABLE = 255
_FLOOD = "00:00:00:00:00:00"


@dataclass(frozen=True, kw_only=True)
class Leg:
    """A node's connection to the underlay."""

    net: int  # descriptor of the node's network namespace
    number: int
    address: str
    interface: str = "eth0"


def join(address: str, legs: Sequence[Leg]) -> None:
    """Make the underlay, with an address for this namespace, and connect nodes to it."""
    with IPRoute() as here:
        here.link("add", ifname=UNDERLAY, kind="bridge", br_stp_state=0)
        bridge = _index(here, UNDERLAY)
        here.addr("add", index=bridge, address=address, prefixlen=PREFIX)
        here.link("set", index=bridge, state="up")
        for leg in legs:
            outer = f"node{leg.number}"
            here.link("add", ifname=outer, kind="veth", peer={"ifname": leg.interface, "net_ns_fd": leg.net})
            here.link("set", index=_index(here, outer), master=bridge, state="up")
    for leg in legs:
        with linux.within(leg.net), IPRoute() as there:
            index = _index(there, leg.interface)
            there.addr("add", index=index, address=leg.address, prefixlen=PREFIX)
            there.link("set", index=index, state="up")
            with suppress(NetlinkError):  # a kernel without IPv6 has no networks of it either
                there.addr("add", index=index, address=ipv6_of(leg.address), prefixlen=_PREFIX6, flags=_NO_DAD)
            there.route("add", dst="default", gateway=address)


def build(steps: Sequence[Mapping[str, Any]]) -> None:
    """Make a network's links and routes on this process's node."""
    with IPRoute() as node:
        for step in steps:
            if "vxlan" in step:
                _vxlan(node, step)
            elif "routes" in step:
                _route(node, step)
            else:
                _bridge(node, step)


def _bridge(node: IPRoute, step: Mapping[str, Any]) -> None:
    node.link("add", ifname=step["bridge"], kind="bridge", mtu=step["mtu"])
    index = _index(node, step["bridge"])
    # Set its address: otherwise it takes the lowest address of its ports, which changes as ports come and go.
    node.link("set", index=index, address=node.get_links(index)[0].get("IFLA_ADDRESS"))
    _address(node, index, step["address"])
    node.link("set", index=index, state="up")


def _vxlan(node: IPRoute, step: Mapping[str, Any]) -> None:
    node.link(
        "add", ifname=step["vxlan"], kind="vxlan", mtu=step["mtu"], vxlan_id=step["id"], vxlan_port=step["port"],
        vxlan_local=step["local"], vxlan_learning=True,
    )  # fmt: skip
    index = _index(node, step["vxlan"])
    if step["bridge"]:
        node.link("set", index=index, master=_index(node, step["bridge"]))
    _address(node, index, step["address"])
    node.link("set", index=index, state="up")
    for peer in step["peers"]:
        node.fdb("append", ifindex=index, lladdr=_FLOOD, dst=peer)


def _route(node: IPRoute, step: Mapping[str, Any]) -> None:
    over = {"oif": _index(node, step["over"]), "flags": ["onlink"]} if step["over"] else {}
    node.route("add", dst=step["routes"], gateway=step["via"], **over)


def _address(node: IPRoute, index: int, address: str) -> None:
    if address:
        host, _, length = address.partition("/")
        node.addr("add", index=index, address=host, prefixlen=int(length))


def _index(where: IPRoute, name: str) -> int:
    return int(where.link_lookup(ifname=name)[0])


def has_route(subnet: str) -> bool:
    """Whether this node has a route to exactly this subnet."""
    address, _, length = subnet.partition("/")
    with IPRoute() as node:
        routes = node.get_routes(family=socket.AF_INET)
        return any((route.get("dst"), route["dst_len"]) == (address, int(length)) for route in routes)


def cut(address: str) -> None:
    """Make an address unreachable for this node; connections fail at once, without a timeout."""
    with IPRoute() as node:
        node.route("add", dst=f"{address}/32", type="unreachable")


def clear(keep: Sequence[str] = ("lo", "eth0")) -> None:
    """Remove this node's links but these, and all routes by way of a gateway but the default one."""
    with IPRoute() as node:
        for link in node.get_links():
            if link.get("IFLA_IFNAME") not in keep:
                with suppress(NetlinkError):  # it went with its peer or its master
                    node.link("del", index=link["index"])
        for route in [*node.get_routes(family=socket.AF_INET), *node.get_routes(family=socket.AF_INET6)]:
            if route.get("RTA_GATEWAY") and route.get("RTA_DST"):
                node.route("del", dst=f"{route.get('RTA_DST')}/{route['dst_len']}", gateway=route.get("RTA_GATEWAY"))


def tamper(interface: str, remove: str) -> None:
    """Remove an interface's addresses or routes, or the interface, in this thread's namespace.

    Raises LookupError: there is no such interface.
    """
    with IPRoute() as pod:
        if not pod.link_lookup(ifname=interface):
            raise LookupError(f"there is no interface {interface}")
        index = _index(pod, interface)
        if remove == "addresses":
            pod.flush_addr(index=index)
        elif remove == "routes":
            tables = {route.get("table") for route in pod.get_routes(oif=index)}
            for table in tables - {_LOCAL_TABLE}:
                pod.flush_routes(oif=index, table=table)
        elif remove == "rules":
            own = [address.get("IFA_ADDRESS") for address in pod.get_addr(index=index)]
            for source in own:
                pod.flush_rules(src=source)
        else:
            pod.link("del", index=index)
