"""What a profile claims and what is not so is the profile's fault, not the plugin's: each on a real plugin."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.conformance.findings import Fault, Verdict
from harness.conformance.profile import check
from harness.conformance.run import Checked, run
from harness.download import FIXTURES

pytestmark = pytest.mark.root
VETH = {"cniVersion": "1.0.0", "name": "mynet", "type": "mynet", "subnet": "10.77.1.0/24"}
HOST_LOCAL = {"type": "host-local", "ranges": [[{"subnet": "10.77.1.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}


def mynet(directory: Path, edit: str = "") -> None:
    """The example as a plugin of that name.

    edit: for sed, a change of what it reads.
    """
    plugin = FIXTURES / "plugins" / "example_veth.py"
    (directory / "mynet").write_text(f"#!/bin/sh\nsed '{edit}' | exec {sys.executable} {plugin}\n")
    (directory / "mynet").chmod(0o755)


def installed(directory: Path, cni_bin: str, *names: str) -> None:
    """Reference plugins."""
    for name in names:
        (directory / name).symlink_to(f"{cni_bin}/{name}")


def checked(directory: Path, conf: dict[str, Any], only: list[str], **stated: Any) -> dict[str, Checked]:
    """The checks of a profile with one version."""
    conformance = {"claims": stated.pop("claims", [])}
    section = {"kind": "real", "software": "x", "plugins": [conf["type"], "host-local"], "subnets": ["10.77.0.0/16"]}
    embedded = {**section, "file": "10-mynet.conf", "conf": conf, **stated}
    path = directory / "mynet.yaml"
    path.write_text(json.dumps({"network": "mynet", "embedded": embedded, "conformance": conformance}))
    results = run(check.read(path), ["profile-", "add-succeeds", *only], again=0, jobs=1)
    return {each.check.name: each for each in results}


def blamed(results: dict[str, Checked], name: str) -> list[tuple[str, str]]:
    """Who is at fault for the findings of a check, with the headlines; each once."""
    found = {(each["fault"], each["headline"]) for trial in results[name].trials for each in trial.findings}
    return sorted(found)


def verdicts(results: dict[str, Checked]) -> set[Verdict]:
    return {each.verdict for each in results.values()}


def test_a_true_profile_has_no_findings(tmp_path: Path) -> None:
    mynet(tmp_path)
    results = checked(tmp_path, VETH, [], **{"default-route": True})
    assert verdicts(results) == {Verdict.PASSED}


def test_a_range_that_cannot_be_blocks_what_builds_on_it(tmp_path: Path, cni_bin: str) -> None:
    installed(tmp_path, cni_bin, "bridge", "host-local")
    ipam = {**HOST_LOCAL, "ranges": [[{"subnet": "10.77.1.0/24", "rangeStart": "10.78.1.9"}]]}
    results = checked(tmp_path, {**VETH, "type": "bridge", "ipam": ipam, "subnet": ""}, [])
    [(fault, headline)] = blamed(results, "profile-holds")
    assert (fault, "rangeStart: 10.78.1.9 is not in the subnet 10.77.1.0/24" in headline) == (Fault.PROFILE, True)
    assert results["add-succeeds"].verdict == Verdict.BLOCKED


def test_a_version_that_the_plugin_does_not_list(tmp_path: Path) -> None:
    mynet(tmp_path)
    plugin = (tmp_path / "mynet").read_text().replace("| exec", "|").rstrip() + " | sed 's/, \"1.1.0\"//'\n"
    (tmp_path / "mynet").write_text(plugin)
    results = checked(tmp_path, {**VETH, "cniVersion": "1.1.0"}, [])
    [(fault, headline)] = blamed(results, "profile-holds")
    assert (fault, "cniVersion: 1.1.0 is not among the versions" in headline) == (Fault.PROFILE, True)


def test_a_capability_that_nothing_in_the_executables_has_the_name_of(tmp_path: Path, cni_bin: str) -> None:
    installed(tmp_path, cni_bin, "bridge", "host-local")
    conf = {**VETH, "type": "bridge", "ipam": HOST_LOCAL, "subnet": ""}
    results = checked(tmp_path, {**conf, "capabilities": {"portMappings": True, "mac": True, "ips": True}}, [])
    [(fault, headline)] = blamed(results, "profile-holds")
    assert fault == Fault.PROFILE
    assert headline.endswith("portMappings: bridge cannot do portMappings: nothing in its executable has that name")


def test_subnets_that_the_plugin_does_not_keep_to(tmp_path: Path) -> None:
    """Its addresses come from where the configuration has them: the profile states other ones."""
    mynet(tmp_path, 's/"pool"/"subnet"/')
    conf = {**VETH, "pool": "10.88.1.0/24"}
    del conf["subnet"]
    results = checked(tmp_path, conf, [])
    assert results["add-succeeds"].verdict == Verdict.PASSED
    assert {fault for fault, _ in blamed(results, "profile-subnets")} == {Fault.PROFILE}


def test_an_address_that_is_not_from_the_configured_subnet_is_the_plugins_fault(tmp_path: Path) -> None:
    mynet(tmp_path, "s/10[.]77[.]1[.]0/10.99.1.0/")
    results = checked(tmp_path, VETH, [])
    assert {fault for fault, _ in blamed(results, "profile-subnets")} == {Fault.PLUGIN}


def test_a_default_route_that_is_there_though_the_profile_states_none(tmp_path: Path) -> None:
    mynet(tmp_path)
    results = checked(tmp_path, VETH, [], **{"default-route": False})
    headline = "the profile states `default-route: false`, and ADD set a default route"
    assert blamed(results, "profile-default-route") == [(Fault.PROFILE, headline)]


def test_a_claim_that_the_binary_cannot_do(tmp_path: Path) -> None:
    mynet(tmp_path)
    results = checked(tmp_path, VETH, ["args-ips", "netns-override"], claims=["args.ips", "netns-override"])
    assert {fault for name in ("args-ips", "netns-override") for fault, _ in blamed(results, name)} == {Fault.PROFILE}


def test_a_claim_that_nobody_can_ask_for(tmp_path: Path) -> None:
    mynet(tmp_path)
    results = checked(tmp_path, VETH, [], claims=["capability:mac"])
    [(fault, headline)] = blamed(results, "profile-holds")
    assert (fault, "conformance.claims[0]: nobody can ask for mac" in headline) == (Fault.PROFILE, True)


def test_a_binary_that_is_not_there(tmp_path: Path) -> None:
    mynet(tmp_path)
    checked(tmp_path, VETH, [])
    (tmp_path / "mynet").unlink()
    command = [sys.executable, "-m", "harness", "conformance", str(tmp_path / "mynet.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert done.stderr.startswith(f"nothing was tested; the profile is at fault: {tmp_path}/mynet.yaml:1:")
    assert "embedded.conf.type: no executable mynet in " in done.stderr
