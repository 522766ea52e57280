"""The possible actions with a stolen token of genie: the admission policy of genie/deploy on a real API server."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import genie
from genie import event as events
from genie.kube import Pod, pod_event
from genie.select.annotations import CNI
from genie.verbs.network_status import MULTI_IP, NETWORK_STATUS
from harness.embedded import apiserver, binaries
from tests.rigs.netns import Namespace

ACCOUNT = "system:serviceaccount:kube-system:genie"
POD = {
    "metadata": {"name": "p", "annotations": {"theirs": "1"}, "labels": {"app": "a"}},
    "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "i"}]},
}


class Cluster:
    """An API server in a separate network namespace, with genie's policy and one pod on node-1."""

    def __init__(self, within: Any, running: apiserver.Running) -> None:
        self._within, self._token = within, running.admin.token

    def ask(self, method: str, path: str, body: Any = None, *, node: str = "", account: str = "") -> tuple[int, Any]:
        """Access as an administrator, or with a token for a pod on a node."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        if account:
            headers["Impersonate-User"] = account
        if node:
            headers["Impersonate-Extra-authentication.kubernetes.io%2Fnode-name"] = node

        def go() -> tuple[int, Any]:
            insecure = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection("127.0.0.1", apiserver.PORT, context=insecure, timeout=30)
            connection.request(method, path, json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

        answer: tuple[int, Any] = self._within.run(go)
        return answer

    def patch(self, change: Any, *, node: str = "node-1", account: str = ACCOUNT) -> str:
        """A patch of the pod by genie; returns the refusal, or an empty string."""
        status, output = self.ask("PATCH", "/api/v1/namespaces/default/pods/p", change, node=node, account=account)
        assert status in (200, 422), output
        return "" if status == 200 else str(output["message"])

    def annotate(self, node: str = "node-1", /, **annotations: str | None) -> str:
        return self.patch({"metadata": {"annotations": annotations}}, node=node)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found, _ = binaries.api_server("")
    if not found.real:
        pytest.skip("no kube-apiserver here (KUBEBUILDER_ASSETS, as envtest has it)")
    try:
        within = Namespace()
    except PermissionError:
        pytest.skip("network namespaces: need root, or CAP_SYS_ADMIN in a user namespace")
    within.ip("addr add 172.30.0.1/32 dev lo")
    running = within.run(lambda: apiserver.start(found, "172.30.0.1", tmp_path_factory.mktemp("api") / "server"))
    try:
        ready = within.run(lambda: apiserver.reach(running))
        within.run(lambda: apiserver.wait(ready))
        yield _furnished(Cluster(within, ready))
    finally:
        for process in running.processes:
            process.kill()
            process.wait()
        within.close()


def _furnished(cluster: Cluster) -> Cluster:
    deploy = Path(genie.__file__).parent / "deploy"
    for name in ("rbac.yaml", "admission.yaml"):
        for thing in yaml.safe_load_all((deploy / name).read_text()):
            _create(cluster, thing)
    _post(cluster, "/api/v1/namespaces/default/pods", POD)
    deadline = time.monotonic() + 30
    # until the policies are active
    while not cluster.patch({}, node="node-2") or write_event(cluster, event(reportingComponent="x"))[0] != 422:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return cluster


def _create(cluster: Cluster, thing: Any) -> None:
    group = thing["apiVersion"]
    namespace = thing["metadata"].get("namespace")
    kind = thing["kind"].lower()
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    path = f"/{'apis' if '/' in group else 'api'}/{group}{f'/namespaces/{namespace}' if namespace else ''}/{plural}"
    _post(cluster, path, thing)


def _post(cluster: Cluster, path: str, thing: Any) -> None:
    deadline = time.monotonic() + 30
    while True:
        status, output = cluster.ask("POST", path, thing)
        if status == 201:
            return
        # A new API server creates its namespaces and roles a moment later.
        assert status in (403, 404) and time.monotonic() < deadline, output
        time.sleep(0.1)


def test_genie_writes_its_annotations(cluster: Cluster) -> None:
    for key in (NETWORK_STATUS, MULTI_IP, CNI):
        for value in ("1", "2"):
            assert cluster.annotate(**{key: value}) == ""


def test_of_pods_on_other_nodes_it_writes_nothing(cluster: Cluster) -> None:
    for node in ("node-2", ""):
        assert f"genie on node '{node}' may not" in cluster.annotate(node, **{NETWORK_STATUS: "forged"})


@pytest.mark.parametrize("change", [{"theirs": "2"}, {"theirs": None}, {"new": "1"}])
def test_others_annotations_are_not_its_own(cluster: Cluster, change: dict[str, str | None]) -> None:
    assert "genie may write only the annotations k8s.v1.cni.cncf.io/network-status, " in cluster.annotate(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"labels": {"app": "b"}}},
        {"metadata": {"finalizers": ["a/b"]}},
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "1"}]}},
        {"spec": {"activeDeadlineSeconds": 1}},
    ],
    ids=["labels", "finalizers", "owners", "spec"],
)
def test_nothing_else_of_a_pod_is_changed(cluster: Cluster, change: Any) -> None:
    assert "genie may change only annotations of a pod" in cluster.patch(change)


def event(**changed: Any) -> dict[str, Any]:
    about = pod_event(Pod(namespace="default", name="p", uid="u"), "Drift", "a route is gone", warning=True)
    made = events.body(about, events.object_name(about), "node-1", first=1e9, last=1e9, count=1)
    return {**made, **changed}


def write_event(cluster: Cluster, body: Any) -> tuple[int, Any]:
    return cluster.ask("POST", "/api/v1/namespaces/default/events", body, node="node-1", account=ACCOUNT)


def test_genie_writes_events_and_counts_them(cluster: Cluster) -> None:
    for made in (event(), event(source={"component": "genie"}, reportingInstance="")):
        status, output = write_event(cluster, made)
        assert status == 201, output
        path = f"/api/v1/namespaces/default/events/{made['metadata']['name']}"
        status, output = cluster.ask("PATCH", path, events.happened(1e9 + 60, 2), node="node-1", account=ACCOUNT)
        assert (status, output.get("count")) == (200, 2), output


def test_other_events_than_its_own_it_does_not_write(cluster: Cluster) -> None:
    for made, complaint in (
        (event(source={"component": "kubelet", "host": "node-1"}), "may write only its own Events"),
        (event(reportingComponent="kubelet"), "may write only its own Events"),
        (event(source={"component": "genie", "host": "node-2"}), "may not report as another node"),
        (
            event(involvedObject={"kind": "Secret", "namespace": "default", "name": "s"}),
            "only about pods, nodes and its DaemonSet",
        ),
    ):
        status, output = write_event(cluster, made)
        assert status == 422 and complaint in output["message"], output
    others = event(source={"component": "kubelet", "host": "node-1"})
    assert cluster.ask("POST", "/api/v1/namespaces/default/events", others)[0] == 201
    path = f"/api/v1/namespaces/default/events/{others['metadata']['name']}"
    change = {"source": {"component": "genie"}, "message": "forged"}
    assert cluster.ask("PATCH", path, change, node="node-1", account=ACCOUNT)[0] == 422


def test_others_are_not_held_to_it(cluster: Cluster) -> None:
    assert cluster.patch({"metadata": {"annotations": {"theirs": "1"}}}, account="", node="") == ""


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/api/v1/namespaces/default/pods/p"),
        ("POST", "/api/v1/namespaces/default/pods"),
        ("PATCH", "/api/v1/namespaces/default/pods/p/status"),
        ("GET", "/api/v1/secrets"),
        ("PATCH", "/api/v1/nodes/node-1"),
        ("PATCH", "/api/v1/namespaces/default"),
        ("DELETE", "/apis/apps/v1/namespaces/kube-system/daemonsets/genie"),
        ("GET", "/apis/apps/v1/namespaces/kube-system/daemonsets"),
        ("GET", "/apis/apps/v1/namespaces/kube-system/daemonsets/other"),
    ],
)
def test_it_has_no_other_rights(cluster: Cluster, method: str, path: str) -> None:
    assert cluster.ask(method, path, {}, node="node-1", account=ACCOUNT)[0] == 403
