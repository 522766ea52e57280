"""The output of `genie status`."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from genie import removals
from genie.node import inspect
from genie.removals import Removals
from tests.rigs.cli import printed
from tests.rigs.core import Node


def test_a_conf_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = printed(capsys, "status", "--conf", str(tmp_path / "none"), status=1)
    assert text.startswith(f"genie status: cannot read {tmp_path}/none: No such file")


@pytest.mark.parametrize("text", ["{", "[]", '{"plugins": 5}', '{"plugins": [5]}', "[" * 100_000])
def test_a_conf_that_is_broken(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str) -> None:
    (tmp_path / "genie.conf").write_text(text)
    assert printed(capsys, "status", "--conf", str(tmp_path / "genie.conf"), status=1).startswith("genie status: ")


def test_status(capsys: pytest.CaptureFixture[str], node: Node, conf: str) -> None:
    assert printed(capsys, "status", "--conf", conf).endswith("\n\n0 containers\n")
    node.add("calico,weave-net@data0")
    node.kube.annotations = {"cni": "calico"}
    node.ok("ADD", CNI_CONTAINERID="another")
    (node.root / "state" / "another@eth0.json").write_text("{")
    lines = printed(capsys, "status", "--conf", conf).partition("\n\n")[2].splitlines()
    damaged, first, calico, weave, count = sorted(lines, key=len)[::-1]
    assert "another@eth0.json is damaged" in damaged
    text = printed(capsys, "status", "--conf", conf)
    assert f"blue/web  {'c0ffee0123456'}\n" in text
    assert "  eth0            calico                   10.1.0.2/24\n" in text
    assert "  data0           weave-net                10.2.0.2/24\n" in text
    assert text.endswith("1 container\n")
    assert {first, calico, weave, count} < set(text.splitlines())
    node.ok("DEL", CNI_CONTAINERID="another")
    assert "another@eth0.json.damaged: a damaged record, set aside" in printed(capsys, "status", "--conf", conf)


def health(capsys: pytest.CaptureFixture[str], node: Node, conf: str) -> list[str]:
    bin_dir, socket = str(node.root / "bin"), str(node.root / "agent.sock")
    text = printed(capsys, "status", "--conf", conf, "--bin-dir", bin_dir, "--socket", socket)
    return text.partition("\n\n")[0].splitlines()


def test_status_tells_whether_genie_is_in_order(capsys: pytest.CaptureFixture[str], node: Node, conf: str) -> None:
    plugin, address = node.root / "bin" / "genie", str(node.root / "agent.sock")
    plugin.parent.mkdir(exist_ok=True)
    configuration, missing, there, *_ = health(capsys, node, conf)
    assert configuration == f"configuration  {conf}"
    assert missing == f"plugin         {plugin}: MISSING (No such file or directory): no pod comes up"
    assert there.startswith("networks       calico (calico), ")
    plugin.write_bytes(b"\x7fELF")
    assert health(capsys, node, conf)[1].endswith(f": NO AGENT answers on {address}: pods wait for it")
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(address)
        agent.listen()
        assert health(capsys, node, conf)[1].endswith(f": the agent answers on {address}")
    plugin.write_text("#!/usr/bin/python3")
    assert health(capsys, node, conf)[1].endswith(": direct mode, without an agent")


def test_status_tells_what_is_wrong_in_net_d(capsys: pytest.CaptureFixture[str], node: Node, conf: str) -> None:
    (node.net_d / "00-broken.conf").write_text("{")
    lines = health(capsys, node, conf)
    assert lines[0].endswith(": NOT USED, the runtime takes 00-broken.conf, which is first")
    assert "00-broken.conf: not valid JSON" in lines[3]
    assert lines[4].startswith(
        f"default        NONE, a pod that asks for nothing fails: {node.net_d}/00-broken.conf: not v"
    )
    for path in node.net_d.glob("[!0]*"):
        path.unlink()
    assert health(capsys, node, conf)[2] == "networks       NONE: a pod that asks for nothing gets an error"
    moved = {**json.loads(Path(conf).read_text()), "conf_dir": str(node.root / "none")}
    Path(conf).write_text(json.dumps(moved))
    assert health(capsys, node, conf)[2].startswith("networks       NONE: cannot read the configurations in ")


def test_dropped_wishes_are_shown(capsys: pytest.CaptureFixture[str], node: Node, conf: str) -> None:
    assert "DROPPED" not in "".join(health(capsys, node, conf))
    Path(conf).write_text(json.dumps({**json.loads(Path(conf).read_text()), "undeclared_capabilities": "drop"}))
    assert health(capsys, node, conf)[1].strip() == (
        "undeclared_capabilities: requests of pods that no plugin declares are DROPPED"
    )


def test_status_says_what_is_passed_over(capsys: pytest.CaptureFixture[str], node: Node, conf: str) -> None:
    node.write("00-gone.conf", {"cniVersion": "1.0.0", "name": "gone", "type": "cilium-cni"})
    node.write("99-loopback.conf", {"cniVersion": "1.0.0", "name": "loopback", "type": "loopback"})
    lines = health(capsys, node, conf)
    gone = f"{node.net_d}/00-gone.conf is skipped: no plugin 'cilium-cni': looked in {node.root}/bin"
    assert [line.strip() for line in lines[3:5]] == [
        gone,
        f"{node.net_d}/99-loopback.conf is skipped: loopback cannot be a pod's network",
    ]
    for path in node.net_d.glob("10-*"):
        path.unlink()
    assert any(line.startswith("default        NONE, a pod that") for line in health(capsys, node, conf))


def test_status_says_what_multus_and_cni_genie_left(capsys: pytest.CaptureFixture[str], node: Node, conf: str) -> None:
    node.write("00-multus.conf", {"cniVersion": "0.3.1", "name": "m", "type": "multus-shim"})
    node.write("10-old-genie.conf", {"name": "k8s-pod-network", "type": "genie", "cniVersion": "0.2.0"})
    lines = health(capsys, node, conf)
    assert lines[0] == f"configuration  {conf}"
    assert lines[1].strip().startswith(f"{node.net_d}/10-old-genie.conf is of type genie, too, and not used")
    assert lines[3].startswith("networks       calico (calico), ") and "m (multus" not in lines[3]
    assert lines[4].strip().startswith(f"{node.net_d}/00-multus.conf is Multus' own configuration")


def test_status_says_that_genies_configuration_was_renamed(
    capsys: pytest.CaptureFixture[str], node: Node, conf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect, "DEFAULT_CONF_DIR", str(node.net_d))
    text = Path(conf).read_text()
    renamed = Path(conf).rename(f"{conf}.cilium_bak")
    (node.net_d / "README").write_text("nothing of genie's")
    said_so = printed(capsys, "status", status=1)
    assert (
        "has no configuration of type genie that a runtime loads (.conf, .conflist, .json): it was renamed to"
        in said_so
    )
    assert (
        "00-genie.conf.cilium_bak, so NO POD goes through genie. Cilium does that, unless its cni.exclusive" in said_so
    )
    assert "README" not in said_so
    first, *_ = health(capsys, node, str(renamed))
    assert first == f"configuration  {renamed}: NOT USED, the runtime loads only .conf, .conflist, .json"
    Path(conf).write_text(text)  # `keep` has restored it
    first, second, *_ = health(capsys, node, conf)
    assert first == f"configuration  {conf}"
    assert second.strip().startswith("00-genie.conf.cilium_bak was genie's configuration, before somebody renamed it.")


def test_status_says_which_capabilities_the_runtime_is_not_asked_for(
    capsys: pytest.CaptureFixture[str], node: Node, conf: str
) -> None:
    node.write(
        "20-shaped.conf", {"name": "s", "type": "x", "capabilities": {"bandwidth": True, "ips": True, "mac": False}}
    )
    node.write("00-multus.conf", {"name": "m", "type": "multus", "capabilities": {"cgroupPath": True}})
    data = json.loads(Path(conf).read_text())

    def shown(**capabilities: bool) -> list[str]:
        Path(conf).write_text(json.dumps({**data, "capabilities": capabilities}))
        lines = health(capsys, node, conf)
        at = next(i for i, line in enumerate(lines) if line.startswith("capabilities   "))
        return [line.removeprefix("capabilities").strip() for line in lines[at:]]

    pods = "io.kubernetes.cri.pod-annotations"
    first, missing = shown(dns=True)
    assert first == "dns"
    assert missing.startswith(f"MISSING, so the runtime does not hand it over: bandwidth, {pods}, ips. `genie install`")
    first, off, missing = shown(bandwidth=True, ips=False)
    assert first == "bandwidth"
    assert off == "turned off in genie.conf, though the networks or genie use it: ips"
    assert f"hand it over: {pods}." in missing
    assert shown(**{"bandwidth": True, "ips": True, pods: True}) == [f"bandwidth, {pods}, ips"]


def test_status_says_how_often_somebody_removed_genie(
    capsys: pytest.CaptureFixture[str], node: Node, conf: str
) -> None:
    install = node.root / "state" / "install"
    install.mkdir(parents=True)
    removals.write(str(node.root / "state"), Removals(count=4, why="00-genie.conflist is gone", at=1.8e9, wait=2.0))
    _, second, *_ = health(capsys, node, conf)
    assert second.strip() == "removed 4 times so far, last 2027-01-15 08:00:00 UTC: 00-genie.conflist is gone"
    (install / "removals.json").write_text("[]")
    assert not any("removed" in line for line in health(capsys, node, conf))


def test_status_says_that_cadvisor_address_does_nothing(
    capsys: pytest.CaptureFixture[str], node: Node, conf: str
) -> None:
    Path(conf).write_text(json.dumps({**json.loads(Path(conf).read_text()), "cAdvisor_address": ["not", "checked"]}))
    (line,) = [line for line in health(capsys, node, conf) if "cAdvisor_address" in line]
    assert line.strip() == "its cAdvisor_address does nothing: loads are read from this node's interfaces"


def test_status_finds_genies_configuration_by_its_type(
    capsys: pytest.CaptureFixture[str], node: Node, conf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect, "DEFAULT_CONF_DIR", str(node.net_d))
    Path(conf).rename(node.net_d / "0-genie.conf")
    assert printed(capsys, "status").startswith(f"configuration  {node.net_d}/0-genie.conf\n")
    (node.net_d / "0-genie.conf").unlink()
    assert "genie is not installed here" in printed(capsys, "status", status=1)
    node.write("0-genie.conf", '{\n "type": "genie",\n}')
    said_so = printed(capsys, "status", status=1)
    assert f"; broken, and perhaps genie's: {node.net_d}/0-genie.conf: not valid JSON" in said_so
    assert "(line 3, column 1)" in said_so
