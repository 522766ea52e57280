"""Collects evidence of a failure that only a real cluster has, before the pods are deleted.

It writes the agent's log lines about the pod, the journals of the kubelet and the runtime since the pod's creation, and
the network state of the pod and its node. If one part is not available, its file has the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from kubernetes.client import ApiClient, CoreV1Api

from harness.cluster.deploy import AGENT_LABEL, NAMESPACE
from harness.cluster.nodes import Nodes
from harness.objects import Objects

#: On the node, in the namespaces of the pod's sandboxes ($1: namespace, $2: pod) and in its own.
LOOK = r"""
show() { for what in addr "route show table all" "-6 route show table all" rule "-6 rule" neigh; do
           echo "# ip $what"; $1 ip $what 2>&1; done; }
for id in $(ctr -n k8s.io containers list -q "labels.\"io.cri-containerd.kind\"==sandbox,labels.\"io.kubernetes.pod.namespace\"==$1,labels.\"io.kubernetes.pod.name\"==$2"); do
  netns=$(ctr -n k8s.io containers info "$id" | sed -n 's/.*"path": "\(.*\/netns\/[^"]*\)".*/\1/p' | head -n 1)
  echo "## in sandbox $id, $netns"; [ -e "$netns" ] && show "nsenter --net=$netns"
done
echo "## on the node"; show ""
echo "## net.d, and genie's records"; ls -l /etc/cni/net.d; head -c 20000 /var/lib/cni/genie/*.json 2>/dev/null
exit 0
"""  # noqa: E501


def collect(api: ApiClient, nodes: Nodes, namespace: str, pod: str, into: Path) -> list[Path]:
    """Write the evidence about a pod's failure into a folder; returns the files."""
    into.mkdir(parents=True, exist_ok=True)
    found = Objects(api).find(f"/api/v1/namespaces/{namespace}/pods/{pod}")
    node = str(found["spec"].get("nodeName", "")) if found else ""
    if not found or not node:
        return [_write(into / "node.txt", lambda: "the pod is not there, or was never put on a node\n")]
    since = str(found["metadata"]["creationTimestamp"]).replace("T", " ").replace("Z", " UTC")
    journal = ("journalctl", "--no-pager", "-o", "short-iso-precise", "--since", since, "-u")
    return [
        _write(into / "agent.log", partial(_agent, api, node, f"{namespace}/{pod}")),
        _write(into / "kubelet.log", partial(nodes.run, node, *journal, "kubelet")),
        _write(into / "containerd.log", partial(nodes.run, node, *journal, "containerd")),
        _write(into / "network.txt", partial(nodes.run, node, "sh", "-c", LOOK, "sh", namespace, pod)),
    ]


def _write(path: Path, content: Callable[[], str]) -> Path:
    try:
        text = content()
    except Exception as error:  # the reason goes into the file
        text = f"(not available: {type(error).__name__}: {error})\n"
    path.write_text(text)
    return path


def _agent(api: ApiClient, node: str, pod: str) -> str:
    """The agent's lines about a pod: it logs one JSON object a line, which names the pod."""
    lines: list[str] = []
    agents = Objects(api).get(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=AGENT_LABEL)
    for agent in agents["items"]:
        if agent["spec"].get("nodeName") == node:
            name = agent["metadata"]["name"]
            text = CoreV1Api(api).read_namespaced_pod_log(name, NAMESPACE, container="agent", tail_lines=5000)
            lines += [line for line in text.splitlines() if f'"{pod}"' in line]
    return "\n".join(lines) + "\n"
