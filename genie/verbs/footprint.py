"""The routes that a network's plugins set in the pod, as far as its configuration shows them. Pure.

Two delegates that work in one pod at the same time must not set routes that collide ("file exists"), or routes that the
kernel would use to reach the other's gateway. So networks may be attached at the same time if their footprints are
known and do not overlap. The others are attached one by one, with earlier routes taken away (see kernel/routes.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from genie.cni.config import NetworkConfig

Footprint = tuple[IPv4Network | IPv6Network, ...]
"""Destinations of routes, without routes that the kernel makes for an address: these never collide."""

MOST = 16
"""The limit for the destinations of one network; with more, it counts as unknown. Definitions are users', and each
destination is compared with those of the pod's other networks.
"""

MOST_TOGETHER = 64
"""The limit for the destinations of the networks that are attached at the same time."""

DEFAULTS: Footprint = (ip_network("0.0.0.0/0"), ip_network("::/0"))

#: Reference plugins that set the routes of their ipam, and those that set none.
PLAIN = frozenset({"bridge", "macvlan", "ipvlan", "host-device", "vlan", "tap", "dummy"})
NOTHING = frozenset({"tuning", "bandwidth", "portmap", "firewall"})


def footprint(network: NetworkConfig) -> Footprint | None:
    """A network's footprint; None if it is unknown, as for all plugins except the reference ones."""
    found: list[IPv4Network | IPv6Network] = []
    for plugin in network.plugins:
        if plugin["type"] in NOTHING:
            continue
        try:
            found += _of_plugin(plugin)
        except (ValueError, TypeError, AttributeError, LookupError):
            return None
    return tuple(found)


def _of_plugin(plugin: Mapping[str, Any]) -> Iterable[IPv4Network | IPv6Network]:
    """Raises ValueError when the routes cannot be known; a malformed configuration may raise TypeError, AttributeError
    or LookupError.
    """
    ipam = plugin.get("ipam") or {}
    if plugin["type"] not in (*PLAIN, "ptp") or (ipam and ipam.get("type") not in ("host-local", "static")):
        raise ValueError
    found = [ip_network(route["dst"], strict=False) for route in _few(ipam.get("routes") or ())]
    if plugin.get("isDefaultGateway"):
        found += DEFAULTS
    if plugin["type"] == "ptp":  # it sets the route to its subnet by its gateway
        if ipam.get("type") != "host-local" or (plugin.get("capabilities") or {}).get("ipRanges"):
            raise ValueError
        ranges = [
            *([ipam] if ipam.get("subnet") else []),
            *(one for each in _few(ipam.get("ranges") or ()) for one in _few(each)),
        ]
        found += [ip_network(one["subnet"], strict=False) for one in ranges]
        gateways = [ip_network(one["gateway"]) for one in ranges if one.get("gateway")]
        found += [gateway for gateway in gateways if all(_apart([gateway], [other]) for other in found)]
    return found


def _few(entries: Any) -> Any:
    """The list, if it is short. Raises ValueError."""
    if len(entries) > MOST:
        raise ValueError
    return entries


def at_once(first: Footprint | None, others: Sequence[Footprint | None]) -> list[int]:
    """Positions of the networks that may be attached at the same time: without overlap with the first or each other."""
    chosen: list[int] = []
    taken = first
    for position, one in enumerate(others):
        if one == () or (one is not None and taken is not None and _fits(one, taken)):
            chosen.append(position)
            taken = None if taken is None else (*taken, *one)
    return chosen


def _fits(one: Footprint, taken: Footprint) -> bool:
    return len(one) + len(taken) <= MOST_TOGETHER and _apart(one, taken)


def _apart(one: Iterable[IPv4Network | IPv6Network], two: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Whether the footprints have no common destination; a default route collides only with another one."""
    return not any(
        (a == b) if 0 in (a.prefixlen, b.prefixlen) else a.overlaps(b)
        for a in one
        for b in two
        if a.version == b.version
    )
