"""What the kernel has in a network namespace, as plain data that can be compared."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute

_UP = 1
_KERNEL = 2  # protocol of a route that came with an address
_LOCAL_TABLE, _MULTICAST, _UNICAST = 255, 5, 1
_TENTATIVE_OR_DYNAMIC = 0x100  # an IPv6 address that a router's advertisement made


@dataclass(frozen=True, kw_only=True)
class Link:
    """An interface."""

    name: str
    index: int
    kind: str  # "veth", "bridge"; empty for the loopback and hardware
    mac: str
    mtu: int
    up: bool
    master: int  # index; 0: none
    peer: int  # index of the other end, or of what it is on top of; 0: none


@dataclass(frozen=True)
class Address:
    """An address of an interface."""

    link: int
    cidr: str


@dataclass(frozen=True, kw_only=True)
class Route:
    """A unicast route of any table but the local one."""

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

    def link(self, name: str) -> Link | None:
        """An interface by name."""
        return next((link for link in self.links if link.name == name), None)

    def of(self, link: Link) -> list[str]:
        """An interface's addresses in CIDR notation, without link-local ones."""
        return [address.cidr for address in self.addresses if address.link == link.index]


def look() -> Kernel:
    """The network namespace of the calling thread."""
    with IPRoute() as netlink:
        addresses = [_address(message) for message in netlink.get_addr()]
        routes = [route for message in netlink.get_routes() if (route := _route(message))]
        return Kernel(
            links=tuple(_link(message) for message in netlink.get_links()),
            addresses=tuple(address for address in addresses if not _is_link_local(address.cidr)),
            routes=tuple(routes),
            rules=frozenset(_rule(message) for message in netlink.get_rules()),
        )


def queueing() -> list[tuple[int, str]]:
    """Queueing disciplines of the calling thread's network namespace: interface and kind."""
    with IPRoute() as netlink:
        return [(message["index"], message.get_attr("TCA_KIND") or "") for message in netlink.get_qdiscs()]


def _link(message: Any) -> Link:
    information = message.get_attr("IFLA_LINKINFO")
    return Link(
        name=message.get_attr("IFLA_IFNAME"),
        index=message["index"],
        kind=(information.get_attr("IFLA_INFO_KIND") or "") if information else "",
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU") or 0,
        up=bool(message["flags"] & _UP),
        master=message.get_attr("IFLA_MASTER") or 0,
        peer=message.get_attr("IFLA_LINK") or 0,
    )


def _address(message: Any) -> Address:
    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return Address(message["index"], f"{address}/{message['prefixlen']}")


def _is_link_local(cidr: str) -> bool:
    address = ipaddress.ip_interface(cidr).ip
    return address.version == 6 and address.is_link_local


def _route(message: Any) -> Route | None:
    table = message.get_attr("RTA_TABLE") or message["table"]
    default = "::" if message["family"] == socket.AF_INET6 else "0.0.0.0"
    dst = f"{message.get_attr('RTA_DST') or default}/{message['dst_len']}"
    if table == _LOCAL_TABLE or message["type"] != _UNICAST or dst in ("fe80::/64", "ff00::/8"):
        return None
    metrics = message.get_attr("RTA_METRICS")
    via = message.get_attr("RTA_VIA") or {}
    return Route(
        dst=dst,
        gw=message.get_attr("RTA_GATEWAY") or via.get("addr", ""),
        link=message.get_attr("RTA_OIF") or 0,
        table=table,
        priority=message.get_attr("RTA_PRIORITY") or 0,
        scope=message["scope"],
        mtu=(metrics.get_attr("RTAX_MTU") or 0) if metrics else 0,
        advmss=(metrics.get_attr("RTAX_ADVMSS") or 0) if metrics else 0,
        by_kernel=message["proto"] == _KERNEL,
    )


def _rule(message: Any) -> str:
    names = ("FRA_PRIORITY", "FRA_SRC", "FRA_DST", "FRA_IIFNAME", "FRA_OIFNAME", "FRA_FWMARK", "FRA_TABLE")
    values = [f"{name[4:].lower()} {value}" for name in names if (value := message.get_attr(name)) is not None]
    return f"IPv{6 if message['family'] == socket.AF_INET6 else 4} " + " ".join(values)
