"""The state of a real cluster between processes and between runs: one file for each cluster, in the cache folder.

pytest-xdist's workers read it to find the cluster that the controller started, and later runs to find a kept cluster.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from harness.contract import Ability, Facts, Offer
from harness.download import cache_dir
from harness.objects import Objects

NAME = "genie"  # of the kind cluster that runs share


@dataclass(kw_only=True)
class ClusterState:
    name: str
    backend: str = "kind"
    complete: bool = False
    kept: bool = False  # a user wants to keep it: a run without --keep does not delete it
    image: str = ""  # genie's
    loaded: dict[str, str] = field(default_factory=dict)  # images on its nodes, with their IDs
    nodes: tuple[str, ...] = ()  # workers
    api_server: str = ""
    offers: dict[str, dict[str, Any]] = field(default_factory=dict)
    turns: str = ""  # a directory of locks, if other runs may use the cluster, too
    notes: tuple[str, ...] = ()
    times: dict[str, float] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return folder(self.name)

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def save(self) -> None:
        """Write the file atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / "state.json.new"
        temporary.write_text(json.dumps(asdict(self), indent=2))
        temporary.replace(self.folder / "state.json")

    def forget(self) -> None:
        """Remove the file."""
        for file in ("state.json", "kubeconfig"):
            (self.folder / file).unlink(missing_ok=True)

    @classmethod
    def load(cls, name: str) -> ClusterState:
        """The state of a cluster; an empty one if there is no valid file."""
        try:
            return cls(**json.loads((folder(name) / "state.json").read_text()))
        except (OSError, ValueError, TypeError):
            return cls(name=name)

    def offer(self, offers: Mapping[str, Offer]) -> None:
        """Set the cluster's networks."""
        self.offers = {name: asdict(offer) for name, offer in offers.items()}

    def look(self, objects: Objects) -> None:
        """Read the version of its API server, and its nodes that take pods."""
        self.api_server = f"kube-apiserver {objects.get('/version')['gitVersion']}"
        nodes = objects.get("/api/v1/nodes")["items"]
        self.nodes = tuple(sorted(node["metadata"]["name"] for node in nodes if _takes_pods(node)))

    def facts(self, why: str, abilities: frozenset[Ability[Any]]) -> Facts:
        """The facts for a report."""
        return Facts(
            backend=self.backend,
            why=why,
            api_server=self.api_server,
            genie=f"agent mode, image {self.image}",
            nodes=tuple(self.nodes),
            image=self.image,
            offers={name: Offer.of(offer) for name, offer in self.offers.items()},
            notes=tuple(self.notes),
            abilities=abilities,
            turns=self.turns,
        )


def folder(name: str) -> Path:
    """The path of a cluster's state file."""
    return cache_dir() / "clusters" / name


@contextmanager
def locked(name: str) -> Iterator[None]:
    """No other process creates or deletes this cluster during the context."""
    folder(name).mkdir(parents=True, exist_ok=True)
    with (folder(name) / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def hold(name: str) -> IO[str] | None:
    """Mark a cluster as used by this process, until it closes the file or ends; None if another process uses it."""
    folder(name).mkdir(parents=True, exist_ok=True)
    held = (folder(name) / "in-use").open("a")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        return None
    return held


def _takes_pods(node: Mapping[str, Any]) -> bool:
    """Whether a pod without tolerations can run on a node."""
    taints = node["spec"].get("taints") or []
    lasting = [taint for taint in taints if not taint["key"].startswith("node.kubernetes.io/not-ready")]
    return not any(taint["effect"] in ("NoSchedule", "NoExecute") for taint in lasting)
