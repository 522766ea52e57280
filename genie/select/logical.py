"""Logicalnetworks and their Physicalnetworks (alpha.network.k8s.io/v1; CNI-Genie, "Network Isolation").

A Logicalnetwork names a network of the node, by its plugin, and changes its configuration: another subnet in its ipam,
another interface of the node to run over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from genie.cni.config import NetworkConfig
from genie.cni.errors import CniError, Code
from genie.cni.fields import Fields, invalid
from genie.kube import Kube

#: Plugins that take the node's interface from a key of their own.
UNDERLAY_KEY = {"macvlan": "master", "ipvlan": "master", "vlan": "master", "host-device": "device", "sriov": "master"}
#: The ipam of plugins that have a default one, used when the configuration names none.
OWN_IPAM = {"weave-net": "weave-ipam"}
#: The keys that genie reads in the specification of a Logicalnetwork, and of a Physicalnetwork.
KEYS = ("physicalNet", "plugin", "sub_subnet", "sharedStatus", "refer_nic")


@dataclass(frozen=True, kw_only=True)
class Logical:
    """A Logicalnetwork and its Physicalnetwork, resolved.

    plugin: the network of the node to use. subnet: "" keeps that network's own. within: the subnet that must contain
    it, "" for no limit. interface: the node's interface to run over, "" for the network's own. where: for messages.
    """

    where: str
    plugin: str
    subnet: str
    within: str
    interface: str

    def over(self, network: NetworkConfig) -> NetworkConfig:
        """The network's configuration with the subnet and the interface written into it.

        Raises CniError: 7; the subnet is malformed, or outside the physical network's.
        """
        changed = with_subnet(network, self.subnet, within=self.within, where=self.where)
        return with_underlay(changed, self.interface)


async def read(kube: Kube, namespace: str, name: str) -> Logical:
    """Read a Logicalnetwork, and the Physicalnetwork that it names, if any.

    Raises CniError: 7; one of them is missing or contradicts itself.
    """
    logical = await _spec(kube, "LogicalNetwork", namespace, name)
    plugin, subnet = logical.word("plugin"), logical.word("sub_subnet")
    physical, is_dedicated = Logical(where="", plugin="", subnet="", within="", interface=""), False
    if physical_name := logical.word("physicalNet"):
        physical, is_dedicated = await read_physical(kube, namespace, physical_name)
    if is_dedicated and plugin and physical.plugin and plugin != physical.plugin:
        raise invalid(logical.where, f"plugin: {plugin!r}, but {physical.where} is dedicated to {physical.plugin!r}")
    if not (plugin or physical.plugin):
        raise invalid(logical.where, "expected plugin, or physicalNet with one that has a plugin")
    return replace(
        physical, where=logical.where, plugin=plugin or physical.plugin, subnet=subnet or physical.subnet
    )  # fmt: skip


async def read_physical(kube: Kube, namespace: str, name: str) -> tuple[Logical, bool]:
    """A Physicalnetwork, as a Logicalnetwork that has the whole of it, and whether it is dedicated to its plugin.

    Raises CniError: 7; there is none, or it is malformed.
    """
    physical = await _spec(kube, "PhysicalNetwork", namespace, name)
    shared, interface = physical.inner("sharedStatus"), physical.word("refer_nic")
    if interface and not re.fullmatch(r"[^\s/:]{1,15}", interface):
        raise invalid(physical.where, f"refer_nic: expected the name of an interface, found {interface!r}")
    whole = shared.word("subnet")
    found = Logical(
        where=physical.where, plugin=shared.word("plugin"), subnet=whole, within=whole, interface=interface
    )  # fmt: skip
    return found, shared.data.get("dedicatedNet") is True


async def _spec(kube: Kube, kind: str, namespace: str, name: str) -> Fields:
    where = f"{kind.capitalize()} {namespace}/{name}"
    found = await kube.network(kind, namespace, name, needed=True)
    spec = found.get("spec") if found else None
    if found is None or not isinstance(spec, dict):
        raise CniError(Code.INVALID_CONFIG, f"there is no {where} with a spec (alpha.network.k8s.io/v1)")
    return Fields(spec, where)


def with_subnet(network: NetworkConfig, subnet: str, *, within: str = "", where: str = "") -> NetworkConfig:
    """The network with another subnet in its first plugin's ipam. The old subnet's ranges, gateways and routes go.

    Raises CniError: 7; the subnet is malformed, or outside `within`.
    """
    if not subnet:
        return network
    import ipaddress

    for each in filter(None, (subnet, within)):
        if not re.fullmatch(r"[0-9A-Fa-f:.]+/(0|[1-9][0-9]{0,2})", each):
            raise invalid(where, f"subnet: expected a subnet like 10.40.96.0/24, found {each!r}")
    try:
        inner, outer = ipaddress.ip_network(subnet, strict=False), ipaddress.ip_network(within or subnet, strict=False)
    except ValueError as error:
        raise invalid(where, f"subnet: {error}") from error
    if inner.version != outer.version or not inner.subnet_of(outer):  # type: ignore[arg-type]
        raise invalid(where, f"sub_subnet {subnet} is not within the physical network's {within}")
    first, *others = network.plugins
    ipam: Any = first.get("ipam")
    ipam = ipam if isinstance(ipam, dict) else {}
    own = {"type": OWN_IPAM.get(first["type"], "host-local")}
    kept = {key: value for key, value in ipam.items() if key not in ("ranges", "rangeStart", "rangeEnd", "gateway")}
    if isinstance(routes := ipam.get("routes"), list):
        kept["routes"] = [_moved(route, inner) for route in routes if _same_family(route, inner)]
    changed = {**first, "ipam": {**own, **kept, "subnet": str(inner)}}
    if first["type"] == "bridge" and ipam.get("subnet") != str(inner):
        changed["bridge"] = _bridge_of(inner)
    return replace(network, plugins=(changed, *others))


def overlap(one: str, other: str) -> bool:
    """Whether two subnets have an address in common; False for "" and for text that is no subnet."""
    import ipaddress

    try:
        first, second = (ipaddress.ip_network(each, strict=False) for each in (one, other))
    except ValueError:
        return False
    return first.version == second.version and first.overlaps(second)


def _bridge_of(subnet: Any) -> str:
    """The name of the bridge for one logical network. A bridge shared with another subnet has no place for this one's
    gateway, and would not separate the two networks.
    """
    import zlib

    return f"genie-{zlib.crc32(str(subnet).encode()):08x}"


def _same_family(route: Any, subnet: Any) -> bool:
    return isinstance(route, dict) and (":" in str(route.get("dst"))) == (subnet.version == 6)


def _moved(route: Mapping[str, Any], subnet: Any) -> Mapping[str, Any]:
    """The route without a gateway of the old subnet; the new subnet's gateway is used."""
    import ipaddress

    try:
        stays = ipaddress.ip_address(route.get("gw", "")) in subnet
    except ValueError:
        stays = False
    return route if stays else {key: value for key, value in route.items() if key != "gw"}


def with_underlay(network: NetworkConfig, interface: str) -> NetworkConfig:
    """The network with this interface of the node written into every plugin that takes one."""
    if not interface:
        return network
    plugins = tuple(
        {**plugin, UNDERLAY_KEY[plugin["type"]]: interface} if plugin["type"] in UNDERLAY_KEY else plugin
        for plugin in network.plugins
    )
    return replace(network, plugins=plugins)
