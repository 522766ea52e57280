"""The requests of a pod: its annotations and genie.conf in, `Ask`s out, in order. Pure.

Whatever the annotations hold, only `SelectionError` is raised. Its message names the annotation and the position in it.
`asks` alone decides which annotation wins when a pod has several; docs/annotations.md has the rules as a table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from genie.cni.errors import CniError, Code
from genie.cni.fields import Fields, decode, hardware_address, is_address, packed
from genie.config import Conf
from genie.kube import DEFAULTS, Default, Pod

CNI = "cni"
LOGICAL = "networks"
ATTACHMENTS = "k8s.v1.cni.cncf.io/networks"
DEFAULT = "v1.multus-cni.io/default-network"
READ = (CNI, LOGICAL, ATTACHMENTS, DEFAULT)

#: Where `v1.multus-cni.io/default-network` looks for a NetworkAttachmentDefinition named without a namespace: Multus'.
DEFAULT_NETWORK_NAMESPACE = "kube-system"

ANNOTATION_MAX = 65536
"""The limit for one annotation, in characters: 32 networks with 2,000 each. Kubernetes allows a pod 256 KiB in all.
Reading the worst annotation of that size would keep the agent from other pods for more than 5 ms.
"""

_NAME = re.compile(r"[a-z0-9A-Z]([-._a-zA-Z0-9]{0,251}[a-z0-9A-Z])?\Z")
#: Bytes of an Ethernet address and of an InfiniBand GUID, and what messages call them (multi-network specification,
#: sections 4.1.2.1.4 and 4.1.2.1.10).
_MAC = (6, "an Ethernet address of six bytes like 02:00:00:00:00:01")
_GUID = (8, "a GUID of eight bytes like c2:11:22:33:44:55:66:77")


#: The keys of a network selection element (multi-network specification, 4.1.2.1: "all key names that do not include a
#: period character are reserved"), and words that people try instead.
_KEYS = {
    **{key: key for key in ("name", "namespace", "interface", "interfaceRequest", "ips", "mac", "default-route")},
    **{key: key for key in ("cni-args", "bandwidth", "portMappings", "infiniband-guid")},
    "ipam-claim-reference": "ipam-claim-reference",
    "gateway": "default-route", "ip": "ips", "addresses": "ips", "mac-address": "mac", "ifname": "interface",
    "args": "cni-args", "ports": "portMappings", "guid": "infiniband-guid",
}  # fmt: skip
_RATES = {key: key for key in ("ingressRate", "ingressBurst", "egressRate", "egressBurst")}
_PORTS = {key: key for key in ("hostPort", "containerPort", "protocol", "hostIP")}
ADDRESSES_MAX, PORTS_MAX = 64, 64
"""The limits for one attachment: plugins give fewer addresses, and portmap runs iptables for each port in turn."""
_MOST_BITS = 2**63 - 1  # what plugins, and Multus, read a rate into


class SelectionError(CniError):
    """A pod's request cannot be met. The message names the annotation and the position in it."""

    def __init__(self, where: str, message: str, code: int = Code.INVALID_CONFIG, details: str = "") -> None:
        super().__init__(code, f"{where}: {message}", details)


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One network that a pod asks for, as the annotation has it.

    lookup: where to look for it. "default": the node's configurations only (genie.conf's default_plugin). "named": a
    NetworkAttachmentDefinition of the pod's namespace, otherwise the node's configurations. "attachment": a
    NetworkAttachmentDefinition only. "logical": a Logicalnetwork. "first": the first configuration of the node.
    """

    name: str
    where: str  # for messages: 'annotation cni, item 2 ("weave@net1")'
    lookup: str = "named"
    namespace: str = ""  # of the network object; empty: the pod's
    ifname: str = ""  # empty: genie picks a name
    ips: tuple[str, ...] = ()
    mac: str = ""
    default_route: tuple[str, ...] | None = None  # gateways; an empty tuple: the network's own gateway
    cni_args: Mapping[str, Any] = field(default_factory=dict)
    bandwidth: Mapping[str, Any] = field(default_factory=dict)
    port_mappings: tuple[Mapping[str, Any], ...] = ()
    infiniband_guid: str = ""
    ipam_claim: str = ""  # an IPAMClaim of the pod's namespace


@dataclass(frozen=True, kw_only=True)
class Asked:
    """All that a pod asks for. `smart`: the default network is the least loaded one (`cni: ""`). `trusted`: an
    administrator of the node named the default networks, which may be of any namespace.
    """

    primary: tuple[Ask, ...]  # the first of these is the pod's own network
    extra: tuple[Ask, ...] = ()
    smart: bool = False
    trusted: bool = False
    why: str = ""  # for people: genie explain, the agent's log


def names_default(pod: Pod) -> bool:
    """Whether the pod's annotations decide its default networks, so that nobody else's are asked for."""
    notes = pod.annotations
    return notes.get(CNI) is not None or any((notes.get(key) or "").strip() for key in (LOGICAL, DEFAULT))


def asks(pod: Pod, conf: Conf, default: Default | None = None) -> Asked:
    """Read a pod's annotations.

    Raises SelectionError: an annotation is malformed, or two annotations contradict each other.
    """
    notes = pod.annotations
    for key in filter(notes.__contains__, READ):
        _readable(notes[key], f"annotation {key}")
    text = (notes.get(ATTACHMENTS) or "").strip()
    extra = _parse_attachments(text, f"annotation {ATTACHMENTS}", conf.max_networks) if text else ()
    asked = _primary(notes, extra, conf, default)
    _not_too_many(len(asked.primary) + len(extra) + asked.smart, "the pod's annotations", conf.max_networks)
    _permitted(asked, pod.namespace, conf)
    _one_default_route(asked)
    return asked


def size_of(pod: Pod, default: Default | None = None) -> int:
    """How much there is to read in a pod's annotations and its default networks, in characters."""
    size = sum(len(note) for note in map(pod.annotations.get, READ) if isinstance(note, str))
    return size + len(default.networks) if default else size


