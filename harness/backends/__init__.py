"""What a cluster is to a scenario, whichever backend made it.

A backend gives the runner a `Cluster`. The runner makes pods through the cluster's API server (a kubelet, real or the
harness's own, does the rest), asks the probe inside a pod what it sees, and asks a node what is on it. Everything
that a scenario needs goes through this one interface, so the same file runs on every backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:  # its import takes the better part of a second
    from kubernetes.client import ApiClient

Kind = Literal["real", "stand-in"]


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
    file: str = ""  # its configuration's in the nodes' net.d, where it has one that may be the first


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a report says of the cluster; `backend` and `why` are the first line of every run."""

    backend: str  # "embedded", "container", "kind", "existing"
    why: str  # "no Docker engine answers", "asked for"
    api_server: str  # "kube-apiserver v1.35.4", "kmock's emulator 0.8"
    genie: str  # "direct mode, Python 3.11.7", "agent mode, image genie:0.1.0"
    nodes: tuple[str, ...]  # workers that pods can be put on, in order
    image: str  # the image of probe pods
    offers: Mapping[str, Offer]
    notes: tuple[str, ...] = ()  # versions, limits of this machine
    features: frozenset[str] = frozenset()  # what only some backends can: "api-outage", "settings", "kubelet-restart"

    @property
    def first(self) -> str:
        """The network whose configuration comes first in the nodes' net.d, genie's own apart; empty: none known."""
        there = [offer for offer in self.offers.values() if offer.file and not offer.missing]
        return min(there, key=lambda offer: offer.file).network if there else ""


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What is on a node that pods may leave behind; two of them subtracted tell a leak."""

    interfaces: frozenset[str]  # host side: "vethd1c2 (bridge cni0)"
    addresses: frozenset[str]  # every address that an IPAM store holds: "weave 10.32.0.5 <container>/<ifname>"
    netfilter: frozenset[str]  # one entry a rule, chain or set, counters and handles stripped
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

    def end_sandbox(self, namespace: str, pod: str) -> None:
        """Have the node's runtime end a pod's sandbox (CNI DEL), by-passing the API server, as `crictl stopp` does."""

    def settings(self, genie_conf: Mapping[str, Any]) -> AbstractContextManager[None]:
        """genie.conf with these keys on every node, for the time of the context.

        The embedded backend keeps these apart per namespace; on kind it changes the nodes, so that the caller
        holds the cluster for itself (see `run.py`).
        """

    def api_server_away(self) -> AbstractContextManager[None]:
        """Nodes cannot reach the API server for the time of the context (feature "api-outage")."""

    def evidence(self, namespace: str, pod: str, into: Path) -> list[Path]:
        """Write all that helps to explain a failure of this pod into files: genie's log lines, the runtime's,
        addresses, routes and rules in the pod and on its node."""

    def close(self, keep: bool = False) -> None:
        """End the cluster; with `keep`, leave it for a next run and say how to reach it."""


class ProbeError(Exception):
    """A probe could not be asked."""


class Unavailable(Exception):
    """A backend cannot be had here. The message says what was tried and what to do."""
