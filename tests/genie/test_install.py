"""`genie install` on a node that is a folder: what is put there, what was there before, what is there afterwards."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path

import pytest

from genie import install
from genie.cni.errors import CniError
from genie.install import Node, Wanted

CONF = {"cniVersion": "1.0.0", "name": "genie", "type": "genie"}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    for name in ("bin", "net.d", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "net.d" / "10-flannel.conflist").write_text("{}")
    return Node(bin_dir=str(tmp_path / "bin"), conf_dir=str(tmp_path / "net.d"), state_dir=str(tmp_path / "state"))


def wanted(plugin: bytes = b"shim", kubeconfig: bytes | None = b"kubeconfig", **conf: object) -> Wanted:
    return Wanted(plugin=plugin, conf={**CONF, **conf}, kubeconfig=kubeconfig)


def tree(node: Node) -> dict[str, str]:
    """Every file in net.d and the plugin directory, with its content."""
    folders = [Path(node.bin_dir), Path(node.conf_dir)]
    return {
        str(p.relative_to(Path(node.bin_dir).parent)): p.read_text()
        for f in folders
        for p in f.rglob("*")
        if p.is_file()
    }


def test_puts_all_in_place(node: Node) -> None:
    changed = install.install(node, wanted())
    assert changed == [node.plugin, node.kubeconfig, f"{node.conf_dir}/00-genie.conf"]
    assert Path(node.plugin).stat().st_mode & 0o777 == 0o755
    assert Path(node.kubeconfig).stat().st_mode & 0o777 == 0o600
    conf = json.loads(Path(node.conf_dir, "00-genie.conf").read_text())
    assert conf == {**CONF, "kubernetes": {"kubeconfig": node.kubeconfig}}
    assert install.in_place(node, b"shim")


def test_the_configuration_comes_last(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real = install.write

    def write(path: str, content: bytes, mode: int) -> bool:
        order.append(Path(path).name)
        return real(path, content, mode)

    monkeypatch.setattr(install, "write", write)
    install.install(node, wanted())
    assert [name for name in order if name != "journal.json"] == ["genie", "kubeconfig", "00-genie.conf"]


def test_again_changes_nothing(node: Node) -> None:
    install.install(node, wanted())
    assert install.install(node, wanted()) == []


def test_a_new_shim_replaces_the_old_one_and_not_its_inode(node: Node) -> None:
    install.install(node, wanted())
    with Path(node.plugin).open("rb") as running:  # as a process that runs it has it open
        install.install(node, wanted(b"newer"))
        assert running.read() == b"shim"
    assert Path(node.plugin).read_bytes() == b"newer"


def test_nothing_half_written_is_left_when_writing_fails(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(node)

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="No space"):
        install.install(node, wanted())
    assert tree(node) == before


def test_a_wrong_configuration_is_refused_before_anything_is_changed(node: Node) -> None:
    before = tree(node)
    with pytest.raises(CniError, match="serial"):
        install.install(node, wanted(serial="yes"))
    assert tree(node) == before


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
def test_is_first_in_net_d(node: Node, others: list[str], name: str) -> None:
    for other in others:
        Path(node.conf_dir, other).write_text("{}")
    install.install(node, wanted())
    assert install.confs(node.conf_dir)[0] == name
    assert install.in_place(node, b"shim")


def test_moves_ahead_of_a_configuration_that_comes_later(node: Node) -> None:
    install.install(node, wanted())
    Path(node.conf_dir, "00-a.conf").write_text("{}")
    assert not install.in_place(node, b"shim")
    install.install(node, wanted())
    assert install.confs(node.conf_dir) == ["0-genie.conf", "00-a.conf", "10-flannel.conflist"]


def test_removal_leaves_the_node_as_it_was(node: Node) -> None:
    before = tree(node)
    install.install(node, wanted())
    install.install(node, wanted(b"newer", default_plugin="flannel"))
    install.remove(node)
    assert tree(node) == before
    assert not Path(node.conf_dir, "genie.d").exists()


def test_removal_brings_back_another_genie(node: Node) -> None:
    Path(node.bin_dir, "genie").write_text("CNI-Genie's binary")
    Path(node.conf_dir, "00-genie.conf").write_text("CNI-Genie's configuration")
    before = tree(node)
    install.install(node, wanted())
    assert tree(node) != before
    install.remove(node)
    assert tree(node) == before


def test_removal_takes_the_configuration_first(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    install.install(node, wanted())
    gone: list[str] = []
    unlink = os.unlink
    monkeypatch.setattr(os, "unlink", lambda path: (gone.append(Path(path).name), unlink(path)))
    install.remove(node)
    assert gone[0] == "00-genie.conf"
    assert gone.index("genie") > gone.index("kubeconfig")


def test_removal_where_nothing_was_installed(node: Node) -> None:
    before = tree(node)
    assert install.remove(node) == []
    assert tree(node) == before


class TestKeeper:
    """What it does with the node; that it asks for its DaemonSet is seen on kind."""

    @pytest.fixture
    def keeper(self, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> install.Keeper:
        conf = tmp_path / "genie.conf"
        conf.write_text(json.dumps(CONF))
        monkeypatch.setattr(install, "_plugin", lambda _: b"shim")
        options = argparse.Namespace(conf=str(conf), direct=False, no_kubeconfig=True, daemonset="")
        return install.Keeper(node, options)

    def test_puts_back_what_was_taken_away(self, keeper: install.Keeper, node: Node) -> None:
        now = keeper._bring_up_to_date(None)
        Path(node.plugin).unlink()
        assert not install.in_place(node, b"shim")
        keeper._bring_up_to_date(now)
        assert install.in_place(node, b"shim")

    def test_leaves_a_genie_conf_that_was_changed_on_the_node(self, keeper: install.Keeper, node: Node) -> None:
        now = keeper._bring_up_to_date(None)
        conf = Path(node.conf_dir, "00-genie.conf")
        conf.write_text(json.dumps({**CONF, "default_plugin": "bridge"}))
        keeper._bring_up_to_date(now)
        assert json.loads(conf.read_text())["default_plugin"] == "bridge"

    def test_brings_a_genie_conf_that_changed_at_its_source(self, keeper: install.Keeper, node: Node) -> None:
        now = keeper._bring_up_to_date(None)
        Path(keeper.options.conf).write_text(json.dumps({**CONF, "default_plugin": "ptp"}))
        keeper._bring_up_to_date(now)
        assert json.loads(Path(node.conf_dir, "00-genie.conf").read_text())["default_plugin"] == "ptp"


def test_direct_mode_installs_a_script_of_this_python() -> None:
    script = install._plugin(direct=True).decode()
    assert script.startswith("#!/")
    compile(script, "genie", "exec")


def test_the_launcher_of_direct_mode_needs_no_environment_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "genie"
    path.write_text(install.launcher())
    path.chmod(0o755)
    asked = {"CNI_COMMAND": "VERSION", "PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere"}
    done = subprocess.run(
        [path], env=asked, input=b'{"cniVersion": "1.0.0"}', capture_output=True, check=True, cwd=tmp_path
    )
    assert json.loads(done.stdout)["cniVersion"] == "1.0.0"
    assert list(tmp_path.iterdir()) == [path]
