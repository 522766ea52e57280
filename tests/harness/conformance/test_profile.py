"""`harness profile`, and profiles that are given to other commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.conformance.profile import check, configuration
from harness.conformance.run import run

PLUGIN = """\
#!/bin/sh
echo '{"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}'
"""
RIGHT = """\
network: mynet
embedded:
  kind: real
  software: mynet 1.2
  plugins: [mynet, myipam]
  subnets: [10.77.0.0/16]
  default-route: true
  file: 10-mynet.conf
  container-id-per-interface: [mynet]
  conf:
    cniVersion: 1.0.0
    name: mynet
    type: mynet
    capabilities: {mac: true}
    ipam: {type: myipam, ranges: [[{subnet: "10.77.{{ node.number }}.0/24"}]]}
conformance:
  plugin: mynet
  claims: [args.ips, "capability:mac"]
  stays: [mynet0]
cluster:
  software: mynet 1.2
  conf: 10-mynet.conf
  subnets: [10.77.0.0/16]
"""
LOCAL = RIGHT.replace("myipam", "host-local")


def profile(directory: Path, text: str = RIGHT) -> Path:
    """A profile with its plugins beside it."""
    for name in ("mynet", "myipam", "host-local", "bridge"):
        (directory / name).write_text(PLUGIN)
        (directory / name).chmod(0o755)
    (directory / "mynet.yaml").write_text(text)
    return directory / "mynet.yaml"


def harness(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_right_profile_has_no_mistakes(tmp_path: Path) -> None:
    assert check.mistakes(profile(tmp_path)) == []
    assert check.mistakes(profile(tmp_path, LOCAL)) == []


MISTAKES = [
    ("kind: real", "kind: reel", "3:9: embedded.kind: expected 'real' or 'stand-in', got 'reel'; did you mean"),
    ("software: mynet 1.2\n  pl", "softwear: x\n  pl", "4:3: embedded.softwear: unknown key; did you mean 'softw"),
    ("  subnets: [10.77.0.0/16]\n  d", "  subnets: 10.77.0.0/16\n  d", "6:12: embedded.subnets: expected a list, got"),
    ("default-route: true", "default-route: maybe", "7:18: embedded.default-route: expected true or false, got"),
    ("claims:", "claim:", "18:3: conformance.claim: unknown key; did you mean 'claims'?"),
    ("args.ips", "args.ip", "18:12: conformance.claims[0]: unknown claim 'args.ip'; did you mean 'args.ips'?"),
    ("[args.ips,", "[dns,", "18:12: conformance.claims[0]: the configuration of mynet has no `dns`"),
    ("{mac: true}", "{mac: false}", "18:22: conformance.claims[1]: nobody can ask for mac"),
    ("{mac: true}", "{mac: 1}", "14:25: embedded.conf.capabilities.mac: expected true or false, got 1"),
    ("plugin: mynet", "plugin: mynett", "17:11: conformance.plugin: no plugin of the configuration is 'mynett'"),
    ("[mynet0]", "[my/net]", "19:11: conformance.stays[0]: expected an interface's name, got 'my/net'"),
    ("[mynet0]", "[mynet0, a-name-too-long-]", "19:19: conformance.stays[1]: expected an interface's name"),
    ("interface: [mynet]", "interface: [mynett]", "9:32: embedded.container-id-per-interface[0]: no plugin"),
    ("[mynet, myipam]", "[mynet, my-ipam]", "15:18: embedded.conf.ipam.type: 'myipam' is not in embedded.plugins; did"),
    ("type: mynet\n", "type: yournet\n", "13:11: embedded.conf.type: 'yournet' is not in embedded.plugins"),
    ("type: mynet\n", "type: yournet\n", "13:11: embedded.conf.type: no executable yournet in "),
    ("cniVersion: 1.0.0", "cniVersion: 1.1.0", "11:17: embedded.conf.cniVersion: 1.1.0 is not among the versions that"),
    ("cniVersion: 1.0.0", "cniVersion: 1.0", "11:17: embedded.conf.cniVersion: expected a text such as '1.0.0', got 1"),
    ("cniVersion: 1.0.0", "cniVersion: 9.9.9", "11:17: embedded.conf.cniVersion: no version of CNI is '9.9.9'"),
    ("10.77.{{", "10.78.{{", "15:45: embedded.conf.ipam.ranges[0][0].subnet: 10.78.1.0/24 is in none of embedded.sub"),
    ("node.number", "node.numbr", "15:45: embedded.conf.ipam.ranges[0][0].subnet: "),
    ("    name: mynet", "    name: other\n    x: 1", None),
    ("10-mynet.conf\n  cont", "10-x.conflist\n  cont", "8:9: embedded.file: a configuration with `plugins` is a .con"),
    ("10-mynet.conf\n  cont", "mynet\n  cont", "8:9: embedded.file: 'mynet' does not fit"),
    ("network: mynet", "network: yours", "12:11: embedded.conf.name: expected 'yours', as `network`, or a `file`"),
    ("    type: mynet\n", "", "11:5: embedded.conf: a CNI configuration has a name, and a type or plugins"),
    ("  conf: 10-mynet.conf\n", "  config: x\n", "22:3: cluster.config: unknown key; did you mean 'conf'?"),
    ("  conf: 10-mynet.conf\n", "", "21:3: cluster.conf: is missing"),
    ("network: mynet", "network: [", "not YAML"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_every_mistake_has_its_place_its_field_and_what_was_expected(
    tmp_path: Path, old: str, new: str, message: str | None
) -> None:
    assert old in RIGHT
    found = check.mistakes(profile(tmp_path, RIGHT.replace(old, new, 1)))
    texts = [str(each).removeprefix(f"{tmp_path}/mynet.yaml:") for each in found]
    assert any(message in text for text in texts) if message else not found, texts


RANGES = [
    ({"subnet": "10.77.1.7/24"}, "the network's address is 10.77.1.0/24"),
    ({"subnet": "10.77.1.0/33"}, "expected a subnet such as 10.77.0.0/24, got '10.77.1.0/33'"),
    ({"subnet": "banana"}, "expected a subnet such as 10.77.0.0/24, got 'banana'"),
    ({}, "expected a subnet such as 10.77.0.0/24, got None"),
    ({"subnet": "10.77.1.0/31"}, "has no address for a container: expected /30 or wider"),
    ({"subnet": "10.77.1.0/24", "rangeStart": "10.77.2.9"}, "rangeStart: 10.77.2.9 is not in the subnet"),
    ({"subnet": "10.77.1.0/24", "gateway": "10.77.1.300"}, "gateway: expected an address, got '10.77.1.300'"),
    ({"subnet": "10.77.1.0/24", "rangeStart": "10.77.1.9", "rangeEnd": "10.77.1.8"}, "ends at 10.77.1.8, before"),
]


@pytest.mark.parametrize(("item", "message"), RANGES)
def test_a_range_that_host_local_refuses_is_a_mistake(tmp_path: Path, item: dict[str, Any], message: str) -> None:
    text = LOCAL.replace('{subnet: "10.77.{{ node.number }}.0/24"}', json.dumps(item))
    found = [str(each) for each in check.mistakes(profile(tmp_path, text))]
    assert any(":15:" in each and "embedded.conf.ipam.ranges[0][0]" in each and message in each for each in found), (
        found
    )


@pytest.mark.root
@pytest.mark.parametrize("item", [each for each, _ in RANGES])
def test_host_local_refuses_what_is_called_a_mistake(cni_bin: str, tmp_path: Path, item: dict[str, Any]) -> None:
    """The rules are those of the real plugin."""
    conf = {"cniVersion": "1.0.0", "name": "x", "type": "x", "ipam": {"type": "host-local", "ranges": [[item]]}}
    conf["ipam"]["dataDir"] = str(tmp_path)  # type: ignore[index]
    env = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c", "CNI_NETNS": "/x", "CNI_IFNAME": "eth0", "CNI_PATH": cni_bin}
    done = subprocess.run(
        [f"{cni_bin}/host-local"], env=env, input=json.dumps(conf).encode(), capture_output=True, check=False
    )
    assert done.returncode != 0


def test_a_reference_plugin_without_a_route_sets_no_default_route(tmp_path: Path) -> None:
    text = LOCAL.replace("mynet, host", "bridge, host").replace("type: mynet\n", "type: bridge\n")
    text = text.replace("plugin: mynet", "plugin: bridge").replace("interface: [mynet]", "interface: [bridge]")
    [mistake] = check.mistakes(profile(tmp_path, text))
    assert ":7:18: embedded.default-route: default-route is true, but the configuration has no route" in str(mistake)
    assert check.mistakes(profile(tmp_path, text.replace("default-route: true", "default-route: false"))) == []
    routed = text.replace("ipam: {type", "ipam: {routes: [{dst: 0.0.0.0/0}], type")
    assert check.mistakes(profile(tmp_path, routed)) == []


def test_the_command_says_how_many_and_ends_with_one(tmp_path: Path) -> None:
    right = harness("profile", "check", profile(tmp_path))
    assert (right.returncode, right.stdout, right.stderr) == (0, "", "1 file, no mistakes\n")
    text = RIGHT.replace("args.ips", "args.ip").replace("[mynet0]", "['']")
    wrong = harness("profile", "check", profile(tmp_path, text))
    assert wrong.returncode == 1
    assert [line.split(" ")[0] for line in wrong.stdout.splitlines()] == [
        f"{tmp_path}/mynet.yaml:18:12:", f"{tmp_path}/mynet.yaml:19:11:"
    ]  # fmt: skip
    missing = harness("profile", "check", tmp_path / "none.yaml")
    assert (missing.returncode, "cannot be read" in missing.stdout) == (4, True)


def test_an_executable_that_cannot_run_is_no_traceback(tmp_path: Path) -> None:
    path = profile(tmp_path)
    (tmp_path / "mynet").write_text("#!/no/such/interpreter\n")
    assert "Traceback" not in harness("profile", "check", path).stderr
    (tmp_path / "mynet").chmod(0o644)
    assert f"13:11: embedded.conf.type: {tmp_path}/mynet is not executable" in harness("profile", "check", path).stdout


def test_other_commands_use_the_same_words(tmp_path: Path) -> None:
    path = profile(tmp_path, RIGHT.replace("kind: real", "kind: reel").replace("claims", "claim"))
    listed = harness("profile", "check", path).stdout
    assert len(listed.splitlines()) == 2
    conformance = harness("conformance", path)
    assert (conformance.returncode, listed.strip() in conformance.stderr) == (4, True)
    linted = harness("lint", "--profile", path)
    assert (linted.returncode, linted.stderr) == (4, listed)


def test_e2e_refuses_a_profile_that_claims_what_cannot_be(tmp_path: Path) -> None:
    path = profile(tmp_path, RIGHT.replace("10.77.{{", "10.78.{{").replace("args.ips", "args.ip"))
    command = ["pytest", "--profile", path, "--swap", "calico=mynet", "--backend", "embedded", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], capture_output=True, text=True, check=False,
        cwd=tmp_path, env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")},
    )  # fmt: skip
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "mynet.yaml:15:45: embedded.conf.ipam.ranges[0][0].subnet: 10.78.1.0/24 is in none of" in done.stderr
    assert "mynet.yaml:18:12: conformance.claims[0]: unknown claim 'args.ip'; did you mean" in done.stderr


_KEYS = (
    *("type", "ipam", "subnet", "ranges", "routes", "dst", "gw", "address", "addresses", "rangeStart", "rangeEnd"),
    *("gateway", "capabilities", "mac", "cniVersion"),
)
_TEXTS = ("", "10.0.0.0/24", "::/0", "x", "10.0.0.1", "host-local", "static")
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(_TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["ipam", "capabilities", "cniVersion", "subnet", "gateway"]), _VALUES))
def test_whatever_a_configuration_holds_has_complaints_and_no_crash(conf: dict[str, Any]) -> None:
    conf = {"name": "x", "type": "x", **conf}
    for where, text in configuration.wrong(conf):
        assert text
        assert re.fullmatch(r"[\w.\[\]-]+", ".".join(map(str, where)))
    list(configuration.subnets(conf))


def test_the_same_mistake_in_a_configuration_alone_is_found_too(tmp_path: Path) -> None:
    profile(tmp_path)
    conf = tmp_path / "10-mynet.conf"
    conf.write_text('{\n\t"cniVersion": "1.1.0",\n\t"name": "mynet",\n\t"type": "mynet"\n}\n')
    subject = check.of_files(tmp_path / "mynet", conf)
    assert subject.mistakes == (
        f"{conf}:2:16: cniVersion: 1.1.0 is not among the versions that mynet supports: 0.4.0, 1.0.0",
    )


_WITH_DAEMON = """
network: links
embedded:
  kind: real
  software: links 1
  plugins: [links]
  subnets: [10.77.0.0/16]
  file: 10-links.conf
  conf: {cniVersion: 1.1.0, name: links, type: links, subnet: 10.77.1.0/24}
