"""The kind backend: a Kubernetes cluster in containers, with networks and genie; a kept one is used again.

Every step checks what exists already. So the same call makes a cluster, continues an interrupted creation, and updates
genie on a kept cluster. A run has its cluster for itself: while another run uses the first one, it takes the next.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from kubernetes.client import ApiClient

from harness import catalog
from harness.backends import plugin_binaries
from harness.cluster import deploy, engine, networks, runs, software
from harness.cluster.apply import Applier, wait
from harness.cluster.kindtool import Kind, find
from harness.cluster.nodes import DockerNodes, allow_ipv6
from harness.cluster.real import ABILITIES, MANIFESTS, OF_SCENARIO, RealCluster, client, is_ready
from harness.cluster.software import Software
from harness.cluster.state import NAME, ClusterState, hold, locked
from harness.contract import Backend, Cluster, RunOptions, Unavailable
from harness.objects import Objects
from harness.progress import Progress

NETWORKS_READY = 300.0  # seconds; by now the nodes have the images
GENIE_READY = 120.0
_CLUSTER = "GENIE_CLUSTER"  # in the environment of this run's workers: its cluster


def unavailable() -> str:
    """Why kind cannot be used on this machine; empty if it seems usable. Makes no cluster."""
    return engine.answers() or _no_node_image() or _no_command()


def _no_command() -> str:
    try:
        find()
    except Unavailable as error:
        return str(error)
    return ""


def _no_node_image() -> str:
    image = os.environ.get("GENIE_NODE_IMAGE", "")
    return f"$GENIE_NODE_IMAGE {image} is not in the engine" if image and not engine.image_id(image) else ""


class KindCluster(RealCluster):
    def __init__(self, state: ClusterState, why: str, held: IO[str] | None = None) -> None:
        self.state, self._held = state, held
        super().__init__(facts=state.facts(why, ABILITIES), kubeconfig=state.kubeconfig, nodes=DockerNodes())

    def close(self, keep: bool = False) -> None:
        """Delete the cluster, unless it is kept now or was kept by an earlier run."""
        super().close()
        if keep and not self.state.kept:
            self.state.kept = True
            self.state.save()
        if not self.state.kept:
            with locked(self.state.name):
                _delete(Kind(self.state.name))
        self.release()

    def release(self) -> None:
        """Close connections, and let another run use the cluster."""
        super().close()
        if self._held:
            self._held.close()


def start(options: RunOptions, name: str = "") -> KindCluster:
    """A cluster with genie and these networks (empty: all that can share a cluster); a kept one is used again.

    name: the cluster; by default, the first that no other run uses.

    Raises Unavailable: it cannot be made here, and incomplete parts have been removed; or another run uses it.
    """
    progress = Progress(console=options.console)
    if reason := unavailable():
        raise Unavailable(f"kind: {reason}")
    known = software.known(catalog.load(options.profiles))
    name, held = (name, _claim(name)) if name else _first_free(progress)
    os.environ[_CLUSTER] = name
    with locked(name):
        state = ClusterState.load(name)
        kind = Kind(name)
        try:
            _make(kind, state, known, options.networks, progress)
        except BaseException as error:
            if not state.complete:
                with progress.step("removing the incomplete cluster"):
                    _delete(kind)
            held.close()
            if isinstance(error, Exception):
                raise Unavailable(f"kind: {error}") from error
            raise
    progress.note(f"cluster ready after {progress.total():.0f} s")
    return KindCluster(state, options.why, held)


def _claim(name: str) -> IO[str]:
    """The mark that this run uses a cluster.

    Raises Unavailable: another run uses it.
    """
    if (held := hold(name)) is None:
        raise Unavailable(f"kind: another run uses the cluster {name}")
    return held


def _first_free(progress: Progress) -> tuple[str, IO[str]]:
    name, number = NAME, 1
    while (held := hold(name)) is None:
        progress.note(f"another run uses the cluster {name}")
        number += 1
        name = f"{NAME}-{number}"
    return name, held


def connect(options: RunOptions) -> KindCluster:
    """The cluster that another process started.

    Raises Unavailable: there is none.
    """
    name = os.environ.get(_CLUSTER, NAME)
    state = ClusterState.load(name)
    if not state.complete:
        raise Unavailable(f"kind: there is no cluster {name}")
    return KindCluster(state, options.why)


def delete(name: str = NAME) -> None:
    """Delete a cluster and its state file; no error if there is none.

    Raises Unavailable: a run uses it.
    """
    with _claim(name), locked(name):
        _delete(Kind(name))


def _delete(kind: Kind) -> None:
    kind.delete()
    ClusterState.load(kind.name).forget()


def _make(
    kind: Kind, state: ClusterState, known: Mapping[str, Software], asked: Sequence[str], progress: Progress
) -> None:
    with ThreadPoolExecutor(3) as pool:
        creating = pool.submit(_have_cluster, kind, state, progress)
        building = pool.submit(_have_image, progress)
        there = [name for name, offer in state.offers.items() if not offer["missing"]] if state.complete else []
        plan = networks.plan(known, [*asked, *there] if asked else None)
        binaries = plugin_binaries.find(plan.plugins())
        image = building.result()
        creating.result()
    api, nodes, names = client(state.kubeconfig), DockerNodes(), kind.nodes()
    for node in names:
        allow_ipv6(nodes, node)
    with progress.step("images onto the nodes"):
        _load(kind, state, (*plan.images(), image))
    with progress.step(f"networks: {', '.join(plan.chosen)}"):
        Applier(api).apply(deploy.crds())
        networks.install(api, nodes, names, plan, binaries)
        networks.wait_ready(api, nodes, names, plan, NETWORKS_READY)
    _remove_kept(api, names, progress)
    with progress.step("genie"):
        fresh = not state.image
        deploy.install(api, image, GENIE_READY)
    with progress.step("pods that were there before genie"):
        old = _renew_system_pods(Objects(api)) if fresh else frozenset()
        wait("the cluster's own pods", lambda: _not_there(Objects(api), old), GENIE_READY)
    state.look(Objects(api))
    state.offer(plan.offers(known))
    state.notes = (f"cluster {state.name}, kubeconfig {state.kubeconfig}",)
    state.complete, state.image, state.times = True, image, progress.times
    state.save()


def _have_cluster(kind: Kind, state: ClusterState, progress: Progress) -> None:
    """The cluster without networks: an existing one that answers, else a new one."""
    if kind.exists():
        try:
            kind.kubeconfig(state.kubeconfig)
            Objects(client(state.kubeconfig)).get("/version")
            progress.note(f"using the existing cluster {kind.name}")
            return
        except Exception as error:  # any error: the cluster is unusable
            progress.note(f"cluster {kind.name} exists but does not answer ({type(error).__name__}): making a new one")
            kind.delete()
    fresh = ClusterState(name=state.name)
    vars(state).update(vars(fresh))
    state.save()
    with progress.step("cluster: a control plane and two workers"):
        kind.create(state.kubeconfig, os.environ.get("GENIE_NODE_IMAGE", ""))


def _load(kind: Kind, state: ClusterState, images: Sequence[str]) -> None:
    """Load images onto the nodes, except those that this harness loaded earlier."""
    wanted = {image: engine.image_id(image) for image in images}
    kind.load(tuple(image for image, identity in wanted.items() if state.loaded.get(image) != identity))
    state.loaded |= wanted
    state.save()


def _have_image(progress: Progress) -> str:
    with progress.step("genie's image"):
        return deploy.image()


def _remove_kept(api: ApiClient, nodes: Sequence[str], progress: Progress) -> None:
    """Remove the namespaces kept by an earlier run: their pods occupy host ports and addresses."""
    objects = Objects(api)
    if not runs.kept(objects):
        return
    with progress.step("removing namespaces kept by an earlier run"):
        for node in nodes:
            DockerNodes().run(node, "sh", "-c", f"rm -f {MANIFESTS}/{OF_SCENARIO}*")
        runs.remove_kept(objects, GENIE_READY)


def _renew_system_pods(objects: Objects) -> frozenset[str]:
    """Recreate pods that were attached before genie was first in net.d: mostly CoreDNS's.

    Returns the UIDs of the deleted pods.
    """
    old = []
    for pod in objects.get("/api/v1/pods")["items"]:
        meta = pod["metadata"]
        if _owners(pod, "ReplicaSet") and not pod["spec"].get("hostNetwork"):
            old.append(meta["uid"])
            objects.delete(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}", grace=0)
    return frozenset(old)


def _not_there(objects: Objects, old: frozenset[str]) -> str:
    """ReplicaSets that lack ready pods, without counting deleted pods (a Deployment's status still counts them)."""
    ready = Counter[str]()
    for pod in objects.get("/api/v1/pods")["items"]:
        if is_ready(pod) and pod["metadata"]["uid"] not in old and "deletionTimestamp" not in pod["metadata"]:
            ready.update(_owners(pod, "ReplicaSet"))
    sets = objects.get("/apis/apps/v1/replicasets")["items"]
    lacking = [each["metadata"]["name"] for each in sets if ready[each["metadata"]["uid"]] < each["spec"]["replicas"]]
    return f"without all of their pods: {', '.join(lacking)}" if lacking else ""


def _owners(pod: Mapping[str, Any], kind: str) -> list[str]:
    owners = pod["metadata"].get("ownerReferences") or []
    return [owner["uid"] for owner in owners if owner["kind"] == kind]


def _refresh(options: RunOptions, cluster: Cluster) -> KindCluster:
    """The same cluster with genie's image as the checkout is now."""
    assert isinstance(cluster, KindCluster)
    cluster.release()
    return start(options, cluster.state.name)


BACKEND = Backend(name="kind", unavailable=unavailable, start=start, connect=connect, refresh=_refresh)
