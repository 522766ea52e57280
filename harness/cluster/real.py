"""A running real cluster, made by kind or by others.

A real kubelet and a real runtime create the scenarios' pods. So this module only asks (the probes in the pods, by
exec), inspects (by commands on the nodes, see `nodes.py`) and disturbs (ends a sandbox, changes genie.conf, restarts a
service).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from kubernetes import config
from kubernetes.client import ApiClient

from harness import contract, leftovers, libcni
from harness.cluster import inventory, ipam
from harness.cluster.apply import wait
from harness.cluster.console import Consoles
from harness.cluster.deploy import AGENT_LABEL, CONF, CONF_DIR, NAMESPACE, rollout
from harness.cluster.evidence import collect
from harness.cluster.nodes import Nodes, put
from harness.cluster.runtime import Verbs
from harness.contract import Ability, Facts, Inventory, ProbeError
from harness.libcni import CniFailure
from harness.objects import ApiError, Objects

Restartable = Literal["kubelet", "containerd", "agent"]
ABILITIES: frozenset[Ability[Any]] = frozenset(
    {
        contract.AGENT_RESTART,
        contract.AGENT_UPDATE,
        contract.API_OUTAGE,
        contract.CNI_CALLS,
        contract.CONTAINERD_RESTART,
        contract.DEFINITIONS_AWAY,
        contract.END_SANDBOX,
        contract.GARBAGE_COLLECTION,
        contract.KUBELET_RESTART,
        contract.NETWORK_RESTART,
        contract.NET_D,
        contract.POLICIES,
        contract.SERVICES,
        contract.SETTINGS,
        contract.STATIC_PODS,
        contract.TAMPERING,
    }
)
OF_SCENARIO = "genie-harness-"  # prefix of the files of scenarios' static pods
MANIFESTS = "/etc/kubernetes/manifests"  # kubeadm's
#: Writes a static pod's manifest atomically: to the kubelet, an incomplete file would be another pod.
_STATIC = f'cat >{MANIFESTS}/../"$1".new && mkdir -p {MANIFESTS} && mv {MANIFESTS}/../"$1".new {MANIFESTS}/"$1"'

#: Ends a pod's sandbox through the runtime, and returns when its network namespace is gone, after CNI DEL. Without
#: crictl, it kills the sandbox's first process; the runtime then ends the sandbox and the kubelet cleans up.
_END_SANDBOX = r"""
namespace=$1 pod=$2 running=$(ctr -n k8s.io tasks list | awk '$3 == "RUNNING" {print $1}')
for id in $(ctr -n k8s.io containers list -q "labels.\"io.cri-containerd.kind\"==sandbox,labels.\"io.kubernetes.pod.namespace\"==$namespace,labels.\"io.kubernetes.pod.name\"==$pod"); do
  case "$running" in *"$id"*) ;; *) continue ;; esac
  netns=$(ctr -n k8s.io containers info "$id" | sed -n 's/.*"path": "\(.*\/netns\/[^"]*\)".*/\1/p' | head -n 1)
  if command -v crictl >/dev/null; then crictl stopp "$id"; else ctr -n k8s.io tasks kill --signal SIGKILL "$id"; fi
  for _ in $(seq 600); do [ -e "$netns" ] || exit 0; sleep 0.1; done
  echo "the sandbox $id has ended, its network namespace $netns is still there" >&2; exit 1
