"""`pytest --pyargs harness.conformance` in a vendor's own suite: names, skips, workers, JUnit XML."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from harness.conformance.checks import CHECKS
from harness.download import FIXTURES

PROFILE = """\
network: mynet
embedded:
  kind: real
  software: mynet
  plugins: [mynet]
  subnets: [10.77.0.0/16]
  file: 10-mynet.conf
  conf: {cniVersion: 1.1.0, name: mynet, type: mynet, subnet: "10.77.{{ node.number }}.0/24"}
"""


def suite(directory: Path, *words: str, profile: str = PROFILE, plugin: str = "") -> subprocess.CompletedProcess[str]:
    """pytest in a vendor's directory, which has nothing of the project's."""
    (directory / "mynet").write_text(plugin or (FIXTURES / "plugins" / "example_veth.py").read_text())
    (directory / "mynet").chmod(0o755)
    (directory / "mynet.yaml").write_text(profile)
    (directory / "pytest.ini").write_text("[pytest]\naddopts = -p no:kmock -p no:asyncio -p no:cacheprovider -rs\n")
    command = [sys.executable, "-m", "pytest", "--pyargs", "harness.conformance", *words]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    return subprocess.run(command, cwd=directory, env=clean, capture_output=True, text=True, check=False)


def test_each_check_is_an_item_with_its_name(tmp_path: Path) -> None:
    done = suite(tmp_path, "--collect-only", "-q")
    names = [line.rpartition("::")[2] for line in done.stdout.splitlines() if "::" in line]
    assert names == [check.name for check in CHECKS]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected one --profile FILE, or --plugin FILE and --conf FILE"),
        (["--profile", "none.yaml"], "none.yaml:1:1: cannot be read"),
        (["--profile", "mynet.yaml", "--report", "x"], "--report is of scenarios"),
        (["--profile", "mynet.yaml", "--cni-versions", "9.9.9"], "--cni-versions: expected some of 0.1.0"),
    ],
)
def test_what_tests_nothing_is_an_error(tmp_path: Path, words: list[str], message: str) -> None:
    done = suite(tmp_path, *words)
    assert (done.returncode, message in done.stderr) == (pytest.ExitCode.USAGE_ERROR, True), done.stderr


@pytest.mark.root
@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_checks_pass_and_those_that_are_not_claimed_are_skipped_with_the_reason(
    tmp_path: Path, workers: list[str]
) -> None:
    some = ["-k", "add-succeeds or args-ips or version-", "--cni-versions", "1.1.0", "--junit-xml", "junit.xml"]
    done = suite(tmp_path, "--profile", "mynet.yaml", *some, *workers)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = {case.get("name"): case for case in ET.parse(tmp_path / "junit.xml").iter("testcase")}
    assert {"version-answers", "version-echoes", "add-succeeds", "args-ips"} <= set(cases)
    assert "add-twice" not in cases
    skipped = cases["args-ips"].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "not claimed: args.ips"
    assert cases["add-succeeds"].find("skipped") is None


@pytest.mark.root
def test_a_failure_shows_what_was_found_and_what_it_blocks_is_skipped_beside_it(tmp_path: Path) -> None:
    plugin = (
        f"#!/bin/sh\n[ $CNI_COMMAND = VERSION ] || exit 1\nexec {sys.executable} {FIXTURES}/plugins/example_veth.py\n"
    )
    words = ["--profile", "mynet.yaml", "--cni-versions", "1.1.0", "-k"]
    done = suite(tmp_path, *words, "add-succeeds or add-twice", plugin=plugin)
    assert done.returncode == 1
    assert "plugin: ADD fails" in done.stdout
    assert "unshare --net" in done.stdout
    assert "1 failed, 1 skipped" in done.stdout, done.stdout
    alone = suite(tmp_path, *words, "add-twice", plugin=plugin)
    assert (alone.returncode, "plugin: ADD fails" in alone.stdout) == (1, True), alone.stdout


@pytest.mark.root
def test_a_binary_and_its_configuration_do_without_a_profile(tmp_path: Path) -> None:
    (tmp_path / "10.conf").write_text('{"cniVersion": "1.1.0", "name": "n", "type": "mynet", "subnet": "10.77.0.0/24"}')
    done = suite(tmp_path, "--plugin", "./mynet", "--conf", "10.conf", "-k", "add-succeeds", "--cni-versions", "1.1.0")
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout + done.stderr
