"""The kind backend: a Kubernetes cluster in containers, made, furnished with networks and genie, used again if kept.

Every step finds out by itself what is there already, so the same call makes a cluster, goes on with one that was made
half-way, and brings a kept one up to date with a changed genie. What is known of a cluster lies in the cache folder
under its name; a lock there lets several processes ask for the same cluster at once, and the first makes it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kubernetes.client import ApiClient

from harness import catalog
from harness.backends import Facts, Offer, Unavailable, cluster_networks, deploy, engine, plugin_binaries, software
from harness.backends.apply import Applier, wait
from harness.backends.deploy import crds
from harness.backends.kindtool import Kind
from harness.backends.nodes import DockerNodes
from harness.backends.real import FEATURES, RealCluster, connect
from harness.backends.software import Software
from harness.backends.steps import Steps
from harness.download import cache_dir
from harness.objects import Objects

NAME = "genie"
NETWORKS_READY = 300.0  # seconds; images are there by then
GENIE_READY = 120.0


@dataclass(kw_only=True)
class State:
    """What is known of a cluster between runs."""

    name: str
    complete: bool = False
    kept: bool = False  # somebody wants it to stay: a run without --keep leaves it alone
    image: str = ""
    offers: dict[str, Any] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return folder(self.name)

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / "state.json.new"
        temporary.write_text(json.dumps(asdict(self), indent=2))
        temporary.replace(self.folder / "state.json")

    @classmethod
    def load(cls, name: str) -> State:
        try:
            return cls(**json.loads((folder(name) / "state.json").read_text()))
        except (OSError, ValueError, TypeError):
            return cls(name=name)


def folder(name: str) -> Path:
    """Where a cluster's state is kept."""
    return cache_dir() / "clusters" / name


def unavailable() -> str:
    """Why kind cannot be used on this machine; empty when it can, as far as can be told without making a cluster."""
    return engine.answers() or _no_node_image()


def _no_node_image() -> str:
    image = os.environ.get("GENIE_NODE_IMAGE", "")
    return f"$GENIE_NODE_IMAGE {image} is not in the engine" if image and not engine.image_id(image) else ""


class KindCluster(RealCluster):
    """A running cluster of kind's."""

    def __init__(self, state: State, why: str) -> None:
        self.state = state
        super().__init__(
            facts=_facts(state, Objects(connect(state.kubeconfig)), why),
            kubeconfig=state.kubeconfig,
            nodes=DockerNodes(),
        )

    def close(self, keep: bool = False) -> None:
        """End the cluster, unless it is to be kept, or was kept by an earlier run."""
        super().close()
        if keep and not self.state.kept:
            self.state.kept = True
            self.state.save()
        if not self.state.kept:
            delete(self.state.name)


def start(
    networks: Sequence[str] | None = None,
    *,
    name: str = NAME,
    why: str = "asked for",
    keep: bool = False,
    profiles: Sequence[Path] = (),
    steps: Steps | None = None,
) -> KindCluster:
    """A cluster with these networks (None: all that can stand beside each other) and genie; a kept one is used again.

    Args:
        keep: what was made half-way stays when something goes wrong, to be looked at and gone on with.

    Raises:
        Unavailable: it cannot be had here.
    """
    steps = steps or Steps()
    if reason := unavailable():
        raise Unavailable(f"kind: {reason}")
    known = software.known(catalog.load(profiles))
    with _locked(name):
        state = State.load(name)
        kind = Kind(name)
        try:
            _make(kind, state, known, networks, steps)
        except BaseException as error:
            if not state.complete and not keep:
                with steps.step("removing what was made half-way"):
                    _delete(kind)
            if isinstance(error, Exception):
                raise Unavailable(f"kind: {error}") from error
            raise
    steps.say(f"cluster ready after {steps.total():.0f} s")
    return KindCluster(state, why)


def attach(name: str = NAME, why: str = "asked for") -> KindCluster:
    """A cluster that another process has started, as it is.

    Raises:
        Unavailable: there is none.
    """
    state = State.load(name)
    if not state.complete:
        raise Unavailable(f"kind: there is no cluster {name}")
    return KindCluster(state, why)


