"""Reads policies: MultiNetworkPolicy objects (k8s.cni.cncf.io, v1beta1 and v1beta2), and CNI-Genie's annotation
`genieNetworkPolicy` on NetworkPolicy objects. Pure.

A MultiNetworkPolicy has the fields and the meaning of a NetworkPolicy (networking.k8s.io/v1), for the networks in its
annotation `k8s.v1.cni.cncf.io/policy-for`.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from genie.cni.errors import CniError
from genie.cni.fields import Fields, decode, invalid
from genie.kube import FAIL, GENIE_POLICY, POLICY_FOR

PROTOCOLS = ("TCP", "UDP", "SCTP")
ENTRIES_MAX = 1000
"""The limit for one policy, in entries: peers, ports, exceptions, and requirements of selectors together."""
NETWORKS_MAX = 32
"""The limit for one policy, in networks that it names at once."""

Range = tuple[int, int]
"""From, to; both are included."""

_NETWORK = re.compile(r"(?:[a-z0-9][-a-z0-9]*/)?[A-Za-z0-9][-_.A-Za-z0-9]*\Z")
_LABEL = re.compile(r"(?:[-.a-z0-9]{1,253}/)?[A-Za-z0-9](?:[-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?\Z")
_PORT_NAME = re.compile(r"(?=[-0-9]{,14}[a-z])(?!.*--)[a-z0-9](?:[-a-z0-9]{,13}[a-z0-9])?\Z")
_MAPPED = 0xFFFF
"""The first 96 bits of IPv4 addresses that are written as IPv6 addresses."""


@dataclass(frozen=True)
class Selector:
    """A label selector. requirements: (key, operator, values); all must hold."""

    requirements: tuple[tuple[str, str, frozenset[str]], ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(_holds(labels.get(key), operator, values) for key, operator, values in self.requirements)


def _holds(value: str | None, operator: str, values: frozenset[str]) -> bool:
    match operator:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
    return value is None


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A peer. Without a block: the pods of the selectors, at their addresses in the rule's own network, or in
    `network` (CNI-Genie's). block: ranges of addresses, as numbers, of one family.
    """

    pods: Selector | None = None
    namespaces: Selector | None = None
    network: str = ""
    block: tuple[Range, ...] | None = None
    v6: bool = False


@dataclass(frozen=True, kw_only=True)
class Port:
    """protocol: "TCP", "UDP" or "SCTP". ports: empty for all. name: of a container's port."""

    protocol: str
    ports: Range | None = None
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Allows these peers at these ports; None: all."""

    peers: tuple[Peer, ...] | None
    ports: tuple[Port, ...] | None


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One policy. ingress, egress: its rules; None: it does not isolate in this direction. networks: as in its
    annotation. error: it is malformed, and isolates the pods whose selector it has, without a rule.
    """

    kind: str
    namespace: str
    name: str
    uid: str = ""
    networks: tuple[str, ...] = ()
    selector: Selector = Selector(())
    ingress: tuple[Rule, ...] | None = None
    egress: tuple[Rule, ...] | None = None
    closed: bool = False
    error: str = ""

    def is_for(self, label: str) -> bool:
        """Whether it is for the network of this name in a pod's status: `NAMESPACE/NAME`, or a network of the node."""
        return any(label in (entry, f"{self.namespace}/{entry}") for entry in self.networks)


def multi(item: Mapping[str, Any]) -> Policy:
    """A MultiNetworkPolicy. A malformed one has an error, and nothing else unless it fails closed."""
    policy = _named("MultiNetworkPolicy", item)
    where = f"MultiNetworkPolicy {policy.namespace}/{policy.name}"
    notes = (item.get("metadata") or {}).get("annotations") or {}
    known: dict[str, Any] = {}
    try:
        known["closed"] = _closed(notes, where)
        known["networks"] = _networks(notes.get(POLICY_FOR), where)
        spec = Fields(item.get("spec"), f"{where}: spec")
        known["selector"] = _selector(spec, "podSelector", required=True)
        _only(spec, "podSelector", "ingress", "egress", "policyTypes")
        types = _types(spec)
        _limited(item.get("spec"), where)
        known["ingress"] = _rules(spec, "ingress", "from") if "Ingress" in types else None
        known["egress"] = _rules(spec, "egress", "to") if "Egress" in types else None
    except CniError as error:
        return _failed(policy, known, error.msg)
    return replace(policy, **known)


