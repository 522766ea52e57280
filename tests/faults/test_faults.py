"""Every part of the fault suite, each in a separate process; a failure shows how to run it again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.faults import trace
from tests.faults.world import ROOT

WHO = ("agent", "shim", "direct")


@pytest.fixture(autouse=True)
def plugins(cni_bin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real plugins; they need a machine where this user is root."""
    if os.geteuid():
        pytest.skip("faults: need root, for network, mount and PID namespaces")
    monkeypatch.setenv("GENIE_CNI_BIN", cni_bin)


def run(*arguments: str) -> None:
    """Run a part and show its output."""
    command = [sys.executable, "-m", "tests.faults", *arguments]
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("{")]
    print(*lines[-60:], sep="\n")
    assert done.returncode == 0, f"run it again: python {' '.join(command[1:])}"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--seed"))


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("--seconds"))


@pytest.mark.parametrize("mode", ["agent", "direct"])
def test_storm(mode: str, seed: str, seconds: float) -> None:
    run("storm", "--seed", seed, "--seconds", str(seconds), *(["--direct"] if mode == "direct" else []))


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
@pytest.mark.parametrize("who", WHO)
def test_crash_points(who: str, verb: str, seed: str, seconds: float) -> None:
    if why := trace.unsupported():
        pytest.skip(why)
    run("crash", who, verb, "--seed", seed, "--seconds", str(seconds / 3))


@pytest.mark.parametrize("part", ["power", "damage", "full"])
def test_disk(part: str, seed: str) -> None:
    run(part, "--seed", seed)


@pytest.mark.parametrize("mode", ["agent", "direct"])
def test_plugins_that_misbehave(mode: str) -> None:
    run("delegates", *(["--direct"] if mode == "direct" else []))


def test_an_api_server_in_trouble() -> None:
    run("server")


def test_more_and_larger_objects_than_a_node_needs() -> None:
    run("big")
