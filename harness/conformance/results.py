"""Results of all versions in one form, for comparisons with the kernel."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from harness.conformance.call import Json


@dataclass(frozen=True, kw_only=True)
class Interface:
    """An interface in a result."""

    name: str
    mac: str
    mtu: int
    sandbox: str


@dataclass(frozen=True, kw_only=True)
class Ip:
    """An address in a result."""

    cidr: str
    gateway: str
    interface: int | None


@dataclass(frozen=True, kw_only=True)
class Result:
    """The well-formed parts of a result; `wellformed` reports the others."""

    interfaces: tuple[Interface, ...]
    ips: tuple[Ip, ...]
    routes: tuple[Json, ...]
    dns: Json


def parse(result: Json) -> Result:
    """A result of any version."""
    old = [part for key in ("ip4", "ip6") if isinstance(part := result.get(key), dict)]
    ips = [{"address": part.get("ip"), "gateway": part.get("gateway")} for part in old]
    routes = [route for part in old for route in _objects(part.get("routes"))]
    return Result(
        interfaces=tuple(_interface(item) for item in _objects(result.get("interfaces"))),
        ips=tuple(_ip(item) for item in [*ips, *_objects(result.get("ips")), *_objects(result.get("ip"))]),
        routes=(*routes, *_objects(result.get("routes"))),
        dns=result["dns"] if isinstance(result.get("dns"), dict) else {},
    )


def _objects(value: Any) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _interface(item: Json) -> Interface:
    return Interface(
        name=str(item.get("name") or ""),
        mac=str(item.get("mac") or "").lower(),
        mtu=item["mtu"] if isinstance(item.get("mtu"), int) else 0,
        sandbox=str(item.get("sandbox") or ""),
    )


def _ip(item: Json) -> Ip:
    index = item.get("interface")
    return Ip(
        cidr=cidr(item.get("address")),
        gateway=address(item.get("gateway")),
        interface=index if isinstance(index, int) and not isinstance(index, bool) else None,
    )


def cidr(value: Any) -> str:
    """An address with its prefix in the kernel's notation; empty if it is invalid."""
    try:
        return str(ipaddress.ip_interface(value)) if isinstance(value, str) else ""
    except ValueError:
        return ""


def address(value: Any) -> str:
    """An address in the kernel's notation; as it is if it is invalid, empty if there is none."""
    try:
        return str(ipaddress.ip_address(value)) if isinstance(value, str) else ""
    except ValueError:
        return str(value)


def destination(value: Any) -> str:
    """A route's destination in the kernel's notation; empty if it is invalid."""
    try:
        return str(ipaddress.ip_network(value, strict=False)) if isinstance(value, str) else ""
    except ValueError:
        return ""
