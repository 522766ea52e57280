"""A plugin's result of ADD, in one form for all versions.

The form is that of 1.1.0, the richest. `parse` reads any version into it. `to_json` writes it as any version and drops
fields that the version does not have. `merge` combines the results of several networks. Addresses are checked but kept
as the same strings, so that they are written as they were read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from genie.cni import version as versions
from genie.cni.errors import CniError, Code
from genie.cni.fields import Fields, is_address, is_cidr, undecodable

MOST = {"interfaces": 128, "ips": 64, "routes": 256, "nameservers": 64, "search": 64, "options": 64}
"""The limit for each list of one result, in entries. A plugin's lists often come from a user's configuration, and the
process that reads them has other pods to serve.
"""


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface that the attachment made, in the container or on the host (section 5, `interfaces`).

    mac: as the plugin wrote it. sandbox: CNI_NETNS if it is in the container, "" on the host. mtu: bytes, 0 if
    not reported. socket_path, pci_id: "" if not applicable.
    """

    name: str
    mac: str = ""
    sandbox: str = ""
    mtu: int = 0
    socket_path: str = ""
    pci_id: str = ""


@dataclass(frozen=True, slots=True)
class IP:
    """An address (section 5, `ips`): "10.1.2.3/24", its gateway or "", its index in `interfaces`."""

    address: str
    gateway: str = ""
    interface: int | None = None

    @property
    def is_v6(self) -> bool:
        return ":" in self.address

    @property
    def plain(self) -> str:
        """The address without its prefix length."""
        return self.address.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Route:
    """A route (section 5, `routes`).

    dst: CIDR. gw: "" if the gateway in `ips` is meant. mtu, advmss: bytes, 0 if not reported. priority: lower
    wins. table: number. scope: 0 global, 253 link, 254 host.
    """

    dst: str
    gw: str = ""
    mtu: int = 0
    advmss: int = 0
    priority: int | None = None
    table: int | None = None
    scope: int | None = None

    @property
    def is_v6(self) -> bool:
        return ":" in self.dst

    @property
    def is_default(self) -> bool:
        """Whether it is a default route of the main table."""
        return not self.table and self.dst.endswith("/0")


