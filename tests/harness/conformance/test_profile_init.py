"""`harness profile init`: real plugins, real answers, and files that are not overwritten."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.conformance.profile import check, init
from harness.download import FIXTURES

CONF = {"cniVersion": "1.0.0", "name": "mynet", "type": "mynet", "subnet": "10.77.0.0/24"}


def plugin(directory: Path, text: str = "", name: str = "mynet") -> Path:
    """The example, or another script, as an executable."""
    path = directory / name
    path.write_text(text or (FIXTURES / "plugins" / "example_veth.py").read_text())
    path.chmod(0o755)
    return path


def made(directory: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", "profile", "init", *map(str, words)]
    return subprocess.run(command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


@pytest.mark.root
def test_a_binary_and_its_configuration_are_a_profile_that_is_right(tmp_path: Path) -> None:
    plugin(tmp_path)
    (tmp_path / "10-mynet.conf").write_text(json.dumps(CONF))
    done = made(tmp_path, "--plugin", "./mynet", "--conf", "10-mynet.conf")
    assert done.returncode == 0, done.stderr
    assert "Taken without asking:\n  the network's name, by which pods ask for it: mynet\n" in done.stdout
    assert "harness conformance mynet.yaml --report report.json" in done.stdout
    out = tmp_path / "mynet.yaml"
    assert check.mistakes(out) == []
    embedded = yaml.safe_load(out.read_text())["embedded"]
    assert embedded["conf"] == {**CONF, "subnet": "10.77.{{ node.number }}.0/24"}
    assert (embedded["subnets"], embedded["plugins"], embedded["default-route"]) == (["10.77.0.0/16"], ["mynet"], True)


@pytest.mark.root
def test_reference_plugins_without_a_configuration(tmp_path: Path, cni_bin: str) -> None:
    """What the plugin leaves on the host is seen, and so is that it sets no default route."""
    (tmp_path / "bridge").symlink_to(f"{cni_bin}/bridge")
    done = made(tmp_path, "--plugin", "bridge", "--path", cni_bin, "--out", "out.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    profile = yaml.safe_load((tmp_path / "out.yaml").read_text())
    assert profile["embedded"]["plugins"] == ["bridge", "host-local"]
    assert profile["embedded"]["default-route"] is True  # from the ipam plugin's routes
    assert profile["embedded"]["conf"]["ipam"]["ranges"] == [[{"subnet": "10.77.{{ node.number }}.0/24"}]]


def test_a_file_that_exists_stays(tmp_path: Path) -> None:
    plugin(tmp_path)
    (tmp_path / "mynet.yaml").write_text("mine")
    done = made(tmp_path, "--plugin", "mynet", "--yes")
    assert (done.returncode, "mynet.yaml: exists; expected another --out, or --force" in done.stderr) == (4, True)
    assert (tmp_path / "mynet.yaml").read_text() == "mine"
    assert made(tmp_path, "--plugin", "mynet", "--yes", "--force").returncode == 0
    assert check.mistakes(tmp_path / "mynet.yaml") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#!/bin/sh\necho hello\n", "mynet: expected a CNI plugin, but it does not answer VERSION: hello"),
        ("#!/bin/sh\nsleep 1000\n", "mynet: expected a CNI plugin, but it does not answer VERSION: nothing within"),
        ("#!/no/such/thing\n", "mynet: expected a CNI plugin, but it does not answer VERSION: "),
    ],
)
def test_what_is_no_plugin_is_refused(tmp_path: Path, text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = made(tmp_path, "--plugin", plugin(tmp_path, text))
    assert (done.returncode, message in done.stderr) == (4, True), done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "mynet"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing was written: --plugin: expected the plugin's executable"),
        (["--plugin", "none"], "none: expected a plugin's executable"),
        (["--conf", "broken.conf"], "broken.conf:1:12: name: expected the network's name"),
        (["--plugin", "mynet", "--conf", "other.conf"], "other.conf: expected a plugin of type 'mynet'"),
        (["--conf", "other.conf"], "--plugin: expected the plugin's executable: no other in "),
    ],
)
def test_what_cannot_be_is_one_clear_error(tmp_path: Path, words: list[str], message: str) -> None:
    plugin(tmp_path)
    (tmp_path / "broken.conf").write_text('{"name":   7, "type": "mynet"}')
    (tmp_path / "other.conf").write_text('{"name": "x", "type": "other"}')
    done = made(tmp_path, *words)
    assert (done.returncode, message in done.stderr) == (4, True), done.stderr


def test_on_a_terminal_it_asks_and_asks_again(tmp_path: Path) -> None:
    plugin(tmp_path)
    master, slave = pty.openpty()
    answers = ["10.99.0.0/33", "10.99.0.0/16", "none", "My Net", "mine", "mynet 1.2", "", ""]
    os.write(master, "".join(f"{answer}\n" for answer in answers).encode())
    command = [sys.executable, "-m", "harness", "profile", "init", "--plugin", "mynet"]
    done = subprocess.run(command, cwd=tmp_path, stdin=slave, capture_output=True, text=True, check=False)
    os.close(slave)
    os.close(master)
    assert "expected a subnet such as 10.77.0.0/16" in done.stderr
    assert "expected small letters" in done.stderr
    profile = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert profile["network"] == "mine"
    assert profile["embedded"]["software"] == "mynet 1.2"
    assert profile["embedded"]["subnets"] == ["10.99.0.0/16"]
    assert profile["embedded"]["conf"]["subnet"] == "10.99.{{ node.number }}.0/24"


WIDE = {"subnet": "10.1.0.0/16", "rangeStart": "10.1.0.9"}
NODE = "{{ node.number }}"


@pytest.mark.parametrize(
    ("conf", "changed", "subnets"),
    [
        ({"subnet": "10.1.2.0/24"}, {"subnet": f"10.1.{NODE}.0/24"}, ["10.1.0.0/16"]),
        ({"subnet": "10.0.0.0/8"}, {"subnet": f"10.0.{NODE}.0/24"}, ["10.0.0.0/8"]),
        (
            {"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "x": "10.3.3.3"},
            {"subnet": f"10.1.{NODE}.0/24", "rangeStart": f"10.1.{NODE}.9", "x": "10.3.3.3"},
            ["10.1.0.0/16"],
        ),
        (WIDE, WIDE, ["10.1.0.0/16"]),
        ({"subnet": "10.1.2.0/28"}, {"subnet": "10.1.2.0/28"}, ["10.1.2.0/28"]),
        ([[{"subnet": "fd00:7::/64"}]], [[{"subnet": f"fd00:7:0:{NODE}::/64"}]], ["fd00:7::/48"]),
        ({"name": "x", "routes": [{"dst": "10.1.2.0/24"}]}, {"name": "x", "routes": [{"dst": "10.1.2.0/24"}]}, []),
    ],
)  # fmt: skip
def test_each_node_gets_a_subnet_of_its_own(conf: Any, changed: Any, subnets: list[str]) -> None:
    assert init.spread(conf) == (changed, subnets)