def _readable(text: object, where: str) -> None:
    if not isinstance(text, str | None):
        raise SelectionError(where, "expected a string")
    if text and len(text) > ANNOTATION_MAX:
        raise SelectionError(where, f"it has more than {ANNOTATION_MAX} characters, the most that genie reads")


def _not_too_many(count: int, where: str, most: int) -> None:
    """Refuse too many networks before anything is done for any of them."""
    if count > most:
        raise SelectionError(where, f"{count} networks, and a pod may have at most {most} (max_networks in genie.conf)")


def _primary(notes: Mapping[str, str], extra: tuple[Ask, ...], conf: Conf, default: Default | None) -> Asked:
    """The pod's default networks, from the annotation that decides them, and the extra ones after them."""
    named, logical = notes.get(CNI), (notes.get(LOGICAL) or "").strip()
    if override := (notes.get(DEFAULT) or "").strip():
        for key, text in ((CNI, (named or "").strip()), (LOGICAL, logical)):
            if text:
                raise SelectionError(
                    f"annotation {DEFAULT}", f"the annotation {key} names a default network too; give one of them"
                )
        return Asked(primary=(_override(override, conf.max_networks),), extra=extra, why=f"annotation {DEFAULT}")
    if named is not None and named.strip():
        primary = _names(named, f"annotation {CNI}", conf.max_networks)
        return Asked(primary=primary, extra=extra, why=f"annotation {CNI}")
    if logical:
        primary = _names(logical, f"annotation {LOGICAL}", conf.max_networks, lookup="logical")
        return Asked(primary=primary, extra=extra, why=f"annotation {LOGICAL}")
    if named is not None:
        return Asked(primary=(), extra=extra, smart=True, why=f'annotation {CNI} is "": the least loaded network')
    return _given(extra, conf, default)


def _given(extra: tuple[Ask, ...], conf: Conf, default: Default | None) -> Asked:
    """The default networks of a pod that names none."""
    if default is not None:
        return _of_owner(default, extra, conf.max_networks)
    if conf.default_plugin:
        named = ",".join(conf.default_plugin)
        primary = _names(named, "genie.conf: default_plugin", conf.max_networks, lookup="default", objects=True)
        return Asked(primary=primary, extra=extra, trusted=True, why="no annotation: default_plugin of genie.conf")
    first = Ask(name="", where=f"the configurations in {conf.conf_dir}", lookup="first")
    return Asked(primary=(first,), extra=extra, why=f"no annotation, no default_plugin: the first in {conf.conf_dir}")


def _of_owner(default: Default, extra: tuple[Ask, ...], most: int) -> Asked:
    """A namespace's names are looked up as its pods' own would be, a node's as those of genie.conf."""
    owner = f"{default.kind.lower()} {default.name}"
    where, on_node = f"{owner}: {default.place} {DEFAULTS}", default.kind == "Node"
    _readable(default.networks, where)
    primary = _names(default.networks, where, most, lookup="default" if on_node else "named", objects=True)
    return Asked(primary=primary, extra=extra, trusted=on_node, why=f"no annotation: {DEFAULTS} of {owner}")


