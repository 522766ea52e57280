"""The verbs with a fake executor and a fake API server: the order of calls, and the files on disk."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genie.cni.errors import CniError
from genie.cni.execute import Outcome, PluginCall
from genie.kube import POD_ANNOTATIONS, RefusedError
from genie.records import Records
from genie.select.selection import RESERVED_IFNAMES
from genie.serve import serve
from genie.verbs.context import Context
from tests.rigs.core import (
    ARGS,
    CONTAINER,
    THREE,
    FakeExecutor,
    FakeKube,
    Node,
    SeenCall,
    addresses,
    failing,
    on,
)
from tests.rigs.kernel import FakeKernel

# --- ADD ------------------------------------------------------------------------------------------------------------


def test_an_add_of_one_network_reports_its_result(node: Node) -> None:
    result = node.add("calico")
    assert result == {
        "cniVersion": "1.0.0",
        "interfaces": [
            {"name": "host1"},
            {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/var/run/netns/web"},
        ],
        "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1}],
        "routes": [{"dst": "10.1.0.0/16"}],
    }
    assert node.left() == [f"{CONTAINER}@eth0.json"]
    assert node.record.complete


def test_several_networks_are_one_result_with_right_indices(node: Node) -> None:
    result = node.add(THREE)
    assert addresses(result) == ["10.1.0.2/24", "10.2.0.2/24", "10.3.0.2/24"]
    assert on(result) == ["eth0", "eth1", "eth2"]
    assert [interface["name"] for interface in result["interfaces"]] == [
        "host1",
        "eth0",
        "host2",
        "eth1",
        "host3",
        "eth2",
    ]
    assert node.executor.made("ADD") == [("calico", "eth0"), ("weave-net", "eth1"), ("flannel", "eth2")]


def test_each_delegate_gets_the_runtimes_parameters_and_an_interface_of_its_own(node: Node) -> None:
    node.add("calico@net1,flannel")
    for call, ifname in zip(node.executor.calls, ["net1", "eth1"], strict=True):
        cni = {key: value for key, value in call.env.items() if key.startswith("CNI_")}
        assert cni == {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": CONTAINER,
            "CNI_NETNS": "/var/run/netns/web",
            "CNI_IFNAME": ifname,
            "CNI_ARGS": ARGS,
            "CNI_PATH": str(node.root / "bin"),
        }
        assert call.env["PATH"] == "/usr/bin"


def test_runtime_config_goes_to_the_first_network_and_to_those_that_declare_it(node: Node) -> None:
    for name in ("calico", "flannel"):
        node.install(name, capabilities={"portMappings": True, "mac": False})
    ports = [{"hostPort": 8080, "containerPort": 80}]
    node.conf["runtimeConfig"] = {"portMappings": ports, "mac": "02:00:00:00:00:01", "bandwidth": {}}
    node.add("calico,flannel")
    first, second = node.executor.calls
    assert first.stdin["runtimeConfig"] == {"portMappings": ports}
    assert "runtimeConfig" not in second.stdin


def test_the_record_is_on_disk_before_the_first_delegate(node: Node) -> None:
    seen = []

    def look(call: SeenCall) -> None:
        record = node.record
        assert [attached.label for attached in record.attached] == ["calico", "weave-net"]
        assert (record.complete, record.pod, record.uid, record.args) == (False, "web", "u-1", ARGS)
        seen.append(call.plugin)

    node.executor.act = look
    node.add("calico,weave-net")
    assert seen == ["calico", "weave-net"]
    assert [attached.result is not None for attached in node.record.attached] == [True, True]


def test_a_record_that_cannot_be_written_starts_nothing(node: Node) -> None:
    node.conf["state_dir"] = str(node.net_d / "10-calico.conf")
    error = node.fails("ADD")
    assert error["code"] == 5 and "Not a directory" in error["msg"]
    assert node.executor.calls == []


def test_a_record_that_cannot_be_completed_takes_the_attachments_back(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Records, record: Any) -> None:
        raise CniError(5, "cannot complete the record: No space left on device")

    monkeypatch.setattr(Records, "complete", full)
    node.kube.annotations = {"cni": "calico,flannel"}
    assert "No space left" in node.fails("ADD")["msg"]
    assert node.executor.made("DEL") == [("flannel", "eth1"), ("calico", "eth0")]
    assert node.left() == []


def test_the_second_of_two_networks_that_fails(node: Node) -> None:
    node.kube.annotations = {"cni": THREE}
    node.executor.act = failing("weave-net", code=123, msg="no more addresses")
    error = node.fails("ADD")
    assert error == {"cniVersion": "1.0.0", "code": 123, "msg": error["msg"]}
    assert error["msg"] == "network 'weave-net': plugin 'weave-net': ADD: no more addresses"
    deletes = node.executor.made("DEL")
    assert deletes[-1] == ("calico", "eth0") and {deleted for deleted, _ in deletes} == {"weave-net", "calico"}
    assert node.left() == []
    assert node.kube.written == {}


def test_a_rollback_hands_on_what_there_was(node: Node) -> None:
    node.kube.annotations = {"cni": "calico,weave-net"}
    node.executor.act = failing("weave-net")
    node.fails("ADD")
    (calico,) = [call for call in node.executor.calls if (call.plugin, call.verb) == ("calico", "DEL")]
    assert calico.stdin["prevResult"]["ips"][0]["address"] == "10.1.0.2/24"


def test_a_rollback_is_in_reverse_and_goes_on_past_a_failure(node: Node) -> None:
    node.kube.annotations = {"cni": THREE}

    def act(call: SeenCall) -> Outcome | None:
        return failing("flannel")(call) or failing("weave-net", "DEL", msg="stuck")(call)

    node.executor.act = act
    error = node.fails("ADD")
    assert error["msg"] == "network 'flannel': plugin 'flannel': ADD: no more addresses"
    assert "also: network 'weave-net': plugin 'weave-net': DEL: stuck" in error["details"]
    order = [plugin for plugin, _ in node.executor.made("DEL")]
    assert order[-3:] == ["flannel", "weave-net", "calico"]
    assert [attached.label for attached in node.record.attached] == ["weave-net"], "the runtime's DEL tries it again"
    node.executor.act = lambda call: None
    node.executor.calls.clear()
    node.ok("DEL")
    assert node.executor.made("DEL") == [("weave-net", "eth1")]
    assert node.left() == []


def test_a_plugin_that_is_not_there(node: Node) -> None:
    (node.root / "bin" / "flannel").unlink()
    node.kube.annotations = {"cni": "calico,flannel"}
    error = node.fails("ADD")
    assert "network 'flannel': plugin 'flannel': ADD: no plugin 'flannel': looked in" in error["msg"]
    assert ("calico", "eth0") in node.executor.made("DEL")
    assert node.left() == [], "or the pod could never be deleted"


@pytest.mark.parametrize(("code", "kept"), [(7, False), (100, False), (11, True)])
def test_a_plugin_that_refuses_its_configuration_in_both_directions(node: Node, code: int, kept: bool) -> None:
    seen = Outcome(status=1, stdout=json.dumps({"code": code, "msg": "no IP ranges specified"}).encode())
    node.executor.act = lambda call: seen if call.plugin == "flannel" else None
    node.kube.annotations = {"cni": "calico,flannel"}
    assert "no IP ranges" in node.fails("ADD")["msg"]
    assert [attached.label for record in node.records for attached in record.attached] == ["flannel"] * kept


@pytest.mark.parametrize(
    ("outcome", "complaint"),
    [
        (Outcome(status=1, stderr=b"panic: oh\ngoroutine 1"), "panic: oh"),
        (Outcome(status=-9), "killed by signal 9"),
        (Outcome(status=0, stdout=b"Hello"), "its result is not JSON"),
        (Outcome(status=0), "printed no result"),
        (Outcome(status=0, stdout=b'{"cniVersion": "1.0.0", "ips": [{"address": "x"}]}'), "ips[0]: address: expected"),
        (Outcome(status=-9, error="no answer within 60 seconds; killed"), "no answer within 60 seconds"),
    ],
)
def test_delegates_that_misbehave(node: Node, outcome: Outcome, complaint: str) -> None:
    node.kube.annotations = {"cni": "calico"}
    node.executor.act = lambda call: outcome if call.verb == "ADD" else None
    error = node.fails("ADD")
    assert error["msg"].startswith("network 'calico': plugin 'calico': ADD: ") and complaint in error["msg"]
    assert node.left() == []


def test_a_gone_pod_and_a_wrong_annotation_start_nothing(node: Node) -> None:
    node.kube.annotations = None
    assert node.fails("ADD")["code"] == 3
    node.kube.annotations = {"cni": "calico,"}
    assert node.fails("ADD")["msg"].startswith("annotation cni, item 2")
    node.kube.annotations = {"cni": "calico,unknown"}
    assert 'annotation cni, item 2 ("unknown"): no network' in node.fails("ADD")["msg"]
    node.kube.away = True
    assert node.fails("ADD")["code"] == 11
    assert node.executor.calls == [] and node.left() == []


def test_an_add_after_one_that_was_cut_off(node: Node) -> None:
    class PowerCut(BaseException):
        pass

    class Cut(FakeExecutor):
        async def run(self, call: PluginCall) -> Outcome:
            raise PowerCut

    node.kube.annotations = {"cni": "calico,weave-net"}
    whole, node.executor = node.executor, Cut()
    with pytest.raises(PowerCut):
        node.call("ADD")
    assert node.record.complete is False
    node.executor = whole
    result = node.add("flannel")
    assert node.executor.made("DEL") == [("weave-net", "eth1"), ("calico", "eth0")]
    assert addresses(result) == ["10.1.0.2/24"]
    assert [attached.label for attached in node.record.attached] == ["flannel"]


def test_a_second_add_without_a_del(node: Node) -> None:
    node.add("calico")
    error = node.fails("ADD")
    assert error["code"] == 4 and "DEL must come first" in error["msg"]
    assert node.record.complete


def test_a_cancelled_add_takes_its_attachments_back(node: Node) -> None:
    class Slow(FakeExecutor):
        async def run(self, call: PluginCall) -> Outcome:
            if call.env["CNI_COMMAND"] == "ADD" and call.binary.endswith("flannel"):
                started.set()
                await asyncio.sleep(60)
            return await super().run(call)

    async def cancel() -> None:
        task = asyncio.create_task(serve(node.request("ADD"), node.kube, node.executor))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    started = asyncio.Event()
    node.kube.annotations = {"cni": "calico,weave-net,flannel"}
    node.executor = Slow()
    asyncio.run(cancel())
    assert node.executor.made("DEL") == [("flannel", "eth2"), ("weave-net", "eth1"), ("calico", "eth0")]
    assert node.left() == []


def test_networks_that_do_not_disturb_each_other_are_attached_at_once(node: Node) -> None:
    for name in ("blue", "green"):
        node.write(f"20-{name}.conf", {"cniVersion": "1.0.0", "name": name, "type": "macvlan"})
    node.binary("macvlan")
    gathered: list[int] = []

    class Counting(FakeExecutor):
        async def gather(self, *work: Any) -> Any:
            gathered.append(len(work))
            return await super().gather(*reversed(work))

    node.executor = Counting()
    result = node.add("calico,blue,flannel,green")
    assert gathered == [2]
    assert on(result) == ["eth0", "eth1", "eth2", "eth3"], "merged in the order of the selection all the same"
    node.ok("DEL")
    node.conf["serial"] = True
    node.executor.calls.clear()
    node.add("calico,blue,flannel,green")
    assert gathered == [2]
    assert [ifname for _, ifname in node.executor.made("ADD")] == ["eth0", "eth1", "eth2", "eth3"]


def test_extra_networks_come_after_the_default_one(node: Node) -> None:
    """Multi-network specification, 6.2; the default part itself may be attached at once, if all of it is known."""
    for name in ("blue", "green", "red", "grey"):
        node.write(f"20-{name}.conf", {"cniVersion": "1.0.0", "name": name, "type": "macvlan"})
        node.kube.define(name)
    node.binary("macvlan")
    gathered: list[list[str]] = []

    class Grouping(FakeExecutor):
        async def gather(self, *work: Any) -> Any:
            before = len(self.calls)
            done = await super().gather(*work)
            gathered.append([call.ifname for call in self.calls[before:]])
            return done

    node.executor = Grouping()
    node.add("blue,green", **{"k8s.v1.cni.cncf.io/networks": "red,grey"})
    assert gathered == [["eth0", "eth1"], ["net1", "net2"]]
    node.ok("DEL")
    gathered.clear()
    node.add("calico,green", **{"k8s.v1.cni.cncf.io/networks": "red,grey"})
    assert gathered == [["eth1", "net1", "net2"]], "what calico does is not known, so nothing is done beside it"
    node.ok("DEL")
    gathered.clear()
    node.add("blue", **{"k8s.v1.cni.cncf.io/networks": "red"})
    assert gathered == [], "one after the other"


def test_one_of_those_attached_at_once_fails(node: Node) -> None:
    for name in ("blue", "green"):
        node.write(f"20-{name}.conf", {"cniVersion": "1.0.0", "name": name, "type": "macvlan"})
    node.binary("macvlan")
    node.kube.annotations = {"cni": "calico,blue,green"}

    def act(call: SeenCall) -> Outcome | None:
        return Outcome(status=1) if (call.verb, call.ifname) == ("ADD", "eth1") else None

    node.executor.act = act
    assert "network 'blue'" in node.fails("ADD")["msg"]
    assert [ifname for _, ifname in node.executor.made("DEL")][-3:] == ["eth2", "eth1", "eth0"]
    assert node.left() == []


# --- the same network twice -----------------------------------------------------------------------------------------


def test_weave_twice_has_a_container_id_of_its_own_the_second_time(node: Node) -> None:
    result = node.add("weave-net,weave-net")
    assert addresses(result) == ["10.1.0.2/24", "10.2.0.2/24"]
    first, second = node.executor.calls
    assert first.container_id == CONTAINER != second.container_id
    assert len(second.container_id) == len(CONTAINER) and second.container_id.isalnum()
    node.ok("DEL")
    assert [call.container_id for call in node.executor.calls[2:]] == [second.container_id, CONTAINER]


@pytest.mark.parametrize(
    ("cni", "own"),
    [
        ("flannel,second", [True, False]),
        ("second,flannel", [True, False]),
        ("flannel,calico,chained", [True, True, False]),
        ("flannel,weave-net", [True, True]),
        ("calico,second", [True, True]),
        ("flannel,second,chained", [True, False, False]),
    ],
)
def test_two_networks_of_one_plugin_share_no_container_id(node: Node, cni: str, own: list[bool]) -> None:
    """For all names: such a plugin stores its data for DEL only under the container's ID."""
    node.write("20-second.conf", {"cniVersion": "1.0.0", "name": "second", "type": "flannel"})
    plugins = [{"type": "ptp"}, {"type": "flannel"}]
    node.write("20-chained.conflist", {"cniVersion": "1.0.0", "name": "chained", "plugins": plugins})
    node.binary("ptp")
    node.add(cni)
    added = {call.ifname: call.container_id for call in node.executor.calls if call.verb == "ADD"}
    assert [container == CONTAINER for container in added.values()] == own
    assert len(set(added.values())) == own.count(False) + 1
    node.ok("DEL")
    assert {call.ifname: call.container_id for call in node.executor.calls if call.verb == "DEL"} == added


