"""Reserved addresses in the stores of all IPAM plugins."""

from __future__ import annotations

import base64
import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.cluster import ipam

BLOCK = {
    "cidr": "10.245.1.64/26",
    "allocations": [0, None, 1, 2],
    "attributes": [
        {"handle_id": "vxlan-tunnel-addr-w1", "secondary": {"node": "w1", "type": "vxlanTunnelAddress"}},
        {"handle_id": "k8s-pod-network.0123", "secondary": {"node": "w1", "namespace": "n", "pod": "p"}},
        {"handle_id": "k8s-pod-network.4567", "secondary": {"node": "w2", "namespace": "n", "pod": "q"}},
    ],
}
HANDLES = ("vxlan-tunnel-addr-w1", "k8s-pod-network.0123", "k8s-pod-network.4567", "k8s-pod-network.89ab")


def test_calicos_addresses_are_told_of_the_node_that_has_them() -> None:
    stray = "calico handle k8s-pod-network.89ab, without an address"
    assert set(ipam.calico([BLOCK], HANDLES, "w1")) == {"calico 10.245.1.66 k8s-pod-network.0123", stray}
    assert set(ipam.calico([BLOCK], HANDLES, "w2")) == {"calico 10.245.1.67 k8s-pod-network.4567", stray}


def test_calicos_addresses_and_endpoints_are_read_from_etcd() -> None:
    endpoint = {"metadata": {"name": "w1-k8s-p-eth1", "namespace": "n"}, "spec": {"node": "w1", "containerID": "0123"}}
    sections = {
        "calico-ipam": etcd_said(
            {"/calico/ipam/v2/assignment/ipv4/block/10.245.1.64-26": BLOCK}
            | {f"/calico/ipam/v2/handle/{handle}": {} for handle in HANDLES[:3]}
            | {"/calico/ipam/v2/host/w1/ipv4/block/10.245.1.64-26": {"state": "confirmed"}}
        ),
        "calico-endpoints": etcd_said({"/calico/…/workloadendpoints/n/w1-k8s-p-eth1": endpoint}),
    }
    mine = ["calico 10.245.1.66 k8s-pod-network.0123", "calico endpoint n/w1-k8s-p-eth1 0123"]
    assert list(ipam.printed(sections, "w1")) == mine
    assert list(ipam.printed(sections, "w2")) == ["calico 10.245.1.67 k8s-pod-network.4567"]


def etcd_said(pairs: dict[str, Any]) -> str:
    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    return json.dumps({"kvs": [{"key": encoded(key), "value": encoded(json.dumps(it))} for key, it in pairs.items()]})


@pytest.mark.parametrize("etcd", ["http://127.0.0.1:{port}", "http://127.0.0.1:{port},http://10.0.0.2:2379"])
def test_a_node_is_asked_with_nothing_but_bash(tmp_path: Path, etcd: str) -> None:
    with answering({"kvs": []}) as (port, asked):
        (tmp_path / "10-calico.conflist").write_text(
            json.dumps({"plugins": [{"type": "calico", "etcd_endpoints": etcd.format(port=port)}]}, indent=1)
        )
        script = 'section() { echo; echo "#### $1"; }\n' + ipam.SCRIPT.replace("/etc/cni/net.d", str(tmp_path))
        output = subprocess.check_output(["sh", "-c", script + "exit 0", "sh", *ipam.arguments()], text=True)
    assert asked == [json.loads(argument) for argument in ipam.arguments()]
    assert output.count('{"kvs": []}') == 2


@contextmanager
def answering(answer: Any) -> Iterator[tuple[int, list[Any]]]:
    """An HTTP server, its port, and the requests so far."""
    asked: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: Any) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port, asked
        server.shutdown()
        thread.join()


def test_a_store_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "10-calico.conflist").write_text('{"type": "calico", "etcd_endpoints": "http://127.0.0.1:1"}')
    script = "section() { :; }\n" + ipam.SCRIPT.replace("/etc/cni/net.d", str(tmp_path))
    done = subprocess.run(["sh", "-c", script, "sh", "", ""], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "127.0.0.1:1 /v3/kv/range, where addresses are kept, does not answer" in done.stderr