def _names(text: str, where: str, most: int, lookup: str = "named", *, objects: bool = False) -> tuple[Ask, ...]:
    """Parse `calico, weave@net1`: names separated by commas, each with an optional interface; blanks are ignored.

    objects: `apps/side` names a NetworkAttachmentDefinition and its namespace.
    """
    _not_too_many(text.count(",") + 1, where, most)
    result = []
    for position, item in enumerate(text.split(","), 1):
        here = f'{where}, item {position} ("{item.strip()}")'
        name, at, ifname = (part.strip() for part in item.partition("@"))
        namespace, slash, name = name.rpartition("/") if objects else ("", "", name)
        if slash and not _NAME.match(namespace):
            raise SelectionError(here, f"expected the name of a namespace, found {namespace!r}")
        if not name:
            raise SelectionError(here, "expected the name of a network")
        if not _NAME.match(name):
            raise SelectionError(here, f"{name!r} is not the name of a network: letters, digits, '-', '.', '_'")
        if at and not ifname:
            raise SelectionError(here, "expected an interface name after '@'")
        if "@" in ifname:
            raise SelectionError(here, "expected one '@'")
        within = "attachment" if slash else lookup
        result.append(Ask(name=name, where=here, lookup=within, namespace=namespace, ifname=ifname))
    return tuple(result)


def _override(text: str, most: int) -> Ask:
    """Parse `v1.multus-cni.io/default-network`: one network, in either form. Without an interface name it gets the
    runtime's (CNI_IFNAME).
    """
    where = f"annotation {DEFAULT}"
    found = _parse_attachments(text, where, most)
    if len(found) != 1:
        raise SelectionError(where, f"expected one network, found {len(found)}")
    (ask,) = found
    lookup = "attachment" if ask.namespace else "named"
    return replace(ask, namespace=ask.namespace or DEFAULT_NETWORK_NAMESPACE, lookup=lookup)


def _permitted(asked: Asked, pod_namespace: str, conf: Conf) -> None:
    """With `namespace_isolation`, refuse network objects of other namespaces, except those of the global namespaces."""
    if not conf.namespace_isolation:
        return
    allowed = {"", pod_namespace, *conf.global_namespaces}
    for position, ask in enumerate(asked.primary + asked.extra):
        if position < len(asked.primary) and (asked.trusted or ask.namespace == DEFAULT_NETWORK_NAMESPACE):
            continue  # here an administrator keeps the networks that any pod may have as its default
        if ask.namespace not in allowed:
            raise SelectionError(
                ask.where,
                f"namespace {ask.namespace} is not this pod's ({pod_namespace}) and namespace_isolation is on: "
                f"only {', '.join(conf.global_namespaces)} may be used from elsewhere",
            )


def _one_default_route(asked: Asked) -> None:
    """Refuse two requests for the default route of one family: a pod has only one of each."""
    having: dict[str, str] = {}
    for ask in asked.primary + asked.extra:
        if ask.default_route is None:
            continue
        named = ["IPv6" if ":" in gateway else "IPv4" for gateway in ask.default_route]
        for family in named or ("IPv4", "IPv6"):
            if family in having:
                raise SelectionError(
                    ask.where, f"default-route: {having[family]} has the {family} default route already"
                )
            having[family] = ask.where


def _parse_attachments(text: str, where: str, most: int) -> tuple[Ask, ...]:
    """Parse a network selection annotation (multi-network specification, section 4.1.1): short form or JSON list."""
    text = text.strip()
    if text.startswith(("[", "{")):
        items = decode(text, where, SelectionError)
        if not isinstance(items, list):
            raise SelectionError(where, "expected a JSON list of networks")
        _not_too_many(len(items), where, most)
        return tuple(_from_json(item, f"{where}, item {position}") for position, item in enumerate(items, 1))
    _not_too_many(text.count(",") + 1, where, most)
    return tuple(
        _from_short(item.strip(), f'{where}, item {position} ("{item.strip()}")')
        for position, item in enumerate(text.split(","), 1)
    )


def _from_short(item: str, where: str) -> Ask:
    """Parse `namespace/name@interface`. Namespace and interface are optional and may be empty (`/name`, `name@`), as in
    Multus' parsePodNetworkObjectName.
    """
    path, _, ifname = (part.strip() for part in item.partition("@"))
    namespace, _, name = (part.strip() for part in path.rpartition("/"))
    for part, what in ((name, "a network"), *(((namespace, "a namespace"),) if namespace else ())):
        if not _NAME.match(part):
            raise SelectionError(where, f"expected the name of {what}, found {part!r}")
    if "@" in ifname:
        raise SelectionError(where, "expected one '@'")
    return Ask(name=name, namespace=namespace, ifname=ifname, where=where, lookup="attachment")