@dataclass(frozen=True, slots=True)
class DNS:
    """The network's DNS settings (section 5, `dns`)."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


_DNS_LISTS = ("nameservers", "search", "options")


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of an ADD (section 5, "ADD Success")."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IP, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: DNS = DNS()


def check_length(data: object) -> None:
    """Refuse a decoded result with lists longer than `MOST`, before any entry is read. Raises CniError
    (DECODING_FAILURE).
    """
    if not isinstance(data, dict):
        return
    for part in (data, data.get("ip4"), data.get("ip6"), data.get("dns")):
        for key, entries in part.items() if isinstance(part, dict) else ():
            if isinstance(entries, list) and len(entries) > MOST.get(key, len(entries)):
                raise undecodable("result", f"{key}: {len(entries)} entries, of at most {MOST[key]}")


def parse(data: object, version: str | None = None) -> Result:
    """Read a result of any version.

    data: the decoded JSON. It is read by its `cniVersion`. version: used if there is no such field: the version
    of the request to the plugin, by default 0.1.0. A result with `ip4` or `ip6` always has 0.2.0's form.

    Strict about types, tolerant of unknown keys. Raises CniError: INCOMPATIBLE_VERSION for an unknown
    version, otherwise DECODING_FAILURE with the field. An `interface` index beyond the list, or below 0 (as
    CNI's library 0.5 writes it), becomes None. So do other numbers below 0.
    """
    top = Fields(data, "result", undecodable)
    spoken = top.string("cniVersion")
    if not spoken:
        old = isinstance(data, dict) and ("ip4" in data or "ip6" in data)
        spoken = "0.2.0" if old else version or versions.UNDECLARED
    if spoken not in versions.SUPPORTED:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"result: cniVersion: expected one of {', '.join(versions.SUPPORTED)}, found {spoken!r}",
        )
    if not versions.at_least(spoken, versions.CHAINED):
        return _parse_old(top)
    interfaces = tuple(map(_parse_interface, top.objects("interfaces")))
    return Result(
        interfaces=interfaces,
        ips=tuple(_parse_ip(ip, len(interfaces)) for ip in top.objects("ips")),
        routes=parse_routes(top, "routes"),
        dns=_parse_dns(top),
    )


def parse_routes(read: Fields, key: str) -> tuple[Route, ...]:
    """A list of routes (section 5, `routes`). Raises CniError (DECODING_FAILURE), made by `read`."""
    return tuple(map(_parse_route, read.objects(key)))


def to_json(result: Result, version: str) -> dict[str, Any]:
    """Write a result in the form of `version`, without fields that the version does not have.

    0.1.0 and 0.2.0: the first address of each family with that family's routes, no interfaces. 0.3.0 to
    0.4.0: with the address's "version", interfaces by name, mac and sandbox alone. The same losses as in
    libcni, which writes 1.1.0's additional fields in 1.0.0 too.

    Raises CniError: INCOMPATIBLE_VERSION for an unknown version; DECODING_FAILURE for a result without an
    address in 0.1.0 or 0.2.0, which require one.
    """
    if version not in versions.SUPPORTED:
        raise CniError(Code.INCOMPATIBLE_VERSION, f"no result can be written as version {version!r}")
    if not versions.at_least(version, versions.CHAINED):
        return _old_json(result, version)
    rich = versions.at_least(version, "1.0.0")
    return _without_empty(
        {
            "cniVersion": version,
            "interfaces": [_interface_json(interface, rich) for interface in result.interfaces],
            "ips": [_ip_json(ip, rich) for ip in result.ips],
            "routes": [route_json(route) for route in result.routes],
            "dns": dns_json(result.dns),
        }
    )


def merge(results: Sequence[Result]) -> Result:
    """Combine the results of several networks into one, in their order.

    Interfaces are joined, and the index of each address is adjusted. Addresses and routes are joined in order.
    Name servers, search domains and options are joined without duplicates. The domain is the first one given.
    """
    interfaces: list[Interface] = []
    ips: list[IP] = []
    for result in results:
        base = len(interfaces)
        interfaces += result.interfaces
        for ip in result.ips:
            ips.append(ip if ip.interface is None or not base else replace(ip, interface=base + ip.interface))
    return Result(
        interfaces=tuple(interfaces),
        ips=tuple(ips),
        routes=tuple(route for result in results for route in result.routes),
        dns=DNS(
            domain=next((result.dns.domain for result in results if result.dns.domain), ""),
            **{key: _joined(getattr(result.dns, key) for result in results) for key in _DNS_LISTS},
        ),
    )


def _joined(lists: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(entry for entries in lists for entry in entries))


# Reading


def _cidr(read: Fields, key: str) -> str:
    value = read.string(key)
    if not is_cidr(value):
        raise read.wrong(key, "an address like 10.1.2.3/24")
    return value


def _gateway(read: Fields, key: str) -> str:
    value = read.string(key)
    if value and not is_address(value):
        raise read.wrong(key, "an address like 10.1.2.1")
    return value


def _parse_interface(read: Fields) -> Interface:
    return Interface(
        name=read.string("name"),
        mac=read.string("mac"),
        sandbox=read.string("sandbox"),
        mtu=read.count("mtu") or 0,
        socket_path=read.string("socketPath"),
        pci_id=read.string("pciID"),
    )


def _parse_ip(read: Fields, interfaces: int) -> IP:
    index = read.count("interface")
    return IP(
        address=_cidr(read, "address"),
        gateway=_gateway(read, "gateway"),
        interface=index if index is not None and index < interfaces else None,
    )


def _parse_route(read: Fields) -> Route:
    return Route(
        dst=_cidr(read, "dst"),
        gw=_gateway(read, "gw"),
        mtu=read.count("mtu") or 0,
        advmss=read.count("advmss") or 0,
        priority=read.count("priority"),
        table=read.count("table"),
        scope=read.count("scope"),
    )


def _parse_dns(top: Fields) -> DNS:
    read = top.inner("dns")
    return DNS(domain=read.string("domain"), **{key: read.strings(key) for key in _DNS_LISTS})


def _parse_old(top: Fields) -> Result:
    """0.1.0 and 0.2.0: `ip4` and `ip6`, each with an `ip`, a `gateway` and `routes`."""
    ips: list[IP] = []
    routes: list[Route] = []
    for field in ("ip4", "ip6"):
        if top.data.get(field) is None:
            continue
        read = top.inner(field)
        ip = IP(address=_cidr(read, "ip"), gateway=_gateway(read, "gateway"))
        if ip.is_v6 != (field == "ip6"):
            raise read.wrong("ip", f"an IPv{field[-1]} address")
        ips.append(ip)
        routes += parse_routes(read, "routes")
    return Result(ips=tuple(ips), routes=tuple(routes), dns=_parse_dns(top))


# Writing


def _without_empty(data: dict[str, Any]) -> dict[str, Any]:
    """Leave out empty values: "", None, empty lists and objects, and 0 unless a 0 has a meaning."""
    return {key: value for key, value in data.items() if value or (value == 0 and key in _ZERO_SPEAKS)}


_ZERO_SPEAKS = frozenset({"interface", "priority", "table", "scope"})


def _interface_json(interface: Interface, rich: bool) -> dict[str, Any]:
    more = {"socketPath": interface.socket_path, "pciID": interface.pci_id, "mtu": interface.mtu} if rich else {}
    return {"name": interface.name} | _without_empty({"mac": interface.mac, "sandbox": interface.sandbox, **more})


def _ip_json(ip: IP, rich: bool) -> dict[str, Any]:
    family = {} if rich else {"version": "6" if ip.is_v6 else "4"}
    return family | _without_empty({"interface": ip.interface, "address": ip.address, "gateway": ip.gateway})


def route_json(route: Route) -> dict[str, Any]:
    """An entry of `routes`, the same in every version, without empty fields."""
    return _without_empty({name: getattr(route, name) for name in Route.__slots__})


def dns_json(dns: DNS) -> dict[str, Any]:
    """`dns`, the same in every version, without empty fields."""
    return _without_empty({"domain": dns.domain, **{key: list(getattr(dns, key)) for key in _DNS_LISTS}})


def _old_json(result: Result, version: str) -> dict[str, Any]:
    written: dict[str, Any] = {"cniVersion": version}
    for field, is_v6 in (("ip4", False), ("ip6", True)):
        ip = next((ip for ip in result.ips if ip.is_v6 == is_v6), None)
        if ip is not None:
            routes = [{"dst": route.dst, "gw": route.gw} for route in result.routes if route.is_v6 == is_v6]
            written[field] = _without_empty(
                {"ip": ip.address, "gateway": ip.gateway, "routes": list(map(_without_empty, routes))}
            )
    if "ip4" not in written and "ip6" not in written:
        raise CniError(Code.DECODING_FAILURE, f"a result without an address cannot be written as version {version}")
    return written | _without_empty({"dns": dns_json(result.dns)})
