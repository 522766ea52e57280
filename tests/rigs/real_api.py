"""A real API server in a network namespace of its own."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.embedded import apiserver, binaries
from tests.rigs.netns import Namespace


class Cluster:
    """An API server in a separate network namespace."""

    def __init__(self, within: Any, running: apiserver.Running) -> None:
        self.within, self.running = within, running
        self._token = running.admin.token
        self.warnings: list[str] = []  # of the last answer

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
            self.warnings = response.headers.get_all("Warning") or []
            return response.status, json.loads(response.read())

        answer: tuple[int, Any] = self.within.run(go)
        return answer

    @staticmethod
    def collection(thing: Any) -> str:
        """The path of an object's collection."""
        group, kind = thing["apiVersion"], thing["kind"].lower()
        namespace = thing["metadata"].get("namespace")
        if kind == "networkattachmentdefinition":
            kind = "network-attachment-definition"
        plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
        return f"/{'apis' if '/' in group else 'api'}/{group}{f'/namespaces/{namespace}' if namespace else ''}/{plural}"


@contextmanager
def started(place: Path) -> Iterator[Cluster]:
    """A running API server; skips the test if there is none here."""
    found, _ = binaries.api_server("")
    if not found.real:
        pytest.skip("no kube-apiserver here (KUBEBUILDER_ASSETS, as envtest has it)")
    try:
        within = Namespace()
    except PermissionError:
        pytest.skip("network namespaces: need root, or CAP_SYS_ADMIN in a user namespace")
    within.ip("addr add 172.30.0.1/32 dev lo")
    running = within.run(lambda: apiserver.start(found, "172.30.0.1", place / "server"))
    try:
        ready = within.run(lambda: apiserver.reach(running))
        within.run(lambda: apiserver.wait(ready))
        yield Cluster(within, ready)
    finally:
        for process in running.processes:
            process.kill()
            process.wait()
        within.close()


def create(cluster: Cluster, thing: Any) -> None:
    """Create an object, once the API server takes it."""
    post(cluster, cluster.collection(thing), thing)


def post(cluster: Cluster, path: str, thing: Any) -> None:
    deadline = time.monotonic() + 30
    while True:
        status, output = cluster.ask("POST", path, thing)
        if status == 201:
            return
        # A new API server creates its namespaces and roles a moment later.
        assert status in (403, 404) and time.monotonic() < deadline, output
        time.sleep(0.1)
