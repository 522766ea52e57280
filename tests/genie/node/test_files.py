"""`genie install` on a folder as a node: the installed files, the previous files, and the files after removal."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from genie.cni.errors import CniError
from genie.node import files
from genie.node.files import Node
from tests.rigs.install import CONF, tree, wanted


def test_without_a_net_d(machine: Node) -> None:
    files.install(replace(machine, conf_dir=f"{machine.conf_dir}/none"), wanted())
    assert files.confs(f"{machine.conf_dir}/none") == ["00-genie.conflist"]


def test_install_writes_plugin_kubeconfig_and_configuration(machine: Node) -> None:
    changed = files.install(machine, wanted())
    assert changed == [machine.plugin, machine.kubeconfig, f"{machine.conf_dir}/00-genie.conflist"]
    assert Path(machine.plugin).stat().st_mode & 0o777 == 0o755
    assert Path(machine.kubeconfig).stat().st_mode & 0o777 == 0o600
    conf = json.loads(Path(machine.conf_dir, "00-genie.conflist").read_text())
    assert conf == {
        "cniVersion": "1.0.0",
        "cniVersions": ["1.0.0", "1.1.0"],
        "name": "genie",
        "plugins": [{
            "type": "genie",
            "kubernetes": {"kubeconfig": machine.kubeconfig},
            "capabilities": {"io.kubernetes.cri.pod-annotations": True},
        }],
    }  # fmt: skip
    assert not files.out_of_place(machine, b"shim")


def test_the_configuration_comes_last(machine: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real = files.write

    def write(path: str, content: bytes, mode: int) -> bool:
        order.append(Path(path).name)
        return real(path, content, mode)

    monkeypatch.setattr(files, "write", write)
    files.install(machine, wanted())
    assert [name for name in order if name != "journal.json"] == ["genie", "kubeconfig", "00-genie.conflist"]


def test_again_changes_nothing(machine: Node) -> None:
    files.install(machine, wanted())
    assert files.install(machine, wanted()) == []


def test_a_new_shim_replaces_the_old_one_and_not_its_inode(machine: Node) -> None:
    files.install(machine, wanted())
    with Path(machine.plugin).open("rb") as running:  # like a running process, which has it open
        files.install(machine, wanted(b"newer"))
        assert running.read() == b"shim"
    assert Path(machine.plugin).read_bytes() == b"newer"


def test_nothing_half_written_is_left_when_writing_fails(machine: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(machine)

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="No space"):
        files.install(machine, wanted())
    assert tree(machine) == before


def test_a_wrong_configuration_is_refused_before_anything_is_changed(machine: Node) -> None:
    before = tree(machine)
    with pytest.raises(CniError, match="serial"):
        files.install(machine, wanted(serial="yes"))
    assert tree(machine) == before


@pytest.mark.parametrize(
    ("others", "name"),
    [
        ([], "00-genie.conflist"),
        (["00-multus.conf"], "00-genie.conflist"),
        (["00-genie.conflist"], "00-genie.conflist"),
        (["00-genie.conf"], "00-genie.conflist"),
        (["00-a.conf"], "0-genie.conflist"),
        (["0-a.conflist"], "+0-genie.conflist"),
        (["#readme.json"], "!0-genie.conflist"),
        (["00-a.conf.bak", "00-a"], "00-genie.conflist"),
    ],
)
def test_the_configuration_gets_the_first_name_in_net_d(machine: Node, others: list[str], name: str) -> None:
    for other in others:
        Path(machine.conf_dir, other).write_text("{}")
    files.install(machine, wanted())
    assert files.confs(machine.conf_dir)[0] == name
    assert not files.out_of_place(machine, b"shim")


def test_moves_ahead_of_a_configuration_that_comes_later(machine: Node) -> None:
    files.install(machine, wanted())
    Path(machine.conf_dir, "00-a.conf").write_text("{}")
    assert files.out_of_place(machine, b"shim")
    files.install(machine, wanted())
    assert files.confs(machine.conf_dir) == ["0-genie.conflist", "00-a.conf", "10-flannel.conflist"]


def test_removal_leaves_the_node_as_it_was(machine: Node) -> None:
    before = tree(machine)
    files.install(machine, wanted())
    files.install(machine, wanted(b"newer", default_plugin="flannel"))
    files.remove(machine)
    assert tree(machine) == before
    assert not Path(machine.conf_dir, "genie.d").exists()


def test_removal_brings_back_another_genie(machine: Node) -> None:
    Path(machine.bin_dir, "genie").write_text("CNI-Genie's binary")
    Path(machine.conf_dir, "00-genie.conf").write_text("CNI-Genie's configuration")
    before = tree(machine)
    files.install(machine, wanted())
    assert files.confs(machine.conf_dir) == ["00-genie.conflist", "10-flannel.conflist"], "it would come first"
    Path(machine.conf_dir, "00-genie.conf").write_text("CNI-Genie's configuration, put there once more")
    assert files.out_of_place(machine, b"shim") == f"{machine.conf_dir}/00-genie.conf comes before 00-genie.conflist"
    assert files.install(machine, wanted()) == [f"{machine.conf_dir}/00-genie.conf"]
    assert files.install(machine, wanted()) == []
    files.remove(machine)
    assert tree(machine) == before


@pytest.mark.parametrize("before_that", ["", "CNI-Genie's configuration"])
def test_the_configuration_of_an_earlier_genie_becomes_the_list(machine: Node, before_that: str) -> None:
    """The previous file had one plugin, with a name that sorts before the list's."""
    old = Path(machine.conf_dir, "00-genie.conf")
    if before_that:
        old.write_text(before_that)
    before = tree(machine)
    journal = files.Journal(machine)
    journal.claim(str(old))
    old.write_text(json.dumps(CONF))
    files.install(machine, wanted())
    assert files.confs(machine.conf_dir) == ["00-genie.conflist", "10-flannel.conflist"]
    assert files.install(machine, wanted()) == []
    files.remove(machine)
    assert tree(machine) == before


