"""GC: everything without a valid attachment is removed."""

from __future__ import annotations

from typing import Any

import pytest

from genie.cni.errors import CniError
from genie.cni.execute import Outcome
from genie.records import Records
from tests.rigs.core import (
    CONTAINER,
    Node,
    SeenCall,
    damage,
    failing,
    valid,
)


def test_gc_deletes_what_nothing_explains_and_hands_on_what_stays(node: Node) -> None:
    node.install("calico", "weave-net", version="1.1.0")
    node.add("calico,weave-net,weave-net")
    kept = node.record
    node.ok("ADD", CNI_CONTAINERID="gone")
    node.executor.calls.clear()
    node.conf.update(valid((CONTAINER, "eth0")))
    node.ok("GC", CNI_CONTAINERID=None, CNI_NETNS=None, CNI_IFNAME=None)
    assert {call.container_id for call in node.executor.calls if call.verb == "DEL"} > {"gone"}
    assert node.record == kept
    reported = {
        call.plugin: call.stdin["cni.dev/valid-attachments"] for call in node.executor.calls if call.verb == "GC"
    }
    assert reported["calico"] == [{"containerID": CONTAINER, "ifname": "eth0"}]
    second = {"containerID": kept.attached[2].container_id, "ifname": "eth2"}
    assert {"containerID": CONTAINER, "ifname": "eth1"} in reported["weave-net"] and second in reported["weave-net"]
    assert "flannel" not in reported, "GC came with 1.1.0"


def test_gc_of_a_plugin_without_names_keeps_the_attachments_of_all_its_networks(node: Node) -> None:
    node.install("flannel", "calico", version="1.1.0")
    node.write("20-second.conf", {"cniVersion": "1.1.0", "name": "second", "type": "flannel"})
    node.add("flannel,second,calico")
    second = {"containerID": node.record.attached[1].container_id, "ifname": "eth1"}
    node.conf.update(valid((CONTAINER, "eth0")))
    node.ok("GC", CNI_NETNS=None)
    asked = [call.stdin for call in node.executor.calls if call.verb == "GC"]
    reported = {stdin["name"]: stdin["cni.dev/valid-attachments"] for stdin in asked}
    assert second in reported["flannel"] and second in reported["second"]
    assert second not in reported["calico"] and {"containerID": CONTAINER, "ifname": "eth2"} in reported["calico"]


def test_gc_with_a_damaged_record_of_a_valid_container(node: Node) -> None:
    """Its attachments are unknown, so no network may delete unknown ones; certain garbage is removed."""
    node.install("calico", version="1.1.0")
    node.add("calico")
    damage(node)
    node.ok("ADD", CNI_CONTAINERID="gone")
    node.executor.calls.clear()
    node.conf.update(valid((CONTAINER, "eth0")))
    error = node.fails("GC", CNI_NETNS=None)
    assert error["code"] == 6 and "is damaged" in error["msg"]
    assert node.executor.made("GC") == []
    assert [(call.container_id, call.verb) for call in node.executor.calls] == [("gone", "DEL")]
    assert node.left() == [f"{CONTAINER}@eth0.json"]


def test_gc_with_a_damaged_record_of_a_container_that_is_gone(node: Node) -> None:
    node.install("calico", version="1.1.0")
    node.add("calico")
    damage(node)
    node.ok("ADD", CNI_CONTAINERID="alive")
    node.executor.calls.clear()
    node.conf.update(valid(("alive", "eth0")))
    node.ok("GC", CNI_NETNS=None)
    assert {call.container_id for call in node.executor.calls if call.verb == "DEL"} == {CONTAINER}
    assert node.executor.made("GC") == [("calico", "")]
    assert node.left() == ["alive@eth0.json", f"{CONTAINER}@eth0.json.damaged"]


def test_gc_with_a_record_that_the_disk_does_not_give(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.install("calico", version="1.1.0")
    node.add("calico")
    node.ok("ADD", CNI_CONTAINERID="gone")
    whole = Records.all

    def all_(self: Records) -> Any:
        return [CniError(5, "cannot read the record x: Input/output error"), *whole(self)]

    monkeypatch.setattr(Records, "all", all_)
    node.conf.update(valid((CONTAINER, "eth0")))
    error = node.fails("GC", CNI_NETNS=None)
    assert error["code"] == 5 and "Input/output error" in error["msg"]
    assert node.executor.made("GC") == [] and node.left() == [f"{CONTAINER}@eth0.json"]


def test_gc_is_passed_on_to_networks_of_network_objects_too(node: Node) -> None:
    node.binary("sriov")
    node.kube.define("fast", {"cniVersion": "1.1.0", "name": "fast", "type": "sriov"})
    node.add("calico", **{"k8s.v1.cni.cncf.io/networks": "fast"})
    node.conf.update(valid((CONTAINER, "eth0")))
    node.ok("GC", CNI_NETNS=None)
    (reported,) = [call for call in node.executor.calls if call.verb == "GC"]
    assert reported.plugin == "sriov"
    assert {"containerID": CONTAINER, "ifname": "net1"} in reported.stdin["cni.dev/valid-attachments"]


@pytest.mark.parametrize(
    "wrong", [{}, {"cni.dev/valid-attachments": {}}, {"cni.dev/valid-attachments": [{"ifname": 5}]}]
)
def test_gc_without_its_list_deletes_nothing(node: Node, wrong: dict[str, Any]) -> None:
    node.add("calico")
    node.conf.update(wrong)
    assert node.fails("GC")["code"] == 7
    assert node.executor.made("DEL") == []


def test_gc_goes_on_past_failures_and_tells_them(node: Node) -> None:
    node.install("calico", "weave-net", version="1.1.0")
    node.add("flannel")
    node.conf.update(valid())

    def act(call: SeenCall) -> Outcome | None:
        return failing("flannel", "DEL", msg="stuck")(call) or failing("calico", "GC", msg="cannot")(call)

    node.executor.act = act
    error = node.fails("GC")
    assert error["msg"].endswith("DEL: stuck") and "GC: cannot" in error["details"]
    assert ("weave-net", "") in node.executor.made("GC")


def test_gc_with_no_attachment_at_all(node: Node) -> None:
    """libcni writes an empty list of Go as null."""
    node.install("calico", version="1.1.0")
    node.add("calico")
    node.conf.update({"cni.dev/valid-attachments": None, "cni.dev/attachments": None})
    node.ok("GC", CNI_NETNS=None)
    assert node.executor.made("DEL") == [("calico", "eth0")] and node.left() == []
