"""The plan of a cluster: computed once by the backend, and passed to the nodes' process as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

KUBECONFIG = "/etc/cni/net.d/genie-kubeconfig"
UNREACHABLE_KUBECONFIG = "/etc/kubernetes/genie-kubeconfig-unreachable"


@dataclass(frozen=True, kw_only=True)
class DaemonPlan:
    """A network's own daemon on a node; see `catalog.Real`."""

    network: str
    command: list[str]  # the program as a path on the node
    environment: dict[str, str]
    files: dict[str, str]  # path to text
    ready_files: list[str]
    ready_routes: list[str]


@dataclass(frozen=True, kw_only=True)
class NodePlan:
    name: str
    number: int
    address: str
    files: dict[str, Any] = field(default_factory=dict)  # net.d: file name to content
    setup: list[dict[str, Any]] = field(default_factory=list)  # see `catalog.setup`
    daemons: list[DaemonPlan] = field(default_factory=list)
    pod_subnets: list[str] = field(default_factory=list)  # spec.podCIDRs
    kubeconfig: str = ""  # the path of an administrator's kubeconfig for daemons

    @classmethod
    def of(cls, data: dict[str, Any]) -> NodePlan:
        return cls(**{**data, "daemons": [DaemonPlan(**daemon) for daemon in data["daemons"]]})


@dataclass(frozen=True, kw_only=True)
class Plan:
    place: str  # the run's directory
    address: str  # of the API server, on the underlay
    nowhere: str  # an unused address on the underlay
    emulated: bool
    nodes: tuple[NodePlan, ...]
    plugins: tuple[str, ...]  # paths of plugin binaries
    genie_conf: dict[str, Any]  # genie.conf for the nodes

    def unreachable_server(self, server: str) -> str:
        return server.replace(self.address, self.nowhere)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Plan:
        data = json.loads(path.read_text())
        nodes = tuple(NodePlan.of(node) for node in data["nodes"])
        return cls(**{**data, "nodes": nodes, "plugins": tuple(data["plugins"])})
