"""The embedded cluster for real: two nodes, pods that reach each other, and a host on which nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from host_snapshot import snapshot_host

from harness.backends import embedded
from harness.embedded import binaries, isolation

pytestmark = pytest.mark.root
SMOKE = Path(__file__).with_name("embedded_smoke.py")


@pytest.fixture(autouse=True)
def _possible() -> None:
    try:
        isolation.probe()
        binaries.plugins(binaries.given(), (), embedded.CORE)
    except (isolation.Refused, binaries.NotFound) as error:
        pytest.skip(str(error))


def start(then: str, api: str = "kmock") -> subprocess.Popen[str]:
    env = {**os.environ, "GENIE_API": api}
    return subprocess.Popen(
        [sys.executable, SMOKE, then], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


@pytest.mark.parametrize("api", ["kmock", ""], ids=["kmock", "kube-apiserver"])
def test_pods_reach_each_other_across_nodes_and_nothing_is_left(api: str) -> None:
    if not api and not binaries.api_server("")[0].real:
        pytest.skip("no kube-apiserver here")
    before = snapshot_host()
    process = start("end", api)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    report: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert [dial["error"] for dial in report["dials"]] == [""] * 3
    assert all(dial["ok"] for dial in report["dials"])
    assert report["dials"][0]["seen_as"] == report["addresses"]["a"]
    assert report["connected"]
    assert report["left"] == []
    assert report["evidence"]
    assert snapshot_host() == before


@pytest.mark.parametrize("who", ["outer", "keeper", "program"])
def test_killing_any_process_of_a_run_leaves_nothing(who: str) -> None:
    before = snapshot_host()
    process = start("linger")
    assert process.stdout is not None
    assert "cage" in json.loads(process.stdout.readline())
    keeper = _child(process.pid)
    members = _members(keeper)
    assert len(members) > 3  # pytest's stand-in, the API server, the nodes
    os.kill({"outer": process.pid, "keeper": keeper, "program": _child(keeper)}[who], signal.SIGKILL)
    process.wait(10)
    until = time.monotonic() + 10
    while _alive(members) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _alive(members)
    assert snapshot_host() == before


def test_a_signal_to_the_outer_process_reaches_the_program_and_its_end_is_told() -> None:
    code = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7));"
        "print('up', flush=True); time.sleep(60)"
    )
    enter = f"from harness.embedded import isolation; isolation.enter([{sys.executable!r}, '-c', {code!r}])"
    process = subprocess.Popen([sys.executable, "-c", enter], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.terminate()
    assert process.wait(10) == 7


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _members(keeper: int) -> list[int]:
    """All processes of a cage, as the host numbers them."""
    found = [keeper]
    for pid in found:
        found += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found


def _alive(pids: list[int]) -> list[int]:
    def runs(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    return [pid for pid in pids if runs(pid)]


def test_a_cage_that_is_kept_goes_on_until_its_keeper_is_killed() -> None:
    code = "import sys; from harness.embedded import isolation; print(isolation.keep(), flush=True); sys.exit(3)"
    enter = f"from harness.embedded import isolation; isolation.enter([{sys.executable!r}, '-c', {code!r}])"
    process = subprocess.run([sys.executable, "-c", enter], stdout=subprocess.PIPE, text=True, timeout=10, check=False)
    keeper = int(process.stdout)
    try:
        assert process.returncode == 3
        assert _alive([keeper])
    finally:
        os.kill(keeper, signal.SIGTERM)
    until = time.monotonic() + 10
    while _alive([keeper]) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _alive([keeper])
