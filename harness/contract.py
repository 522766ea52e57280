"""What a cluster is to a scenario, whichever backend made it, and what only some clusters can do: their abilities.

A backend gives the runner a `Cluster`. The runner creates pods through the cluster's API server (a kubelet, real or the
harness's own, does the rest), asks the probe inside a pod what it sees, and asks a node what is on it. Whatever goes
beyond that is an `Ability`: a value with the name that scenario files use, a sentence, and the protocol of the methods
that a cluster with this ability has. `has` returns a cluster as that protocol, or raises with the reason.

To add an ability: write its protocol and its value here, and list the value in the backends that have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:  # its import takes the better part of a second
    from kubernetes.client import ApiClient
    from rich.console import Console

T = TypeVar("T")
Kind = Literal["real", "stand-in"]


class ProbeError(Exception):
    """The probe in a pod did not answer."""


class Unavailable(Exception):
    """A backend cannot be used here, or a cluster lacks an ability. The message has what was tried and what to do."""


# --- a cluster


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A network as this cluster has it: real software, a stand-in, or missing with the reason."""

    network: str  # the name that scenarios and annotations use: "calico"
    kind: Kind
    software: str  # what really runs, for reports: "flannel v0.28.10", "ptp + host-local over host routes"
    subnets: tuple[str, ...]  # every address of this network lies in one of them; IPv4 and IPv6
    default_route: bool = True  # whether its plugin sets a default route by itself
    missing: str = ""  # why it is not here; empty: it is here
    first_only: str = ""  # why it works as a pod's first network only; empty: it works as any
    host_ports: bool = True  # whether its plugins declare port mappings
    file: str = ""  # the name of its configuration in the nodes' net.d, where that may be the first one

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Offer:
        """An offer that was JSON for a while."""
        return cls(**{**data, "subnets": tuple(data["subnets"])})


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a report states of the cluster; `backend` and `why` are the first line of every run."""

    backend: str  # "embedded", "container", "kind", "existing"
    why: str  # "no Docker engine answers", "asked for"
    api_server: str  # "kube-apiserver v1.35.4", "kmock's emulator 0.8"
    genie: str  # "direct mode, Python 3.11.7", "agent mode, image genie:0.1.0"
    nodes: tuple[str, ...]  # workers that pods can be put on, in order
    image: str  # the image of probe pods
    offers: Mapping[str, Offer]
    notes: tuple[str, ...] = ()  # versions, limits of this machine
    abilities: frozenset[Ability[Any]] = frozenset()

    @property
    def first(self) -> str:
        """The network whose configuration comes first in the nodes' net.d, after genie's own; empty: unknown."""
        there = [offer for offer in self.offers.values() if offer.file and not offer.missing]
        return min(there, key=lambda offer: offer.file).network if there else ""


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What is on a node that pods may leave behind; the difference of two inventories is a leak."""

    interfaces: frozenset[str]  # host side: "vethd1c2 (bridge cni0)"
    addresses: frozenset[str]  # every address that an IPAM store holds: "weave 10.32.0.5 <container>/<ifname>"
    netfilter: frozenset[str]  # one entry a rule, chain or set, without counters and handles
    namespaces: frozenset[str]  # files under /run/netns
    records: frozenset[str]  # genie's records
    routes: frozenset[str] = field(default_factory=frozenset)  # host routes and rules

    def beyond(self, earlier: Inventory) -> list[str]:
        """One readable line for each thing that is here and was not in `earlier`."""
        return [
            f"{kind}: {item}"
            for kind in ("interfaces", "addresses", "netfilter", "namespaces", "records", "routes")
            for item in sorted(getattr(self, kind) - getattr(earlier, kind))
        ]


