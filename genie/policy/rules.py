"""Decides which connections each interface of a pod may have, from policies, pods and namespaces. Pure.

Rules are about connections: the ingress rules about those that peers begin, the egress rules about those that the pod
begins. Several policies add up: a connection is allowed if one of them allows it, or if none isolates the pod in this
direction (as for NetworkPolicy).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from genie.policy.model import Peer, Policy, Port, Range, Rule, Selector

RANGES_MAX = 65536
"""The limit for one interface, in ranges of addresses of all its rules."""
ALLOWS_MAX = 4096
"""The limit for one interface, in rules."""


class TooManyError(Exception):
    """The policies of an interface come to more rules or addresses than the limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """A pod, for policies. addresses: (network, address as number, whether IPv6). ports: (name, protocol, number)."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    addresses: tuple[tuple[str, int, bool], ...] = ()
    ports: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Allow:
    """Connections with these addresses at these ports. protocol: "" for all. ports: empty for all of the protocol.
    anyone: the address does not matter.
    """

    protocol: str = ""
    ports: tuple[Range, ...] = ()
    anyone: bool = False
    v4: tuple[Range, ...] = ()
    v6: tuple[Range, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Interface:
    """The rules of one interface. None: it is not isolated in this direction."""

    ifname: str
    ingress: tuple[Allow, ...] | None = None
    egress: tuple[Allow, ...] | None = None


class World:
    """Pods and namespaces at one moment. Answers are kept, so nothing in it may change.

    Args:
        namespaces: the labels of each.
    """

    def __init__(
        self, pods: Iterable[Workload] = (), namespaces: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        self._namespaces = namespaces or {}
        self._pods: dict[str, dict[str, list[Workload]]] = {}  # by network and namespace
        self._found: dict[tuple[Peer, str, str], list[Workload]] = {}
        for pod in pods:
            for network in {network for network, _, _ in pod.addresses}:
                self._pods.setdefault(network, {}).setdefault(pod.namespace, []).append(pod)

    def selected(self, peer: Peer, namespace: str, label: str) -> list[Workload]:
        """The pods of a peer in a policy of this namespace that have an address in the network."""
        key = (peer, namespace, label)
        if key not in self._found:
            self._found[key] = [
                pod
                for network in networks_of(peer, namespace, label)
                for of_pod, pods in self._pods.get(network, {}).items()
                if self._is_in(peer, network, of_pod, namespace)
                for pod in pods
                if peer.pods is None or peer.pods.matches(pod.labels)
            ]
        return self._found[key]

    def _is_in(self, peer: Peer, network: str, of_pod: str, of_policy: str) -> bool:
        """Whether a peer can be in a namespace. A Logicalnetwork has a plain name in a pod's status, and is of the
        pod's namespace.
        """
        if peer.network:
            return "/" in network or of_pod == of_policy
        if peer.namespaces is None:
            return of_pod == of_policy
        return of_pod in self._namespaces and peer.namespaces.matches(self._namespaces[of_pod])


def networks_of(peer: Peer, namespace: str, label: str) -> tuple[str, ...]:
    """The networks, by their names in a pod's status, in which a peer has its addresses."""
    if not peer.network:
        return (label,)
    return (peer.network,) if "/" in peer.network else (f"{namespace}/{peer.network}", peer.network)


def decide(
    policies: Iterable[Policy], pod: Workload, interfaces: Iterable[tuple[str, str]], world: World
) -> tuple[Interface, ...]:
    """The rules for a pod's interfaces; without those that no policy selects.

    Args:
        interfaces: name of the interface, and name of its network in the pod's status.

    Raises:
        TooManyError: an interface has too many rules or addresses.
    """
    mine = [each for each in policies if each.namespace == pod.namespace and each.selector.matches(pod.labels)]
    found = []
    for ifname, label in interfaces:
        of = [policy for policy in mine if policy.is_for(label)]
        ingress, egress = (_Side(side, pod, label, world).together(of) for side in ("ingress", "egress"))
        if ingress is not None or egress is not None:
            found.append(Interface(ifname=ifname, ingress=ingress, egress=egress))
    return tuple(found)


_ALL = Selector(())
_Key = tuple[str, tuple[Range, ...]]
_Addresses = tuple[list[Range], list[Range]]


