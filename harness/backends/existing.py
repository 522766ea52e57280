"""The existing backend: a user's cluster, by kubeconfig. It gets genie if it has none; all changes are undone.

The harness adds no network: scenarios use those of the cluster, each in a new namespace. It reaches the nodes through a
privileged pod on each, in the run's namespace, because only such a pod sees a node's interfaces and rules. Several runs
can use a cluster at once: see `harness.cluster.runs`.
Abilities that would disturb others (to restart a node's services, to cut it off) are missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import catalog, contract
from harness.cluster import deploy, runs, software
from harness.cluster.apply import Applier, wait
from harness.cluster.deploy import CONF, CONF_DIR
from harness.cluster.engine import CommandFailed
from harness.cluster.podnodes import PodNodes, daemonset
from harness.cluster.real import RealCluster, client
from harness.cluster.software import Software
from harness.cluster.state import ClusterState, folder
from harness.contract import Ability, Backend, Cluster, Offer, RunOptions, Unavailable
from harness.download import cache_dir
from harness.objects import Objects
from harness.progress import Progress
from harness.values import subnets

_RUN = "GENIE_RUN"  # in the environment of this run's workers: its ID
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
OF_STATUS_IP = (
    "with Kubernetes' API as its datastore, calico's node agent takes a pod's status.podIP for the address of calico's "
    "interface, and that is the first network's"
)
ABILITIES: frozenset[Ability[Any]] = frozenset(
    {
        contract.AGENT_RESTART,
        contract.CNI_CALLS,
        contract.NET_D,
        contract.SERVICES,
        contract.SETTINGS,
        contract.TAMPERING,
    }
)


class ExistingCluster(RealCluster):
    """Somebody's cluster."""

    def __init__(self, run: str, state: ClusterState, why: str) -> None:
        self.run, self.state, file = run, state, kubeconfig()
        nodes = PodNodes(lambda: client(file), runs.namespace_of(run))
        facts = state.facts(why, ABILITIES)
        super().__init__(facts=facts, kubeconfig=file, nodes=nodes)

    def close(self, keep: bool = False) -> None:
        """Remove everything that the harness added to the cluster, unless it is kept or another run uses it."""
        super().close()
        if not keep:
            _remove(self.run, self.state)


def start(options: RunOptions) -> ExistingCluster:
    """The cluster of `$KUBECONFIG` (else ~/.kube/config) and its current context, with genie installed.

    Raises Unavailable: it does not answer, or genie cannot be installed; additions have been removed.
    """
    progress = Progress(console=options.console)
    known = software.known(catalog.load(options.profiles))
    run = os.environ[_RUN] = runs.new()
    state = ClusterState(name=_state(run), backend="existing")
    try:
        _make(run, state, known, options.networks, progress)
    except BaseException as error:
        if state.turns:  # it has answered
            _remove(run, state)
        if isinstance(error, Exception):
            raise Unavailable(f"existing: {error}") from error
        raise
    return ExistingCluster(run, state, options.why)


def connect(options: RunOptions) -> ExistingCluster:
    """The cluster that another process prepared.

    Raises Unavailable: none has.
    """
    run = os.environ.get(_RUN, "")
    state = ClusterState.load(_state(run))
    if not state.complete:
        raise Unavailable("existing: no cluster has been prepared")
    return ExistingCluster(run, state, options.why)


def _state(run: str) -> str:
    """The name of the state of a run's cluster."""
    return f"existing-{run}"


def kubeconfig() -> Path:
    """$KUBECONFIG, ~/.kube/config, or in a pod, one of its service account. The current context is the cluster."""
    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    usual = Path(named) if named else Path.home() / ".kube" / "config"
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    if named or usual.exists() or not (host and (_ACCOUNT / "token").exists()):
        return usual
    made = cache_dir() / f"in-cluster-{os.uname().nodename}.kubeconfig"
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_text(json.dumps(_of_account(host, os.environ.get("KUBERNETES_SERVICE_PORT", "443"))))
    return made


def _of_account(host: str, port: str) -> dict[str, Any]:
    """A kubeconfig that refers to the files of the pod's service account, which the kubelet renews."""
    address = f"[{host}]" if ":" in host else host
    cluster = {"server": f"https://{address}:{port}", "certificate-authority": str(_ACCOUNT / "ca.crt")}
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "pod",
        "clusters": [{"name": "pod", "cluster": cluster}],
        "users": [{"name": "pod", "user": {"tokenFile": str(_ACCOUNT / "token")}}],
        "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod"}}],
    }  # fmt: skip


