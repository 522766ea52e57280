"""Network policies for tests: a generator of policies, and an oracle that decides from the objects alone who may reach
whom. The oracle shares no code with genie.policy.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from itertools import product
from typing import Any

from genie.policy import model, rules, world

Object = dict[str, Any]
BLUE, GREEN = "default/blue", "green"
PORTS = (7001, 7002)
PROTOCOLS = ("TCP", "UDP", "SCTP")
NAMESPACES: Mapping[str, Mapping[str, str]] = {
    "red": {"team": "one", "kind": "test"},
    "white": {"team": "two"},
    "default": {},
}


@dataclass(frozen=True, eq=False)
class Pod:
    """addresses: by network. ports: name to (protocol, number)."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    addresses: Mapping[str, Sequence[str]]
    ports: Mapping[str, tuple[str, int]]


@dataclass(frozen=True, eq=False)
class Cell:
    """One connection: from a pod to an address of another in a network."""

    source: Pod
    target: Pod
    network: str
    address: str
    protocol: str
    port: int

    def __str__(self) -> str:
        return f"{self.source.name} → {self.target.name} {self.address} {self.protocol} {self.port}"


PODS = tuple(
    Pod(
        name=f"pod{number}",
        namespace=tuple(NAMESPACES)[number % 3],
        labels={"app": "abc"[number // 3], **({"tier": "front"} if number % 2 else {})},
        addresses={
            BLUE: (f"10.81.0.{10 + number}", f"fd81::{10 + number:x}"),
            GREEN: (f"10.82.0.{10 + number}",),
        },
        ports={"web": ("TCP", PORTS[number % 2]), **({"web2": ("UDP", PORTS[0])} if number > 4 else {})},
    )
    for number in range(9)
)


def cells(pods: Sequence[Pod] = PODS) -> Iterator[Cell]:
    for source, target in product(pods, pods):
        if source is not target:
            for network in (BLUE, GREEN):
                for address, protocol, port in product(target.addresses[network], PROTOCOLS, PORTS):
                    yield Cell(source, target, network, address, protocol, port)


# --- the oracle


def may(policies: Sequence[Object], cell: Cell) -> bool:
    """Whether a connection is allowed: by what isolates its source, and by what isolates its target."""
    back = next(one for one in cell.source.addresses[cell.network] if (":" in one) == (":" in cell.address))
    return all(
        _side(policies, cell, own, other, address)
        for own, other, address in ((cell.source, cell.target, cell.address), (cell.target, cell.source, back))
    )


def _side(policies: Sequence[Object], cell: Cell, own: Pod, other: Pod, address: str) -> bool:
    """Whether the policies of one of the two pods allow it. address: the other one's."""
    side = "Egress" if own is cell.source else "Ingress"
    verdicts = []
    for policy in policies:
        meta = policy["metadata"]
        if meta["namespace"] != own.namespace:
            continue
        if policy["kind"] == "NetworkPolicy":
            verdicts += _of_genie(policy, own, other, cell.network)
            continue
        named = [name.strip() for name in meta["annotations"]["k8s.v1.cni.cncf.io/policy-for"].split(",")]
        if not {cell.network, cell.network.removeprefix(f"{own.namespace}/")} & set(named):
            continue
        spec = policy["spec"]
        types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
        if side not in types or not _selected(spec["podSelector"], own.labels):
            continue
        key, peers = ("ingress", "from") if side == "Ingress" else ("egress", "to")
        verdicts.append(
            any(
                _is_peer(peer, other, address, own.namespace)
                and _is_port(port, cell)
                and not _is_unknown(side, peer, port)
                for rule in spec.get(key) or []
                for peer in rule.get(peers) or [None]
                for port in rule.get("ports") or [None]
            )
        )
    return not verdicts or any(verdicts)


def _of_genie(policy: Object, own: Pod, other: Pod, network: str) -> list[bool]:
    """Within one network: it always reaches itself; one with a plain name is the namespace's own."""
    selected = {
        entry["networkSelector"] for entry in json.loads(policy["metadata"]["annotations"]["genieNetworkPolicy"])
    }
    if not selected & {network, network.removeprefix(f"{own.namespace}/")}:
        return []
    return ["/" in network or other.namespace == own.namespace]


def _selected(selector: Object, labels: Mapping[str, str]) -> bool:
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for one in selector.get("matchExpressions", []):
        has, value = one["key"] in labels, labels.get(one["key"])
        good = {
            "In": has and value in one.get("values", []),
            "NotIn": not has or value not in one.get("values", []),
            "Exists": has,
            "DoesNotExist": not has,
        }[one["operator"]]
        if not good:
            return False
    return True


def _is_peer(peer: Object | None, other: Pod, address: str, namespace: str) -> bool:
    if peer is None:
        return True
    if block := peer.get("ipBlock"):
        inside = ip_address(address) in ip_network(block["cidr"], strict=False)
        return inside and not any(ip_address(address) in ip_network(one) for one in block.get("except", []))
    if "namespaceSelector" in peer:
        there = _selected(peer["namespaceSelector"], NAMESPACES[other.namespace])
    else:
        there = other.namespace == namespace
    return there and _selected(peer.get("podSelector", {}), other.labels)


def _is_port(port: Object | None, cell: Cell) -> bool:
    if port is None:
        return True
    if port.get("protocol", "TCP") != cell.protocol:
        return False
    number = port.get("port")
    if number is None:
        return True
    if isinstance(number, str):
        return cell.target.ports.get(number) == (cell.protocol, cell.port)
    return int(number) <= cell.port <= int(port.get("endPort") or number)


def _is_unknown(side: str, peer: Object | None, port: Object | None) -> bool:
    """Whether a port's name means nothing: addresses have no names of ports."""
    return side == "Egress" and isinstance((port or {}).get("port"), str) and "ipBlock" in (peer or {})


# --- the generator


def generate(seed: int, count: int) -> list[Object]:
    """Some policies, always the same ones for a seed."""
    pick = random.Random(seed)
    return [_policy(pick, number) for number in range(count)]


def _policy(pick: random.Random, number: int) -> Object:
    meta: Object = {"name": f"policy{number}", "namespace": pick.choice(tuple(NAMESPACES))}
    if pick.random() < 0.05:
        chosen = [{"networkSelector": pick.choice(("default/blue", "green", "blue")), "peerNetworks": "green, other"}]
        meta["annotations"] = {"genieNetworkPolicy": json.dumps(chosen)}
        return {"kind": "NetworkPolicy", "metadata": meta, "spec": {"podSelector": {}}}
    networks = pick.choice((BLUE, GREEN, f"{BLUE}, {GREEN}", "blue", "default/green"))
    meta["annotations"] = {"k8s.v1.cni.cncf.io/policy-for": networks}
    spec: Object = {"podSelector": _selector(pick, "app", "tier", wide=0.4)}
    for key, side in (("ingress", "from"), ("egress", "to")):
        if pick.random() < 0.6:
            spec[key] = [_rule(pick, side) for _ in range(pick.randrange(3))]
    if pick.random() < 0.6:
        spec["policyTypes"] = pick.choice((["Ingress"], ["Egress"], ["Ingress", "Egress"]))
    return {"kind": "MultiNetworkPolicy", "metadata": meta, "spec": spec}


def _rule(pick: random.Random, side: str) -> Object:
    rule: Object = {}
    if pick.random() < 0.8:
        rule[side] = [_peer(pick) for _ in range(pick.randrange(3))]
    if pick.random() < 0.6:
        rule["ports"] = [_port(pick) for _ in range(pick.randrange(3))]
    return rule


def _selector(pick: random.Random, *keys: str, wide: float = 0.2) -> Object:
    if pick.random() < wide:
        return {}
    values = {"app": "abcd", "tier": ("front", "back"), "team": ("one", "two", "three"), "kind": ("test",)}
    selector: Object = {}
    if pick.random() < 0.5:
        key = pick.choice(keys)
        selector["matchLabels"] = {key: pick.choice(values[key])}
    if not selector or pick.random() < 0.3:
        key, operator = pick.choice(keys), pick.choice(("In", "NotIn", "Exists", "DoesNotExist"))
        some = pick.sample(values[key], pick.randint(1, len(values[key])))
        selector["matchExpressions"] = [
            {"key": key, "operator": operator, **({"values": some} if operator.endswith("In") else {})}
        ]
    return selector


def _peer(pick: random.Random) -> Object:
    if pick.random() < 0.35:
        return {"ipBlock": _block(pick)}
    peer: Object = {}
    if pick.random() < 0.7:
        peer["podSelector"] = _selector(pick, "app", "tier")
    if not peer or pick.random() < 0.5:
        peer["namespaceSelector"] = _selector(pick, "team", "kind")
    return peer


def _block(pick: random.Random) -> Object:
    address = pick.choice([one for pod in PODS for ones in pod.addresses.values() for one in ones])
    width = 128 if ":" in address else 32
    length = pick.choice((0, width - 24, width - 8, width - 4, width - 3, width - 2, width - 1, width))
    whole = ip_network(f"{address}/{length}", strict=False)
    block: Object = {"cidr": f"{address}/{length}" if pick.random() < 0.2 else str(whole)}
    if length < width and pick.random() < 0.6:
        deeper = [pick.randint(length + 1, width) for _ in range(pick.randint(1, 3))]
        around = [pick.choice([one for pod in PODS for ones in pod.addresses.values() for one in ones]) for _ in deeper]
        nets = [
            ip_network(f"{one}/{new}", strict=False)
            for one, new in zip(around, deeper, strict=True)
            if ip_address(one) in whole
        ]
        block["except"] = [str(net) for net in nets]
    return block


def _port(pick: random.Random) -> Object:
    port: Object = {}
    if pick.random() < 0.7:
        port["protocol"] = pick.choice(PROTOCOLS)
    kind = pick.random()
    if kind < 0.25:
        port["port"] = pick.choice(("web", "web2", "other"))
    elif kind < 0.8:
        port["port"] = pick.choice((7000, *PORTS))
        if pick.random() < 0.4:
            port["endPort"] = pick.choice((7001, 7002, 9000))
            port["port"] = min(port["port"], port["endPort"])
    return port


# --- the same for genie


def read(policies: Sequence[Object]) -> tuple[model.Policy, ...]:
    """Read the policies as the agent does; none may be malformed."""
    found: list[model.Policy] = []
    for policy in policies:
        found += [model.multi(policy)] if policy["kind"] == "MultiNetworkPolicy" else model.genie(policy)
    assert not [one.error for one in found if one.error], [one.error for one in found if one.error]
    return tuple(found)


def workload(pod: Pod) -> world.Workload:
    return world.Workload(
        namespace=pod.namespace,
        name=pod.name,
        labels=pod.labels,
        addresses=tuple(
            (network, (int(ip_address(one)),) * 2, ":" in one)
            for network, ones in pod.addresses.items()
            for one in ones
        ),
        ports=tuple((name, protocol, number) for name, (protocol, number) in pod.ports.items()),
    )


INTERFACES = (("net1", BLUE), ("net2", GREEN))


def decided(policies: Sequence[Object]) -> dict[str, tuple[rules.Interface, ...]]:
    """genie's rules for each pod."""
    now = world.World(read(policies), {(pod.namespace, pod.name): workload(pod) for pod in PODS}, NAMESPACES)
    return decided_in(now)


def decided_in(now: world.World) -> dict[str, tuple[rules.Interface, ...]]:
    return {pod.name: rules.decide(now, workload(pod), INTERFACES) for pod in PODS}
