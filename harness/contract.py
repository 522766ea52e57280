"""The interface of a cluster, the same for all backends, and the abilities that only some clusters have.

A backend gives the runner a `Cluster`. The runner creates pods through the cluster's API server (a kubelet, real or the
harness's, does the rest), reads reports of the probe in a pod, and reads inventories of nodes. Everything else is an
`Ability`: a value with the name that scenario files use, a sentence, and the protocol of the methods that a cluster
with this ability has. `has` returns a cluster as that protocol, or raises with the reason.

To add an ability: write its protocol and its value here, and list the value in the backends that have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:  # its import takes almost a second
    from kubernetes.client import ApiClient
    from rich.console import Console

T = TypeVar("T")
Kind = Literal["real", "stand-in"]


class ProbeError(Exception):
    """The probe in a pod did not answer."""


class Unavailable(Exception):
    """A backend cannot be used here, or a cluster lacks an ability. The message has the attempts and advice."""


# --- a cluster


@dataclass(frozen=True, kw_only=True)
class Tidying:
    """Entries of inventories that a network's daemon removes from a node by itself, some time after a pod is gone."""

    matches: str  # a regular expression that matches in the entry: "^netfilter: .*\\bcali"
    within: float  # seconds
    why: str  # "felix removes the chains of a namespace when it has seen that the namespace is gone"


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A network as this cluster has it: real software, a stand-in, or missing with the reason."""

    network: str  # the name that scenarios and annotations use: "calico"
    kind: Kind
    software: str  # the software that really runs: "flannel v0.28.10", "ptp + host-local over host routes"
    subnets: tuple[str, ...]  # every address of this network is in one of them; IPv4 and IPv6
    default_route: bool = True  # whether its plugin sets a default route
    missing: str = ""  # why it is not available; empty if it is
    first_only: str = ""  # why it works only as a pod's first network; empty if there is no such limit
    host_ports: bool = True  # whether its plugins declare port mappings
    ipam: bool = True  # whether its configuration names an ipam plugin
    file: str = ""  # the name of its configuration in the nodes' net.d, if it can be the first one
    tidies: tuple[Tidying, ...] = ()
    daemons: tuple[str, ...] = ()  # its own on the nodes; NAMESPACE/NAME of a DaemonSet, or a program

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Offer:
        """An offer from its JSON form."""
        tidies = tuple(Tidying(**each) for each in data.get("tidies", ()))
        lists = {key: tuple(data.get(key, ())) for key in ("subnets", "daemons")}
        return cls(**{**data, **lists, "tidies": tidies})


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The facts about the cluster for reports; `backend` and `why` are in the first line of every run."""

    backend: str  # "embedded", "container", "kind", "existing"
    why: str  # "no Docker engine answers", "asked for"
    api_server: str  # "kube-apiserver v1.35.4", "kmock's emulator 0.8"
    genie: str  # "direct mode, Python 3.11.7", "agent mode, image genie:0.1.0"
    nodes: tuple[str, ...]  # workers that pods can be put on, in order
    image: str  # the image of probe pods
    offers: Mapping[str, Offer]
    notes: tuple[str, ...] = ()  # versions, limits of this machine
    abilities: frozenset[Ability[Any]] = frozenset()
    settles: float = 20.0  # seconds; what does not change on a node for so long is not tidied up any more
    turns: str = ""  # a directory of locks that all runs on this cluster share; empty if there is only one run

    @property
    def first(self) -> str:
        """The network with the first configuration in the nodes' net.d, after genie's; empty if unknown."""
        there = [offer for offer in self.offers.values() if offer.file and not offer.missing]
        return min(there, key=lambda offer: offer.file).network if there else ""

    @property
    def tidies(self) -> dict[str, tuple[Tidying, ...]]:
        """What the daemons of the cluster's networks remove by themselves, by network."""
        return {name: offer.tidies for name, offer in self.offers.items() if offer.tidies and not offer.missing}


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """Everything on a node that pods may leave behind; the difference of two inventories is a leak."""

    interfaces: frozenset[str]  # host side: "vethd1c2 (bridge cni0)"
    addresses: frozenset[str]  # every address that an IPAM store holds: "weave 10.32.0.5 <container>/<ifname>"
    netfilter: frozenset[str]  # one entry for each rule, chain or set, without counters and handles
    namespaces: frozenset[str]  # files under /run/netns
    records: frozenset[str]  # genie's records
    routes: frozenset[str] = field(default_factory=frozenset)  # host routes and rules

    def beyond(self, earlier: Inventory) -> list[str]:
        """One readable line for each entry that is here but not in `earlier`."""
        return [
            f"{kind}: {item}"
            for kind in ("interfaces", "addresses", "netfilter", "namespaces", "records", "routes")
            for item in sorted(getattr(self, kind) - getattr(earlier, kind))
        ]