def test_any_other_network_twice_keeps_the_containers_id(node: Node) -> None:
    node.install("ptp")
    node.add("ptp,ptp")
    assert [call.container_id for call in node.executor.calls] == [CONTAINER, CONTAINER]
    node.ok("DEL")
    node.conf["container_id_per_interface"] = ["ptp"]
    node.add("ptp,ptp")
    assert len({call.container_id for call in node.executor.calls if call.verb == "ADD"}) == 2


# --- a record that survives a power cut ----------------------------------------------------------------------------


def test_the_record_is_synced_while_the_first_delegate_runs_and_before_any_other(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, synced = threading.Event(), threading.Event()
    order: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        kind = "names" if Path(f"/proc/self/fd/{handle}").is_dir() else "record"
        assert running.wait(30), "the first delegate waits for the disk"
        real(handle)
        order.append(kind)
        if kind == "names":
            synced.set()

    def act(call: SeenCall) -> Outcome | None:
        if call.ifname == "eth0":
            running.set()
            assert synced.wait(30)
        order.append(call.ifname)
        return None

    (node.root / "state").mkdir()
    monkeypatch.setattr(os, "fsync", fsync)
    node.executor.act = act
    node.add("calico,weave-net")
    assert order == ["record", "names", "eth0", "eth1"]


@pytest.mark.parametrize("cni", ["calico", "calico,weave-net"])
def test_no_add_succeeds_before_its_record_survives_a_power_cut(
    node: Node, monkeypatch: pytest.MonkeyPatch, cni: str
) -> None:
    node.kube.annotations = {"cni": cni}

    def no_disk(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", no_disk)
    (node.root / "state").mkdir()
    error = node.fails("ADD")
    assert error["code"] == 5 and f"cannot write the record of {CONTAINER}" in error["msg"]
    assert node.executor.made("ADD") == node.executor.made("DEL") == [("calico", "eth0")]
    assert node.left() == []


# --- the merged result ----------------------------------------------------------------------------------------------


def test_a_first_network_on_another_interface_reports_addresses_without_one(node: Node) -> None:
    result = node.add("calico@net1,weave-net@eth0")
    assert addresses(result) == ["10.1.0.2/24", "10.2.0.2/24"]
    assert on(result) == ["", "eth0"], "an address without an interface is the pod's own to the runtime"


def test_addresses_without_interfaces_are_given_theirs(node: Node) -> None:
    old = {"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.2/32"}]}

    def act(call: SeenCall) -> Outcome | None:
        return (
            Outcome(status=0, stdout=json.dumps(old).encode())
            if (call.plugin, call.verb) == ("calico", "ADD")
            else None
        )

    node.executor.act = act
    result = node.add("weave-net,calico")
    assert on(result) == ["eth0", "eth1"]
    assert result["interfaces"][2] == {
        "name": "eth1", "mac": "02:00:00:00:01:03", "mtu": 1400, "sandbox": "/var/run/netns/web"
    }  # fmt: skip


