"""Decides which connections each interface of a pod may have, from policies, pods and namespaces. Pure.

Rules are about connections: the ingress rules about those that peers begin, the egress rules about those that the pod
begins. Several policies add up: a connection is allowed if one of them allows it, or if none isolates the pod in this
direction (as for NetworkPolicy).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from genie.policy.model import Peer, Policy, Port, Range, Rule, Selector
from genie.policy.world import Allow, Selected, Together, Workload, World, addresses_of, joined, networks_of

RANGES_MAX = 65536
"""The limit for one interface, in ranges of addresses of all its rules."""
ALLOWS_MAX = 4096
"""The limit for one interface, in rules."""


class TooManyError(Exception):
    """The policies of an interface come to more rules or addresses than the limit."""


@dataclass(frozen=True, kw_only=True)
class Interface:
    """The rules of one interface. None: it is not isolated in this direction."""

    ifname: str
    ingress: tuple[Allow, ...] | None = None
    egress: tuple[Allow, ...] | None = None


def decide(world: World, pod: Workload, interfaces: Iterable[tuple[str, str]]) -> tuple[Interface, ...]:
    """The rules for a pod's interfaces; without those that no policy selects.

    interfaces: name of the interface, and name of its network in the pod's status.

    Raises TooManyError: an interface has too many rules or addresses.
    """
    mine = world.isolating(pod.namespace, pod.labels)
    found = []
    for ifname, label in interfaces:
        of = [policy for policy in mine if policy.is_for(label)]
        ingress, egress = (_Side(side, pod, label, world).together(of) for side in ("ingress", "egress"))
        if ingress is not None or egress is not None:
            found.append(Interface(ifname=ifname, ingress=ingress, egress=egress))
    return tuple(found)


_ALL = Selector(())
_Key = tuple[str, tuple[Range, ...]]
_Addresses = tuple[Iterable[Range], Iterable[Range]]


@dataclass(frozen=True)
class _Side:
    """One direction of a pod's interface in the network `label`. used: the selections it depends on, by `id`."""

    side: str
    pod: Workload
    label: str
    world: World
    used: dict[int, Selected] = field(default_factory=dict)

    def together(self, policies: Iterable[Policy]) -> tuple[Allow, ...] | None:
        """What these policies allow together; None if none of them isolates the pod here."""
        isolating = {id(policy): policy for policy in policies if getattr(policy, self.side) is not None}
        if not isolating:
            return None
        key = (self.side, self.label, self.pod.ports, *isolating)
        self.world.used.add(key)
        kept = self.world.kept.get(key)
        if kept is None:
            kept = self.world.kept[key] = Together(self._allows(isolating.values()), isolating, self.used)
        if isinstance(kept.allows, str):
            raise TooManyError(kept.allows)
        return kept.allows

    def _allows(self, policies: Iterable[Policy]) -> tuple[Allow, ...] | str:
        anyone: set[_Key] = set()
        groups: dict[_Key, tuple[list[Range], list[Range]]] = {}
        for policy in policies:
            for key, addresses in (
                each for rule in getattr(policy, self.side) for each in self._allowed(rule, policy.namespace)
            ):
                if addresses is None:
                    anyone.add(key)
                    continue
                group = groups.setdefault(key, ([], []))
                group[0].extend(addresses[0])
                group[1].extend(addresses[1])
        allows = [Allow(protocol=protocol, ports=ports, anyone=True) for protocol, ports in anyone]
        once: dict[tuple[Range, ...], tuple[Range, ...]] = {}  # often the same for each protocol
        for (protocol, ports), addresses in groups.items():
            if any(addresses) and (protocol, ports) not in anyone:
                v4, v6 = (once.setdefault(of, of) for of in map(joined, addresses))
                allows.append(Allow(protocol=protocol, ports=ports, v4=v4, v6=v6))
        if len(allows) > ALLOWS_MAX or sum(len(each.v4) + len(each.v6) for each in allows) > RANGES_MAX:
            most = f"{ALLOWS_MAX} rules or {RANGES_MAX} ranges of addresses"
            return f"the policies for {self.label} come to more than {most}"
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
                networks = networks_of((peer, namespace, self.label))
                for other in () if peer.block is not None else self._selected(peer, namespace).pods:
                    for key in _keys(_own(port, other)):
                        yield key, addresses_of([other], networks)

    def _addresses(self, peers: Iterable[Peer], namespace: str) -> _Addresses:
        found: tuple[list[Range], list[Range]] = ([], [])
        for peer in peers:
            if peer.block is not None:
                found[peer.v6].extend(peer.block)
                continue
            for of, more in zip(found, self._selected(peer, namespace).addresses, strict=True):
                of.extend(more)
        return found

    def _selected(self, peer: Peer, namespace: str) -> Selected:
        selection = self.world.selected((peer, namespace, self.label))
        self.used[id(selection)] = selection
        return selection


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
