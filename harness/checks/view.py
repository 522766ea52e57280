"""The view of a check: the scenario's pods on a cluster, read again each time, and the networks of addresses.

A check uses only a `View`. It returns a pod's object from the API server, the reports of the probe in the pod (`look`,
`dial`), and the network of an address. It also does the waiting, so no check sleeps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_address, ip_interface, ip_network
from typing import Any, Protocol

from harness.contract import Cluster, ProbeError
from harness.objects import Objects
from harness.waiting import until_nothing

Subnet = IPv4Network | IPv6Network
Address = IPv4Interface | IPv6Interface

MAIN_TABLE = 254

# Devices that the kernel puts into every network namespace once their module is loaded.
_FALLBACK_DEVICES = frozenset(
    {"tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0", "lo"}
)


@dataclass(frozen=True, kw_only=True)
class Interface:
    """An interface in a pod."""

    name: str
    mac: str
    mtu: int
    up: bool
    kind: str
    addresses: tuple[Address, ...]  # without link-local ones


@dataclass(frozen=True, kw_only=True)
class Route:
    """A route in a pod."""

    dst: str
    gw: str | None
    dev: str
    table: int
    src: str | None
    family: int

    def __str__(self) -> str:
        table = f" table {self.table}" if self.table != MAIN_TABLE else ""
        return f"{self.dst}{f' via {self.gw}' if self.gw else ''} dev {self.dev}{table}"


@dataclass(frozen=True, kw_only=True)
class Look:
    """The report of the probe in a pod."""

    pod: str
    interfaces: tuple[Interface, ...]
    routes: tuple[Route, ...]
    rules: tuple[str, ...]

    @classmethod
    def of(cls, pod: str, answer: Mapping[str, Any]) -> Look:
        """From the probe's answer."""
        return cls(
            pod=pod,
            interfaces=tuple(
                Interface(
                    name=each["name"],
                    mac=each["mac"],
                    mtu=each["mtu"],
                    up=each["up"],
                    kind=each["kind"],
                    addresses=tuple(
                        address for address in map(ip_interface, each["addresses"]) if not address.is_link_local
                    ),
                )
                for each in answer["interfaces"]
            ),
            routes=tuple(
                Route(**{key: each[key] for key in ("dst", "gw", "dev", "table", "src", "family")})
                for each in answer["routes"]
            ),
            rules=tuple(
                f"from {each['from']} lookup {each['table']}"
                for each in answer["rules"]
                if each["table"] not in (253, MAIN_TABLE, 255)
            ),
        )

    @property
    def attached(self) -> dict[str, Interface]:
        """The interfaces by name, without those that the kernel always makes."""
        return {each.name: each for each in self.interfaces if each.name not in _FALLBACK_DEVICES}

    def default_routes(self, family: int) -> list[Route]:
        """Default routes of the main table."""
        return [
            route
            for route in self.routes
            if route.dst == "default" and route.family == family and route.table == MAIN_TABLE
        ]


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event about a pod."""

    type: str
    reason: str
    message: str
    count: int

    def __str__(self) -> str:
        return f"{self.type} {self.reason}{f' (×{self.count})' if self.count > 1 else ''}: {self.message}"


_ID = re.compile(r"\b[0-9a-f]{64}\b")


def events_about(objects: Objects, namespace: str, name: str) -> list[Event]:
    """The events about a pod. Events that differ only in a sandbox's ID count as one: each retry has a new ID."""
    listed = objects.get(f"/api/v1/namespaces/{namespace}/events").get("items") or []
    found: dict[tuple[str, str, str], int] = {}
    for each in listed:
        if (each.get("involvedObject") or each.get("regarding") or {}).get("name") == name:
            message = _ID.sub("…", str(each.get("message") or each.get("note") or ""))
            key = str(each.get("type") or ""), str(each.get("reason") or ""), message
            found[key] = found.get(key, 0) + int(each.get("count") or (each.get("series") or {}).get("count") or 1)
    return [Event(type=key[0], reason=key[1], message=key[2], count=count) for key, count in found.items()]