class Cluster(Protocol):
    """One running cluster. Every method may be called from several threads and pytest-xdist workers at once."""

    facts: Facts

    def api(self) -> ApiClient:
        """A client of the Kubernetes API with all rights."""

    def ask(self, namespace: str, pod: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request to the probe inside a pod (see `harness/probe.py`) and return its answer.

        Raises ProbeError: the pod does not exist or its probe did not answer.
        """

    def inventory(self, node: str) -> Inventory:
        """The inventory of a node now."""

    def binaries(self, node: str) -> Mapping[str, str]:
        """The SHA-256 of each file in a node's plugin directory, by name, for reports."""

    def calls(self, namespace: str) -> Sequence[Mapping[str, Any]]:
        """genie's log lines of its calls for the pods of a namespace; none if the cluster cannot tell them quickly."""

    def evidence(self, namespace: str, pod: str, into: Path) -> list[Path]:
        """Write files that help to explain a failure of this pod: log lines of genie and of the runtime; addresses,
        routes and rules in the pod and on its node."""

    def shell(self, namespace: str, pod: str) -> Sequence[str]:
        """The command that opens a shell in a pod's network, for somebody on this machine.

        Raises ProbeError: the pod does not exist, or has no network.
        """

    def close(self, keep: bool = False) -> None:
        """Delete the cluster; with `keep`, leave it for a later run and print how to reach it."""


# --- abilities


@dataclass(frozen=True)
class Ability(Generic[T]):
    """Something that only some clusters can do.

    alone: "yes" if a scenario that uses it disturbs others, so it must run alone; "unless apart" means "yes" except on
    a cluster with the ability APART.
    """

    name: str
    sentence: str
    protocol: type[T]
    alone: Literal["no", "unless apart", "yes"] = "no"


def has(cluster: Cluster, ability: Ability[T]) -> T:
    """The cluster, as the protocol of an ability.

    Raises Unavailable: it does not have this ability.
    """
    if ability not in cluster.facts.abilities:
        raise Unavailable(f"the {cluster.facts.backend} backend lacks {ability.name}: {ability.sentence}")
    assert isinstance(cluster, ability.protocol), f"{type(cluster).__name__} has no method for {ability.name}"
    return cluster


def must_be_alone(abilities: Iterable[Ability[Any]], facts: Facts) -> bool:
    """Whether these abilities disturb other scenarios on this cluster."""
    disturbing = {"yes"} if APART in facts.abilities else {"yes", "unless apart"}
    return any(ability.alone in disturbing for ability in abilities)


@runtime_checkable
class EndsSandboxes(Protocol):
    def end_sandbox(self, namespace: str, pod: str) -> None:
        """The node's runtime ends a pod's sandbox (CNI DEL), without the API server, as `crictl stopp` does."""


@runtime_checkable
class LosesSandboxes(Protocol):
    def lose_sandbox(self, namespace: str, pod: str) -> None:
        """The node's runtime makes one more sandbox for a pod and loses it: its namespace ends without CNI DEL."""

    def collect_garbage(self, node: str) -> None:
        """Call CNI GC on a node with all attachments that its runtime knows.

        Raises CniFailure: it failed.
        """


@runtime_checkable
class CallsPlugins(Protocol):
    def cni_check(self, namespace: str, pod: str) -> str:
        """Call CNI CHECK for a pod; returns the error's message, empty if there is none."""

    def cni_status(self, node: str, genie_conf: Mapping[str, Any], env: Mapping[str, str]) -> str:
        """Call CNI STATUS on a node, with these keys in genie.conf and these variables for this call; returns the
        error's message, empty if there is none."""


@runtime_checkable
class ChangesSettings(Protocol):
    def settings(self, genie_conf: Mapping[str, Any], namespace: str) -> AbstractContextManager[None]:
        """Set these keys in genie.conf for the pods of a namespace, during the context. A cluster without the ability
        APART changes it for all pods."""


@runtime_checkable
class CutsOff(Protocol):
    def api_server_away(self, namespace: str) -> AbstractContextManager[None]:
        """Cut off genie's calls for the pods of a namespace from the API server, during the context. A cluster without
        the ability APART cuts off its nodes."""


@runtime_checkable
class TakesConfigurations(Protocol):
    def net_d(self, files: Mapping[str, Mapping[str, Any]]) -> AbstractContextManager[None]:
        """Put these configurations into every node's net.d, during the context."""


@runtime_checkable
class TakesStaticPods(Protocol):
    def static_pod(self, node: str, name: str, manifest: Mapping[str, Any] | None) -> None:
        """Write a pod into a file of this name in a node's manifest directory; None removes the file."""


@runtime_checkable
class Restarts(Protocol):
    def restart(self, what: Literal["kubelet", "containerd", "agent"], node: str) -> None:
        """Restart it on a node, without waiting until it is ready."""

    def settle(self) -> None:
        """Wait until every node is ready again."""


@runtime_checkable
class Updates(Protocol):
    def rolling_update(self) -> AbstractContextManager[None]:
        """Replace genie's agents, node by node, during the context; its end waits until all are replaced."""


@runtime_checkable
class RestartsNetworks(Protocol):
    def network_restart(self, network: str) -> AbstractContextManager[None]:
        """Replace the daemons of a network, node by node, during the context; its end waits until all are replaced."""


@runtime_checkable
class Reboots(Protocol):
    def reboot(self, node: str) -> None:
        """A node loses its namespaces, links, routes and rules, keeps its files, and starts its pods again."""


@runtime_checkable
class Tampers(Protocol):
    def tamper(self, namespace: str, pod: str, interface: str, remove: str) -> None:
        """Remove the addresses, routes or rules of a pod's interface, or the interface itself."""


@runtime_checkable
class EnforcesPolicies(Protocol):
    def policies(self, namespace: str) -> AbstractContextManager[None]:
        """genie's agent serves the pods of a namespace, with network policies, during the context. Pods that exist at
        the end are still served by it."""


AGENT_RESTART = Ability("agent-restart", "genie's agent can be restarted", Restarts, alone="yes")
AGENT_UPDATE = Ability("agent-update", "genie's agents can be replaced by newer ones, node by node", Updates)
API_OUTAGE = Ability("api-outage", "nodes can be cut off from the API server", CutsOff, alone="unless apart")
API_OUTAGE_OF_GENIE = Ability(
    "api-outage-of-genie", "genie alone is cut off from the API server, so pods can be created meanwhile", object
)
CNI_CALLS = Ability("cni-calls", "the node's plugin can be called as the runtime does: CHECK, STATUS", CallsPlugins)
CONTAINERD_RESTART = Ability("containerd-restart", "a node's containerd can be restarted", Restarts, alone="yes")
DEFINITIONS_AWAY = Ability(
    "definitions-away", "custom resource definitions can be removed for a while", object, alone="yes"
)
END_SANDBOX = Ability("end-sandbox", "a pod's sandbox can be ended by the runtime", EndsSandboxes)
GARBAGE_COLLECTION = Ability(
    "garbage-collection", "CNI GC can be called, and a sandbox be lost without CNI DEL", LosesSandboxes, alone="yes"
)
IPV6 = Ability("ipv6", "networks have IPv6 subnets beside IPv4", object)
KUBELET_RESTART = Ability("kubelet-restart", "a node's kubelet can be restarted", Restarts, alone="yes")
NETWORK_RESTART = Ability("network-restart", "a network's daemons can be restarted", RestartsNetworks, alone="yes")
NET_D = Ability("net-d", "configurations can be put into the nodes' net.d", TakesConfigurations)
POLICIES = Ability("policies", "genie's agent enforces network policies (it needs nft)", EnforcesPolicies)
REBOOT = Ability("reboot", "a node can lose all but its files, and start its pods again", Reboots, alone="yes")
SERVICES = Ability("services", "a Service's cluster IP leads to its pods", object)
SETTINGS = Ability("settings", "genie.conf can be changed for a scenario", ChangesSettings, alone="unless apart")
STATIC_PODS = Ability("static-pods", "pods can be created from the kubelet's manifest directory", TakesStaticPods)
TAMPERING = Ability("tampering", "parts of a pod's network can be removed behind genie's back", Tampers)

# genie's features, on every cluster with its custom resource definitions: scenarios name them for their readers.
_OF_GENIE: tuple[Ability[Any], ...] = (
    Ability("attachment-definitions", "NetworkAttachmentDefinition objects", object),
    Ability("logical-networks", "Logicalnetwork and Physicalnetwork objects", object),
    Ability("smart-selection", "genie picks a network by load when the annotation is empty", object),
    Ability("status-annotations", "genie writes network-status back to the pod", object),
)
OF_GENIE = frozenset(_OF_GENIE)

#: The abilities that a scenario can need, in the order of the JSON Schema.
_NAMED: tuple[Ability[Any], ...] = (
    *(API_OUTAGE, API_OUTAGE_OF_GENIE, CNI_CALLS, DEFINITIONS_AWAY, GARBAGE_COLLECTION, IPV6),
    *(AGENT_RESTART, AGENT_UPDATE),
    *(CONTAINERD_RESTART, END_SANDBOX, KUBELET_RESTART, NETWORK_RESTART),
    *(NET_D, POLICIES, REBOOT, SERVICES, SETTINGS, STATIC_PODS),
    TAMPERING,
    *_OF_GENIE,
)
ABILITIES: Mapping[str, Ability[Any]] = {ability.name: ability for ability in _NAMED}

# Abilities that only the runner uses.
APART = Ability("apart", "changed settings and an outage affect the pods of one namespace only", object)
LIVING_LEFT_OUT = Ability("living-left-out", "inventories omit everything that belongs to running pods", object)


# --- backends


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of a run for a backend."""

    networks: tuple[str, ...]  # the names that its scenarios use; empty: all
    profiles: tuple[Path, ...] = ()  # vendors' descriptions of networks
    why: str  # the reason for the choice of this backend
    keep: bool = False
    console: Console


def _never(options: RunOptions, argv: Sequence[str]) -> int:
    raise AssertionError("this backend runs where pytest was started")


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A backend; see `backends/registry.py` for the list."""

    name: str
    start: Callable[[RunOptions], Cluster]
    connect: Callable[
        [RunOptions], Cluster
    ]  # in a pytest-xdist worker: connects to the cluster that the controller started
    unavailable: Callable[[], str] = lambda: ""  # why it cannot be used; empty if it seems usable
    inside: Callable[[], bool] = lambda: True  # whether pytest already runs where this backend needs it
    scenario_seconds: float = 600.0  # the longest time of a scenario that names none; some restart a node's programs
    enter: Callable[[RunOptions, Sequence[str]], int] = _never  # runs pytest there; may replace this process
    # brings a changed genie to a running cluster, for --watch; nothing to do if nodes read its code for each call
    refresh: Callable[[RunOptions, Cluster], Cluster] = lambda options, cluster: cluster