done
echo "no sandbox of $namespace/$pod is running here" >&2; exit 1
"""  # noqa: E501


def client(kubeconfig: Path) -> ApiClient:
    """A client for the current context of a kubeconfig."""
    made: ApiClient = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
    return made


class RealCluster:
    """A cluster, accessed with a kubeconfig and, for its nodes, with `nodes`."""

    def __init__(self, *, facts: Facts, kubeconfig: Path, nodes: Nodes) -> None:
        self.facts, self.kubeconfig, self.nodes = facts, kubeconfig, nodes
        self.verbs = Verbs(nodes=nodes)
        self._consoles = Consoles(lambda: client(kubeconfig))
        self._mine = threading.local()

    def api(self) -> ApiClient:
        """A client of the Kubernetes API with all rights; one for each thread, because it keeps connections."""
        if not hasattr(self._mine, "client"):
            self._mine.client = client(self.kubeconfig)
        mine: ApiClient = self._mine.client
        return mine

    def policies(self, namespace: str) -> AbstractContextManager[None]:
        """The agents enforce policies all the time."""
        return nullcontext()

    def ask(self, namespace: str, pod: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """See `Cluster.ask`."""
        return self._consoles.ask(namespace, pod, request)

    def inventory(self, node: str) -> Inventory:
        """See `Cluster.inventory`. calico may store its addresses on the API server, so this also reads them there."""
        found = inventory.take(self.nodes, node)
        blocks, handles = (self._of_calico(kind) for kind in ("ipamblocks", "ipamhandles"))
        given_out = ipam.calico(blocks, (handle["handleID"] for handle in handles), node)
        return replace(found, addresses=found.addresses | frozenset(given_out))

    def calls(self, namespace: str) -> list[dict[str, Any]]:
        """See `Cluster.calls`: the agents' logs of a whole run are long, so they are not read after each scenario."""
        return []

    def binaries(self, node: str) -> dict[str, str]:
        """See `Cluster.binaries`."""
        listed = self.nodes.run(node, "sh", "-c", f"sha256sum {libcni.BINARIES}/* 2>/dev/null", check=False)
        lines = (line.split(maxsplit=1) for line in listed.splitlines())
        return {path.strip().rpartition("/")[2]: checksum for checksum, path in lines}

    def _of_calico(self, kind: str) -> list[dict[str, Any]]:
        """calico's objects on the API server, if any, without those that are being deleted."""
        found = Objects(self.api()).find(f"/apis/crd.projectcalico.org/v1/{kind}") or {"items": []}
        return [item["spec"] for item in found["items"] if not item["spec"].get("deleted")]

    def end_sandbox(self, namespace: str, pod: str) -> None:
        """See `EndsSandboxes`."""
        node = self.node_of(namespace, pod)
        self._consoles.forget(namespace, pod)
        self.nodes.run(node, "sh", "-ec", _END_SANDBOX, "sh", namespace, pod, timeout=120)

    def node_of(self, namespace: str, pod: str) -> str:
        """The node that a pod is on.

        Raises ProbeError: the pod does not exist, or has no node.
        """
        try:
            found = Objects(self.api()).get(f"/api/v1/namespaces/{namespace}/pods/{pod}")
        except ApiError as error:
            raise ProbeError(f"pod {namespace}/{pod}: {error}") from error
        if not found["spec"].get("nodeName"):
            raise ProbeError(f"pod {namespace}/{pod}: it is on no node")
        return str(found["spec"]["nodeName"])

    @contextmanager
    def settings(self, genie_conf: Mapping[str, Any], namespace: str) -> Iterator[None]:
        """See `ChangesSettings`: changes genie.conf on every node, and restores it."""
        before = {node: self.nodes.run(node, "cat", CONF) for node in self.facts.nodes}
        try:
            for node, text in before.items():
                self._set(node, json.dumps(libcni.with_settings(json.loads(text), "genie", genie_conf), indent=2))
            yield
        finally:
            for node, text in before.items():
                self._set(node, text)

    def _set(self, node: str, text: str) -> None:
        """Write genie.conf on a node and wait until the runtime has read it: its access time then changes."""
        put(self.nodes, node, {CONF: text.encode()}, mode=0o600, unread=True)

        def unread() -> str:
            accessed = self.nodes.run(node, "stat", "-c", "%X", CONF).strip()
            return "the runtime has not read it yet" if accessed == "0" else ""

        wait(f"genie.conf on {node}", unread, 30)

    @contextmanager
    def net_d(self, files: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
        """See `TakesConfigurations`."""
        paths = {f"{CONF_DIR}/{name}": json.dumps(content).encode() for name, content in files.items()}
        folders = {path.rpartition("/")[0] for path in paths} - {CONF_DIR}
        try:
            for node in self.facts.nodes:
                put(self.nodes, node, paths)
            yield
        finally:
            for node in self.facts.nodes:
                self.nodes.run(node, "rm", "-f", *paths)
                if folders:
                    self.nodes.run(node, "rmdir", *folders, check=False)

    def static_pod(self, node: str, name: str, manifest: Mapping[str, Any] | None) -> None:
        """See `TakesStaticPods`."""
        file = f"{OF_SCENARIO}{name}.json"
        if manifest is None:
            self.nodes.run(node, "rm", "-f", f"{MANIFESTS}/{file}")
        else:
            self.nodes.run(node, "sh", "-ec", _STATIC, "sh", file, stdin=json.dumps(manifest).encode())

    def cni_check(self, namespace: str, pod: str) -> str:
        """See `CallsPlugins`."""
        return _failure(lambda: self.verbs.check(self.node_of(namespace, pod), namespace, pod))

    def cni_status(self, node: str, genie_conf: Mapping[str, Any], env: Mapping[str, str]) -> str:
        """See `CallsPlugins`."""
        return _failure(lambda: self.verbs.status(node, genie_conf, env))

    def lose_sandbox(self, namespace: str, pod: str) -> None:
        """See `LosesSandboxes`."""
        self.verbs.lose_sandbox(self.node_of(namespace, pod), namespace, pod)

    def collect_garbage(self, node: str) -> None:
        """See `LosesSandboxes`."""
        self.verbs.collect_garbage(node)

    def tamper(self, namespace: str, pod: str, interface: str, remove: str) -> None:
        """See `Tampers`."""
        self.verbs.tamper(self.node_of(namespace, pod), namespace, pod, interface, remove)

    @contextmanager
    def api_server_away(self, namespace: str) -> Iterator[None]:
        """See `CutsOff`: workers block packets to the API server; the harness still reaches it."""
        address, port = self._api_address()
        sending = ("OUTPUT", "-p", "tcp", "-d", address, "--dport", port)
        refused = ("-m", "comment", "--comment", leftovers.OWN, "-j", "REJECT", "--reject-with", "tcp-reset")
        try:
            for node in self.facts.nodes:
                self.nodes.run(node, "iptables", "-w", "-I", *sending, *refused)
            yield
        finally:
            for node in self.facts.nodes:
                self.nodes.run(node, "iptables", "-w", "-D", *sending, *refused, check=False)

    def _api_address(self) -> tuple[str, str]:
        """The addresses of the API server for nodes: the endpoints of the `kubernetes` Service."""
        slices = Objects(self.api()).get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")
        return str(slices["endpoints"][0]["addresses"][0]), str(slices["ports"][0]["port"])

    def restart(self, what: Restartable, node: str) -> None:
        """Restart the kubelet, containerd or genie's agent of a node, without waiting until it is ready."""
        if what != "agent":
            self.nodes.run(node, "systemctl", "restart", what, timeout=120)
            return
        objects = Objects(self.api())
        for pod in self._agents(objects):
            if pod["spec"].get("nodeName") == node:
                objects.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}")

    @contextmanager
    def rolling_update(self) -> Iterator[None]:
        """See `Updates`."""
        with self._replaced(f"{NAMESPACE}/genie"):
            yield

    @contextmanager
    def network_restart(self, network: str) -> Iterator[None]:
        """See `RestartsNetworks`."""
        with ExitStack() as all_of:
            for daemon in self.facts.offers[network].daemons:
                all_of.enter_context(self._replaced(daemon))
            yield

    @contextmanager
    def _replaced(self, daemon: str) -> Iterator[None]:
        """Replace the pods of a DaemonSet as `kubectl rollout restart` does it."""
        objects, (namespace, _, name) = Objects(self.api()), daemon.partition("/")
        metadata = {"annotations": {"genie-harness/updated": time.strftime("%FT%TZ")}}
        change = {"spec": {"template": {"metadata": metadata}}}
        objects.patch(f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}", change)
        yield
        wait(f"the update of {name}", lambda: rollout(objects, "DaemonSet", namespace, name), 240.0)

    def settle(self, timeout: float = 90.0) -> None:
        """Wait until every node is ready and has a ready agent, as after a `restart`."""
        wait("the cluster", self._unsettled, timeout)

    def _unsettled(self) -> str:
        objects = Objects(self.api())
        nodes = {node["metadata"]["name"] for node in objects.get("/api/v1/nodes")["items"] if is_ready(node)}
        alive = [pod for pod in self._agents(objects) if not pod["metadata"].get("deletionTimestamp")]
        agents = {pod["spec"].get("nodeName") for pod in alive if is_ready(pod)}
        lacking = [node for node in self.facts.nodes if node not in nodes & agents]
        return f"not ready, or without a ready agent: {', '.join(lacking)}" if lacking else ""

    @staticmethod
    def _agents(objects: Objects) -> list[dict[str, Any]]:
        listed = objects.get(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=AGENT_LABEL)
        return list(listed["items"])

    def evidence(self, namespace: str, pod: str, into: Path) -> list[Path]:
        """See `Cluster.evidence`."""
        return collect(self.api(), self.nodes, namespace, pod, into)

    def shell(self, namespace: str, pod: str) -> Sequence[str]:
        """See `Cluster.shell`: in the pod itself."""
        into = ("exec", "--stdin", "--tty", pod, "--", "env", f"PS1=[{pod}] # ", "sh")
        return "kubectl", "--kubeconfig", str(self.kubeconfig), "--namespace", namespace, *into

    def close(self, keep: bool = False) -> None:
        """Close connections; the backend decides what happens to the cluster."""
        self._consoles.close()


def _failure(call: Callable[[], None]) -> str:
    """A plugin's error; empty if it succeeded."""
    try:
        call()
    except CniFailure as error:
        return str(error)
    return ""


def is_ready(thing: Mapping[str, Any]) -> bool:
    """Whether a node or a pod is ready."""
    conditions = thing.get("status", {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
