"""The part behind genie: scenarios of a profile's network as checks of the report."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.conformance import behind, published, report
from harness.conformance.findings import Fault, Verdict

EXAMPLE = Path(__file__).parents[3] / "fixtures/plugins/example_veth.py"
PROFILE = """\
network: mynet
embedded:
  kind: real
  software: the example
  plugins: [mynet]
  subnets: [10.77.0.0/16]
  file: 60-mynet.conf
  conf: {cniVersion: 1.1.0, name: mynet, type: mynet, subnet: "10.77.{{ node.number }}.0/24"}
"""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A profile of the example plugin, which lies beside it."""
    shutil.copy(EXAMPLE, tmp_path / "mynet")
    (tmp_path / "mynet.yaml").write_text(PROFILE)
    return tmp_path / "mynet.yaml"


def conformance(profile: Path, cni_bin: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`harness conformance --behind only`, with a report beside the profile."""
    command = [sys.executable, "-m", "harness", "conformance", str(profile), "--behind", "only"]
    env = {**os.environ, "GENIE_CNI_BIN": f"{profile.parent}{os.pathsep}{cni_bin}", "GENIE_API": "kmock"}
    words = ("--report", str(profile.parent / "report.json"), *words)
    return subprocess.run([*command, *words], capture_output=True, text=True, check=False, env=env)


def outcome(**changed: Any) -> dict[str, Any]:
    """A scenario's outcome as report.json has it."""
    stages = [{"name": "expect", "seconds": 1, "failure": "", "findings": []}]
    usual = {"name": "alone", "title": "It works", "group": "core", "verdict": "passed", "reason": "", "seconds": 2.5}
    return {**usual, "stages": stages, **changed}


def wanted(profile: Path, *only: str) -> behind.Wanted:
    return behind.Wanted(profile=profile, backend="embedded", only=only)


@pytest.mark.root
def test_the_example_passes_alone_on_one_node(profile: Path, cni_bin: str) -> None:
    done = conformance(profile, cni_bin, "--only", "behind-alone")
    assert done.returncode == 0, done.stdout + done.stderr
    [check] = published.read(profile.parent / "report.json").checks
    assert (check.name, check.verdict, check.section) == ("behind-alone", Verdict.PASSED, "Behind genie")
    assert check.level == "core"


def test_a_run_that_cannot_begin_is_no_success(profile: Path, cni_bin: str) -> None:
    done = conformance(profile, cni_bin, "--backend", "nosuch")
    assert done.returncode == 1
    [check] = published.read(profile.parent / "report.json").checks
    assert (check.name, check.verdict) == ("behind-genie", Verdict.BROKEN)
    assert "--backend nosuch: known are auto, embedded" in check.reason


def test_behind_takes_a_profile(profile: Path) -> None:
    command = [sys.executable, "-m", "harness", "conformance", "--behind", "--plugin", str(EXAMPLE)]
    done = subprocess.run([*command, "--conf", str(profile)], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "--behind: expected a profile" in done.stderr


def test_what_is_skipped_has_its_reason_and_what_is_optional_its_feature(profile: Path) -> None:
    found = behind.of(
        outcome(verdict="skipped", reason="no such thing", group="host-ports"), wanted(profile), profile.parent
    )
    assert (found.verdict, found.trials[0].reason) == (Verdict.SKIPPED, "no such thing")
    assert found.check.describe()["level"] == "extended: host-ports"


def test_each_failure_is_a_finding_with_a_command_that_shows_it(profile: Path) -> None:
    findings = [{"check": "reach", "seconds": 1, "failure": "tcp: no answer\na has: nothing"}]
    stage = {"name": "create", "seconds": 1, "failure": "the harness or its backend failed: x", "findings": findings}
    found = behind.of(outcome(verdict="failed", stages=[stage]), wanted(profile), profile.parent).trials[0].findings
    assert [each["fault"] for each in found] == [Fault.ENVIRONMENT, Fault.UNKNOWN]
    assert found[1]["headline"] == "reach: tcp: no answer"
    assert "-k alone" in found[1]["reproducer"]
    assert "a has: nothing" in found[1]["reproducer"]


def test_stand_ins_are_named(profile: Path) -> None:
    networks = {
        "weave": {"kind": "stand-in", "software": "bridge and VXLAN"},
        "mynet": {"kind": "real", "software": ""},
    }
    found = behind.of(outcome(networks=["mynet", "weave"]), wanted(profile), profile.parent, networks)
    assert found.trials[0].notes == ["weave is a stand-in: bridge and VXLAN"]
    assert "weave is a stand-in" in report.line(found)


def call(binary: str, status: int, verb: str = "ADD") -> dict[str, Any]:
    return {"binary": binary, "env": {"CNI_COMMAND": verb}, "status": status}


FAILED = 'a is Pending on one:\n  Warning FailedCreatePodSandBox: plugin type="genie" failed (add): x'


@pytest.mark.parametrize(
    ("what", "calls", "fault", "shown"),
    [
        (FAILED, [call("mynet", 0), call("mynet", 1)], Fault.PLUGIN, 1),
        (FAILED, [call("store", 1), call("mynet", 1)], Fault.IPAM, 0),
        (FAILED, [call("mynet", 0), call("flannel", 1)], Fault.ENVIRONMENT, 1),
        (FAILED, [call("mynet", 0)], Fault.GENIE, None),
        ("eth0 up, 10.9.0.1/24 (in no network of this scenario)", [call("mynet", 0)], Fault.PROFILE, 0),
        ("tcp from a to b: no answer", [call("mynet", 0), call("mynet", 0, "DEL")], Fault.UNKNOWN, 0),
        ("the harness or its backend failed:\nTraceback", [call("mynet", 1)], Fault.ENVIRONMENT, None),
    ],
)
def test_blame(what: str, calls: list[dict[str, Any]], fault: Fault, shown: int | None) -> None:
    found = behind.blame(what, calls, {"mynet"}, {"store"})
    assert (found.fault, found.call) == (fault, None if shown is None else calls[shown])


@pytest.mark.root
def test_what_no_call_explains_has_the_plugins_input_and_output_and_blames_nobody(profile: Path, cni_bin: str) -> None:
    """A route that stays on the node: found when the pods are gone, with the plugin's own calls as evidence."""
    plugin = profile.parent / "mynet"
    source = plugin.read_text()
    plugin.write_text(source.replace("self.pair()\n", "self.pair(); ip_unless_there('route add 10.77.9.9 dev lo')\n"))
    assert plugin.read_text() != source
    done = conformance(profile, cni_bin, "--only", "behind-alone")
    assert done.returncode == 1, done.stdout
    [check] = published.read(profile.parent / "report.json").checks
    [finding] = [each for each in check.findings if "nothing-left" in each.headline]
    assert finding.fault == Fault.UNKNOWN
    assert "No plugin's call failed" in finding.reproducer
    assert finding.call
    assert '"mynet"' in finding.call.stdin