class Cluster(Protocol):
    """One running cluster. Every method may be called from several threads and pytest-xdist workers at once."""

    facts: Facts

    def api(self) -> ApiClient:
        """A client of the Kubernetes API with every right."""

    def ask(self, namespace: str, pod: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Put one request to the probe inside a pod (see `harness/probe.py`) and return its answer.

        Raises:
            ProbeError: the pod is not there or its probe did not answer.
        """

    def inventory(self, node: str) -> Inventory:
        """What is on a node now."""

    def evidence(self, namespace: str, pod: str, into: Path) -> list[Path]:
        """Write whatever helps to explain a failure of this pod into files: genie's log lines, the runtime's,
        addresses, routes and rules in the pod and on its node."""

    def close(self, keep: bool = False) -> None:
        """End the cluster; with `keep`, leave it for a later run and print how to reach it."""


# --- abilities


@dataclass(frozen=True)
class Ability(Generic[T]):
    """Something that only some clusters can do.

    alone: whether a scenario that uses it disturbs others, so that it must have the cluster for itself; "unless apart"
    is no for a cluster with the ability APART.
    """

    name: str
    sentence: str
    protocol: type[T]
    alone: Literal["no", "unless apart", "yes"] = "no"


def has(cluster: Cluster, ability: Ability[T]) -> T:
    """The cluster, as the protocol of an ability.

    Raises:
        Unavailable: it does not have this ability.
    """
    if ability not in cluster.facts.abilities:
        raise Unavailable(f"the {cluster.facts.backend} backend lacks {ability.name}: {ability.sentence}")
    assert isinstance(cluster, ability.protocol), f"{type(cluster).__name__} has no method for {ability.name}"
    return cluster


def must_be_alone(abilities: Iterable[Ability[Any]], facts: Facts) -> bool:
    """Whether using these abilities disturbs other scenarios on this cluster."""
    disturbing = {"yes"} if APART in facts.abilities else {"yes", "unless apart"}
    return any(ability.alone in disturbing for ability in abilities)


@runtime_checkable
class EndsSandboxes(Protocol):
    def end_sandbox(self, namespace: str, pod: str) -> None:
        """Have the node's runtime end a pod's sandbox (CNI DEL), without the API server, as `crictl stopp` does."""


@runtime_checkable
class LosesSandboxes(Protocol):
    def lose_sandbox(self, namespace: str, pod: str) -> None:
        """Have the node's runtime make one more sandbox for a pod and lose it: its namespace goes without CNI DEL."""

    def collect_garbage(self, node: str) -> None:
        """Call CNI GC on a node with every attachment that its runtime knows of.

        Raises:
            CniFailure: it failed.
        """


@runtime_checkable
class CallsPlugins(Protocol):
    def cni_check(self, namespace: str, pod: str) -> str:
        """Call CNI CHECK for a pod; returns the error's message, empty when there is none."""

    def cni_status(self, node: str, genie_conf: Mapping[str, Any], env: Mapping[str, str]) -> str:
        """Call CNI STATUS on a node, with these keys in genie.conf and these variables for this one call; returns the
        error's message, empty when there is none."""


@runtime_checkable
class ChangesSettings(Protocol):
    def settings(self, genie_conf: Mapping[str, Any], namespace: str) -> AbstractContextManager[None]:
        """genie.conf with these keys for the pods of a namespace, for the time of the context. A cluster without the
        ability APART changes it for all pods."""


@runtime_checkable
class CutsOff(Protocol):
    def api_server_away(self, namespace: str) -> AbstractContextManager[None]:
        """genie's calls for the pods of a namespace cannot reach the API server, for the time of the context. A cluster
        without the ability APART cuts its nodes off."""


@runtime_checkable
class TakesConfigurations(Protocol):
    def net_d(self, files: Mapping[str, Mapping[str, Any]]) -> AbstractContextManager[None]:
        """These configurations in every node's net.d, for the time of the context."""


@runtime_checkable
class TakesStaticPods(Protocol):
    def static_pod(self, node: str, name: str, manifest: Mapping[str, Any] | None) -> None:
        """Put a pod into a node's manifest directory, in a file of this name; None removes the file."""


@runtime_checkable
class Restarts(Protocol):
    def restart(self, what: Literal["kubelet", "containerd", "agent"], node: str) -> None:
        """Restart it on a node, without waiting for it to be back."""

    def settle(self) -> None:
        """Wait until every node is ready again."""


@runtime_checkable
class Updates(Protocol):
    def rolling_update(self) -> AbstractContextManager[None]:
        """genie's agents are being replaced, node by node; the end of the context waits until all are."""


@runtime_checkable
class Tampers(Protocol):
    def tamper(self, namespace: str, pod: str, interface: str, remove: str) -> None:
        """Remove the addresses, routes or rules of a pod's interface, or the interface itself."""


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
NET_D = Ability("net-d", "configurations can be put into the nodes' net.d", TakesConfigurations)
SERVICES = Ability("services", "a Service's cluster IP leads to its pods", object)
SETTINGS = Ability("settings", "genie.conf can be changed for a scenario", ChangesSettings, alone="unless apart")
STATIC_PODS = Ability("static-pods", "pods can be created from the kubelet's manifest directory", TakesStaticPods)
TAMPERING = Ability("tampering", "parts of a pod's network can be removed behind genie's back", Tampers)

# What genie itself can do, wherever its custom resource definitions are: scenarios name it for the reader's sake.
_OF_GENIE: tuple[Ability[Any], ...] = (
    Ability("attachment-definitions", "NetworkAttachmentDefinition objects", object),
    Ability("logical-networks", "Logicalnetwork and Physicalnetwork objects", object),
    Ability("smart-selection", "genie picks a network by load when the annotation is empty", object),
    Ability("status-annotations", "genie writes network-status back to the pod", object),
)
OF_GENIE = frozenset(_OF_GENIE)

#: What a scenario can need, by name, in the order of its JSON Schema.
_NAMED: tuple[Ability[Any], ...] = (
    *(API_OUTAGE, API_OUTAGE_OF_GENIE, CNI_CALLS, DEFINITIONS_AWAY, GARBAGE_COLLECTION, IPV6),
    *(AGENT_RESTART, AGENT_UPDATE),
    *(CONTAINERD_RESTART, END_SANDBOX, KUBELET_RESTART, NET_D, SERVICES, SETTINGS, STATIC_PODS, TAMPERING),
    *_OF_GENIE,
)
ABILITIES: Mapping[str, Ability[Any]] = {ability.name: ability for ability in _NAMED}

# What the runner itself asks of a cluster; no scenario can.
APART = Ability("apart", "changed settings and an outage affect the pods of one namespace only", object)
LIVING_LEFT_OUT = Ability("living-left-out", "inventories leave out what belongs to pods that are running", object)


# --- backends


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run asks of a backend."""

    networks: tuple[str, ...]  # the names that its scenarios use; empty: all
    profiles: tuple[Path, ...] = ()  # vendors' descriptions of networks
    why: str  # why this backend
    keep: bool = False
    console: Console


def _never(options: RunOptions, argv: Sequence[str]) -> int:
    raise AssertionError("this backend runs where pytest was started")


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A way to a cluster; see `backends/registry.py` for the list."""

    name: str
    start: Callable[[RunOptions], Cluster]
    connect: Callable[[RunOptions], Cluster]  # from a pytest-xdist worker, to the cluster that the controller started
    unavailable: Callable[[], str] = lambda: ""  # why it cannot be used, as far as can be seen from here
    inside: Callable[[], bool] = lambda: True  # whether pytest already runs where this backend needs it
    enter: Callable[[RunOptions, Sequence[str]], int] = _never  # run pytest there; may replace this process