def _from_json(item: Any, where: str) -> Ask:
    if not isinstance(item, dict):
        raise SelectionError(where, 'expected an object like {"name": "net-a"}')
    read = Fields(item, where, SelectionError)
    read.only(_KEYS)
    name = _matching(read, "name", _NAME, "the name of a network", required=True)
    return Ask(
        name=name,
        namespace=_matching(read, "namespace", _NAME, "the name of a namespace"),
        where=f'{where} ("{name}")',
        lookup="attachment",
        ifname=_ifname(read),
        ips=_ips(read),
        mac=_mac(read),
        default_route=read.addresses("default-route") if item.get("default-route") is not None else None,
        cni_args=read.object("cni-args"),
        bandwidth=_bandwidth(read),
        port_mappings=_port_mappings(read),
        infiniband_guid=_hardware(read, "infiniband-guid", *_GUID),
        ipam_claim=read.word("ipam-claim-reference"),
    )


def _matching(read: Fields, key: str, form: re.Pattern[str], expected: str, *, required: bool = False) -> str:
    value = read.word(key)
    if (value or required) and not form.match(value):
        raise read.wrong(key, expected)
    return value


def _ips(read: Fields) -> tuple[str, ...]:
    _few(read, "ips", "addresses", ADDRESSES_MAX)
    return read.addresses("ips", prefix=True)


def _ifname(read: Fields) -> str:
    """The interface, by its name or by the one that it had before the specification."""
    name, former = read.word("interface"), read.word("interfaceRequest")
    if name and former and name != former:
        raise read.wrong("interfaceRequest", f"none beside interface, which is {name!r}")
    return name or former


def _mac(read: Fields) -> str:
    """A MAC that an interface can have: Linux refuses group addresses and zero (`is_valid_ether_addr`)."""
    address = _hardware(read, "mac", *_MAC)
    if address and (int(address[:2], 16) & 1 or address == "00:00:00:00:00:00"):
        raise read.wrong("mac", "one interface's address, not a group's and not zero")
    return address


def _hardware(read: Fields, key: str, size: int, expected: str) -> str:
    """A hardware address in the form that every plugin accepts."""
    value = read.word(key)
    address = hardware_address(value, size)
    if value and not address:
        raise read.wrong(key, expected)
    return address


def _bandwidth(read: Fields) -> Mapping[str, Any]:
    """Bits per second and bits (multi-network specification, 4.1.2.1.8): "non-zero", and a burst only with its rate."""
    limits = read.inner("bandwidth")
    limits.only(_RATES)
    for key in limits.data:
        if (limits.number(key, "a whole number of bits from 1", least=1) or 0) > _MOST_BITS:
            raise limits.wrong(key, f"at most {_MOST_BITS} bits")
    given = {key: value for key, value in limits.data.items() if value is not None}
    for direction in ("ingress", "egress"):
        if f"{direction}Burst" in given and f"{direction}Rate" not in given:
            raise limits.wrong(f"{direction}Rate", f"one, because there is {direction}Burst")
    if read.data.get("bandwidth") is not None and not given:
        raise read.wrong("bandwidth", f"at least one of {', '.join(_RATES)}")
    return given


def _few(read: Fields, key: str, what: str, most: int) -> None:
    if (count := len(read.items(key, f"a list of {what}"))) > most:
        raise SelectionError(read.where, f"{key}: {count} {what}, and a network gives at most {most}")


def _port_mappings(read: Fields) -> tuple[Mapping[str, Any], ...]:
    _few(read, "portMappings", "ports", PORTS_MAX)
    mappings = read.objects("portMappings")
    found: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for mapping in mappings:
        mapping.only(_PORTS)
        for key in ("hostPort", "containerPort"):
            if not 0 < (mapping.number(key, "a port") or 0) < 65536:
                raise mapping.wrong(key, "a port")
        protocol = mapping.data.get("protocol") or "tcp"  # the plugin portmap has no default
        if str(protocol).lower() not in ("tcp", "udp", "sctp"):
            raise mapping.wrong("protocol", "tcp, udp or sctp")
        host = mapping.data.get("hostIP")
        if host and not (isinstance(host, str) and is_address(host)):
            raise mapping.wrong("hostIP", "an IP address")
        port = (mapping.data["hostPort"], protocol.lower(), packed(host) if host else b"")
        if port in found:
            raise mapping.wrong("hostPort", f"a port that no mapping before has for {protocol}")
        found[port] = {**mapping.data, "protocol": protocol}
    return tuple(found.values())
