"""The possible actions with a stolen token of genie: the admission policy of genie/deploy on a real API server."""

from __future__ import annotations

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
from tests.rigs import real_api

ACCOUNT = "system:serviceaccount:kube-system:genie"
POD = {
    "metadata": {"name": "p", "annotations": {"theirs": "1"}, "labels": {"app": "a"}},
    "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "i"}]},
}


class Cluster(real_api.Cluster):
    """An API server with genie's policy and one pod on node-1."""

    def patch(self, change: Any, *, node: str = "node-1", account: str = ACCOUNT) -> str:
        """A patch of the pod by genie; returns the refusal, or an empty string."""
        status, output = self.ask("PATCH", "/api/v1/namespaces/default/pods/p", change, node=node, account=account)
        assert status in (200, 422), output
        return "" if status == 200 else str(output["message"])

    def annotate(self, node: str = "node-1", /, **annotations: str | None) -> str:
        return self.patch({"metadata": {"annotations": annotations}}, node=node)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with real_api.started(tmp_path_factory.mktemp("api")) as running:
        yield _furnished(Cluster(running.within, running.running))


def _furnished(cluster: Cluster) -> Cluster:
    deploy = Path(genie.__file__).parent / "deploy"
    for name in ("rbac.yaml", "admission.yaml"):
        for thing in yaml.safe_load_all((deploy / name).read_text()):
            real_api.create(cluster, thing)
    real_api.post(cluster, "/api/v1/namespaces/default/pods", POD)
    deadline = time.monotonic() + 30
    # until the policies are active
    while not cluster.patch({}, node="node-2") or write_event(cluster, event(reportingComponent="x"))[0] != 422:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return cluster


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
            "only about pods, nodes, network policies and its DaemonSet",
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
