"""Policies, pods and namespaces at one moment, and the answers about them that rules are made of. Pure.

A cluster changes all the time, mostly in what does not matter for the pods of one node. So answers are kept from one
moment to the next, unless the change concerns them: with 20,000 pods and 500 policies, to find all of them anew takes
seconds.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from genie.policy.model import Peer, Policy, Range

LABELS_MAX = 1000
"""The limit for kept answers about pods' labels."""
QUICK = 1000
"""Policies whose selectors take less time than to ask a thread."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """A pod, for policies. addresses: (network, range of this one address, whether IPv6). ports: (name, protocol,
    number).
    """

    namespace: str
    name: str
    labels: Mapping[str, str]
    addresses: tuple[tuple[str, Range, bool], ...] = ()
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


Pods = Mapping[tuple[str, str], Workload]
"""By namespace and name."""
Namespaces = Mapping[str, Mapping[str, str]]
"""The labels of each."""
Asked = tuple[Peer, str, str]
"""A peer, the namespace of its policy, and the name of the network in a pod's status."""


_Key = tuple[str, str, str]


class Selected(NamedTuple):
    """The pods of a peer, and their addresses: of IPv4, and of IPv6."""

    pods: tuple[Workload, ...]
    addresses: tuple[tuple[Range, ...], tuple[Range, ...]]


class Together(NamedTuple):
    """What policies allow together, or why that is too much. The rest: what it was made of, by `id`."""

    allows: tuple[Allow, ...] | str
    policies: Mapping[int, Policy]
    selections: Mapping[int, Selected]


