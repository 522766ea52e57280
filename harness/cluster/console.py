"""A probe's console in a pod: one exec session, kept, that takes a request a line and answers with a line.

Starting Python in a pod costs a few hundred milliseconds, so it is done once a pod and not once a question. The session
goes through the kubelet and the runtime, not through the pod's network, so a pod that nobody can reach still answers.
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

COMMAND = ("python", "-m", "harness.probe", "console")
GRACE = 10.0  # seconds for an answer, beyond the timeout that a request has itself


class Consoles:
    """The consoles of one cluster's pods, made when a pod is first asked. Safe to use from several threads."""

    def __init__(self, client: Callable[[], ApiClient]) -> None:
        self._client = client
        self._open: dict[tuple[str, str], _Console] = {}
        self._lock = threading.Lock()

    def ask(self, namespace: str, pod: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Put a request to a pod's probe; a session that broke (the pod was made again) is opened anew, once.

        Raises:
            ProbeError: the pod is not there, or its probe did not answer.
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
        """Close all sessions."""
        for namespace, pod in list(self._open):
            self.forget(namespace, pod)


class _Broken(Exception):
    """The session cannot go on."""


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
                line = self._line(float(request.get("timeout") or 0) + GRACE)
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
        # `stream` changes the client that it is given, so each session has its own.
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