@dataclass(frozen=True)
class _Side:
    """One direction of a pod's interface in the network `label`."""

    side: str
    pod: Workload
    label: str
    world: World

    def together(self, policies: Iterable[Policy]) -> tuple[Allow, ...] | None:
        """What these policies allow together; None if none of them isolates the pod here."""
        isolating: list[tuple[str, tuple[Rule, ...]]] = [
            (policy.namespace, rules) for policy in policies if (rules := getattr(policy, self.side)) is not None
        ]
        if not isolating:
            return None
        anyone: set[_Key] = set()
        groups: dict[_Key, _Addresses] = {}
        for namespace, rules in isolating:
            for key, addresses in (each for rule in rules for each in self._allowed(rule, namespace)):
                if addresses is None:
                    anyone.add(key)
                    continue
                group = groups.setdefault(key, ([], []))
                group[0].extend(addresses[0])
                group[1].extend(addresses[1])
        allows = [Allow(protocol=protocol, ports=ports, anyone=True) for protocol, ports in anyone]
        for (protocol, ports), (v4, v6) in groups.items():
            if (v4 or v6) and (protocol, ports) not in anyone:
                allows.append(Allow(protocol=protocol, ports=ports, v4=joined(v4), v6=joined(v6)))
        if len(allows) > ALLOWS_MAX or sum(len(each.v4) + len(each.v6) for each in allows) > RANGES_MAX:
            most = f"{ALLOWS_MAX} rules or {RANGES_MAX} ranges of addresses"
            raise TooManyError(f"the policies for {self.label} come to more than {most}")
        return tuple(sorted(allows, key=lambda each: (each.protocol, each.ports, not each.anyone)))

    def _allowed(self, rule: Rule, namespace: str) -> Iterable[tuple[_Key, _Addresses | None]]:
        """What one rule allows: protocol with ports, and addresses; None: all."""
        numbered = None if rule.ports is None else [port for port in rule.ports if not port.name]
        named = [port for port in rule.ports or () if port.name]
        if numbered is not None and self.side == "ingress":  # a port's name is of the pod itself
            numbered += [each for port in named for each in _own(port, self.pod)]
            named = []
        if keys := [("", ())] if numbered is None else _keys(numbered):
            addresses = None if rule.peers is None else self._addresses(rule.peers, namespace)
            yield from ((key, addresses) for key in keys)
        for port in named:  # a port's name is of each peer; a block has none
            for peer in (Peer(namespaces=_ALL),) if rule.peers is None else rule.peers:
                for other in () if peer.block is not None else self.world.selected(peer, namespace, self.label):
                    for key in _keys(_own(port, other)):
                        yield key, _addresses_of([other], networks_of(peer, namespace, self.label))

    def _addresses(self, peers: Iterable[Peer], namespace: str) -> _Addresses:
        found: _Addresses = ([], [])
        for peer in peers:
            if peer.block is not None:
                found[peer.v6].extend(peer.block)
                continue
            pods = self.world.selected(peer, namespace, self.label)
            more = _addresses_of(pods, networks_of(peer, namespace, self.label))
            found[0].extend(more[0])
            found[1].extend(more[1])
        return found


def _own(port: Port, pod: Workload) -> list[Port]:
    """The ports of this name that a pod has."""
    return [
        Port(protocol=protocol, ports=(number, number))
        for name, protocol, number in pod.ports
        if (name, protocol) == (port.name, port.protocol)
    ]


def _keys(ports: Iterable[Port]) -> list[_Key]:
    by: dict[str, list[Range] | None] = {}
    for port in ports:
        if port.ports is None:
            by[port.protocol] = None
        elif (known := by.setdefault(port.protocol, [])) is not None:
            known.append(port.ports)
    return [(protocol, () if ranges is None else joined(ranges)) for protocol, ranges in by.items()]


def _addresses_of(pods: Iterable[Workload], networks: tuple[str, ...]) -> _Addresses:
    found: _Addresses = ([], [])
    for pod in pods:
        for network, address, v6 in pod.addresses:
            if network in networks:
                found[v6].append((address, address))
    return found


def joined(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The same numbers in as few ranges as possible, in order."""
    found: list[Range] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return tuple(found)
