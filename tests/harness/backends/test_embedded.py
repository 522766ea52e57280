"""The real embedded cluster: pods that reach each other, complete runs, and a host without leftovers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import catalog
from harness.backends import embedded_networks
from harness.embedded import binaries
from tests.rigs import host
from tests.rigs.processes import alive, child, family

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("embedded_possible")]
ROOT = Path(__file__).parents[3]
SCENARIOS = ROOT / "scenarios"


def start(then: str, api: str = "kmock") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.rigs.embedded_smoke", then]
    env = {**os.environ, "GENIE_API": api}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=ROOT)


@pytest.mark.parametrize("api", ["kmock", ""], ids=["kmock", "kube-apiserver"])
def test_pods_reach_each_other_across_nodes_and_nothing_is_left(api: str) -> None:
    if not api and not binaries.api_server("")[0].real:
        pytest.skip("no kube-apiserver here")
    before = host.snapshot()
    process = start("end", api)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    report: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert [dial["error"] for dial in report["dials"]] == [""] * 3
    assert all(dial["ok"] for dial in report["dials"])
    assert report["dials"][0]["seen_as"] == report["addresses"]["a"]
    assert report["connected"]
    assert report["left"] == []
    assert report["evidence"]
    assert [kind for kind, seen in report["node"].items() if not seen] == [], "what is looked for is there on a node"
    assert host.added(before) == {}


@pytest.mark.parametrize("who", ["outer", "keeper", "program"])
def test_killing_any_process_of_a_run_leaves_nothing(who: str) -> None:
    before = host.snapshot()
    process = start("linger")
    assert process.stdout is not None
    assert "place" in json.loads(process.stdout.readline())
    keeper = child(process.pid)
    members = family(keeper)
    assert len(members) > 3  # pytest's stand-in, the API server, the nodes
    os.kill({"outer": process.pid, "keeper": keeper, "program": child(keeper)}[who], signal.SIGKILL)
    process.wait(10)
    assert not alive(members, within=10)
    assert host.added(before) == {}


def _run(tmp_path: Path, scenario: Path, *more: str, api: str = "kmock", **env: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", str(scenario), "--backend", "embedded", "--report", str(tmp_path)]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *more], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "GENIE_API": api, **env}, cwd=SCENARIOS.parent,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("api", ["kmock", ""], ids=["kmock", "kube-apiserver"])
def test_flannel_is_itself_where_it_is_found(api: str, tmp_path: Path) -> None:
    found = embedded_networks.find([catalog.load()["flannel"]], binaries.given(), ())
    if found.lacking or not found.daemons:
        pytest.skip("no flanneld here, or no plugin of it")
    if not api and not binaries.api_server("")[0].real:
        pytest.skip("no kube-apiserver here")
    before = host.snapshot()
    status, output = _run(tmp_path, SCENARIOS / "flannel-across-nodes.yaml", api=api)
    assert status == 0, output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["networks"]["flannel"]["kind"] == "real"
    assert report["networks"]["flannel"]["software"].startswith("flannel v0.")
    assert any(note.startswith("flannel is itself: flannel v0.") for note in report["cluster"]["notes"])
    assert host.added(before) == {}


def test_without_its_daemon_it_is_a_stand_in_and_called_one(tmp_path: Path) -> None:
    path = os.pathsep.join(part for part in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"))
    if binaries.look(["flanneld"], [*binaries.given(), *map(Path, path.split(":")), *binaries.PLACES]):
        pytest.skip("flanneld is where it cannot be hidden")
    status, output = _run(tmp_path, SCENARIOS / "flannel.yaml", PATH=path)
    assert status == 0, output
    assert "flannel is a stand-in: no flanneld" in output
    assert "a stand-in: bridge + host-local" in output


def test_a_daemon_that_dies_before_pods_come_ends_the_run_with_one_error(tmp_path: Path) -> None:
    scenario, more, env = _acme(tmp_path, "echo no licence; exit 4")
    status, output = _run(tmp_path, scenario, *more, **env)
    assert status != 0
    reported = [line for line in output.splitlines() if "no licence" in line]
    assert len(reported) == 1, output
    assert "the embedded cluster did not start: network acme: its daemon acmed on node worker-" in reported[0]
    assert "has ended with status 4: no licence" in reported[0]
    assert "Traceback" not in output


def test_a_daemon_that_dies_later_is_what_its_scenarios_say(tmp_path: Path) -> None:
    dies = "touch /run/acme; until [ -e /var/lib/cni/networks/acme ]; do sleep 0.02; done; echo gone >&2; exit 4"
    scenario, more, env = _acme(tmp_path, dies)
    status, output = _run(tmp_path, scenario, *more, **env)
    assert status == 1
    assert "network acme: its daemon acmed on node worker-1 has ended with status 4: gone" in output
    assert "gone\n" in [path.read_text() for path in tmp_path.rglob("*acmed.log")]  # as evidence


def _acme(tmp_path: Path, script: str) -> tuple[Path, list[str], dict[str, str]]:
    """A network with a daemon, a scenario for it, and a function that runs it."""
    daemon = tmp_path / "bin" / "acmed"
    daemon.parent.mkdir()
    daemon.write_text(f"#!/bin/sh\n{script}\n")
    daemon.chmod(0o755)
    ipam = {"type": "host-local", "subnet": "10.99.0.0/24"}
    conf = {"name": "acme", "cniVersion": "1.0.0", "type": "bridge", "bridge": "acme", "ipam": ipam}
    part = {"software": "acme {{ version }}", "plugins": ["bridge", "host-local"], "conf": conf}
    real = {**part, "daemon": ["acmed"], "ready": {"files": ["/run/acme"]}}
    section = {
        **part,
        "kind": "stand-in",
        "subnets": ["10.99.0.0/24"],
        "file": "acme.conf",
        "real": real,
        "default-route": False,
    }
    profile = tmp_path / "acme.yaml"
    profile.write_text(json.dumps({"network": "acme", "embedded": section}))
    scenario = tmp_path / "scenarios" / "acme.yaml"
    scenario.parent.mkdir()
    pods = {"one": {"annotations": {"cni": "acme"}, "node": "first"}}
    expect = [{"interfaces": {"pod": "one", "eth0": "acme"}}]
    scenario.write_text(json.dumps({"scenario": "x", "networks": ["acme"], "pods": pods, "expect": expect}))
    given = os.pathsep.join([str(daemon.parent), os.environ.get("GENIE_CNI_BIN", "")])
    return scenario, ["--profile", str(profile)], {"GENIE_CNI_BIN": given}
