"""DEL: from the record alone, and without one."""

from __future__ import annotations

import errno
import os

import pytest

from genie.cni.execute import Outcome
from genie.kernel.netns import Conversation, Link
from tests.rigs.core import (
    ARGS,
    CONTAINER,
    THREE,
    Node,
    damage,
    failing,
    full_disk,
)


@pytest.mark.parametrize("meanwhile", ["gone", "changed", "away", "net.d"])
def test_del_works_from_the_record(node: Node, meanwhile: str) -> None:
    node.add(THREE)
    if meanwhile == "gone":
        node.kube.annotations = None
    elif meanwhile == "changed":
        node.kube.annotations = {"cni": "flannel"}
    elif meanwhile == "away":
        node.kube.away = True
    else:
        for path in node.net_d.iterdir():
            path.unlink()
        node.net_d.rmdir()
    node.kube.asked.clear()
    node.ok("DEL", CNI_NETNS=None)
    assert node.executor.made("DEL") == [("flannel", "eth2"), ("weave-net", "eth1"), ("calico", "eth0")]
    assert node.kube.asked == [] and node.left() == []
    node.ok("DEL", CNI_NETNS=None)
    assert node.left() == []


def test_del_hands_each_delegate_its_own_result(node: Node) -> None:
    node.add("calico,weave-net")
    node.ok("DEL")
    deletes = [call for call in node.executor.calls if call.verb == "DEL"]
    assert [call.stdin["prevResult"]["ips"][0]["address"] for call in deletes] == ["10.2.0.2/24", "10.1.0.2/24"]
    assert all(call.env["CNI_ARGS"] == ARGS for call in deletes)


def test_del_goes_on_past_a_failing_delegate_and_reports_it(node: Node) -> None:
    node.add(THREE)
    node.executor.act = failing("weave-net", "DEL", code=111, msg="weave is away")
    error = node.fails("DEL")
    assert (error["code"], error["msg"]) == (111, "network 'weave-net': plugin 'weave-net': DEL: weave is away")
    assert [plugin for plugin, _ in node.executor.made("DEL")] == ["flannel", "weave-net", "calico"]
    assert [attached.label for attached in node.record.attached] == ["weave-net"]
    node.executor.calls.clear()
    assert node.fails("DEL")["code"] == 111
    node.executor.act = lambda call: None
    node.ok("DEL")
    assert [plugin for plugin, _ in node.executor.made("DEL")] == ["weave-net", "weave-net"]
    assert node.left() == []


def test_del_tells_every_failure(node: Node) -> None:
    node.add("calico,weave-net")
    node.executor.act = lambda call: (
        Outcome(status=1, stdout=b'{"code": 100, "msg": "no"}') if call.verb == "DEL" else None
    )
    error = node.fails("DEL")
    assert "'weave-net'" in error["msg"] and "'calico'" in error["details"]


def test_del_of_what_genie_never_attached(node: Node) -> None:
    node.ok("DEL")
    assert node.executor.made("DEL") == [("calico", "eth0")], "made before genie: by what was the first network then"
    node.executor.act = failing("calico", "DEL")
    story = node.call("DEL", CNI_NETNS=None).story
    assert story["ignored"] == ["network 'calico': plugin 'calico': DEL: no more addresses"]
    node.executor.calls.clear()
    node.kube.annotations = None
    node.ok("DEL")
    asked = [("weave-net", "eth0"), ("flannel", "eth0"), ("calico", "eth0")]
    assert node.executor.made("DEL") == asked, "one of them may have been its only network"


LOST = {
    "names": ({"cni": "weave-net,calico@data0"}, [("weave-net", "eth0"), ("calico", "data0")]),
    "object": ({"k8s.v1.cni.cncf.io/networks": "fast@fast0,fast"}, [("calico", "eth0"), ("sriov", "fast0")]),
    "least loaded": ({"cni": ""}, [("calico", "eth0"), ("flannel", "eth0"), ("weave-net", "eth0")]),
    "one is gone": ({"cni": "calico,nowhere,flannel"}, [("calico", "eth0"), ("flannel", "eth2")]),
    "unreadable": ({"cni": "weave-net@"}, [("calico", "eth0"), ("flannel", "eth0"), ("weave-net", "eth0")]),
}


@pytest.mark.parametrize("annotations, asked", LOST.values(), ids=LOST)
def test_del_of_a_lost_record_asks_whom_the_annotations_name(
    node: Node, annotations: dict[str, str], asked: list[tuple[str, str]]
) -> None:
    """As a runtime calls it after a power cut: the namespace is gone, too."""
    node.binary("sriov")
    node.kube.define("fast", {"cniVersion": "1.0.0", "name": "fast", "type": "sriov"})
    node.kube.annotations = annotations
    node.ok("DEL", CNI_NETNS=None)
    assert set(node.executor.made("DEL")) >= set(asked)
    assert {call.container_id for call in node.executor.calls if call.plugin == "sriov"} <= {CONTAINER}


def test_del_of_a_lost_record_asks_for_derived_container_ids_too(node: Node) -> None:
    node.add("flannel,flannel")
    second = node.record.attached[1].container_id
    node.records.remove(CONTAINER, "eth0")
    node.executor.calls.clear()
    node.ok("DEL", CNI_NETNS=None)
    asked = [(call.ifname, call.container_id) for call in node.executor.calls if call.plugin == "flannel"]
    assert set(asked) == {("eth0", CONTAINER), ("eth1", CONTAINER), ("eth1", second)}