def test_the_kernel_is_asked_once_and_only_for_what_a_result_lacks(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Context, "conversation", lambda _: node.kernel)

    def act(call: SeenCall) -> Outcome | None:
        if call.verb != "ADD":
            return None
        result = node.executor.result(call)
        del result["interfaces"][1]["mac"]
        return Outcome(status=0, stdout=json.dumps(result).encode())

    node.add("calico")
    assert node.kernel.asked == []
    node.add("calico,flannel", container="two")
    assert node.kernel.asked == ["links"], "for the routes"
    node.executor.act = act
    result = node.add("calico,flannel", container="three")
    assert node.kernel.asked == ["links", "links"]
    macs = ["02:00:00:00:01:02", "02:00:00:00:01:03"]
    assert [each.get("mac") for each in result["interfaces"]] == [None, macs[0], None, macs[1]]
    assert [each.get("mtu") for each in result["interfaces"]] == [None, 1400, None, 1400]
    assert [each["mac"] for each in json.loads(node.kube.written["k8s.v1.cni.cncf.io/network-status"])] == macs
    node.add("calico", container="four")
    assert node.kernel.asked == ["links"] * 3


def test_the_merged_result_has_one_default_route(node: Node) -> None:
    def act(call: SeenCall) -> Outcome | None:
        if call.verb != "ADD":
            return None
        result = node.executor.result(call)
        result["routes"] = [{"dst": "0.0.0.0/0"}]
        return Outcome(status=0, stdout=json.dumps(result).encode())

    node.executor.act = act
    assert node.add("calico,weave-net")["routes"] == [{"dst": "0.0.0.0/0"}]