def _make(kind: Kind, state: State, known: Mapping[str, Software], asked: Sequence[str] | None, steps: Steps) -> None:
    with ThreadPoolExecutor(3) as pool:
        creating = pool.submit(_have_cluster, kind, state, steps)
        building = pool.submit(_have_image, steps)
        there = [name for name, offer in state.offers.items() if not offer["missing"]] if state.complete else []
        plan = cluster_networks.plan(known, [*asked, *there] if asked else None)
        binaries = plugin_binaries.find(plan.plugins())
        image = building.result()
        creating.result()
    api, nodes, names = connect(state.kubeconfig), DockerNodes(), kind.nodes()
    with steps.step("images onto the nodes"):
        kind.load((*plan.images(), image))
    with steps.step(f"networks: {', '.join(plan.chosen)}"):
        Applier(api).apply(crds())
        cluster_networks.install(api, nodes, names, plan, binaries)
        cluster_networks.wait_ready(api, nodes, names, plan, NETWORKS_READY)
    with steps.step("genie"):
        fresh = state.image != image
        deploy.install(api, image, GENIE_READY)
    with steps.step("pods that were there before genie"):
        if fresh:
            _renew_system_pods(api)
        wait("CoreDNS", lambda: deploy.rollout(Objects(api), "Deployment", "kube-system", "coredns"), GENIE_READY)
    state.complete, state.image, state.times = True, image, steps.times
    state.offers = {name: asdict(offer) for name, offer in plan.offers(known).items()}
    state.save()


def _have_cluster(kind: Kind, state: State, steps: Steps) -> None:
    """The bare cluster: one that is there and answers, else a new one."""
    if kind.exists():
        try:
            kind.kubeconfig(state.kubeconfig)
            Objects(connect(state.kubeconfig)).get("/version")
            steps.say(f"cluster {kind.name} is there and is used again")
            return
        except Exception as error:  # whatever it is, such a cluster is of no use
            steps.say(f"cluster {kind.name} is there but does not answer ({type(error).__name__}): making it anew")
            kind.delete()
    state.complete, state.kept, state.image, state.offers = False, False, "", {}
    state.save()
    with steps.step("cluster: a control plane and two workers"):
        kind.create(state.kubeconfig, os.environ.get("GENIE_NODE_IMAGE", ""))


def _have_image(steps: Steps) -> str:
    with steps.step("genie's image"):
        return deploy.image()


def _renew_system_pods(api: ApiClient) -> None:
    """Have pods made anew that some network's plugin made before genie was first in net.d: CoreDNS's, mostly."""
    objects = Objects(api)
    for pod in objects.get("/api/v1/pods")["items"]:
        meta = pod["metadata"]
        made_again = any(owner["kind"] == "ReplicaSet" for owner in meta.get("ownerReferences") or [])
        if made_again and not pod["spec"].get("hostNetwork"):
            objects.delete(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}", grace=0)


def _facts(state: State, objects: Objects, why: str) -> Facts:
    names = [node["metadata"]["name"] for node in objects.get("/api/v1/nodes")["items"]]
    return Facts(
        backend="kind",
        why=why,
        api_server=f"kube-apiserver {objects.get('/version')['gitVersion']}",
        genie=f"agent mode, image {state.image}",
        nodes=tuple(sorted(name for name in names if "control-plane" not in name)),
        image=state.image,
        offers={name: Offer(**{**offer, "subnets": tuple(offer["subnets"])}) for name, offer in state.offers.items()},
        notes=(f"cluster {state.name}, kubeconfig {state.kubeconfig}",),
        features=FEATURES,
    )


def delete(name: str = NAME) -> None:
    """End a cluster and forget it; no error where there is none."""
    with _locked(name):
        _delete(Kind(name))


def _delete(kind: Kind) -> None:
    kind.delete()
    for file in ("state.json", "kubeconfig"):
        (folder(kind.name) / file).unlink(missing_ok=True)


@contextmanager
def _locked(name: str) -> Iterator[None]:
    folder(name).mkdir(parents=True, exist_ok=True)
    with (folder(name) / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