@pytest.mark.parametrize("away", [True, False])
def test_del_without_a_record_needs_nobody(node: Node, away: bool) -> None:
    node.kube.away = away
    node.kube.annotations = None
    for path in node.net_d.iterdir():
        path.unlink()
    node.net_d.rmdir()
    story = node.call("DEL", CNI_NETNS=None).story
    assert len(story["ignored"]) == 2 and "cannot read the configurations" in story["ignored"][1]


def test_a_del_removes_the_files_of_a_killed_writer(node: Node) -> None:
    left = node.root / "state" / f"{CONTAINER}@eth0.json.17.4.new"
    left.parent.mkdir()
    left.write_text("{")
    node.ok("DEL", CNI_NETNS=None)
    assert node.left() == []
    damaged = left.with_name(f"{CONTAINER}@eth0.json")
    left.write_text("{")
    damaged.write_text("")
    node.ok("DEL", CNI_NETNS=None)
    assert node.left() == [f"{damaged.name}.damaged"]


@pytest.mark.parametrize("text", ["", "{", "\0" * 99])
def test_del_of_a_damaged_record_asks_every_network_and_sets_it_aside(node: Node, text: str) -> None:
    node.add("calico,flannel")
    file = damage(node, text)
    node.executor.calls.clear()
    node.executor.act = failing("weave-net", "DEL")
    story = node.call("DEL", CNI_NETNS=None).story
    networks = ("calico", "flannel", "weave-net")
    assert set(node.executor.made("DEL")) == {*((name, "eth0") for name in networks), ("flannel", "eth1")}
    assert {call.container_id for call in node.executor.calls} >= {CONTAINER}
    assert "is damaged" in story["damaged"] and "no more addresses" in story["ignored"][0]
    assert node.left() == [f"{file}.damaged"]
    node.add("calico")


def test_del_of_a_damaged_record_asks_for_the_interfaces_that_the_pod_has(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {name: Link(ifindex=1, mac="", mtu=0) for name in ("lo", "eth0", "data0")}
    node.add("calico")
    damage(node)
    monkeypatch.setattr(Conversation, "links", lambda self: there)
    node.ok("DEL")
    assert {("calico", "eth0"), ("calico", "data0")} <= set(node.executor.made("DEL"))


def test_del_of_a_damaged_record_of_a_pod_that_is_gone_asks_for_the_interfaces_that_genie_gives(node: Node) -> None:
    node.kube.define("flannel")
    node.add("calico,flannel,weave-net", **{"k8s.v1.cni.cncf.io/networks": "flannel"})
    damage(node, "")
    node.kube.annotations = None
    node.executor.calls.clear()
    node.ok("DEL", CNI_NETNS=None)
    had = {("calico", "eth0"), ("flannel", "eth1"), ("weave-net", "eth2"), ("flannel", "net1")}
    assert had <= set(node.executor.made("DEL"))


def test_del_of_a_damaged_record_where_net_d_is_gone(node: Node) -> None:
    node.add("calico")
    damage(node)
    for path in node.net_d.iterdir():
        path.unlink()
    node.net_d.rmdir()
    node.ok("DEL")
    assert node.left() == [f"{CONTAINER}@eth0.json.damaged"]


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_add_and_check_of_a_damaged_record_are_one_clear_error(node: Node, verb: str) -> None:
    node.add("calico")
    damage(node)
    node.executor.calls.clear()
    error = node.fails(verb)
    assert error["code"] == 6 and "is damaged" in error["msg"] and "a DEL of its container" in error["msg"]
    assert node.executor.calls == [] and node.left() == [f"{CONTAINER}@eth0.json"]


@pytest.mark.parametrize("length", [240, 250, 300, 4096])
def test_a_container_with_an_id_too_long_for_a_record_is_refused_and_can_be_deleted(node: Node, length: int) -> None:
    node.kube.annotations = {"cni": "calico,weave-net"}
    container = "c" * length
    error = node.fails("ADD", CNI_CONTAINERID=container)
    assert (error["code"], error["msg"].rpartition(": ")[2]) == (5, "File name too long")
    assert node.executor.made("ADD") == []
    assert node.fails("CHECK", CNI_CONTAINERID=container)["code"] == 3
    node.ok("DEL", CNI_CONTAINERID=container)
    assert node.left() == []


def test_a_plugins_failure_is_reported_also_where_the_disk_takes_no_record(node: Node) -> None:
    node.add("calico,weave-net")
    node.executor.act = failing("weave-net", "DEL", code=111, msg="weave is away")
    with full_disk():
        error = node.fails("DEL")
    assert (error["code"], error["msg"]) == (111, "network 'weave-net': plugin 'weave-net': DEL: weave is away")
    assert "cannot write the record" in error["details"] and f"genie gc --forget {CONTAINER}" in error["details"]
    node.executor.act = lambda call: None
    node.ok("DEL")
    assert node.left() == []


@pytest.mark.parametrize("there", [False, True])
def test_a_read_only_disk_keeps_only_a_container_with_a_record(
    node: Node, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """It refuses to remove a file before it looks whether there is one."""
    if there:
        node.add("calico")

    def refused(path: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system", path)

    monkeypatch.setattr(os, "unlink", refused)
    if not there:
        node.ok("DEL")
        return
    assert node.fails("DEL")["msg"].endswith("@eth0.json: Read-only file system")
    monkeypatch.undo()
    node.ok("DEL")
    assert node.left() == []