def test_routes_are_arranged_for_several_networks_alone(node: Node) -> None:
    node.add("calico")
    assert node.kernel.log == []
    node.ok("DEL")
    node.add(THREE)
    own = [line for line in node.kernel.log if line.startswith("add rule")]
    assert own == [f"add rule from 10.{n}.0.2 lookup {1999 + n}" for n in (2, 3)]
    node.kernel.log.clear()
    node.ok("DEL")
    assert [line for line in node.kernel.log if "rule" in line] == [line.replace("add", "delete") for line in own]


@pytest.mark.parametrize("method", ["routes", "apply"])
def test_routes_that_cannot_be_arranged_undo_the_add(node: Node, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(FakeKernel, method, refuse)
    node.kube.annotations = {"cni": "calico,flannel"}
    error = node.fails("ADD")
    assert error["code"] == 5 and "the routes in /var/run/netns/web: " in error["msg"]
    assert node.executor.made("DEL")[-1] == ("calico", "eth0") and node.left() == []


# --- the default route: one decision, in the kernel, the result and the status ---------------------------------------


def with_routes(node: Node, **reported: list[dict[str, Any]]) -> None:
    """Make a delegate report these routes, and set them."""

    def act(call: SeenCall) -> Outcome | None:
        if call.verb != "ADD":
            return None
        result = {**node.executor.result(call), "routes": reported.get(call.plugin.replace("-", "_"), [])}
        return Outcome(status=0, stdout=json.dumps(result).encode())

    node.executor.act = act


def gateways(node: Node) -> list[list[str]]:
    status = json.loads(node.kube.written["k8s.v1.cni.cncf.io/network-status"])
    return [one.get("gateway", []) for one in status]


def test_a_default_route_that_a_plugin_sets_and_does_not_report_is_the_pods_all_the_same(node: Node) -> None:
    with_routes(node, flannel=[{"dst": "0.0.0.0/0", "gw": "10.2.0.1"}])
    node.kernel.unreported["eth0"] = [("169.254.1.1/32", ""), ("0.0.0.0/0", "169.254.1.1")]
    result = node.add("calico,flannel")
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]
    assert gateways(node) == [["169.254.1.1"], []]
    assert "route default via 169.254.1.1 dev 2 table 254" in node.kernel.main()