MESH = {"type": "istio-cni", "name": "istio-cni", "log_level": "info"}


def mesh_plugin(machine: Node, speaks: list[str]) -> None:
    """Its executable, which knows only VERSION."""
    path = Path(machine.bin_dir, "istio-cni")
    answer = json.dumps({"cniVersion": "1.0.0", "supportedVersions": speaks})
    path.write_text(f"#!/bin/sh\n[ $CNI_COMMAND = VERSION ] && echo '{answer}'\n")
    path.chmod(0o755)


def chain_mesh(machine: Node) -> Path:
    """As istio-cni's installer extends the first list in net.d (istio, cni/pkg/install/cniconfig.go)."""
    path = Path(machine.conf_dir, files.confs(machine.conf_dir)[0])
    whole = json.loads(path.read_text())
    whole["plugins"] = [each for each in whole["plugins"] if each["type"] != MESH["type"]] + [MESH]
    path.write_text(json.dumps(whole, sort_keys=True))
    return path


def plugins(machine: Node) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = json.loads(Path(machine.conf_dir, files.confs(machine.conf_dir)[0]).read_text())[
        "plugins"
    ]
    return listed


def test_an_update_keeps_plugins_that_others_put_behind_genie(machine: Node) -> None:
    mesh_plugin(machine, ["1.0.0", "1.1.0"])
    files.install(machine, wanted())
    text = chain_mesh(machine).read_text()
    files.install(machine, wanted())
    assert chain_mesh(machine).read_text() == text, "not written anew for its form"
    files.install(machine, wanted(default_plugin="flannel"))
    own, mesh = plugins(machine)
    assert own["default_plugin"] == "flannel" and mesh == MESH
    Path(machine.conf_dir, "00-a.conf").write_text("{}")
    files.install(machine, wanted())  # under another name
    assert files.confs(machine.conf_dir)[0] == "0-genie.conflist" and plugins(machine)[1:] == [MESH]
    whole = json.loads((path := Path(machine.conf_dir, "0-genie.conflist")).read_text())
    path.write_text(json.dumps({**whole, "plugins": whole["plugins"][:1]}))  # as its installer takes it away again
    files.install(machine, wanted())
    assert len(plugins(machine)) == 1


def test_plugins_behind_genie_at_the_source_come_first(machine: Node) -> None:
    files.install(machine, replace(wanted(), behind=({"type": "tuning"},)))
    chain_mesh(machine)
    files.install(machine, replace(wanted(), behind=({"type": "tuning", "mtu": 1400},)))
    assert plugins(machine)[1:] == [{"type": "tuning", "mtu": 1400}, MESH]


