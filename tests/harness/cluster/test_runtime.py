"""CHECK, GC and STATUS on nodes, with this machine as the nodes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from harness import libcni
from harness.cluster.runtime import Verbs
from harness.libcni import Attachment, CniFailure, Kept

POD = Attachment(namespace="ns", pod="p", uid="u", sandbox="c" * 64, netns="/run/netns/x", capabilities={"dns": {}})
CONF = {"name": "g", "type": "genie", "cniVersion": "1.0.0", "capabilities": {"dns": True}}
RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24"}]}


class Here:
    """This machine as nodes; input has no end of file, as through the API server."""

    def run(self, node: str, *argv: str, stdin: bytes | None = None, timeout: float = 5, check: bool = True) -> str:
        reading, writing = os.pipe()
        os.write(writing, stdin or b"")
        try:
            done = subprocess.run(argv, stdin=reading, capture_output=True, timeout=timeout, check=check)
        finally:
            os.close(reading)
            os.close(writing)
        return done.stdout.decode()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node with a plugin that records its calls, and fails on request."""
    for name in ("bin", "net.d", "results"):
        (tmp_path / name).mkdir()
    plugin = tmp_path / "bin" / "genie"
    plugin.write_text(f"#!/bin/sh\ncd {tmp_path}; {{ env; cat; }} >output; [ -e fails ] || exit 0; cat fails; exit 1\n")
    plugin.chmod(0o755)
    (tmp_path / "net.d" / "10-other.conf").write_text('{"name": "o", "type": "bridge"}')
    (tmp_path / "net.d" / "00-genie.conf").write_text(json.dumps(CONF))
    (tmp_path / "net.d" / "00-a.kubeconfig").write_text("{}")
    kept = Kept(attachment=POD, network=libcni.as_list(CONF), result=RESULT)
    (tmp_path / "results" / kept.name).write_text(kept.text())
    (tmp_path / "results" / "half").write_text(kept.text()[:50])
    monkeypatch.setattr(libcni, "CONF_DIR", str(tmp_path / "net.d"))
    monkeypatch.setattr(libcni, "CACHE", str(tmp_path / "results"))
    monkeypatch.setattr("harness.cluster.runtime.BINARIES", str(tmp_path / "bin"))
    return tmp_path


def test_check_on_a_node_takes_the_kept_result(node: Path) -> None:
    Verbs(nodes=Here()).check("n", "ns", "p")
    output = (node / "output").read_text()
    assert "CNI_COMMAND=CHECK\n" in output
    assert f"CNI_CONTAINERID={'c' * 64}\n" in output
    assert json.loads(output.splitlines()[-1])["prevResult"] == RESULT
    (node / "fails").write_text('{"code": 100, "msg": "eth0 is gone"}')
    with pytest.raises(CniFailure, match=r"failed \(check\): eth0 is gone"):
        Verbs(nodes=Here()).check("n", "ns", "p")
    with pytest.raises(LookupError, match="no result of an ADD for ns/q"):
        Verbs(nodes=Here()).check("n", "ns", "q")


def test_status_on_a_node_is_of_the_first_configuration(node: Path) -> None:
    Verbs(nodes=Here()).status("n", {"default_plugin": "blue"}, {"CNI_PATH": "/elsewhere"})
    output = (node / "output").read_text()
    stdin = json.loads(output.splitlines()[-1])
    assert (stdin["type"], stdin["default_plugin"], stdin["cniVersion"]) == ("genie", "blue", "1.1.0")
    assert "CNI_PATH=/elsewhere\n" in output


def test_gc_on_a_node_names_all_that_is_kept(node: Path) -> None:
    Verbs(nodes=Here()).collect_garbage("n")
    stdin = json.loads((node / "output").read_text().splitlines()[-1])
    assert stdin["cni.dev/valid-attachments"] == [{"containerID": "c" * 64, "ifname": "eth0"}]
