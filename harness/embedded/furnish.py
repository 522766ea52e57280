"""Creates the first objects of a new API server: the nodes, genie's rights, the kinds of network objects."""

from __future__ import annotations

import base64
import functools
import json
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from harness.download import FIXTURES
from harness.embedded import apiserver
from harness.embedded.plan import NodePlan
from harness.embedded.rest import Access, Client, Refusal
from harness.waiting import NotReady, retry


def introduce(running: apiserver.Running, nodes: Sequence[NodePlan], timeout: float = 60.0) -> None:
    """Create the nodes before it answers other requests: networks' daemons first look for their node, and retry only
    after seconds. The real API server gets the nodes through etcd, which is ready much earlier.

    Raises NotReady: it exited, or did not accept them in time.
    """
    real = running.admin.server.startswith("https:")
    client = Client(Access(server=apiserver.ETCD) if real else running.admin, timeout=2.0)
    for node in nodes:
        entry = {"key": _base64(f"/registry/minions/{node.name}"), "value": _base64(json.dumps(_node(node)))}
        path, body = ("/v3/kv/put", entry) if real else ("/api/v1/nodes", _node(node))
        apiserver.until(functools.partial(client.post, path, body), running, timeout)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def furnish(client: Client) -> None:
    """Create the other objects: genie's rights from genie/deploy, and the kinds of network objects.

    Raises Refusal: the API server rejects one of them. NotReady: it does not serve the new kinds.
    """
    deploy = resources.files("genie") / "deploy"
    rights = (*_documents(deploy / "rbac.yaml"), *_documents(deploy / "policy" / "rbac.yaml"))
    for thing in rights:
        if thing["kind"] in ("ClusterRole", "ClusterRoleBinding"):
            client.post(f"/apis/rbac.authorization.k8s.io/v1/{thing['kind'].lower()}s", thing)
    folders = (FIXTURES / "crds", deploy / "crds", deploy / "policy" / "crds")
    files = (file for folder in folders for file in folder.iterdir() if file.name.endswith(".yaml"))
    definitions = [definition for file in files for definition in _documents(file)]
    for definition in definitions:
        client.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    with suppress(Refusal):  # kube-apiserver makes it itself, a moment later
        client.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    for definition in definitions:
        _await_served(client, definition["spec"])


def _documents(file: Traversable) -> list[dict[str, Any]]:
    return [thing for thing in yaml.safe_load_all(file.read_text()) if thing]


def _await_served(client: Client, spec: dict[str, Any]) -> None:
    path = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
    try:
        retry(lambda: client.get(path), 20.0, _is_early, longest=0.03)
    except Refusal as error:
        raise NotReady(f"{path} is not served: {error}") from error


def _is_early(error: Exception) -> bool:
    return isinstance(error, Refusal) and error.status in (404, 429, 503)


def _node(node: NodePlan) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    labels = {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", "node-role.kubernetes.io/worker": ""}
    # Every kubelet writes this; flanneld (0.28) fails on a node without any annotation.
    annotations = {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
    ready = {
        "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "the harness is its kubelet",
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    }  # fmt: skip
    addresses = [{"type": "InternalIP", "address": node.address}, {"type": "Hostname", "address": node.name}]
    return {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": node.name, "uid": str(uuid.uuid4()), "creationTimestamp": now,
            "labels": labels, "annotations": annotations,
        },
        "spec": {"podCIDR": node.pod_subnets[0], "podCIDRs": node.pod_subnets} if node.pod_subnets else {},
        "status": {"conditions": [ready], "addresses": addresses},
    }  # fmt: skip