def genie(item: Mapping[str, Any]) -> tuple[Policy, ...]:
    """The policies of a NetworkPolicy with CNI-Genie's annotation: one for each `networkSelector`. Its pods and those
    of the `peerNetworks` reach each other, and no others; pods of the network itself reach each other.
    """
    policy = _named("NetworkPolicy", item)
    where = f"NetworkPolicy {policy.namespace}/{policy.name}: {GENIE_POLICY[0]}"
    notes = (item.get("metadata") or {}).get("annotations") or {}
    text = next((notes[key] for key in GENIE_POLICY if key in notes), None)
    if text is None:
        return ()
    closed = False
    try:
        closed = _closed(notes, where)
        peers: dict[str, list[str]] = {}
        for entry in _entries(text, where):
            selected = _named_networks(entry.text("networkSelector", required=True), f"{entry.where}: networkSelector")
            others = _named_networks(entry.string("peerNetworks"), f"{entry.where}: peerNetworks")
            if len(selected) != 1:
                raise entry.wrong("networkSelector", "one network")
            peers.setdefault(selected[0], []).extend(others)
        if sum(map(len, peers.values())) > ENTRIES_MAX:
            raise invalid(where, f"expected at most {ENTRIES_MAX} networks")
    except CniError as error:
        return (_failed(policy, {"closed": closed}, error.msg),)
    return tuple(_of_network(policy, network, others, closed=closed) for network, others in peers.items())


def _of_network(policy: Policy, network: str, others: Sequence[str], *, closed: bool) -> Policy:
    peers = tuple(Peer(network=name) for name in dict.fromkeys((network, *others)))
    rules = (Rule(peers=peers, ports=None),)
    return replace(policy, networks=(network,), ingress=rules, egress=rules, closed=closed)


def _failed(policy: Policy, known: Mapping[str, Any], why: str) -> Policy:
    """A malformed policy: without effect, or, if it says so, one that isolates the pods that it selects."""
    rules = {"ingress": (), "egress": ()} if known.get("closed") else {"ingress": None, "egress": None}
    return replace(policy, **{**known, **rules}, error=why)


def _named(kind: str, item: Mapping[str, Any]) -> Policy:
    meta = item.get("metadata") or {}
    name, namespace, uid = (str(meta.get(key) or "") for key in ("name", "namespace", "uid"))
    return Policy(kind=kind, namespace=namespace, name=name, uid=uid)


def _closed(notes: Mapping[str, Any], where: str) -> bool:
    value = notes.get(FAIL, "open")
    if value not in ("open", "closed"):
        raise invalid(where, f'annotation {FAIL}: expected "open" or "closed", found {value!r:.80}')
    return bool(value == "closed")


def _networks(value: Any, where: str) -> tuple[str, ...]:
    names = _named_networks(value, f"{where}: annotation {POLICY_FOR}") if isinstance(value, str) else ()
    if not 1 <= len(names) <= NETWORKS_MAX:
        raise invalid(
            where,
            f"annotation {POLICY_FOR}: expected 1 to {NETWORKS_MAX} networks, separated by commas, found {value!r:.80}",
        )
    return names


def _named_networks(text: str, where: str) -> tuple[str, ...]:
    """Names with commas between them. A name that no network can have is refused: the policy would do nothing."""
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if bad := next((name for name in names if not _NETWORK.match(name)), None):
        raise invalid(where, f"expected names of networks such as blue or apps/blue, found {bad!r:.80}")
    return names


