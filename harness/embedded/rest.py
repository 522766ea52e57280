"""A small client of the Kubernetes API for the embedded cluster, with the standard library only.

The import of the Kubernetes client takes almost a second in each process; the node daemons must start fast. Connections
can be made in a given network namespace (a socket stays in the namespace where it was made). So a node's kubelet keeps
its connection to the API server even if its node has no network.
"""

from __future__ import annotations

import http.client
import json
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from harness.embedded import linux
from harness.waiting import limit, until_nothing

Object = dict[str, Any]
MERGE = "application/merge-patch+json"


class Refusal(Exception):
    """The API server's answer is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


@dataclass(frozen=True, kw_only=True)
class Access:
    """The API server's address and the client's credentials; `write` and `read` pass them between processes."""

    server: str  # "https://172.30.0.1:6443"
    token: str = ""
    ca: str = ""  # PEM

    def kubeconfig(self) -> Object:
        """The same as a kubeconfig, for other clients."""
        import base64

        cluster: Object = {"server": self.server}
        if self.ca:
            cluster["certificate-authority-data"] = base64.b64encode(self.ca.encode()).decode()
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "embedded", "cluster": cluster}],
            "users": [{"name": "user", "user": {"token": self.token} if self.token else {}}],
            "contexts": [{"name": "embedded", "context": {"cluster": "embedded", "user": "user"}}],
            "current-context": "embedded",
        }

    def write(self, path: Path) -> None:
        """Write it to a file atomically, because others wait for the file."""
        path.with_suffix(".new").write_text(json.dumps(vars(self)))
        path.with_suffix(".new").rename(path)

    @classmethod
    def read(cls, path: Path) -> Access:
        """Wait until the file exists, and read it."""
        until_nothing(lambda: not path.exists(), math.inf, longest=0.01)
        return cls(**json.loads(path.read_text()))


class Client:
    """Requests to one API server. Safe to use from several threads."""

    def __init__(self, access: Access, *, net: int | None = None, timeout: float = 30.0) -> None:
        self._access, self._net, self._timeout = access, net, timeout
        self._host = urlsplit(access.server)
        self._tls = ssl.create_default_context(cadata=access.ca) if access.ca else None
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def get(self, path: str, **query: str) -> Object:
        return self.request("GET", path, query=query)

    def post(self, path: str, body: Object) -> Object:
        return self.request("POST", path, body)

    def patch(self, path: str, body: Object) -> Object:
        return self.request("PATCH", path, body, kind=MERGE)

    def delete(self, path: str, body: Object | None = None) -> Object:
        return self.request("DELETE", path, body)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        kind: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Object:
        """One request and its answer.

        Raises Refusal: the answer is an error.
        Raises OSError: there is no answer.
        """
        target = f"{path}?{urlencode(query)}" if query else path
        data = None if body is None else json.dumps(body).encode()
        for last in (False, True):
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            fresh = connection is None
            connection = connection or self._connection(self._timeout)
            try:
                connection.request(method, target, data, self._headers(kind))
                answer = connection.getresponse()
                content = answer.read()
            except (http.client.HTTPException, OSError) as error:
                connection.close()
                if fresh or last:  # the server may have closed an idle connection
                    raise error if isinstance(error, OSError) else OSError(str(error)) from error
                continue
            with self._lock:
                self._idle.append(connection)
            return _decoded(answer.status, content)
        raise AssertionError("not reached")

    def watch(self, path: str, **query: str) -> Iterator[Object]:
        """Yield events until the server ends the watch.

        Raises Refusal: the server refuses the watch. OSError: the connection broke.
        """
        connection = self._connection(None)
        try:
            query = {"watch": "true", "timeoutSeconds": "3600", **query}
            connection.request("GET", f"{path}?{urlencode(query)}", None, self._headers("application/json"))
            answer = connection.getresponse()
            if answer.status != 200:
                _decoded(answer.status, answer.read())
            while line := answer.readline():
                if line.strip():
                    yield json.loads(line)
        except http.client.HTTPException as error:
            raise OSError(f"the watch broke: {error}") from error
        finally:
            connection.close()

    def follow(self, path: str, see: Callable[[Object], None], problems: list[str], **query: str) -> None:
        """Handle every event, for ever; start a broken watch again, and report its error as a problem."""
        while True:
            try:
                for event in self.watch(path, **query):
                    see(event)
            except (OSError, Refusal, KeyError, TypeError, ValueError) as error:
                problems.append(f"watch: {error!r}")
                time.sleep(0.2)

    def _headers(self, kind: str) -> dict[str, str]:
        token = {"Authorization": f"Bearer {self._access.token}"} if self._access.token else {}
        return {"Accept": "application/json", "Content-Type": kind, **token}

    def _connection(self, timeout: float | None) -> http.client.HTTPConnection:
        host, port = self._host.hostname or "", self._host.port or (443 if self._tls else 80)
        connection = http.client.HTTPConnection(host, port, timeout=timeout and limit(timeout))
        with nullcontext() if self._net is None else linux.within(self._net):
            raw = socket.create_connection((host, port), timeout=limit(min(timeout or 10.0, 10.0)))
        raw.settimeout(timeout and limit(timeout))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sock = self._tls.wrap_socket(raw, server_hostname=host) if self._tls else raw
        return connection


def _decoded(status: int, body: bytes) -> Object:
    try:
        answer: Object = json.loads(body) if body else {}
    except ValueError:
        answer = {"message": body[:200].decode(errors="replace")}
    if status >= 400:
        raise Refusal(status, str(answer.get("message") or http.client.responses.get(status, "")))
    return answer