@pytest.mark.parametrize(
    "text", ["{", '{"plugins": [{"type": "calico"}]}', '{"plugins": [{"type": "x"}, {"type": "genie"}]}']
)
def test_a_list_that_is_not_genies_extended_is_overwritten(machine: Node, text: str) -> None:
    files.install(machine, wanted())
    before = tree(machine)
    Path(machine.conf_dir, "00-genie.conflist").write_text(text)
    files.install(machine, wanted())
    assert tree(machine) == before


@pytest.mark.parametrize(
    ("speaks", "offered"),
    [
        (["0.3.1", "1.0.0", "1.1.0"], ["1.0.0", "1.1.0"]),
        (["0.3.1", "0.4.0", "1.0.0"], None),  # with 1.1.0 it would refuse each call, and no pod would come up
        (None, None),
    ],
)
def test_no_version_is_offered_that_a_plugin_behind_genie_does_not_speak(
    machine: Node, speaks: list[str] | None, offered: list[str] | None
) -> None:
    if speaks is not None:
        mesh_plugin(machine, speaks)
    files.install(machine, wanted())
    path = chain_mesh(machine)
    files.install(machine, wanted())
    assert json.loads(path.read_text()).get("cniVersions") == offered


def test_the_runtime_is_asked_for_what_the_networks_declare(machine: Node) -> None:
    def asked() -> dict[str, bool]:
        capabilities = plugins(machine)[0]["capabilities"]
        assert isinstance(capabilities, dict)
        return capabilities

    net_d = Path(machine.conf_dir)
    calico = {"type": "calico", "capabilities": {"bandwidth": True, "ipRanges": False}}
    net_d.joinpath("10-calico.conflist").write_text(
        json.dumps(
            {
                "cniVersion": "1.0.0",
                "name": "k8s",
                "plugins": [calico, {"type": "portmap", "capabilities": {"portMappings": True}}],
            }
        )
    )
    net_d.joinpath("00-multus.conf").write_text('{"name": "m", "type": "multus", "capabilities": {"cgroupPath": true}}')
    own = {"io.kubernetes.cri.pod-annotations": True}
    files.install(machine, wanted())
    assert asked() == {**own, "bandwidth": True, "portMappings": True}
    files.install(machine, wanted(capabilities={"bandwidth": False, "dns": True}))
    assert asked() == {**own, "bandwidth": False, "portMappings": True, "dns": True}, "genie.conf has the last word"


def test_removal_brings_things_back_over_a_mount(machine: Node) -> None:
    """In a pod each directory is a separate mount, so files cannot be renamed from one to another."""
    if Path("/dev/shm").stat().st_dev == Path(machine.state_dir).stat().st_dev:
        pytest.skip("/dev/shm is not a file system of its own here")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        there = replace(machine, bin_dir=elsewhere)
        plugin = Path(elsewhere, "genie")
        plugin.write_text("CNI-Genie's binary")
        plugin.chmod(0o751)
        files.install(there, wanted())
        files.remove(there)
        assert plugin.read_text() == "CNI-Genie's binary" and plugin.stat().st_mode & 0o777 == 0o751


def test_removal_leaves_nothing_of_its_own(machine: Node) -> None:
    Path(machine.bin_dir, "genie").write_text("another")
    files.install(machine, wanted())
    files.remove(machine)
    assert list(Path(machine.state_dir).iterdir()) == []


def test_an_update_removes_files_that_are_not_wanted_any_more(machine: Node) -> None:
    files.install(machine, wanted())
    assert files.install(machine, wanted(kubeconfig=None)) == [
        f"{machine.conf_dir}/00-genie.conflist",
        machine.kubeconfig,
    ]
    assert not Path(machine.kubeconfig).exists()


def test_a_damaged_journal_is_told_with_what_to_do(machine: Node) -> None:
    files.install(machine, wanted())
    Path(machine.journal).write_text('{"files": ')
    with pytest.raises(CniError, match="journal.json is damaged.*put it back by hand"):
        files.remove(machine)


def test_removal_takes_the_configuration_first(machine: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    files.install(machine, wanted())
    gone: list[str] = []
    unlink = os.unlink

    def noted(path: str) -> None:
        gone.append(Path(path).name)
        unlink(path)

    monkeypatch.setattr(os, "unlink", noted)
    files.remove(machine)
    assert gone[0] == "00-genie.conflist"
    assert gone.index("genie") > gone.index("kubeconfig")


def test_removal_where_nothing_was_installed(machine: Node) -> None:
    before = tree(machine)
    assert files.remove(machine) == []
    assert tree(machine) == before