_KEY = re.compile(r'"?\b(networkSelector|peerNetworks)"?\s*:')


def _entries(text: Any, where: str) -> list[Fields]:
    """The entries of CNI-Genie's annotation: in JSON, or as in its documentation, without quotes and commas."""
    if not isinstance(text, str):
        raise invalid(where, "expected a list in JSON, of at most 131072 characters")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = _unquoted(text) or decode(text, where, invalid)
    if not isinstance(data, list):
        raise invalid(where, "expected a list of objects with networkSelector and peerNetworks")
    entries = [Fields(entry, f"{where}[{number}]") for number, entry in enumerate(data)]
    for entry in entries:
        _only(entry, "networkSelector", "peerNetworks")
    return entries


def _unquoted(text: str) -> list[dict[str, str]]:
    """Empty if the text has another form."""
    inner = re.fullmatch(r"\s*\[(.*)\]\s*", text, re.DOTALL)
    objects = re.split(r"\{([^{}]*)\}", inner[1]) if inner else []
    if any(between.strip(" \t\r\n,") for between in objects[::2]):
        return []
    parts = [_KEY.split(each) for each in objects[1::2]]
    if any(first.strip() for first, *_ in parts):
        return []
    return [
        {key: value.strip(' \t\r\n,"') for key, value in zip(rest[::2], rest[1::2], strict=True)} for _, *rest in parts
    ]


def _only(read: Fields, *keys: str) -> None:
    """Refuse other keys: a rule that genie does not know could be one that forbids."""
    if other := next((key for key, value in read.data.items() if key not in keys and value is not None), None):
        raise invalid(read.where, f"{other!r:.80}: no such field; expected {', '.join(keys)}")


def _limited(spec: Any, where: str) -> None:
    """Refuse a policy with too many entries: everything below counts lists and labels only once."""
    left, waiting = ENTRIES_MAX, [spec]
    while waiting:
        each = waiting.pop()
        inner = list(each.values()) if isinstance(each, dict) else each if isinstance(each, list) else ()
        left -= len(inner) if isinstance(each, list) else 0
        if left < 0 or len(inner) > ENTRIES_MAX:
            raise invalid(where, f"expected at most {ENTRIES_MAX} peers, ports, exceptions and values")
        waiting += inner


def _types(spec: Fields) -> tuple[str, ...]:
    types = spec.strings("policyTypes")
    if any(each not in ("Ingress", "Egress") for each in types):
        raise spec.wrong("policyTypes", "Ingress, Egress, or both")
    return types or (("Ingress", "Egress") if spec.data.get("egress") else ("Ingress",))


def _rules(spec: Fields, key: str, side: str) -> tuple[Rule, ...]:
    found = []
    for rule in spec.objects(key):
        _only(rule, side, "ports")
        peers, ports = tuple(map(_peer, rule.objects(side))), tuple(map(_port, rule.objects("ports")))
        found.append(Rule(peers=peers or None, ports=ports or None))
    return tuple(found)


def _peer(read: Fields) -> Peer:
    _only(read, "podSelector", "namespaceSelector", "ipBlock")
    if read.data.get("ipBlock") is not None:
        if read.data.get("podSelector") is not None or read.data.get("namespaceSelector") is not None:
            raise invalid(read.where, "expected either ipBlock or selectors, found both")
        return _block(read.inner("ipBlock"))
    pods, namespaces = _selector(read, "podSelector"), _selector(read, "namespaceSelector")
    if pods is None and namespaces is None:
        raise invalid(read.where, "expected podSelector, namespaceSelector or ipBlock, found none of them")
    return Peer(pods=pods, namespaces=namespaces)


