"""Mistakes in a CNI configuration by itself: pure functions over its values. Each mistake has its place.

The form is that of the specification (Section 1). The rules for address ranges are those of host-local and static, and
apply only if one of these is the ipam plugin: another plugin may use the same keys in another way.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.conformance.spec import VERSIONS
from harness.yamlfile import Loc, hint

Where = tuple[str | int, ...]
Complaints = Iterator[tuple[Where, str]]
Net = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Part:
    """One plugin of a configuration."""

    at: Where
    conf: dict[str, Any]

    @property
    def type(self) -> str:
        """The plugin's executable."""
        return str(self.conf["type"])

    @property
    def ipam(self) -> dict[str, Any]:
        """Its ipam section; empty if it has none."""
        found = self.conf.get("ipam")
        return found if isinstance(found, dict) else {}

    @property
    def types(self) -> Iterator[tuple[Where, str]]:
        """The executables that it needs, each with its place."""
        yield (*self.at, "type"), self.type
        if self.ipam.get("type"):
            yield (*self.at, "ipam", "type"), str(self.ipam["type"])


def malformed(conf: Any) -> Complaints:
    """Mistakes that make the whole configuration invalid."""
    if not isinstance(conf, dict):
        yield (), "expected a CNI configuration"
        return
    if not isinstance(conf.get("name"), str) or not conf["name"]:
        yield ("name",), "expected the network's name"
    plugins = conf.get("plugins", [conf])
    if not isinstance(plugins, list) or not plugins:
        yield ("plugins",), "expected a list of at least one plugin"
        return
    for index, part in enumerate(plugins):
        at: Where = ("plugins", index) if "plugins" in conf else ()
        if not isinstance(part, dict):
            yield at, "expected a mapping"
        elif not isinstance(part.get("type"), str) or not part["type"] or "/" in part["type"]:
            yield (*at, "type"), "expected the name of a plugin's executable"


def parts(conf: dict[str, Any]) -> list[Part]:
    """The plugins of a well-formed configuration."""
    if "plugins" not in conf:
        return [Part((), conf)]
    return [Part(("plugins", index), part) for index, part in enumerate(conf["plugins"])]


def wrong(conf: dict[str, Any]) -> Complaints:
    """Values of a well-formed configuration that plugins or their runtime do not accept."""
    if "cniVersion" in conf:
        yield from _version(conf["cniVersion"])
    for part in parts(conf):
        yield from _capabilities(part)
        if "ipam" in part.conf:
            yield from _ipam(part)
        for key in ("subnet", "gateway"):
            if isinstance(value := part.conf.get(key), str) and value[:1].isdecimal():
                yield from _readable(value, (*part.at, key), network=key == "subnet")


def _version(version: Any) -> Complaints:
    if not isinstance(version, str):
        yield ("cniVersion",), f"expected a text such as '1.0.0', got {version!r}"
    elif version not in VERSIONS:
        yield ("cniVersion",), f"no version of CNI is {version!r}{hint(version, VERSIONS)}"


def _capabilities(part: Part) -> Complaints:
    found, at = part.conf.get("capabilities", {}), (*part.at, "capabilities")
    if not isinstance(found, dict):
        yield at, "expected a mapping such as {portMappings: true}"
        return
    for name, on in found.items():
        if not isinstance(on, bool):
            yield (*at, name), f"expected true or false, got {on!r}"


def _ipam(part: Part) -> Complaints:
    at = (*part.at, "ipam")
    if not isinstance(part.conf["ipam"], dict):
        yield at, "expected a mapping with the type of an ipam plugin"
        return
    if not part.ipam:
        return  # an empty one: the interface gets no address
    if not isinstance(kind := part.ipam.get("type"), str) or not kind or "/" in kind:
        yield (*at, "type"), "expected the name of an ipam plugin's executable"
    elif kind == "host-local":
        yield from _host_local(part.ipam, at)
    elif kind == "static":
        yield from _static(part.ipam, at)
    if kind in ("host-local", "static"):
        yield from _routes(part.ipam.get("routes"), (*at, "routes"))


def _host_local(ipam: dict[str, Any], at: Where) -> Complaints:
    if "subnet" in ipam:
        yield from _range(ipam, at)
    elif "ranges" not in ipam:
        yield at, "expected a subnet, or ranges"
    sets = ipam.get("ranges", [])
    if not isinstance(sets, list) or not all(isinstance(each, list) and each for each in sets):
        yield (*at, "ranges"), "expected a list of lists of ranges, such as [[{subnet: 10.77.0.0/24}]]"
        return
    for outer, members in enumerate(sets):
        for inner, item in enumerate(members):
            where = (*at, "ranges", outer, inner)
            if isinstance(item, dict):
                yield from _range(item, where)
            else:
                yield where, "expected a mapping with a subnet"
        if len({net.version for item in members if (net := network(item))}) > 1:
            yield (*at, "ranges", outer), "expected ranges of one address family; another family has a list of its own"


