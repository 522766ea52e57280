"""Runs commands on nodes of any cluster through a privileged pod on each: by exec, in the node's namespaces."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from kubernetes.client import ApiClient, CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream

from harness.cluster.apply import Object
from harness.cluster.engine import CommandFailed
from harness.objects import Objects, selector
from harness.waiting import limit

_LABELS = {"app.kubernetes.io/name": "genie-harness-nodes"}
_ENTER = ("nsenter", "--target", "1", "--mount", "--uts", "--ipc", "--net", "--pid", "--")
_CHUNK = 32 * 1024


def daemonset(image: str, namespace: str) -> Object:
    """The manifest that creates the pods on the nodes."""
    container = {
        "name": "node", "image": image, "command": ["sleep", "infinity"],
        "securityContext": {"privileged": True},
    }  # fmt: skip
    spec = {
        "hostPID": True, "hostNetwork": True, "terminationGracePeriodSeconds": 0,
        "tolerations": [{"operator": "Exists"}], "containers": [container],
    }  # fmt: skip
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "nodes", "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": spec},
        },
    }


class PodNodes:
    """See `Nodes`."""

    def __init__(self, client: Callable[[], ApiClient], namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self._pods: dict[str, str] = {}
        self._lock = threading.Lock()

    def run(self, node: str, *argv: str, stdin: bytes | None = None, timeout: float = 60.0, check: bool = True) -> str:
        """Run a command and return its standard output.

        Raises CommandFailed: it failed (and `check`), did not end in time, or could not be started.
        """
        try:
            session = stream(
                CoreV1Api(self._client()).connect_get_namespaced_pod_exec, self._pod(node), self._namespace,
                command=[*_ENTER, *argv], stdin=stdin is not None, stdout=True, stderr=True, tty=False,
                _preload_content=False,
            )  # fmt: skip
            for at in range(0, len(stdin or b""), _CHUNK):
                session.write_stdin((stdin or b"")[at : at + _CHUNK])
            printed, errors = self._listen(session, timeout)
        except (ApiException, OSError) as error:
            raise CommandFailed(f"{node}: {argv[0]}: {error}") from error
        if check and session.returncode != 0:
            raise CommandFailed(f"{node}: {' '.join(argv)[:160]}: exit status {session.returncode}\n    {errors}")
        return printed

    @staticmethod
    def _listen(session: Any, timeout: float) -> tuple[str, str]:
        """Standard output and error, until the command ends."""
        until, printed, errors = time.monotonic() + limit(timeout), [], []
        while session.is_open():
            session.update(timeout=1)
            if session.peek_stdout():
                printed.append(session.read_stdout())
            if session.peek_stderr():
                errors.append(session.read_stderr())
            if time.monotonic() > until:
                session.close()
                raise OSError(f"not done after {limit(timeout):.0f} s")
        return "".join(printed), "".join(errors).strip()

    def _pod(self, node: str) -> str:
        with self._lock:
            if node not in self._pods:
                path = f"/api/v1/namespaces/{self._namespace}/pods"
                listed = Objects(self._client()).get(path, labelSelector=selector(_LABELS))
                self._pods = {pod["spec"]["nodeName"]: pod["metadata"]["name"] for pod in listed["items"]}
            if node not in self._pods:
                raise CommandFailed(f"{node}: the harness has no pod on it")
            return self._pods[node]
