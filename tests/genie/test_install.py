"""`genie install` on a node that is a folder: what is put there, what was there before, what is there afterwards."""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from api_rig import kubeconfig

from genie import kube, locks
from genie.cni.errors import CniError
from genie.node import install
from genie.node.install import Node, Wanted

CONF = {"cniVersion": "1.0.0", "name": "genie", "type": "genie"}
Make = Callable[..., tuple[install.Keeper, threading.Thread]]
PLUGINS: dict[str, bytes] = {}
"""What the keeper in a thread of that name installs."""


def until(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.005)


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


def test_removal_brings_things_back_over_a_mount(node: Node) -> None:
    """In a pod each directory is a mount of its own, and nothing can be renamed from one to another."""
    if Path("/dev/shm").stat().st_dev == Path(node.state_dir).stat().st_dev:
        pytest.skip("/dev/shm is not a file system of its own here")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        there = replace(node, bin_dir=elsewhere)
        plugin = Path(elsewhere, "genie")
        plugin.write_text("CNI-Genie's binary")
        plugin.chmod(0o751)
        install.install(there, wanted())
        install.remove(there)
        assert plugin.read_text() == "CNI-Genie's binary" and plugin.stat().st_mode & 0o777 == 0o751


def test_removal_leaves_nothing_of_its_own(node: Node) -> None:
    Path(node.bin_dir, "genie").write_text("another")
    install.install(node, wanted())
    install.remove(node)
    assert list(Path(node.state_dir).iterdir()) == []


def test_what_is_not_wanted_any_more_goes(node: Node) -> None:
    install.install(node, wanted())
    assert install.install(node, wanted(kubeconfig=None)) == [f"{node.conf_dir}/00-genie.conf", node.kubeconfig]
    assert not Path(node.kubeconfig).exists()


def test_a_damaged_journal_is_told_with_what_to_do(node: Node) -> None:
    install.install(node, wanted())
    Path(node.journal).write_text('{"files": ')
    with pytest.raises(CniError, match="journal.json is damaged.*put it back by hand"):
        install.remove(node)


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


