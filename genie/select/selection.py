"""A pod's requests and each network's configuration in, an ordered selection out. Pure.

The decision has two halves. Between them networks.py looks up the networks that the annotations name:

    annotations.asks(pod, conf)  annotations → `Ask`s in order: the default networks, then the rest
    assemble(asked, found)       each with its configuration → `Selection`: interface names, arguments, default route
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from genie.cni.config import IFNAME_IS, NetworkConfig, is_ifname
from genie.select.annotations import Ask, Asked, SelectionError

#: Interface names that the kernel uses itself: the loopback, and entries of /proc/sys/net/ipv4/conf.
RESERVED_IFNAMES = {
    "lo": "the pod's loopback",
    "all": "the kernel's name for all interfaces",
    "default": "the kernel's name for the defaults of new interfaces",
}

#: The capability of a plugin that reads or writes device information (device-info specification, 5.1).
DEVICE_INFO_FILE = "CNIDeviceInfoFile"

#: Plugins that replace a pod's first attachment by its second: calico identifies an endpoint by its pod alone, not by
#: interface or container ID.
ONCE = frozenset({"calico"})


@dataclass(frozen=True, kw_only=True)
class Found:
    """One network as it was looked up. label: its name in the status and in errors: "calico", "ns/name". resource: the
    network runs over a device of it; "" for none. length: characters of its definition's configuration.
    """

    network: NetworkConfig
    label: str
    resource: str = ""
    length: int = 0


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One network of a selection, with its interface and its plugins' arguments.

    dropped: capabilities that the pod asks for and no plugin declares, if genie.conf allows dropping them.
    """

    ask: Ask
    label: str
    network: NetworkConfig
    ifname: str
    runtime_config: Mapping[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    resource: str = ""

    @property
    def has_device_info(self) -> bool:
        """Whether to offer a device information file to its plugins (see verbs/device_info.py)."""
        return bool(self.resource) or any(
            _object(plugin, "capabilities").get(DEVICE_INFO_FILE) is True for plugin in self.network.plugins
        )

    @property
    def device_id(self) -> str:
        """The device that the network runs over, as `networks.with_device` wrote it; "" for none."""
        return str(self.network.plugins[0].get("deviceID", ""))


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The ordered networks of a pod. The first one's address goes to the kubelet. primary: how many of them, counted
    from the first, are default networks. size: about how much JSON it is (see `execute.compute`).
    """

    choices: tuple[Choice, ...]
    primary: int = 1
    why: str = ""
    size: int = 0


def assemble(
    asked: Asked,
    found: Sequence[Found],
    *,
    ifname: str = "eth0",
    runtime_config: Mapping[str, Any] | None = None,
    drop_undeclared: bool = False,
    size: int = 0,
) -> Selection:
    """Give each network its interface name and arguments.

    found: one network for each of `asked.primary` and then of `asked.extra`, in order.
    ifname: the runtime's CNI_IFNAME, for the first network unless it was given a name.
    runtime_config: the runtime's own (portMappings, bandwidth, dns), for the first network.
    drop_undeclared: drop a capability that no plugin declares, as libcni and so Multus do.
    size: the selection's.

    Raises SelectionError: an interface name is invalid or taken twice, or a plugin does not support a request.
    """
    everything = asked.primary + asked.extra
    names = interface_names(asked, ifname)
    _once(everything, found)
    choices = []
    for index, (ask, one, name) in enumerate(zip(everything, found, names, strict=True)):
        wanted, undeclared = _capabilities(ask, one.network)
        if undeclared and not drop_undeclared:
            raise _undeclared(ask, one.network, undeclared[0])
        arguments = {**(runtime_config or {} if index == 0 else {}), **wanted}
        whole = _with_cni_args(one.network, ask.cni_args) if ask.cni_args else one.network
        choices.append(
            Choice(
                ask=ask,
                label=one.label,
                network=whole,
                ifname=name,
                runtime_config=arguments,
                dropped=undeclared,
                resource=one.resource,
            )
        )
    return Selection(choices=tuple(choices), primary=len(asked.primary), why=asked.why, size=size)


def _once(everything: Sequence[Ask], found: Sequence[Found]) -> None:
    """Refuse a second attachment to plugins that would silently replace the first by it."""
    seen: dict[str, Ask] = {}
    for ask, one in zip(everything, found, strict=True):
        for kind in sorted(ONCE & set(one.network.types)):
            if kind in seen:
                raise SelectionError(
                    ask.where,
                    f"{kind} knows an endpoint by its pod alone and gives it one interface, which {seen[kind].where} "
                    "has already: ask for it once",
                )
            seen[kind] = ask


def interface_names(asked: Asked, ifname: str) -> tuple[str, ...]:
    """The interface name of each network: the requested one, otherwise a default. A requested name is never given to
    another network.

    The default of the first network is the runtime's (CNI_IFNAME). Other default networks get the next free of `eth1`,
    `eth2`, … (as in CNI-Genie). Extra networks get `net` and their position, `net2` for the second (as in Multus).
    """
    everything = asked.primary + asked.extra
    taken: dict[str, str] = {}
    for ask in everything:
        if not ask.ifname:
            continue
        if not is_ifname(ask.ifname):
            raise SelectionError(ask.where, f"interface name: expected {IFNAME_IS}")
        if why := RESERVED_IFNAMES.get(ask.ifname):
            raise SelectionError(ask.where, f"interface name: {ask.ifname!r} is {why}")
        if ask.ifname.startswith("-"):
            raise SelectionError(
                ask.where, "interface name: expected one without '-' at its beginning, as of an option"
            )
        if "%" in ask.ifname:
            raise SelectionError(ask.where, "interface name: expected one without '%', which the kernel counts up")
        if ask.ifname in taken:
            raise SelectionError(ask.where, f"interface {ask.ifname} is taken already, by {taken[ask.ifname]}")
        taken[ask.ifname] = ask.where
    if why := RESERVED_IFNAMES.get(ifname):
        raise SelectionError("CNI_IFNAME", f"{ifname!r} is {why}")
    if everything and not everything[0].ifname and ifname in taken:
        raise SelectionError(
            taken[ifname], f"interface {ifname} is the pod's default network's, which {everything[0].where} puts there"
        )
    given = {*taken, ifname}
    last = {"eth": 0, "net": 0}  # lower numbers are taken, so that each is tried only once
    names = []
    for index, ask in enumerate(everything):
        name = ask.ifname or (ifname if index == 0 else "")
        if not name:
            extra = index - len(asked.primary) + 1
            prefix = "net" if extra > 0 else "eth"
            number = max(last[prefix] + 1, extra)
            while f"{prefix}{number}" in given:
                number += 1
            last[prefix], name = number, f"{prefix}{number}"
        names.append(name)
    return tuple(names)


# --- arguments of plugins --------------------------------------------------------------------------------------


def _capabilities(ask: Ask, network: NetworkConfig) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The runtimeConfig of an ask, and the capabilities that were left out because no plugin declares them."""
    _claimed(ask, network)
    given = {
        "ips": list(ask.ips) if all("/" in ip for ip in ask.ips) else _with_prefixes(ask.ips, network),
        "mac": ask.mac,
        "bandwidth": dict(ask.bandwidth),
        "portMappings": [dict(mapping) for mapping in ask.port_mappings],
        "infinibandGUID": ask.infiniband_guid,
    }
    arguments: dict[str, Any] = {key: value for key, value in given.items() if value}
    declared = {
        name for plugin in network.plugins for name, on in _object(plugin, "capabilities").items() if on is True
    }
    if "deviceID" in declared and (device := network.plugins[0].get("deviceID")):
        arguments["deviceID"] = device
    undeclared = tuple(capability for capability in arguments if capability not in declared)
    return {key: value for key, value in arguments.items() if key in declared}, undeclared


def _undeclared(ask: Ask, network: NetworkConfig, capability: str) -> SelectionError:
    """Multi-network specification, 4.1.2.1.4.2 and its like: "the entire attachment request must fail"."""
    return SelectionError(
        ask.where,
        f"{capability}: no plugin of {network.source} declares this capability; "
        f'add "capabilities": {{"{capability}": true}} to one that has it',
    )


def _claimed(ask: Ask, network: NetworkConfig) -> None:
    """Refuse a claim of addresses unless a plugin reads it itself from the pod's annotation, as OVN-Kubernetes does for
    virtual machines if its configuration has `allowPersistentIPs`. Refuse addresses beside a claim (multi-network
    specification 1.3, 4.1.2.1.11).
    """
    if not ask.ipam_claim:
        return
    if not any(plugin.get("allowPersistentIPs") is True for plugin in network.plugins):
        raise SelectionError(
            ask.where,
            "ipam-claim-reference: genie cannot grant it: it does not know IPAMClaim objects, and no plugin of "
            f"{network.source} reads them itself (`allowPersistentIPs`)",
        )
    if ask.ips:
        raise SelectionError(ask.where, "ips: expected none beside ipam-claim-reference, which has the addresses")


def _with_prefixes(ips: Sequence[str], network: NetworkConfig) -> list[str]:
    """Give each address the prefix length of the network's subnet that contains it. If the configuration has no such
    subnet, the address stays as it is, and the plugin accepts or refuses it (CNI CONVENTIONS, `ips`: "the plugin may
    require the IP address to include a prefix length").
    """
    import ipaddress

    subnets: dict[tuple[int, int], set[int]] = {}  # by family and prefix length: users write both lists
    for text in (text for plugin in network.plugins for text in _subnets(_object(plugin, "ipam"))):
        with suppress(ValueError):  # the plugin reports what is wrong
            net = ipaddress.ip_network(text, strict=False)
            subnets.setdefault((net.version, net.prefixlen), set()).add(int(net.network_address))

    def length(ip: str) -> int:
        address = ipaddress.ip_address(ip)
        bits = address.max_prefixlen
        return max(
            (
                prefix
                for (version, prefix), nets in subnets.items()
                if version == address.version
                and prefix < bits
                and int(address) >> bits - prefix << bits - prefix in nets
            ),
            default=-1,
        )

    return [ip if "/" in ip or (prefix := length(ip)) < 0 else f"{ip}/{prefix}" for ip in ips]


def _subnets(ipam: Mapping[str, Any]) -> Iterator[str]:
    """The subnets in an ipam configuration: of host-local (`subnet`, `ranges`), static (`addresses`) and whereabouts
    (`range`, `ipRanges`).
    """
    sets = [each if isinstance(each, list) else [each] for each in _list(ipam, "ranges")]
    below = [*(one for each in sets for one in each), *_list(ipam, "addresses"), *_list(ipam, "ipRanges")]
    for each in (ipam, *(one for one in below if isinstance(one, dict))):
        for value in (each.get(key) for key in ("subnet", "range", "address")):
            if isinstance(value, str) and "/" in value:
                yield value.rpartition("-")[2]  # whereabouts: "10.0.0.5-10.0.0.9/24"


def _list(data: Mapping[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    return value if isinstance(value, list) else []


def _object(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _with_cni_args(network: NetworkConfig, arguments: Mapping[str, Any]) -> NetworkConfig:
    """`cni-args` go to every plugin as `args.cni` (CNI CONVENTIONS, "args in network config")."""
    plugins = []
    for plugin in network.plugins:
        args = _object(plugin, "args")
        cni = _object(args, "cni")
        plugins.append({**plugin, "args": {**args, "cni": {**cni, **arguments}}})
    return replace(network, plugins=tuple(plugins))
