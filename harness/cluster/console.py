"""The console of a probe in a pod: one long exec session with one request and one answer per line.

To start Python in a pod takes a few hundred milliseconds, so the harness does it once for each pod. The session goes
through the kubelet and the runtime, not through the pod's network, so an unreachable pod still answers.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from kubernetes.client import ApiClient, CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream

from harness.contract import ProbeError
from harness.waiting import limit

COMMAND = ("python", "-m", "harness.probe", "console")
GRACE = 10.0  # seconds for an answer, in addition to the request's own timeout


class Consoles:
    """The consoles of one cluster's pods, each made for the first request. Thread-safe."""

    def __init__(self, client: Callable[[], ApiClient]) -> None:
        self._client = client
        self._open: dict[tuple[str, str], _Console] = {}
        self._lock = threading.Lock()

    def ask(self, namespace: str, pod: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request to a pod's probe. If the session is broken (the pod was recreated), open a new one, once.

        Raises ProbeError: the pod does not exist, or its probe did not answer.
        """
        for attempt in (1, 2):
            with self._lock:
                console = self._open.setdefault((namespace, pod), _Console(self._client, namespace, pod))
            try:
                return console.ask(request)
            except _Broken as error:
                self.forget(namespace, pod)
                if attempt == 2 or console.answered == 0:
                    raise ProbeError(f"pod {namespace}/{pod}: {error}") from error
        raise AssertionError("not reached")

    def forget(self, namespace: str, pod: str) -> None:
        """Close a pod's session."""
        with self._lock:
            console = self._open.pop((namespace, pod), None)
        if console:
            console.close()

    def close(self) -> None:
        for namespace, pod in list(self._open):
            self.forget(namespace, pod)


class _Broken(Exception):
    """The session is broken."""


class _Console:
    def __init__(self, client: Callable[[], ApiClient], namespace: str, pod: str) -> None:
        self._client, self._namespace, self._pod = client, namespace, pod
        self._session: Any = None
        self._lock = threading.Lock()
        self.answered = 0

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            try:
                if self._session is None:
                    self._session = self._start()
                self._session.write_stdin(json.dumps(dict(request)) + "\n")
                line = self._line(float(request.get("timeout") or 0) + limit(GRACE))
            except (OSError, ApiException) as error:
                raise _Broken(_reason(error)) from error
            self.answered += 1
            answer: dict[str, Any] = json.loads(line)
            return answer

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _start(self) -> Any:
        # `stream` changes its client, so each session has a separate one.
        return stream(
            CoreV1Api(self._client()).connect_get_namespaced_pod_exec, self._pod, self._namespace,
            command=list(COMMAND), stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False,
        )  # fmt: skip

    def _line(self, timeout: float) -> str:
        until = time.monotonic() + timeout
        while self._session.is_open():
            line: str | None = self._session.readline_stdout(timeout=min(1.0, timeout))
            if line and line.strip():
                return line
            if time.monotonic() > until:
                raise _Broken(f"its probe gave no answer within {timeout:.0f} s")
        printed = (self._session.read_stderr() or "").strip().splitlines()
        raise _Broken(f"its probe ended{': ' + printed[-1] if printed else ''}")


def _reason(error: Exception) -> str:
    if isinstance(error, ApiException):
        return f"cannot run the probe in it: {str(error.reason).strip() or error.status}"
    return f"the way to its probe broke: {error}"