def _range(item: dict[str, Any], at: Where) -> Complaints:
    """One range, by the rules of host-local."""
    subnet = item.get("subnet")
    net = network(item)
    if net is None:
        yield (*at, "subnet"), f"expected a subnet such as 10.77.0.0/24, got {subnet!r}{_why(subnet)}"
        return
    if net.num_addresses < 4:
        yield (*at, "subnet"), f"{subnet} has no address for a container: expected /{net.max_prefixlen - 2} or wider"
    found: dict[str, Address] = {}
    for key in ("rangeStart", "rangeEnd", "gateway"):
        if item.get(key) in (None, ""):
            continue
        address = _address(item[key])
        if address is None:
            yield (*at, key), f"expected an address, got {item[key]!r}"
        elif address not in net:
            yield (*at, key), f"{address} is not in the subnet {net}"
        else:
            found[key] = address
    start, end = found.get("rangeStart"), found.get("rangeEnd")
    if start and end and int(start) > int(end):
        yield (*at, "rangeEnd"), f"the range ends at {end}, before its start {start}"


def _static(ipam: dict[str, Any], at: Where) -> Complaints:
    addresses = ipam.get("addresses", [])
    if not isinstance(addresses, list):
        yield (*at, "addresses"), "expected a list such as [{address: 10.77.0.9/24}]"
        return
    for index, item in enumerate(addresses):
        value = item.get("address") if isinstance(item, dict) else item
        if not isinstance(value, str) or "/" not in value or interface(value) is None:
            yield (*at, "addresses", index), f"expected an address with its prefix length, got {value!r}"


def _routes(routes: Any, at: Where) -> Complaints:
    if routes is None:
        return
    if not isinstance(routes, list) or not all(isinstance(each, dict) for each in routes):
        yield at, "expected a list such as [{dst: 0.0.0.0/0}]"
        return
    for index, route in enumerate(routes):
        dst = route.get("dst")
        if not isinstance(dst, str) or "/" not in dst or interface(dst) is None:
            yield (*at, index, "dst"), f"expected a destination such as 0.0.0.0/0, got {dst!r}"
        if route.get("gw") and _address(route["gw"]) is None:
            yield (*at, index, "gw"), f"expected an address, got {route['gw']!r}"


def _readable(value: str, at: Where, *, network: bool) -> Complaints:
    if interface(value) is None or (network and "/" not in value):
        yield at, f"expected {'a subnet such as 10.77.0.0/24' if network else 'an address'}, got {value!r}"


def _why(subnet: Any) -> str:
    found = interface(subnet) if isinstance(subnet, str) and "/" in subnet else None
    return f": the network's address is {found.network}" if found else ""


def network(item: Any) -> Net | None:
    """The subnet of a range; None if it has none, or one with bits of a host."""
    try:
        subnet = item.get("subnet") if isinstance(item, dict) else None
        return ipaddress.ip_network(subnet) if isinstance(subnet, str) and "/" in subnet else None
    except ValueError:
        return None


def interface(value: Any) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface | None:
    """An address with or without a prefix length; None if it is invalid."""
    try:
        return ipaddress.ip_interface(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _address(value: Any) -> Address | None:
    found = interface(value)
    return found.ip if found and "/" not in value else None


def subnets(conf: dict[str, Any]) -> Iterator[tuple[Where, str]]:
    """The subnets and addresses for containers that the configuration shows."""
    for part in parts(conf):
        ipam, at = part.ipam, (*part.at, "ipam")
        found: list[tuple[Where, Any]] = [((*part.at, "subnet"), part.conf), ((*at, "subnet"), ipam)]
        for outer, members in enumerate(ipam["ranges"] if isinstance(ipam.get("ranges"), list) else []):
            for inner, item in enumerate(members if isinstance(members, list) else []):
                found.append(((*at, "ranges", outer, inner, "subnet"), item))
        yield from ((where, str(net)) for where, item in found if (net := network(item)))
        if ipam.get("type") == "static" and isinstance(ipam.get("addresses"), list):
            for index, item in enumerate(ipam["addresses"]):
                if isinstance(item, dict) and (found_at := interface(item.get("address"))):
                    yield (*at, "addresses", index), str(found_at.ip)


def covered(value: str, by: Loc) -> bool:
    """Whether a subnet or an address is in one of several subnets."""
    inner = ipaddress.ip_network(value, strict=False)
    for text in by:
        outer = ipaddress.ip_network(text, strict=False)
        if inner.version == outer.version and outer.supernet_of(inner):  # type: ignore[arg-type]
            return True
    return False