def _block(read: Fields) -> Peer:
    _only(read, "cidr", "except")
    whole, v6 = cidr(read.text("cidr", required=True), read.where)
    left = [whole]
    for text in read.strings("except"):
        (first, last), same = cidr(text, f"{read.where}.except")
        if same != v6 or not whole[0] <= first <= last <= whole[1]:
            raise invalid(read.where, f"except: expected subnets of {read.data['cidr']}, found {text!r:.80}")
        left = [part for low, high in left for part in ((low, min(high, first - 1)), (max(low, last + 1), high))]
        left = [(low, high) for low, high in left if low <= high]
    return Peer(block=tuple(left), v6=v6)


def cidr(text: str, where: str) -> tuple[Range, bool]:
    """The addresses of a subnet as numbers, and whether it is of IPv6.

    Raises CniError: 7; it is not one.
    """
    address, slash, length = text.strip().partition("/")
    v6 = ":" in address
    width = 128 if v6 else 32
    try:
        value = int.from_bytes(socket.inet_pton(socket.AF_INET6 if v6 else socket.AF_INET, address), "big")
        if not (slash and length.isascii() and length.isdigit() and int(length) <= width):
            raise ValueError(length)
    except (OSError, ValueError) as error:
        raise invalid(where, f"expected a subnet such as 10.0.0.0/24, found {text!r:.80}") from error
    if v6 and value >> 32 == _MAPPED and int(length) >= 96:
        raise invalid(where, f"expected an IPv4 subnet such as 10.0.0.0/24, found its IPv6 form {text!r:.80}")
    size = 1 << (width - int(length))
    first = value & ~(size - 1)
    return (first, first + size - 1), v6


def _port(read: Fields) -> Port:
    _only(read, "protocol", "port", "endPort")
    protocol = read.string("protocol", "TCP")
    if protocol not in PROTOCOLS:
        raise read.wrong("protocol", ", ".join(PROTOCOLS))
    port, end = read.data.get("port"), read.data.get("endPort")
    if isinstance(port, str) and _PORT_NAME.match(port):
        if end is not None:
            raise read.wrong("endPort", "none beside a port's name")
        return Port(protocol=protocol, name=port)
    if port is None:
        if end is not None:
            raise read.wrong("endPort", "none without a port")
        return Port(protocol=protocol)
    if not _is_port(port):
        raise read.wrong("port", "a number from 1 to 65535, or a port's name")
    if end is not None and not (_is_port(end) and end >= port):
        raise read.wrong("endPort", f"a number from {port} to 65535")
    return Port(protocol=protocol, ports=(port, port if end is None else end))


def _is_port(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535


_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def _selector(read: Fields, key: str, *, required: bool = False) -> Any:
    if read.data.get(key) is None:
        if required:
            raise read.wrong(key, "a label selector; {} selects all pods")
        return None
    inner = read.inner(key)
    _only(inner, "matchLabels", "matchExpressions")
    labels = inner.inner("matchLabels")
    found = [(_label(name, labels), "In", _values((labels.string(name),), labels)) for name in labels.data]
    for one in inner.objects("matchExpressions"):
        _only(one, "key", "operator", "values")
        operator, values = one.string("operator"), _values(one.strings("values"), one)
        if operator not in _OPERATORS:
            raise one.wrong("operator", ", ".join(_OPERATORS))
        if bool(values) != (operator in ("In", "NotIn")):
            raise one.wrong("values", "at least one value" if not values else f"none with {operator}")
        found.append((_label(one.text("key", required=True), one), operator, values))
    return Selector(tuple(found))


def _label(key: str, read: Fields) -> str:
    """A label's key that Kubernetes allows; a selector with another one could only be a mistake."""
    if not _LABEL.match(key):
        raise invalid(read.where, f"expected the key of a label, of at most 63 characters, found {key!r:.80}")
    return key


def _values(values: Sequence[str], read: Fields) -> frozenset[str]:
    if bad := next((each for each in values if each and ("/" in each or not _LABEL.match(each))), None):
        raise invalid(read.where, f"expected the value of a label, of at most 63 characters, found {bad!r:.80}")
    return frozenset(values)
