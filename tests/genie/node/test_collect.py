"""`genie gc`: what is gone goes, what lives or may live stays, and what can never be deleted can be given up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from genie import cli
from genie.verbs import collect
from tests.rigs.api import POD, Api
from tests.rigs.cli import printed
from tests.rigs.core import CONTAINER, Node, damage, failing
from tests.rigs.netns import Namespace

GONE = (404, {"kind": "Status", "message": "not found"})


@pytest.fixture(autouse=True)
def calls(node: Node) -> Path:
    """The plugins on the node note what they are called for, in this file."""
    calls = node.root / "calls"
    for name in ("calico", "weave-net", "flannel"):
        (node.root / "bin" / name).write_text(
            f"#!/bin/sh\n[ -e {node.root}/stuck-{name} ] && exit 1\n"
            f'echo {name} "$CNI_COMMAND" "$CNI_CONTAINERID" "$CNI_IFNAME:$CNI_NETNS" >>{calls}\n'
        )
    return calls


def gc(capsys: pytest.CaptureFixture[str], node: Node, conf: str, *options: str, status: int = 0) -> str:
    argv = ["gc", "--conf", conf, "--bin-dir", str(node.root / "bin"), "--socket", str(node.root / "sock"), *options]
    assert cli.main(argv) == status, capsys.readouterr()
    out, err = capsys.readouterr()
    return out + err


def test_gc_deletes_orphans_and_a_dry_run_only_shows_them(
    capsys: pytest.CaptureFixture[str], node: Node, conf: str, api: Api, calls: Path
) -> None:
    node.add("calico,weave-net")
    api.answers[POD] = GONE
    assert gc(capsys, node, conf, "--dry-run") == "blue/web  c0ffee0123456: to be deleted\n1 to be deleted, 0 kept\n"
    assert not calls.exists() and node.left()
    assert gc(capsys, node, conf) == "blue/web  c0ffee0123456: deleted\n1 deleted, 0 kept\n"
    assert calls.read_text().splitlines() == [f"weave-net DEL {CONTAINER} eth1:", f"calico DEL {CONTAINER} eth0:"]
    assert node.left() == []
    assert gc(capsys, node, conf) == "0 deleted, 0 kept\n"


AGAIN = (200, {"metadata": {"namespace": "blue", "name": "web", "uid": "u-2"}})
ANSWERS = {"there": None, "gone": GONE, "made again": AGAIN, "unknown": (500, {})}


@pytest.mark.parametrize("pod", ANSWERS)
def test_gc_deletes_only_containers_that_are_surely_gone(
    capsys: pytest.CaptureFixture[str], node: Node, conf: str, api: Api, pod: str
) -> None:
    node.add("calico")
    api.answers[POD] = ANSWERS[pod] or api.answers[POD]
    text = gc(capsys, node, conf)
    gone = pod in ("gone", "made again")
    assert bool(node.left()) is not gone
    assert text.endswith("1 deleted, 0 kept\n" if gone else "0 deleted, 1 kept\n")
    assert ("not known whether its pod is gone" in text) == (pod == "unknown")


def test_gc_keeps_a_container_with_a_namespace_whose_pod_is_gone(
    capsys: pytest.CaptureFixture[str], node: Node, conf: str, api: Api, namespace: Callable[[], Namespace]
) -> None:
    node.kube.annotations = {"cni": "calico"}
    node.ok("ADD", CNI_NETNS=namespace().path)
    api.answers[POD] = GONE
    assert gc(capsys, node, conf) == "0 deleted, 1 kept\n" and node.left()


def test_an_agent_collects_by_itself(
    capsys: pytest.CaptureFixture[str], node: Node, conf: str, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.add("calico")
    api.answers[POD] = GONE
    monkeypatch.setattr("genie.locks.answers", lambda path: path == str(node.root / "sock"))
    text = gc(capsys, node, conf)
    assert "collects by itself" in text and "1 to be deleted" in text and node.left()


def test_an_unfinished_record_is_swept(capsys: pytest.CaptureFixture[str], node: Node, conf: str) -> None:
    (node.root / "state").mkdir()
    left = node.root / "state" / "c1@eth0.json.17.4.new"
    left.write_text("{")
    assert gc(capsys, node, conf, "--dry-run") == "0 to be deleted, 0 kept\n"
    assert gc(capsys, node, conf) == f"{left}: removed, an unfinished record\n0 deleted, 0 kept\n"
    assert node.left() == []


def test_a_plugin_that_is_gone_keeps_failing_says_how_to_give_up_and_that_does_it(
    capsys: pytest.CaptureFixture[str], node: Node, conf: str, api: Api
) -> None:
    node.add("calico,weave-net")
    (node.root / "bin" / "weave-net").unlink()
    way = f"if weave-net is gone for good, `genie gc --forget {CONTAINER}` on the node gives up on it"
    for _ in range(2):
        error = node.fails("DEL")
        assert "no plugin 'weave-net'" in error["msg"] and error["details"].endswith(way)
    api.answers[POD] = GONE
    assert way in gc(capsys, node, conf, status=1)
    given_up = "given up: eth1 of weave-net; weave-net may hold 10.2.0.2/24 for good\n"
    assert gc(capsys, node, conf, "--forget", CONTAINER, "--dry-run").endswith(f"to be {given_up}")
    assert node.left()
    assert gc(capsys, node, conf, "--forget", CONTAINER[:12]) == f"blue/web  c0ffee0123456: {given_up}"
    assert node.left() == []
    node.ok("DEL")


def test_a_plugin_that_keeps_failing_says_how_to_give_up_and_that_does_it(
    capsys: pytest.CaptureFixture[str], node: Node, conf: str
) -> None:
    node.add("calico,weave-net")
    node.executor.act = failing("calico", "DEL")
    way = f"`genie gc --forget {CONTAINER}` on the node gives up on it"
    (node.root / "bin" / "weave-net").unlink()
    assert node.fails("DEL")["details"].endswith(f"if weave-net is gone for good or calico keeps failing, {way}")
    (node.root / "bin" / "weave-net").touch(0o755)
    for _ in range(2):
        assert node.fails("DEL")["details"] == f"if calico keeps failing, {way}"
    assert "given up: eth0 of calico; calico may hold 10.1.0.2/24 for good" in gc(
        capsys, node, conf, "--forget", CONTAINER
    )
    assert node.left() == []
    node.ok("DEL")


def test_forget_refuses_an_attached_container(
    capsys: pytest.CaptureFixture[str], node: Node, conf: str, namespace: Callable[[], Namespace]
) -> None:
    node.kube.annotations = {"cni": "calico"}
    node.ok("ADD", CNI_NETNS=namespace().path)
    assert "no DEL of it failed" in gc(capsys, node, conf, "--forget", CONTAINER, status=1)
    assert node.left()
    node.executor.act = failing("calico", "DEL")
    node.fails("DEL")
    gc(capsys, node, conf, "--forget", CONTAINER)
    assert node.left() == []


def test_forget_refuses_an_empty_id(capsys: pytest.CaptureFixture[str], node: Node, conf: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        gc(capsys, node, conf, "--forget", "")
    assert "expected a container's ID, found an empty one" in capsys.readouterr().err


def test_forget_needs_one_container(capsys: pytest.CaptureFixture[str], node: Node, conf: str) -> None:
    assert "no record of a container c0" in gc(capsys, node, conf, "--forget", "c0", status=1)
    node.add("calico")
    node.ok("ADD", CNI_CONTAINERID="c0ffeeffff")
    text = gc(capsys, node, conf, "--forget", "c0ffee", status=1)
    assert text == f"genie gc: c0ffee is short for {CONTAINER}, c0ffeeffff\n"
    node.ok("DEL", CNI_CONTAINERID="c0ffeeffff")
    path = node.root / "state" / damage(node)
    assert gc(capsys, node, conf).startswith("kept: the record ")
    assert gc(capsys, node, conf, "--forget", "c0ffee") == f"{path}: removed\n"
    assert node.left() == []


def test_gc_where_genie_is_not_installed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genie.config.find", lambda _: None)
    assert "name it with --conf" in printed(capsys, "gc", status=1)


# --- what is gone -----------------------------------------------------------------------------------------------------


def test_whether_a_namespace_is_there(tmp_path: Path, namespace: Callable[[], Namespace]) -> None:
    plain, missing, process = tmp_path / "plain", str(tmp_path / "missing"), "/proc/4194305/ns/net"
    plain.touch()
    for on_node in (True, False):
        assert collect.has_namespace(namespace().path, on_node=on_node) is True
        assert collect.has_namespace(missing, on_node=on_node) is False
    assert collect.has_namespace(str(plain), on_node=True) is False, "what was mounted there is gone"
    assert collect.has_namespace(str(plain), on_node=False) is None, "the mount may not show here"
    assert collect.has_namespace(process, on_node=True) is False
    assert collect.has_namespace(process, on_node=False) is None, "a process of another PID namespace"
    assert collect.has_namespace(f"{plain}/x", on_node=True) is None


def test_a_deletion_is_the_runtimes_without_what_came_with_another_call(node: Node) -> None:
    node.add("calico")
    conf = {"name": "k8s", "type": "genie", "prevResult": {}, "runtimeConfig": {"portMappings": []}}
    env = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "other", "CNI_NETNS": "/n", "CNI_ARGS": "x", "CNI_PATH": "/bin"}
    request = collect.deletion(node.record, env, json.dumps(conf).encode())
    assert (request.command, request.container_id, request.netns, request.path) == ("DEL", CONTAINER, "", ("/bin",))
    assert request.pod_name == "blue/web" and json.loads(request.stdin) == {"name": "k8s", "type": "genie"}
