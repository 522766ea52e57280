"""A small API server on loopback, with real sockets and the test's answers."""

from __future__ import annotations

import json
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

WEB = {"metadata": {"namespace": "blue", "name": "web", "uid": "u-1", "annotations": {"cni": "calico"}}}
POD = "/api/v1/namespaces/blue/pods/web"


@dataclass
class Api:
    """An API server: `answers` by path, each a status with a body, or a function that returns them."""

    url: str
    answers: dict[str, Any] = field(default_factory=lambda: {POD: (200, WEB)})
    requests: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    connections: int = 0
    hang_up: bool = False  # close each connection after an answer, without announcing it
    last: bool = False  # close each connection after an answer, and announce it


class Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 16

    def server_bind(self) -> None:
        """Skip the library's look-up of this host's name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "", 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect, because these tests do that."""


def serve(api: Api, tls: ssl.SSLContext | None = None) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            api.connections += 1

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            api.requests.append((self.command, self.path, dict(self.headers), body))
            answer = api.answers.get(self.path, (404, {"kind": "Status", "message": "not found"}))
            status, data = answer() if callable(answer) else answer
            raw = data if isinstance(data, bytes) else json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            if api.last:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(raw)
            if api.hang_up:
                self.close_connection = True

        do_PATCH = do_POST = do_GET  # noqa: N815

    server = Quiet(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    api.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


def kubeconfig(url: str, user: dict[str, Any] | None = None, /, **cluster: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "other", "context": {}}, {"name": "here", "context": {"cluster": "c", "user": "genie"}}],
        "clusters": [{"name": "c", "cluster": {"server": url, **cluster}}],
        "users": [{"name": "genie", "user": user or {}}],
    }