class Api:
    """An API server that knows of a DaemonSet, or does not; what it answers is a status for each request."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.status, self.asked, self.fails = 200, 0, 0
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.path == "/apis/apps/v1/namespaces/kube-system/daemonsets/genie"
                api.asked += 1
                if api.fails:
                    api.fails -= 1
                status = 503 if api.fails else api.status
                body = b'{"metadata": {}}'
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{self._server.server_port}"
        monkeypatch.setattr(kube, "server", lambda _: kube.Server(url=address))

    def down(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class TestKeeper:
    """What it does with the node; the API server that it asks for its DaemonSet says what the test wants."""

    @pytest.fixture
    def api(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
        api = Api(monkeypatch, tmp_path)
        yield api
        api.down()

    @pytest.fixture
    def conf(self, tmp_path: Path) -> Path:
        path = tmp_path / "genie.conf"
        path.write_text(json.dumps(CONF))
        return path

    @pytest.fixture
    def make(self, node: Node, conf: Path, api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
        """Makes keepers that run in threads; each is ended with the test."""
        monkeypatch.setattr(install.signal, "signal", lambda *_: None)  # not in a thread
        monkeypatch.setattr(install, "EVERY", 0.01)
        monkeypatch.setattr(install, "REFRESH", 0.05)
        made: list[tuple[install.Keeper, threading.Thread]] = []

        def make(plugin: bytes = b"shim", **options: object) -> tuple[install.Keeper, threading.Thread]:
            given = {
                "conf": str(conf), "direct": False, "no_kubeconfig": True, "daemonset": "kube-system/genie",
                "after": "", "ready_file": "", **options,
            }  # fmt: skip
            keeper = install.Keeper(node, argparse.Namespace(**given))
            monkeypatch.setattr(install, "_plugin", lambda _: PLUGINS.get(threading.current_thread().name, plugin))
            thread = threading.Thread(target=keeper.run, name=f"keeper-{len(made)}")
            PLUGINS[thread.name] = plugin
            made.append((keeper, thread))
            thread.start()
            return keeper, thread

        yield make
        for keeper, thread in made:
            keeper.ending.set()
            thread.join(10)
            assert not thread.is_alive()
        PLUGINS.clear()

    def test_puts_back_what_was_taken_away(self, make: Make, node: Node) -> None:
        make()
        until(lambda: install.in_place(node, b"shim"))
        Path(node.plugin).unlink()
        until(lambda: install.in_place(node, b"shim"))
        Path(node.conf_dir, "00-a.conf").write_text("{}")
        until(lambda: install.confs(node.conf_dir)[0] == "0-genie.conf")

    def test_leaves_a_genie_conf_that_was_changed_on_the_node(self, make: Make, node: Node) -> None:
        make()
        until(lambda: install.in_place(node, b"shim"))
        conf = Path(node.conf_dir, "00-genie.conf")
        conf.write_text(json.dumps({**CONF, "default_plugin": "bridge"}))
        Path(node.plugin).unlink()
        until(lambda: install.in_place(node, b"shim"))
        assert json.loads(conf.read_text())["default_plugin"] == "bridge"

    def test_brings_a_genie_conf_that_changed_at_its_source(self, make: Make, node: Node, conf: Path) -> None:
        make()
        until(lambda: install.in_place(node, b"shim"))
        conf.write_text(json.dumps({**CONF, "default_plugin": "ptp"}))
        until(lambda: "ptp" in Path(node.conf_dir, "00-genie.conf").read_text())

    def test_keeps_the_token_on_the_node_fresh(
        self, make: Make, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The kubelet renews it in the pod; the node does not see the pod's files."""
        account = tmp_path / "account"
        account.mkdir()
        (account / "ca.crt").write_text("an authority")
        (account / "token").write_text("first\n")
        monkeypatch.setattr(kube, "SERVICE_ACCOUNT", str(account))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
        make(no_kubeconfig=False)
        path = Path(node.kubeconfig)
        until(lambda: path.exists() and install.in_place(node, b"shim"))
        access = kube._from_kubeconfig(str(path))
        assert (access.url, access.ca, access.token) == ("https://[fd00::1]:443", "an authority", "first")
        (account / "token").write_text("second\n")
        until(lambda: kube._from_kubeconfig(str(path)).token == "second")
        assert path.stat().st_mode & 0o777 == 0o600

    def test_a_mistake_in_genie_conf_changes_nothing_on_the_node(self, make: Make, node: Node, conf: Path) -> None:
        keeper, thread = make()
        until(lambda: install.in_place(node, b"shim"))
        before = tree(node)
        for wrong in ("{", json.dumps({**CONF, "serial": "yes"})):
            conf.write_text(wrong)
            until(lambda: keeper._complained)
            keeper._complained = ""
            until(lambda: keeper._complained)
        assert thread.is_alive() and tree(node) == before
        Path(node.plugin).unlink()
        until(lambda: install.in_place(node, b"shim"))

    def test_with_a_wrong_genie_conf_nothing_is_installed_in_the_first_place(
        self, node: Node, conf: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        conf.write_text(json.dumps({**CONF, "serial": "yes"}))
        before = tree(node)
        assert _main(node, "--keep", "--conf", str(conf)) == 1
        assert "genie.conf: serial: expected true or false" in capfd.readouterr().err
        assert tree(node) == before

    def test_waits_for_the_agent_and_says_when_genie_is_there(self, make: Make, node: Node, tmp_path: Path) -> None:
        agent, ready = str(tmp_path / "agent"), str(tmp_path / "ready")
        before = tree(node)
        make(after=agent, ready_file=ready)
        time.sleep(0.1)
        assert tree(node) == before and not locks.is_held(ready)
        held = locks.hold(agent)
        until(lambda: locks.is_held(ready))
        assert install.in_place(node, b"shim")
        os.close(held)

    def test_waits_for_a_first_network(self, make: Make, node: Node) -> None:
        """With genie's configuration alone in net.d the node would pass for ready, and have no network at all."""
        flannel = Path(node.conf_dir, "10-flannel.conflist")
        flannel.unlink()
        make()
        time.sleep(0.1)
        assert install.confs(node.conf_dir) == []
        flannel.write_text("{}")
        until(lambda: install.in_place(node, b"shim"))
        flannel.unlink()  # it is being updated: genie stays
        time.sleep(0.1)
        assert install.confs(node.conf_dir) == ["00-genie.conf"]

    def test_waits_for_no_network_when_there_is_a_default(self, make: Make, node: Node, conf: Path) -> None:
        Path(node.conf_dir, "10-flannel.conflist").unlink()
        conf.write_text(json.dumps({**CONF, "default_plugin": "bridge"}))
        make()
        until(lambda: install.in_place(node, b"shim"))

    @pytest.mark.parametrize(("status", "stays"), [(200, True), (503, True), (404, False), (403, False), (401, False)])
    def test_at_its_end_genie_stays_unless_the_daemonset_is_gone(
        self, make: Make, node: Node, api: Api, status: int, stays: bool
    ) -> None:
        before = tree(node)
        keeper, thread = make()
        until(lambda: install.in_place(node, b"shim") and keeper.sees_daemonset)
        api.status = status
        keeper.ending.set()
        thread.join(10)
        assert (tree(node) == before) is not stays

    def test_an_api_server_that_stumbles_is_asked_again(self, make: Make, node: Node, api: Api) -> None:
        before = tree(node)
        keeper, thread = make()
        until(lambda: install.in_place(node, b"shim"))
        api.status, api.fails = 404, 3  # two answers of 503, then the truth
        keeper.ending.set()
        thread.join(10)
        assert tree(node) == before

    def test_a_daemonset_that_it_could_not_see_at_first_is_seen_later(self, make: Make, node: Node, api: Api) -> None:
        """A node that boots before the control plane does."""
        api.status = 503
        keeper, _ = make()
        until(lambda: install.in_place(node, b"shim"))
        assert not keeper.sees_daemonset
        api.status = 200
        until(lambda: keeper.sees_daemonset)

    def test_of_two_the_newer_one_keeps(self, make: Make, node: Node) -> None:
        """A rolling update: they want different shims, and must not undo each other's."""
        old, _ = make(b"old")
        until(lambda: install.in_place(node, b"old"))
        new, thread = make(b"the new one")
        until(lambda: install.in_place(node, b"the new one"))
        assert old.claim and not old.claim.is_newest()
        for _ in range(50):
            assert Path(node.plugin).read_bytes() == b"the new one"
            time.sleep(0.005)
        new.ending.set()  # the update is taken back
        thread.join(10)
        until(lambda: install.in_place(node, b"old"))

    @pytest.mark.parametrize("first", [0, 1])
    def test_of_two_whose_daemonset_is_gone_the_last_one_removes(
        self, make: Make, node: Node, api: Api, first: int
    ) -> None:
        before = tree(node)
        two = [make(), make()]
        until(lambda: all(keeper.claim for keeper, _ in two) and install.in_place(node, b"shim"))
        api.status = 404
        two[first][0].ending.set()
        two[first][1].join(10)
        assert install.in_place(node, b"shim")
        two[1 - first][0].ending.set()
        two[1 - first][1].join(10)
        assert tree(node) == before

    def test_of_two_that_end_at_once_one_removes(self, make: Make, node: Node, api: Api) -> None:
        before = tree(node)
        two = [make(), make()]
        until(lambda: all(keeper.claim for keeper, _ in two) and install.in_place(node, b"shim"))
        api.status = 404
        for keeper, _ in two:
            keeper.ending.set()
        for _, thread in two:
            thread.join(10)
        assert tree(node) == before

    def test_a_keeper_that_was_killed_is_in_nobodys_way(self, make: Make, node: Node) -> None:
        Path(node.keepers).mkdir(parents=True)
        Path(node.keepers, "7").touch()
        keeper, _ = make()
        until(lambda: install.in_place(node, b"shim"))
        assert keeper.claim and keeper.claim.number == 8
        assert [path.name for path in Path(node.keepers).iterdir()] == ["8"]

    @pytest.mark.parametrize("what", ["--once", "--remove"])
    def test_a_node_that_is_kept_is_not_changed_by_hand(
        self, make: Make, node: Node, what: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        make()
        until(lambda: install.in_place(node, b"shim"))
        assert _main(node, what) == 1
        said = capfd.readouterr().err
        assert f"cannot {'remove' if what == '--remove' else 'install'}" in said and "delete daemonset genie" in said
        assert install.in_place(node, b"shim")


def _main(node: Node, *options: str) -> int:
    where = ["--bin-dir", node.bin_dir, "--conf-dir", node.conf_dir, "--state-dir", node.state_dir]
    root = logging.getLogger()
    before = root.handlers[:]
    try:
        return install.main([*options, *where])
    finally:
        root.handlers[:] = before  # what is logged later must not go to this test's standard error


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        install.main(["--help"])
    said = capsys.readouterr().out
    for part in ("examples:", "genie install --direct", "--remove", "00-genie.conf", "root"):
        assert part in said


def test_direct_mode_takes_a_way_to_the_api_server(
    node: Node, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    before = tree(node)
    assert _main(node, "--direct") == 1
    assert "no way to the API server: give kubernetes.kubeconfig" in capfd.readouterr().err
    (tmp_path / "my.conf").write_text(json.dumps({**CONF, "kubernetes": {"kubeconfig": str(tmp_path / "none")}}))
    assert _main(node, "--direct", "--conf", str(tmp_path / "my.conf")) == 1
    assert f"cannot read {tmp_path}/none" in capfd.readouterr().err
    assert tree(node) == before
    (tmp_path / "none").write_text(json.dumps(kubeconfig("https://10.0.0.1:6443")))
    assert _main(node, "--direct", "--conf", str(tmp_path / "my.conf")) == 0
    assert install.confs(node.conf_dir)[0] == "00-genie.conf"
    assert _main(node, "--remove") == 0 and tree(node) == before
    assert _main(node, "--direct", "--no-kubeconfig") == 0


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
