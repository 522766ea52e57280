"""An API server for the agent's tests: lists in pages, watches, single objects, patches; it can go away and forget."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]


class FakeApi:
    """objects: (resource's path, namespace, name) → object. requests: what was asked, in order."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.absent = {
            "/apis/alpha.network.k8s.io/v1/logicalnetworks",
            "/apis/alpha.network.k8s.io/v1/physicalnetworks",
        }
        self.requests: list[str] = []
        self.refuse_patches = 0
        self._events: list[tuple[int, str, str, Object]] = []
        self._version = self._oldest = 1
        self._changed = threading.Condition()
        self._epoch = 0
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.up()

    # what a test does

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        """Start answering, on the same port each time."""
        api = self

        class Handler(_Handler):
            fake = api

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Stop answering, and cut what is being answered."""
        with self._changed:
            self._epoch += 1
            self._changed.notify_all()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def forget(self) -> None:
        """The changes up to now cannot be watched any more (etcd's compaction): 410 for those who ask for them."""
        with self._changed:
            self._version += 10
            self._oldest = self._version
            self._events.clear()
            self._epoch += 1
            self._changed.notify_all()

    def put(self, path: str, namespace: str, name: str, **rest: Any) -> None:
        """Create or change an object; `annotations` and `uid` go where they belong."""
        meta = {"namespace": namespace, "name": name, "uid": rest.pop("uid", f"uid-{name}")}
        meta["annotations"] = rest.pop("annotations", {})
        with self._changed:
            kind = "MODIFIED" if (path, namespace, name) in self.objects else "ADDED"
            self._commit(kind, path, {"metadata": meta, **rest})

    def remove(self, path: str, namespace: str, name: str) -> None:
        with self._changed:
            self._commit("DELETED", path, self.objects[path, namespace, name])

    def pod(self, name: str, namespace: str = "default", **rest: Any) -> None:
        self.put("/api/v1/pods", namespace, name, **rest)

    def notes(self, name: str, namespace: str = "default") -> dict[str, str]:
        """A pod's annotations."""
        notes: dict[str, str] = self.objects["/api/v1/pods", namespace, name]["metadata"]["annotations"]
        return notes

    def asked(self, text: str) -> int:
        """How many requests had this in their first line."""
        return sum(text in request for request in self.requests)

    # what the handler does

    def _commit(self, kind: str, path: str, item: Object) -> None:
        self._version += 1
        item = copy.deepcopy(item)
        item["metadata"]["resourceVersion"] = str(self._version)
        key = (path, item["metadata"]["namespace"], item["metadata"]["name"])
        if kind == "DELETED":
            del self.objects[key]
        else:
            self.objects[key] = item
        self._events.append((self._version, kind, path, item))
        self._changed.notify_all()

    def list(self, path: str, query: dict[str, list[str]]) -> tuple[int, Object]:
        with self._changed:
            found = [item for (where, _, _), item in sorted(self.objects.items()) if where == path]
            limit, start = int(query.get("limit", ["500"])[0]), int(query.get("continue", ["0"])[0])
            more = str(start + limit) if start + limit < len(found) else ""
            meta = {"resourceVersion": str(self._version), "continue": more}
            return 200, {"metadata": meta, "items": found[start : start + limit]}

    def watch(self, path: str, version: int) -> Iterator[Object]:
        """Events after this version, for as long as the server is up."""
        epoch = self._epoch
        while True:
            with self._changed:
                if version < self._oldest:
                    yield {"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}}
                    return
                new = [e for e in self._events if e[0] > version and e[2] == path]
                if not new:
                    self._changed.wait(1)
                if epoch != self._epoch:
                    return
            for number, kind, _, item in new:
                version = number
                yield {"type": kind, "object": item}

    def patch(self, path: str, namespace: str, name: str, change: Object) -> tuple[int, Object]:
        with self._changed:
            if self.refuse_patches:
                self.refuse_patches -= 1
                return 500, {}
            item = self.objects.get((path, namespace, name))
            if item is None:
                return 404, {}
            meta = change["metadata"]
            if meta.get("uid", item["metadata"]["uid"]) != item["metadata"]["uid"]:
                return 409, {"message": "Precondition failed: UID in precondition"}
            item = copy.deepcopy(item)
            item["metadata"]["annotations"].update(meta["annotations"])
            self._commit("MODIFIED", path, item)
            return 200, item


class _Handler(BaseHTTPRequestHandler):
    fake: FakeApi
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.fake.requests.append(f"GET {self.path}")
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        single = self._single(parts.path)
        if (single[0] if single else parts.path) in self.fake.absent:
            self._answer(404, {"code": 404})
        elif "watch" in query:
            self._stream(parts.path, int(query["resourceVersion"][0]))
        elif single:
            item = self.fake.objects.get(single)
            self._answer(200 if item else 404, item or {"code": 404})
        else:
            self._answer(*self.fake.list(parts.path, query))

    def do_PATCH(self) -> None:
        self.fake.requests.append(f"PATCH {self.path}")
        change = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        single = self._single(self.path)
        assert single
        self._answer(*self.fake.patch(*single, change))

    @staticmethod
    def _single(path: str) -> tuple[str, str, str] | None:
        """/api/v1/namespaces/NS/pods/NAME taken apart."""
        parts = path.split("/")
        if "namespaces" not in parts:
            return None
        at = parts.index("namespaces")
        return "/".join([*parts[:at], parts[at + 2]]), parts[at + 1], parts[at + 3]

    def _stream(self, path: str, version: int) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in self.fake.watch(path, version):
            line = json.dumps(event).encode() + b"\n"
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def _answer(self, status: int, data: Object) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.fake._server is None

    def log_message(self, *_: object) -> None:
        pass
