"""`genie install --keep`: the files that stay on the machine, and those that are removed."""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from genie import kube, locks, removals
from genie.config import Credentials
from genie.node import files
from genie.node.files import Node
from genie.node.keeper import Keeper
from genie.node.patience import AT_ONCE
from tests.rigs.install import CONF, main, tree

Make = Callable[..., tuple[Keeper, threading.Thread]]
PLUGINS: dict[str, bytes] = {}
"""What the keeper in a thread of that name installs."""


def until(condition: Callable[[], object]) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.005)


class Api:
    """An API server with or without a DaemonSet; each request gets the next status."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.status, self.asked, self.fails = 200, 0, 0
        self.events: list[dict[str, Any]] = []
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

            def do_POST(self) -> None:
                assert self.path == "/api/v1/namespaces/default/events"
                api.events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(201)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{self._server.server_port}"
        monkeypatch.setattr(kube, "server", lambda _: kube.ApiServer(url=address))

    def down(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class TestKeeper:
    """Its actions on the node, with an API server that answers for its DaemonSet as the test wants."""

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
    def make(self, machine: Node, conf: Path, api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
        """Makes keepers that run in threads; each ends with the test."""
        monkeypatch.setattr("genie.node.keeper.signal.signal", lambda *_: None)  # not in a thread
        monkeypatch.setattr("genie.node.keeper.EVERY", 0.01)
        monkeypatch.setattr("genie.node.keeper.REFRESH", 0.05)
        made: list[tuple[Keeper, threading.Thread]] = []

        def make(plugin: bytes = b"shim", **options: object) -> tuple[Keeper, threading.Thread]:
            given = {
                "conf": str(conf), "direct": False, "no_kubeconfig": True, "daemonset": "kube-system/genie",
                "after": "", "ready_file": "", **options,
            }  # fmt: skip
            keeper = Keeper(machine, argparse.Namespace(**given))
            monkeypatch.setattr(
                "genie.node.wanted.plugin", lambda _: PLUGINS.get(threading.current_thread().name, plugin)
            )
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

    def test_puts_back_what_was_taken_away(self, make: Make, machine: Node) -> None:
        make()
        until(lambda: not files.out_of_place(machine, b"shim"))
        Path(machine.plugin).unlink()
        until(lambda: not files.out_of_place(machine, b"shim"))
        Path(machine.conf_dir, "00-a.conf").write_text("{}")
        until(lambda: files.confs(machine.conf_dir)[0] == "0-genie.conflist")

    def test_backs_off_from_one_who_keeps_removing_it(
        self, make: Make, machine: Node, api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Cilium with cni.exclusive renames every other configuration as soon as it sees one."""
        monkeypatch.setenv("NODE_NAME", "worker-1")
        own, renamed = (Path(machine.conf_dir, f"00-genie.conflist{suffix}") for suffix in ("", ".cilium_bak"))
        keeper, thread = make()
        for _ in range(AT_ONCE + 1):
            until(own.exists)
            own.rename(renamed)
        until(lambda: api.events)
        assert not own.exists(), "it waits now"
        keeper.ending.set()
        thread.join(10)
        noted = removals.read(machine.state_dir)
        assert noted and noted.count == AT_ONCE + 1 and noted.wait == 2.0
        assert noted.why == f"{own} is gone, and {renamed.name} is there"
        (warning,) = [each.message for each in caplog.records if each.message.startswith("somebody")]
        assert warning.startswith(f"somebody keeps removing genie from this node: {noted.why}. genie restores itself")
        assert "If it is Cilium, set cni.exclusive=false" in warning
        (event,) = api.events
        assert event["message"] == warning and event["type"] == "Warning"
        assert event["involvedObject"]["kind"] == "Node" and event["involvedObject"]["name"] == "worker-1"

    def test_puts_itself_back_once_its_time_has_come(
        self, make: Make, machine: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("genie.node.patience.LONGEST", 0.05)
        own = Path(machine.conf_dir, "00-genie.conflist")
        make()
        for _ in range(AT_ONCE + 3):
            until(own.exists)
            own.unlink()
        until(lambda: not files.out_of_place(machine, b"shim"))

    def test_a_plugin_behind_genie_stays(self, make: Make, machine: Node, conf: Path) -> None:
        """As istio-cni adds it, while genie's part changes."""
        own = Path(machine.conf_dir, "00-genie.conflist")
        make()
        until(lambda: not files.out_of_place(machine, b"shim"))
        whole = json.loads(own.read_text())
        mesh = {"type": "istio-cni", "log_level": "info"}
        own.write_text(json.dumps({**whole, "plugins": [*whole["plugins"], mesh]}))
        conf.write_text(json.dumps({**CONF, "default_plugin": "ptp"}))
        until(lambda: "ptp" in own.read_text())
        Path(machine.plugin).unlink()
        until(lambda: not files.out_of_place(machine, b"shim"))
        assert [each["type"] for each in json.loads(own.read_text())["plugins"]] == ["genie", "istio-cni"]
        assert removals.read(machine.state_dir).count == 1  # type: ignore[union-attr]

    def test_leaves_a_genie_conf_that_was_changed_on_the_node(self, make: Make, machine: Node) -> None:
        make()
        until(lambda: not files.out_of_place(machine, b"shim"))
        conf = Path(machine.conf_dir, "00-genie.conflist")
        whole = json.loads(conf.read_text())
        whole["plugins"][0]["default_plugin"] = "bridge"
        conf.write_text(json.dumps(whole))
        Path(machine.plugin).unlink()
        until(lambda: not files.out_of_place(machine, b"shim"))
        assert json.loads(conf.read_text())["plugins"][0]["default_plugin"] == "bridge"

    def test_brings_a_genie_conf_that_changed_at_its_source(self, make: Make, machine: Node, conf: Path) -> None:
        make()
        until(lambda: not files.out_of_place(machine, b"shim"))
        conf.write_text(json.dumps({**CONF, "default_plugin": "ptp"}))
        until(lambda: "ptp" in Path(machine.conf_dir, "00-genie.conflist").read_text())

    def test_keeps_the_token_on_the_node_fresh(
        self,
        make: Make,
        machine: Node,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The kubelet renews it in the pod; the node does not see the pod's files. One that cannot be read ends
        nothing.
        """
        account = tmp_path / "account"
        account.mkdir()
        (account / "ca.crt").write_text("an authority")
        (account / "token").write_text("first\n")
        monkeypatch.setattr(kube, "SERVICE_ACCOUNT", str(account))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
        make(no_kubeconfig=False)
        path = Path(machine.kubeconfig)
        until(lambda: path.exists() and not files.out_of_place(machine, b"shim"))
        access = kube._from_kubeconfig(Credentials(kubeconfig=str(path)))
        assert (access.url, access.ca, access.token) == ("https://[fd00::1]:443", "an authority", "first")
        (account / "token").write_text("second\n")
        until(lambda: kube._from_kubeconfig(Credentials(kubeconfig=str(path))).token == "second")
        (account / "token").write_text("")
        until(lambda: any("expected a token, found nothing" in str(vars(line)) for line in caplog.records))
        (account / "token").write_text("third\n")
        until(lambda: kube._from_kubeconfig(Credentials(kubeconfig=str(path))).token == "third")
        assert path.stat().st_mode & 0o777 == 0o600

    def test_a_mistake_in_genie_conf_changes_nothing_on_the_node(self, make: Make, machine: Node, conf: Path) -> None:
        keeper, thread = make()
        until(lambda: not files.out_of_place(machine, b"shim"))
        before = tree(machine)
        for wrong in ("{", json.dumps({**CONF, "serial": "yes"})):
            conf.write_text(wrong)
            until(lambda: keeper.complaint.text)
            keeper.complaint.over()
            until(lambda: keeper.complaint.text)
        assert thread.is_alive() and tree(machine) == before
        Path(machine.plugin).unlink()
        until(lambda: not files.out_of_place(machine, b"shim"))

    def test_with_a_wrong_genie_conf_nothing_is_installed_in_the_first_place(
        self, machine: Node, conf: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        conf.write_text(json.dumps({**CONF, "serial": "yes"}))
        before = tree(machine)
        assert main(machine, "--keep", "--conf", str(conf)) == 1
        assert "genie.conf: serial: expected true or false" in capfd.readouterr().err
        assert tree(machine) == before

    def test_waits_for_the_agent_and_says_when_genie_is_there(self, make: Make, machine: Node, tmp_path: Path) -> None:
        agent, ready = str(tmp_path / "agent"), str(tmp_path / "ready")
        before = tree(machine)
        make(after=agent, ready_file=ready)
        time.sleep(0.1)
        assert tree(machine) == before and not locks.is_held(ready)
        held = locks.hold(agent)
        until(lambda: locks.is_held(ready))
        assert not files.out_of_place(machine, b"shim")
        os.close(held)

    def test_waits_for_a_first_network(self, make: Make, machine: Node) -> None:
        """With only genie's configuration in net.d, the node would seem ready without any network."""
        flannel = Path(machine.conf_dir, "10-flannel.conflist")
        flannel.unlink()
        multus = Path(machine.conf_dir, "00-multus.conf")
        multus.write_text('{"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus"}')
        make()
        time.sleep(0.1)
        assert files.confs(machine.conf_dir) == ["00-multus.conf"], "Multus is no network of genie's"
        multus.unlink()
        flannel.write_text("{}")
        until(lambda: not files.out_of_place(machine, b"shim"))
        flannel.unlink()  # it is being updated: genie stays
        time.sleep(0.1)
        assert files.confs(machine.conf_dir) == ["00-genie.conflist"]

    def test_waits_for_no_network_when_there_is_a_default(self, make: Make, machine: Node, conf: Path) -> None:
        Path(machine.conf_dir, "10-flannel.conflist").unlink()
        conf.write_text(json.dumps({**CONF, "default_plugin": "bridge"}))
        make()
        until(lambda: not files.out_of_place(machine, b"shim"))

    @pytest.mark.parametrize(("status", "stays"), [(200, True), (503, True), (404, False), (403, False), (401, False)])
    def test_at_its_end_genie_stays_unless_the_daemonset_is_gone(
        self, make: Make, machine: Node, api: Api, status: int, stays: bool
    ) -> None:
        before = tree(machine)
        keeper, thread = make()
        until(lambda: not files.out_of_place(machine, b"shim") and keeper.sees_daemonset)
        api.status = status
        keeper.ending.set()
        thread.join(10)
        assert (tree(machine) == before) is not stays

    def test_an_api_server_that_stumbles_is_asked_again(self, make: Make, machine: Node, api: Api) -> None:
        before = tree(machine)
        keeper, thread = make()
        until(lambda: not files.out_of_place(machine, b"shim"))
        api.status, api.fails = 404, 3  # two answers with 503, then the real one
        keeper.ending.set()
        thread.join(10)
        assert tree(machine) == before

    def test_a_daemonset_that_it_could_not_see_at_first_is_seen_later(
        self, make: Make, machine: Node, api: Api
    ) -> None:
        """A node that boots before the control plane does."""
        api.status = 503
        keeper, _ = make()
        until(lambda: not files.out_of_place(machine, b"shim"))
        assert not keeper.sees_daemonset
        api.status = 200
        until(lambda: keeper.sees_daemonset)

    def test_the_newer_of_two_keepers_works(self, make: Make, machine: Node) -> None:
        """A rolling update: they want different shims, and must not replace each other's."""
        old, _ = make(b"old")
        until(lambda: not files.out_of_place(machine, b"old"))
        new, thread = make(b"the new one")
        until(lambda: not files.out_of_place(machine, b"the new one"))
        assert old.claim and not old.claim.is_newest()
        for _ in range(50):
            assert Path(machine.plugin).read_bytes() == b"the new one"
            time.sleep(0.005)
        new.ending.set()  # the update is rolled back
        thread.join(10)
        until(lambda: not files.out_of_place(machine, b"old"))

    @pytest.mark.parametrize("first", [0, 1])
    def test_the_last_of_two_keepers_removes_genie(self, make: Make, machine: Node, api: Api, first: int) -> None:
        before = tree(machine)
        two = [make(), make()]
        until(lambda: all(keeper.claim for keeper, _ in two) and not files.out_of_place(machine, b"shim"))
        api.status = 404
        two[first][0].ending.set()
        two[first][1].join(10)
        assert not files.out_of_place(machine, b"shim")
        two[1 - first][0].ending.set()
        two[1 - first][1].join(10)
        assert tree(machine) == before

    def test_one_of_two_keepers_that_end_at_once_removes_genie(self, make: Make, machine: Node, api: Api) -> None:
        before = tree(machine)
        two = [make(), make()]
        until(lambda: all(keeper.claim for keeper, _ in two) and not files.out_of_place(machine, b"shim"))
        api.status = 404
        for keeper, _ in two:
            keeper.ending.set()
        for _, thread in two:
            thread.join(10)
        assert tree(machine) == before

    def test_a_keeper_that_was_killed_is_in_nobodys_way(self, make: Make, machine: Node) -> None:
        Path(machine.keepers).mkdir(parents=True)
        Path(machine.keepers, "7").touch()
        keeper, _ = make()
        until(lambda: not files.out_of_place(machine, b"shim"))
        assert keeper.claim and keeper.claim.number == 8
        assert [path.name for path in Path(machine.keepers).iterdir()] == ["8"]

    @pytest.mark.parametrize("what", ["--once", "--remove"])
    def test_a_node_that_is_kept_is_not_changed_by_hand(
        self, make: Make, machine: Node, what: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        make()
        until(lambda: not files.out_of_place(machine, b"shim"))
        assert main(machine, what) == 1
        output = capfd.readouterr().err
        assert (
            f"cannot {'remove' if what == '--remove' else 'install'}" in output and "delete daemonset genie" in output
        )
        assert not files.out_of_place(machine, b"shim")
