"""The emulated API server, as Go's clients and the harness read it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.embedded.rest import Access, Client, Refusal


def test_lists_and_watches_are_such_that_gos_clients_read_them(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "harness.embedded.emulator", str(port)]
    with subprocess.Popen(command, stderr=(tmp_path / "log").open("w")) as server:
        try:
            _see(port, lambda: server.poll() is None)
        finally:
            server.kill()


def _see(port: int, alive: Callable[[], bool]) -> None:
    client = Client(Access(server=f"http://127.0.0.1:{port}"))
    while True:
        assert alive()
        try:
            client.post("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"}})
            break
        except OSError:
            time.sleep(0.02)
    _see_definition(client)
    listed = client.get("/api/v1/nodes")
    assert (listed["apiVersion"], listed["kind"]) == ("v1", "NodeList")
    assert int(listed["metadata"]["resourceVersion"]) > 0
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/nodes?watch=true", timeout=10) as watch:
        assert watch.headers["Content-Type"] == "application/json"
        assert json.loads(watch.readline())["object"]["metadata"]["name"] == "one"


def _see_definition(client: Client) -> None:
    """A kind is served as long as its definition exists, and its objects are removed with it."""
    definitions, served = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "/apis/acme.example/v1/nets"
    spec = {"group": "acme.example", "versions": [{"name": "v1"}], "names": {"plural": "nets", "kind": "Net"}}
    with pytest.raises(Refusal, match="404"):
        client.get(served)
    for _ in range(2):
        client.post(definitions, {"metadata": {"name": "nets.acme.example"}, "spec": spec})
        empty = client.get(served)
        assert (empty["apiVersion"], empty["kind"], empty["items"]) == ("acme.example/v1", "NetList", [])
        client.post("/apis/acme.example/v1/namespaces/a/nets", {"metadata": {"name": "blue"}})
        assert len(client.get(served)["items"]) == 1
        client.delete(f"{definitions}/nets.acme.example")
        with pytest.raises(Refusal, match="404"):
            client.get(served)