conformance:
  daemons: [{run: COMMAND, ready: /run/ready}]
"""


@pytest.mark.root
@pytest.mark.parametrize(
    ("command", "verdict", "reason"),
    [
        ("touch /run/ready && exec sleep 600", "passed", ""),
        ("echo no licence; exit 3", "broken", "echo no licence; exit 3 ended with status 3: no licence"),
    ],
)
def test_a_daemon_of_the_profile_runs_on_the_machine(
    tmp_path: Path, namespace: Callable[[], object], command: str, verdict: str, reason: str
) -> None:
    namespace()
    plugin, path = tmp_path / "links", tmp_path / "links.yaml"
    example = Path(__file__).parents[3] / "fixtures" / "plugins" / "example_veth.py"
    plugin.write_text(f'#!/bin/sh\n[ "$CNI_COMMAND" = VERSION ] || [ -e /run/ready ] || exit 1\nexec {example}\n')
    plugin.chmod(0o755)
    path.write_text(_WITH_DAEMON.replace("COMMAND", json.dumps(command)))
    subject = replace(check.read(path), supported=("1.1.0",))
    results = run(subject, ["del-leaves-machine-clean"], again=0, alone=True)
    assert [(each.verdict.value, each.trials[0].reason.partition("profile: ")[2]) for each in results] == [
        (verdict, reason)
    ]