def test_a_default_route_that_a_plugin_reports_and_does_not_set_is_not_the_pods(node: Node) -> None:
    with_routes(node, calico=[{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}])
    attach = node.kernel.attach
    node.kernel.attach = lambda ifname, result: attach(ifname, replace(result, routes=()))  # type: ignore[method-assign]
    result = node.add("calico,flannel")
    assert "routes" not in result and gateways(node) == [[], []]


def test_the_pods_own_choice_is_in_the_result_and_in_the_status(node: Node) -> None:
    with_routes(
        node,
        calico=[{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
        flannel=[{"dst": "0.0.0.0/0", "gw": "10.2.0.1"}, {"dst": "10.99.0.0/16", "gw": "10.2.0.1"}],
    )
    node.kube.define("net", {"cniVersion": "1.0.0", "name": "net", "type": "flannel"})
    wish = json.dumps([{"name": "net", "default-route": ["10.2.0.254"]}])
    result = node.add("calico", **{"k8s.v1.cni.cncf.io/networks": wish})
    assert result["routes"] == [{"dst": "10.99.0.0/16", "gw": "10.2.0.1"}, {"dst": "0.0.0.0/0", "gw": "10.2.0.254"}]
    assert gateways(node) == [[], ["10.2.0.254"]]
    status = json.loads(node.kube.written["k8s.v1.cni.cncf.io/network-status"])
    assert status[1]["default-route"] == ["10.2.0.254"]
    assert "route default via 10.2.0.254 dev 3 table 254" in node.kernel.main()


def test_a_dropped_wish_is_logged_and_an_event(node: Node) -> None:
    """A virtual machine's: KubeVirt asks for a MAC, and definitions made for Multus declare no such capability."""
    node.kube.define("vm", {"cniVersion": "0.3.1", "name": "vm", "type": "flannel"})
    node.kube.annotations = {
        "cni": "calico",
        "k8s.v1.cni.cncf.io/networks": '[{"name": "vm", "mac": "02-00-00-00-00-09"}]',
    }
    assert "mac: no plugin of NetworkAttachmentDefinition blue/vm declares this" in node.fails("ADD")["msg"]
    node.conf["undeclared_capabilities"] = "drop"
    reply = node.call("ADD")
    assert reply.status == 0 and reply.story["dropped"] == ["net1: mac"]
    assert node.kube.events == [
        ("Warning", "CapabilityDropped", "dropped, because no plugin declares these capabilities: net1: mac")
    ]
    assert "runtimeConfig" not in node.executor.calls[-1].stdin


# --- versions -------------------------------------------------------------------------------------------------------


# --- annotations that genie writes -----------------------------------------------------------------------------------


def test_the_status_is_written_to_the_pod(node: Node) -> None:
    node.add("calico,weave-net")
    status = json.loads(node.kube.written["k8s.v1.cni.cncf.io/network-status"])
    assert [(one["name"], one["interface"], one["ips"], one["default"]) for one in status] == [
        ("calico", "eth0", ["10.1.0.2"], True),
        ("weave-net", "eth1", ["10.2.0.2"], False),
    ]
    assert status[1]["mac"] == "02:00:00:00:00:02"
    assert json.loads(node.kube.written["multi-ip-preferences"]) == {
        "multi_entry": 2,
        "ips": {"ip1": {"ip": "10.1.0.2", "interface": "eth0"}, "ip2": {"ip": "10.2.0.2", "interface": "eth1"}},
    }
    assert node.record.annotations == node.kube.written


def test_a_status_that_cannot_be_written_keeps_no_pod_down(node: Node) -> None:
    class Late(FakeKube):
        async def annotate(self, *_: Any) -> str:
            raise CniError(11, "away")

    node.kube = Late(annotations={"cni": "calico"})
    reply = node.call("ADD")
    assert reply.status == 0 and reply.story["annotate"] == "away"
    assert node.kube.events == [], "an API server that is away takes none"


def test_a_status_that_is_refused_is_an_event(node: Node) -> None:
    class Refusing(FakeKube):
        async def annotate(self, *_: Any) -> str:
            raise RefusedError(422, "Too long")

    node.kube = Refusing(annotations={"cni": "calico"})
    reply = node.call("ADD")
    assert reply.status == 0 and reply.story["annotate"] == "Too long"
    assert node.kube.events == [("Warning", "NetworkStatusRefused", "Too long")]


def test_each_attachment_is_an_event_where_genie_conf_asks_for_it(node: Node) -> None:
    node.install("calico", "weave-net")
    node.add("calico,weave-net@data0", container="quiet")
    assert node.kube.events == []
    node.conf["events"] = True
    result = node.add("calico,weave-net@data0")
    first, second = addresses(result)
    assert node.kube.events == [
        ("Normal", "AddedInterface", f"Add eth0 [{first}] from calico"),
        ("Normal", "AddedInterface", f"Add data0 [{second}] from weave-net"),
    ]


def test_a_status_that_was_shortened_is_an_event(node: Node) -> None:
    class Full(FakeKube):
        async def annotate(self, *_: Any) -> str:
            return "Too long"

    node.kube = Full(annotations={"cni": "calico"})
    reply = node.call("ADD")
    assert reply.status == 0 and reply.story["annotate"] == "Too long"
    assert node.kube.events == [("Warning", "NetworkStatusShortened", "Too long")]


def test_the_least_loaded_network_is_written_back(node: Node) -> None:
    node.add("weave-net")
    node.ok("DEL")
    result = node.add("")
    assert node.kube.written["cni"] == "calico", "all are idle and empty: the first configuration"
    assert on(result) == ["eth0"]
    node.kube.annotations = {"cni": ""}
    node.ok("ADD", CNI_CONTAINERID="another")
    assert node.kube.written["cni"] == "flannel", "the fewest attachments, then the order of the configurations"


def test_without_kubernetes(node: Node) -> None:
    node.kube.away = True
    notes = json.dumps({"networks": ""})
    result = node.ok("ADD", CNI_ARGS=f"IgnoreUnknown=1;K8S_ANNOT={notes}")
    assert addresses(result) == ["10.1.0.2/24"] and node.kube.asked == []
    for wrong in ("{", "5", '{"cni": 5}', "[" * 100_000):
        error = node.fails("ADD", CNI_CONTAINERID="other", CNI_ARGS=f"K8S_ANNOT={wrong}")
        assert error["code"] == 4 and error["msg"].startswith("CNI_ARGS: K8S_ANNOT: ")


# --- DEL ------------------------------------------------------------------------------------------------------------


# --- CHECK ----------------------------------------------------------------------------------------------------------


# --- GC -------------------------------------------------------------------------------------------------------------


# --- STATUS ---------------------------------------------------------------------------------------------------------


# --- conformance -----------------------------------------------------------------------------------------------------


# --- malformed input ------------------------------------------------------------------------------------------------


# --- annotations from the runtime --------------------------------------------------------------------


def test_with_annotations_of_the_runtime_the_api_server_is_not_asked_for_the_pod(node: Node) -> None:
    node.kube.annotations = {"cni": "calico"}
    node.conf["runtimeConfig"] = {POD_ANNOTATIONS: {"cni": "weave-net"}}
    assert on(node.ok("ADD")) == ["eth0"]
    assert node.executor.made("ADD") == [("weave-net", "eth0")]
    assert "pod" not in [question[0] for question in node.kube.asked]
    assert (node.record.uid, node.record.pod) == ("u-1", "web")


def test_a_pod_that_asks_for_nothing_comes_up_without_an_api_server(node: Node) -> None:
    node.kube.away = True
    node.conf["runtimeConfig"] = {POD_ANNOTATIONS: {"kubernetes.io/config.source": "file"}}
    node.ok("ADD")
    assert node.kube.asked == [("annotate", "blue", "web")], "only the status is still to be written"


@pytest.mark.parametrize(
    ("handed_over", "args"), [({POD_ANNOTATIONS: None}, ARGS), ({}, ARGS)], ids=["null", "nothing"]
)
def test_without_annotations_from_the_runtime_the_api_server_is_asked(
    node: Node, handed_over: dict[str, Any], args: str
) -> None:
    node.kube.annotations = {"cni": "calico"}
    node.conf["runtimeConfig"] = handed_over
    node.ok("ADD", CNI_ARGS=args)
    assert node.kube.asked[0] == ("pod", "blue", "web", "u-1")


@pytest.mark.parametrize("given", [[], "cni", {"cni": 1}, {"cni": None}, 5])
def test_annotations_of_the_runtime_that_are_none_are_refused(node: Node, given: Any) -> None:
    node.conf["runtimeConfig"] = {POD_ANNOTATIONS: given}
    error = json.loads(node.call("ADD").stdout)
    expected = "genie.conf: runtimeConfig: io.kubernetes.cri.pod-annotations: expected an object of strings"
    assert (error["code"], error["msg"]) == (7, expected)
    assert not node.executor.calls and not list(node.records)


@pytest.mark.parametrize("ifname", sorted(RESERVED_IFNAMES))
def test_an_interface_that_is_the_kernels_own_is_refused_and_can_be_deleted(node: Node, ifname: str) -> None:
    node.kube.annotations = {"cni": "calico,weave-net"}
    error = node.fails("ADD", CNI_IFNAME=ifname)
    assert error["msg"] == f"CNI_IFNAME: {ifname!r} is {RESERVED_IFNAMES[ifname]}"
    node.ok("DEL", CNI_IFNAME=ifname)
    assert node.left() == []