class World:
    """Everything that rules depend on, at one moment. Answers are kept, so nothing in it may change.

    kept: answers of `rules`. used: the keys of those that were asked for.
    """

    def __init__(
        self, policies: tuple[Policy, ...] = (), pods: Pods | None = None, namespaces: Namespaces | None = None
    ) -> None:
        self.policies, self._pods, self._namespaces = policies, pods or {}, namespaces or {}
        self.kept: dict[Hashable, Together] = {}
        self.used: set[Hashable] = set()
        self._selections: dict[Asked, Selected] = {}
        self._of_labels: dict[tuple[str, frozenset[tuple[str, str]]], tuple[Policy, ...]] = {}

    def after(self, policies: tuple[Policy, ...], pods: Pods, namespaces: Namespaces) -> World:
        """The next moment, with the answers that still hold; this one if nothing is different."""
        before, same = self._pods, policies == self.policies
        changed = {key for key, pod in pods.items() if (old := before.get(key)) is not pod and old != pod}
        changed.update(key for key in before if key not in pods)
        if same and not changed and namespaces == self._namespaces:
            return self
        new = World(self.policies if same else policies, pods, namespaces)
        if same:
            new._of_labels = self._of_labels
        if len(changed) > len(pods) // 4:  # to find all anew is less work
            return new
        gone, came = ([of[key] for key in changed if key in of] for of in (before, pods))
        wanted = {peer for policy in new.policies for peer in _peers(policy)} if not same else None
        kept, stale = list(self.kept.items()), set[int]()  # before the selections, since another thread may add to both
        new._selections = dict(self._selections)
        for asked, selection in list(new._selections.items()):
            of_labels = asked[0].namespaces is not None and namespaces != self._namespaces
            if of_labels or (wanted is not None and asked[0] not in wanted):
                del new._selections[asked]
            elif (updated := new._updated(asked, selection, gone, came)) is not selection:
                new._selections[asked] = updated
            else:
                continue
            stale.add(id(selection))
        there = set(map(id, new.policies))
        new.kept = {
            key: each for key, each in kept if stale.isdisjoint(each.selections) and there.issuperset(each.policies)
        }
        return new

    def _updated(
        self, asked: Asked, selection: Selected, gone: Iterable[Workload], came: Iterable[Workload]
    ) -> Selected:
        lost = {(pod.namespace, pod.name) for pod in gone if self._is_of(asked, pod)}
        found = [pod for pod in came if self._is_of(asked, pod)]
        if not lost and not found:
            return selection
        return _selection((*(pod for pod in selection.pods if (pod.namespace, pod.name) not in lost), *found), asked)

    def forget_unused(self) -> None:
        """Drop the answers that nobody asked for since `used` was cleared."""
        self.kept = {key: each for key, each in list(self.kept.items()) if key in self.used}

    def isolating(self, namespace: str, labels: Mapping[str, str]) -> tuple[Policy, ...]:
        """The policies that select a pod."""
        key = (namespace, frozenset(labels.items()))
        found = self._of_labels.get(key)
        if found is None:
            found = tuple(
                each for each in self.policies if each.namespace == namespace and each.selector.matches(labels)
            )
            if len(self._of_labels) >= LABELS_MAX:
                self._of_labels.clear()
            self._of_labels[key] = found
        return found

    def isolates_none(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether it is known, or takes no time to find, that no policy selects a pod."""
        if len(self.policies) <= QUICK:
            return not self.isolating(namespace, labels)
        return self._of_labels.get((namespace, frozenset(labels.items()))) == ()

    def selected(self, asked: Asked) -> Selected:
        """The pods of a peer that have an address in the network."""
        found = self._selections.get(asked)
        if found is None:
            pods = {id(pod): pod for key in _keys(asked) for pod in self._index.get(key, ())}
            found = _selection(tuple(pod for pod in pods.values() if self._is_of(asked, pod)), asked)
            found = self._selections.setdefault(asked, found)  # answers are made of one only
        return found

    @cached_property
    def _index(self) -> Mapping[_Key, list[Workload]]:
        """By network, and by network and label."""
        found: dict[_Key, list[Workload]] = {}
        for pod in self._pods.values():
            for network in {network for network, _, _ in pod.addresses}:
                for key, value in (*pod.labels.items(), ("", "")):
                    found.setdefault((network, key, value), []).append(pod)
        return found

    def _is_of(self, asked: Asked, pod: Workload) -> bool:
        peer, namespace, _ = asked
        if peer.pods is not None and not peer.pods.matches(pod.labels):
            return False
        there = {network for network, _, _ in pod.addresses}
        return any(each in there and self._is_in(peer, each, pod.namespace, namespace) for each in networks_of(asked))

    def _is_in(self, peer: Peer, network: str, of_pod: str, of_policy: str) -> bool:
        """Whether a peer can be in a namespace. A Logicalnetwork has a plain name in a pod's status, and is of the
        pod's namespace.
        """
        if peer.network:
            return "/" in network or of_pod == of_policy
        if peer.namespaces is None:
            return of_pod == of_policy
        if not peer.namespaces.requirements:
            return True  # then nobody watches namespaces
        labels = self._namespaces.get(of_pod)
        return labels is not None and peer.namespaces.matches(labels)


def _keys(asked: Asked) -> Iterable[_Key]:
    """Where in the index all pods of a peer are."""
    requirements = asked[0].pods.requirements if asked[0].pods else ()
    labels = next(
        ([(key, value) for value in values] for key, operator, values in requirements if operator == "In"), [("", "")]
    )
    return ((network, key, value) for network in networks_of(asked) for key, value in labels)


def networks_of(asked: Asked) -> tuple[str, ...]:
    """The networks, by their names in a pod's status, in which a peer has its addresses."""
    peer, namespace, label = asked
    if not peer.network:
        return (label,)
    return (peer.network,) if "/" in peer.network else (f"{namespace}/{peer.network}", peer.network)


def addresses_of(pods: Iterable[Workload], networks: tuple[str, ...]) -> tuple[tuple[Range, ...], tuple[Range, ...]]:
    """The addresses in these networks: of IPv4, and of IPv6."""
    v4: list[Range] = []
    v6: list[Range] = []
    for pod in pods:
        for network, address, is_v6 in pod.addresses:
            if network in networks:
                (v6 if is_v6 else v4).append(address)
    return joined(v4), joined(v6)


def joined(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The same numbers in as few ranges as possible, in order."""
    found: list[Range] = []
    for each in sorted(ranges):
        if found and each[0] <= found[-1][1] + 1:
            if each[1] > found[-1][1]:
                found[-1] = (found[-1][0], each[1])
        else:
            found.append(each)
    return tuple(found)


def _selection(pods: tuple[Workload, ...], asked: Asked) -> Selected:
    return Selected(pods, addresses_of(pods, networks_of(asked)))


def _peers(policy: Policy) -> Iterable[Peer]:
    for rule in (*(policy.ingress or ()), *(policy.egress or ())):
        yield from rule.peers or ()
