"""`genie install` on a node that is a folder: what is put there, what was there before, what is there afterwards."""

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


def test_puts_all_in_place(machine: Node) -> None:
    changed = files.install(machine, wanted())
    assert changed == [machine.plugin, machine.kubeconfig, f"{machine.conf_dir}/00-genie.conf"]
    assert Path(machine.plugin).stat().st_mode & 0o777 == 0o755
    assert Path(machine.kubeconfig).stat().st_mode & 0o777 == 0o600
    conf = json.loads(Path(machine.conf_dir, "00-genie.conf").read_text())
    assert conf == {**CONF, "kubernetes": {"kubeconfig": machine.kubeconfig}}
    assert files.in_place(machine, b"shim")


def test_the_configuration_comes_last(machine: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real = files.write

    def write(path: str, content: bytes, mode: int) -> bool:
        order.append(Path(path).name)
        return real(path, content, mode)

    monkeypatch.setattr(files, "write", write)
    files.install(machine, wanted())
    assert [name for name in order if name != "journal.json"] == ["genie", "kubeconfig", "00-genie.conf"]


def test_again_changes_nothing(machine: Node) -> None:
    files.install(machine, wanted())
    assert files.install(machine, wanted()) == []


def test_a_new_shim_replaces_the_old_one_and_not_its_inode(machine: Node) -> None:
    files.install(machine, wanted())
    with Path(machine.plugin).open("rb") as running:  # as a process that runs it has it open
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
        ([], "00-genie.conf"),
        (["00-multus.conf"], "00-genie.conf"),
        (["00-genie.conf"], "00-genie.conf"),
        (["00-a.conf"], "0-genie.conf"),
        (["0-a.conflist"], "+0-genie.conf"),
        (["#readme.json"], "!0-genie.conf"),
        (["00-a.conf.bak", "00-a"], "00-genie.conf"),
    ],
)
def test_is_first_in_net_d(machine: Node, others: list[str], name: str) -> None:
    for other in others:
        Path(machine.conf_dir, other).write_text("{}")
    files.install(machine, wanted())
    assert files.confs(machine.conf_dir)[0] == name
    assert files.in_place(machine, b"shim")


def test_moves_ahead_of_a_configuration_that_comes_later(machine: Node) -> None:
    files.install(machine, wanted())
    Path(machine.conf_dir, "00-a.conf").write_text("{}")
    assert not files.in_place(machine, b"shim")
    files.install(machine, wanted())
    assert files.confs(machine.conf_dir) == ["0-genie.conf", "00-a.conf", "10-flannel.conflist"]


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
    assert tree(machine) != before
    files.remove(machine)
    assert tree(machine) == before


def test_removal_brings_things_back_over_a_mount(machine: Node) -> None:
    """In a pod each directory is a mount of its own, and nothing can be renamed from one to another."""
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


def test_what_is_not_wanted_any_more_goes(machine: Node) -> None:
    files.install(machine, wanted())
    assert files.install(machine, wanted(kubeconfig=None)) == [f"{machine.conf_dir}/00-genie.conf", machine.kubeconfig]
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
    assert gone[0] == "00-genie.conf"
    assert gone.index("genie") > gone.index("kubeconfig")


def test_removal_where_nothing_was_installed(machine: Node) -> None:
    before = tree(machine)
    assert files.remove(machine) == []
    assert tree(machine) == before