def _make(
    run: str, state: ClusterState, known: Mapping[str, Software], asked: Sequence[str], progress: Progress
) -> None:
    file = kubeconfig()
    if not file.is_file():
        raise Unavailable(f"there is no kubeconfig {file}: name one in $KUBECONFIG")
    api = client(file)
    objects, mine = Objects(api), runs.namespace_of(run)
    state.look(objects)
    if not state.nodes:
        raise Unavailable("no node takes pods")
    applier = Applier(api)  # it looks for all kinds at once: `look` has the better words for a cluster that is away
    state.turns = str(folder(objects.get("/api/v1/namespaces/kube-system")["metadata"]["uid"]) / "turns")
    with runs.exclusive(objects):
        if not (others := runs.others(objects, run)) and runs.kept(objects):
            with progress.step("removing namespaces kept by an earlier run"):
                runs.remove_kept(objects, 120)
        applier.apply([runs.namespace(run)])
        present = objects.find(f"/apis/apps/v1/namespaces/{deploy.NAMESPACE}/daemonsets/genie")
        state.image = _image(present)
        with progress.step("genie" if present is None else "genie, which is there already"):
            runs.add(applier, [*deploy.crds(), *([] if present is not None else deploy.objects(state.image))])
            wait("genie", lambda: deploy.rollout(objects, "DaemonSet", deploy.NAMESPACE, "genie"), 180)
    with progress.step("a pod on each node to look at it"):
        applier.apply([daemonset(state.image, mine)])
        wait("the pods", lambda: deploy.rollout(objects, "DaemonSet", mine, "nodes"), 180)
    with progress.step("networks that the cluster has"):
        nodes = PodNodes(lambda: client(file), mine)
        first = _first_conf(nodes, state.nodes[0])
        chosen = [name for name in known if not asked or name in asked or known[name].conf == first]
        offers = (_offer(name, known[name], nodes, state.nodes, objects) for name in chosen)
        state.offer(
            {each.network: replace(each, file=first if known[each.network].conf == first else "") for each in offers}
        )
    state.notes = (f"kubeconfig {file}",)
    if others:
        state.notes += (f"other runs on the cluster at the start: {', '.join(others)}",)
    state.complete = True
    state.save()


def _image(present: Mapping[str, Any] | None) -> str:
    """The image for pods: that of the installed genie, else `$GENIE_IMAGE`; nodes must be able to pull it."""
    if present is not None:
        return str(present["spec"]["template"]["spec"]["containers"][0]["image"])
    if image := os.environ.get("GENIE_IMAGE"):
        return image
    raise Unavailable("there is no genie on the cluster: name an image that its nodes can pull in $GENIE_IMAGE")


def _remove(run: str, state: ClusterState) -> None:
    """Remove the run's additions, and the shared ones if no other run uses them: genie's pods first, because they need
    their rights to restore the nodes."""
    api = client(kubeconfig())
    objects, applier, path = Objects(api), Applier(api), f"/api/v1/namespaces/{runs.namespace_of(run)}"
    with runs.exclusive(objects):
        if not runs.others(objects, run):
            shared = runs.added(applier, [*deploy.crds(), *deploy.objects("")])
            if any(thing["kind"] == "DaemonSet" for thing in shared):
                deploy.remove_pods(api)
            applier.delete(shared)
        objects.delete(path)
    wait("deletion of the run's namespace", lambda: "still there" if objects.find(path) else "", 90)
    state.forget()
    with suppress(OSError):
        state.folder.rmdir()


def _first_conf(nodes: PodNodes, node: str) -> str:
    """The configuration for pods without annotations: the first in net.d apart from genie's."""
    files = nodes.run(node, "ls", CONF_DIR).split()
    confs = sorted(file for file in files if file.endswith((".conf", ".conflist", ".json")) and file != Path(CONF).name)
    return confs[0] if confs else ""


def _offer(name: str, software: Software, nodes: PodNodes, workers: Sequence[str], objects: Objects) -> Offer:
    """A network, if every worker has its configuration."""
    missing, only_first, found = "", software.first_only, dict[str, None]()
    for node in workers:
        try:
            conf = json.loads(nodes.run(node, "cat", f"{CONF_DIR}/{software.conf}"))
            found |= dict.fromkeys(_subnets(conf, objects))
            only_first = only_first or first_only(conf)
        except (CommandFailed, ValueError):
            missing = f"the cluster does not have it: there is no {CONF_DIR}/{software.conf} on {node}"
            break
    return Offer(
        network=name, kind="real", software=f"{software.conf} of the cluster", subnets=tuple(found) or software.subnets,
        default_route=software.default_route, missing=missing,
        first_only=only_first, tidies=software.tidying,
    )  # fmt: skip


def first_only(conf: Any) -> str:
    """Why a network works only as a pod's first one; calico's configuration shows whether this applies."""
    calico = [plugin for plugin in conf.get("plugins", [conf]) if plugin.get("type") == "calico"]
    return OF_STATUS_IP if any(plugin.get("datastore_type") == "kubernetes" for plugin in calico) else ""


def _subnets(conf: Any, objects: Objects) -> Iterator[str]:
    """The subnets that a configuration names directly, or through objects that it names."""
    types = {plugin.get("type") for plugin in conf.get("plugins", [conf])}
    if "calico" in types:
        pools = objects.find("/apis/crd.projectcalico.org/v1/ippools") or {"items": []}
        yield from (pool["spec"]["cidr"] for pool in pools["items"])
    elif "flannel" in types:
        for node in objects.get("/api/v1/nodes")["items"]:
            yield from node["spec"].get("podCIDRs") or []
    else:
        yield from subnets(conf)


def _refresh(options: RunOptions, cluster: Cluster) -> Cluster:
    raise Unavailable("existing: the cluster has pulled genie's image, so a change in genie/ does not apply to it")


BACKEND = Backend(name="existing", start=start, connect=connect, refresh=_refresh)
