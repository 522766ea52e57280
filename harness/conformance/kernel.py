"""The kernel's state of a network namespace, as plain data for comparisons."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field

from pyroute2 import IPRoute

from harness.conformance import netlink
from harness.conformance.netlink import Message

_UP, _PROMISCUOUS, _LOWER_UP = 1, 1 << 8, 1 << 16
_NOT_USABLE = 0x40 | 0x08  # flags of an address: tentative, and found twice
_PERMANENT = 0x80  # a neighbour that somebody added
_KERNEL = 2  # the protocol of routes that come with an address
_LOCAL_TABLE, _UNICAST = 255, 1
_REFUSING = {6: "blackhole", 7: "unreachable", 8: "prohibit"}  # kinds of routes, which have no interface
_FAMILIES = {int(socket.AF_INET): "0.0.0.0", int(socket.AF_INET6): "::"}


@dataclass(frozen=True, kw_only=True)
class Link:
    """An interface."""

    name: str
    index: int
    kind: str  # "veth", "bridge"; empty for the loopback and hardware
    mac: str
    mtu: int
    up: bool
    promiscuous: bool  # because somebody has set it so
    carrier: bool = field(compare=False)  # whether its other end, or its cable, is up, too
    master: int  # index; 0: none
    peer: int  # index of the other end or of the parent interface; 0: none


@dataclass(frozen=True)
class Address:
    """An address of an interface."""

    link: int
    cidr: str
    usable: bool = field(default=True, compare=False)  # whether the kernel has tried it, and nobody else has it


@dataclass(frozen=True, kw_only=True)
class Route:
    """A route of any table except the local one, without multicast; `gw` of one that refuses is how it does so."""

    dst: str
    gw: str = ""
    link: int = 0
    table: int = 254
    priority: int = 0
    scope: int = 0
    mtu: int = 0
    advmss: int = 0
    by_kernel: bool = False


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A network namespace at one moment."""

    links: tuple[Link, ...]
    addresses: tuple[Address, ...]
    routes: tuple[Route, ...]
    rules: frozenset[str]
    neighbours: frozenset[Address]  # permanent ones

    def link(self, name: str) -> Link | None:
        return next((link for link in self.links if link.name == name), None)

    def of(self, link: Link) -> list[str]:
        """An interface's addresses in CIDR notation, without link-local ones."""
        return [address.cidr for address in self.addresses if address.link == link.index]


def look() -> Kernel:
    """The network namespace of the calling thread."""
    found = [_address(message) for message in netlink.dump(netlink.ADDRESSES)]
    return Kernel(
        links=tuple(_link(message) for message in netlink.dump(netlink.LINKS)),
        addresses=tuple(address for address in found if not _is_link_local(address.cidr)),
        routes=tuple(route for message in netlink.dump(netlink.ROUTES) if (route := _route(message))),
        rules=frozenset(_rule(message) for message in netlink.dump(netlink.RULES) if message.head[0] in _FAMILIES),
        neighbours=frozenset(
            Address(message.head[1], message.address(1))
            for message in netlink.dump(netlink.NEIGHBOURS)
            if message.head[0] in _FAMILIES and message.head[2] & _PERMANENT
        ),
    )


def queueing() -> list[tuple[int, str]]:
    """Queueing disciplines of the calling thread's network namespace: interface and kind."""
    with IPRoute() as route:
        return [(message["index"], message.get_attr("TCA_KIND") or "") for message in route.get_qdiscs()]


def _link(message: Message) -> Link:
    _, _, index, flags, _ = message.head
    return Link(
        name=message.text(3),
        index=index,
        kind=message.inner(18).text(1),
        mac=message.attributes.get(1, b"").hex(":"),
        mtu=message.number(4),
        up=bool(flags & _UP),
        promiscuous=bool(flags & _PROMISCUOUS),
        carrier=bool(flags & _LOWER_UP),
        master=message.number(10),
        peer=message.number(5),
    )


def _address(message: Message) -> Address:
    _, length, _, _, index = message.head
    return Address(index, f"{message.address(2) or message.address(1)}/{length}", not message.number(8) & _NOT_USABLE)


def _is_link_local(cidr: str) -> bool:
    address = ipaddress.ip_interface(cidr).ip
    return address.version == 6 and address.is_link_local


def _route(message: Message) -> Route | None:
    family, length, _, _, table, protocol, scope, kind, _ = message.head
    if family not in _FAMILIES:
        return None
    table = message.number(15) or table
    dst = f"{message.address(1) or _FAMILIES[family]}/{length}"
    if kind in _REFUSING and protocol != _KERNEL:
        return Route(dst=dst, gw=_REFUSING[kind], table=table, priority=message.number(6))
    if table == _LOCAL_TABLE or kind != _UNICAST or dst in ("fe80::/64", "ff00::/8"):
        return None
    metrics = message.inner(8)
    via = message.attributes.get(18, b"")[2:]  # a next hop of the other family, after a number for that
    return Route(
        dst=dst,
        gw=message.address(5) or (str(ipaddress.ip_address(via)) if len(via) in (4, 16) else ""),
        link=message.number(4),
        table=table,
        priority=message.number(6),
        scope=scope,
        mtu=metrics.number(2),
        advmss=metrics.number(8),
        by_kernel=protocol == _KERNEL,
    )


def _rule(message: Message) -> str:
    family, to_length, from_length = message.head[:3]
    parts = {
        "priority": message.number(6),
        "src": f"{message.address(2)}/{from_length}" if 2 in message.attributes else "",
        "dst": f"{message.address(1)}/{to_length}" if 1 in message.attributes else "",
        "iifname": message.text(3),
        "oifname": message.text(17),
        "fwmark": message.number(10),
        "table": message.number(15),
    }
    words = [f"{name} {value}" for name, value in parts.items() if value or name == "priority"]
    return f"IPv{6 if family == socket.AF_INET6 else 4} " + " ".join(words)
