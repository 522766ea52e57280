"""A pod's network namespace without a kernel: it has the routes that delegates report."""

from __future__ import annotations

import socket
from collections.abc import Container, Sequence
from typing import Self

from genie.cni.result import Result
from genie.kernel.netlink import INET, INET6, MAIN, Address, Change, KernelRoute, Rule
from genie.kernel.netns import Link


class FakeKernel:
    """A replacement for `Netlink`. log: the requests that change something, in order.

    unreported: routes that a plugin sets and does not report, by its interface. masters: the bridge or VRF that an
    interface belongs to. kinds: of interfaces, by index.
    """

    def __init__(self) -> None:
        self.indices: dict[str, int] = {}
        self.there: list[KernelRoute | Rule] = []
        self.addressed: list[Address] = []
        self.masters: dict[str, int] = {}
        self.kinds: dict[int, str] = {}
        self.unreported: dict[str, list[tuple[str, str]]] = {}
        self.asked: list[str] = []
        self.log: list[str] = []

    def attach(self, ifname: str, result: Result) -> None:
        """Apply a plugin's reported result in the pod."""
        index = self.indices.setdefault(ifname, len(self.indices) + 2)
        for ip in result.ips:
            address, _, prefix = ip.address.partition("/")
            packed = socket.inet_pton(INET6 if ip.is_v6 else INET, address)
            self.addressed.append(Address(ifindex=index, packed=packed, prefix=int(prefix)))
        listed = [(route.dst, route.gw) for route in result.routes if not route.table]
        for dst, gateway in [*listed, *self.unreported.get(ifname, [])]:
            family = INET6 if ":" in dst else INET
            near = next((ip.gateway for ip in result.ips if ip.gateway and ip.is_v6 == (family == INET6)), "")
            made = route(dst, gateway or near, index)
            if not any(isinstance(one, KernelRoute) and one.place == made.place for one in self.there):
                self.there.append(made)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def enter(self) -> None:
        pass

    def links(self) -> dict[str, Link]:
        self.asked.append("links")
        return {
            name: Link(ifindex=at, mac=f"02:00:00:00:01:{at:02x}", mtu=1400, master=self.masters.get(name, 0))
            for name, at in self.indices.items()
        }

    def of_kind(self, kind: str) -> frozenset[int]:
        return frozenset(index for index, of in self.kinds.items() if of == kind)

    def routes(self, family: int, tables: Container[int] = (MAIN,)) -> list[KernelRoute]:
        return [
            one for one in self.there if isinstance(one, KernelRoute) and one.family == family and one.table in tables
        ]

    def addresses(self) -> list[Address]:
        return self.addressed

    def rules(self, family: int) -> list[Rule]:
        return [one for one in self.there if isinstance(one, Rule) and one.family == family]

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self.log.append(str(change))
            if change.add:
                self.there.append(change.what)
            else:
                self.there.remove(change.what)

    def main(self) -> list[str]:
        """The main table."""
        return [str(route) for family in (INET, INET6) for route in self.routes(family)]


def route(dst: str, gateway: str, index: int) -> KernelRoute:
    """A route of the main table."""
    family = INET6 if ":" in dst else INET
    address, _, prefix = dst.partition("/")
    packed = socket.inet_pton(family, address) if int(prefix) else b""
    by = socket.inet_pton(family, gateway) if gateway else b""
    return KernelRoute.to(family, packed, int(prefix), oif=index, gateway=by)