class Leftovers(Protocol):
    """Leftovers of this scenario on the nodes (see `harness.run.leaks`)."""

    def note(self, addresses: Iterable[str]) -> None:
        """Note the scenario's running pods and their addresses."""

    def left(self) -> list[str]:
        """One line for each present leftover."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A scenario on a cluster, for checks."""

    cluster: Cluster
    objects: Objects
    namespace: str
    networks: Mapping[str, tuple[Subnet, ...]]
    leftovers: Leftovers
    values: Mapping[str, str]  # values of `{{ … }}` in expected values
    hurry: float = 1.0  # factor for every deadline; tests shorten them
    names: Mapping[str, str] = field(default_factory=dict)  # pods that have another name on the API server
    figures: dict[str, tuple[float, str]] = field(default_factory=dict)  # measured, with units; for the report

    # --- waiting

    def until(
        self, attempt: Callable[[], str | None], within: float, hopeless: Callable[[object], bool] = lambda _: False
    ) -> str | None:
        """Repeat `attempt` until it returns nothing, the time is over or `hopeless` is true; returns its last
        failure."""

        def look() -> str | None:
            try:
                return attempt()
            except ProbeError as error:
                return f"a probe could not be asked: {error}"

        return until_nothing(look, within * self.hurry, hopeless=hopeless)

    # --- asking

    def name(self, pod: str) -> str:
        """The name of a pod of the scenario on the API server."""
        return self.names.get(pod, pod)

    def path(self, pod: str = "") -> str:
        """The API server's path of a pod of the scenario, or of all pods."""
        pods = f"/api/v1/namespaces/{self.namespace}/pods"
        return f"{pods}/{self.name(pod)}" if pod else pods

    def pod(self, name: str) -> dict[str, Any] | None:
        """The pod as the API server has it."""
        return self.objects.find(self.path(name))

    def annotations(self, name: str) -> dict[str, str]:
        """A pod's annotations; empty if the pod does not exist."""
        return dict(((self.pod(name) or {}).get("metadata") or {}).get("annotations") or {})

    def events(self, name: str) -> list[Event]:
        """The events about a pod, as the API server lists them."""
        return events_about(self.objects, self.namespace, self.name(name))

    def ask(self, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of the probe in a pod; see `harness.probe`.

        Raises ProbeError: it cannot be asked.
        """
        return self.cluster.ask(self.namespace, self.name(name), request)

    def look(self, name: str) -> Look:
        """The report of the probe in a pod.

        Raises ProbeError: it cannot be asked.
        """
        answer = self.ask(name, {"op": "look"})
        if "interfaces" not in answer:
            raise ProbeError(f"{name}: {answer.get('error') or answer}")
        return Look.of(name, answer)

    def dial(self, name: str, **request: Any) -> dict[str, Any]:
        """One connection attempt from a pod; see `harness.probe`."""
        wanted = {key: value for key, value in request.items() if value is not None}
        answer = self.ask(name, {"op": "dial", **wanted})
        return {"ok": False, "seen_as": "", "name": "", "peer": "", "error": "", **answer}

    def all_at_once(self, asks: Iterable[Callable[[], dict[str, Any]]]) -> list[dict[str, Any]]:
        """The answers to several attempts, made at the same time because each may take its full time."""
        asks = list(asks)
        if len(asks) < 2:
            return [ask() for ask in asks]
        with ThreadPoolExecutor(max_workers=min(8, len(asks))) as pool:
            return list(pool.map(lambda ask: ask(), asks))

    # --- networks

    def belongs(self, address: Address | str, network: str) -> bool:
        ip = address.ip if isinstance(address, IPv4Interface | IPv6Interface) else ip_address(address)
        return any(ip in subnet for subnet in self.networks[network] if subnet.version == ip.version)

    def network_of(self, address: Address | str) -> str:
        """The network of an address; empty if it is in none of the scenario's networks."""
        return next((name for name in self.networks if self.belongs(address, name)), "")

    def addresses(self, look: Look, network: str, family: int | None = None) -> list[Address]:
        """A pod's addresses in a network, in the order of its interfaces."""
        return [
            address
            for interface in look.attached.values()
            for address in interface.addresses
            if self.belongs(address, network) and family in (None, address.version)
        ]

    # --- words

    def describe(self, *looks: Look, networks: Iterable[str] = ()) -> str:
        """The pods' real interfaces and addresses and the networks' subnets, for the end of a failure's text."""
        lines = [line for look in looks for line in self._pod_lines(look)]
        names = list(dict.fromkeys(networks))
        if names:
            lines.append("networks here:")
            lines += [f"  {name}: {', '.join(map(str, self.networks[name])) or 'no subnet'}" for name in names]
        return "\n".join(lines)

    def _pod_lines(self, look: Look) -> list[str]:
        lines = [f"{look.pod} has:"]
        for interface in look.attached.values():
            addresses = ", ".join(f"{each}{self._of(each)}" for each in interface.addresses) or "no address"
            lines.append(f"  {interface.name} {'up' if interface.up else 'DOWN'}, {addresses}")
        if not look.attached:
            lines.append("  no interface but lo")
        lines += [f"  route {route}" for route in look.routes if not route.dst.startswith("fe80")]
        lines += [f"  rule {rule}" for rule in look.rules]
        return lines

    def _of(self, address: Address) -> str:
        network = self.network_of(address)
        return f" ({network})" if network else " (in no network of this scenario)"


def subnets(texts: Iterable[str]) -> tuple[Subnet, ...]:
    return tuple(ip_network(text, strict=False) for text in texts)
