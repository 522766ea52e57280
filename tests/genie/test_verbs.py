"""The verbs, over a fake executor and a fake API server: what is called in which order, and what lies on the disk."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from core_rig import ARGS, CONTAINER, FakeExecutor, FakeKube, Node, Said, addresses, failing, on
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from genie.cni.errors import CniError
from genie.cni.execute import Call, Outcome, run_sync
from genie.cni.version import SUPPORTED
from genie.kernel import routes
from genie.kernel.netns import Conversation, Link
from genie.records import Records
from genie.serve import serve

ONCE = "calico,weave-net,flannel"

# --- ADD ------------------------------------------------------------------------------------------------------------


def test_one_network(node: Node) -> None:
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
    result = node.add(ONCE)
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
    for said, ifname in zip(node.executor.calls, ["net1", "eth1"], strict=True):
        cni = {key: value for key, value in said.env.items() if key.startswith("CNI_")}
        assert cni == {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": CONTAINER,
            "CNI_NETNS": "/var/run/netns/web",
            "CNI_IFNAME": ifname,
            "CNI_ARGS": ARGS,
            "CNI_PATH": str(node.root / "bin"),
        }
        assert said.env["PATH"] == "/usr/bin"


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

    def look(said: Said) -> None:
        record = node.record
        assert [attached.label for attached in record.attached] == ["calico", "weave-net"]
        assert (record.complete, record.pod, record.uid, record.args) == (False, "web", "u-1", ARGS)
        seen.append(said.plugin)

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
    node.kube.annotations = {"cni": ONCE}
    node.executor.act = failing("weave-net", code=123, msg="no more addresses")
    error = node.fails("ADD")
    assert error == {"cniVersion": "1.0.0", "code": 123, "msg": error["msg"]}
    assert error["msg"] == "network 'weave-net': plugin 'weave-net': ADD: no more addresses"
    deletes = node.executor.made("DEL")
    assert deletes[-1] == ("calico", "eth0") and {deleted for deleted, _ in deletes} == {"weave-net", "calico"}
    assert node.left() == []
    assert node.kube.told == {}


def test_a_rollback_hands_on_what_there_was(node: Node) -> None:
    node.kube.annotations = {"cni": "calico,weave-net"}
    node.executor.act = failing("weave-net")
    node.fails("ADD")
    (calico,) = [said for said in node.executor.calls if (said.plugin, said.verb) == ("calico", "DEL")]
    assert calico.stdin["prevResult"]["ips"][0]["address"] == "10.1.0.2/24"


def test_a_rollback_is_in_reverse_and_goes_on_past_a_failure(node: Node) -> None:
    node.kube.annotations = {"cni": ONCE}

    def act(said: Said) -> Outcome | None:
        return failing("flannel")(said) or failing("weave-net", "DEL", msg="stuck")(said)

    node.executor.act = act
    error = node.fails("ADD")
    assert error["msg"] == "network 'flannel': plugin 'flannel': ADD: no more addresses"
    assert "also: network 'weave-net': plugin 'weave-net': DEL: stuck" in error["details"]
    order = [plugin for plugin, _ in node.executor.made("DEL")]
    assert order[-3:] == ["flannel", "weave-net", "calico"]
    assert [attached.label for attached in node.record.attached] == ["weave-net"], "the runtime's DEL tries it again"
    node.executor.act = lambda said: None
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
    said = Outcome(status=1, stdout=json.dumps({"code": code, "msg": "no IP ranges specified"}).encode())
    node.executor.act = lambda call: said if call.plugin == "flannel" else None
    node.kube.annotations = {"cni": "calico,flannel"}
    assert "no IP ranges" in node.fails("ADD")["msg"]
    assert [attached.label for record in node.records for attached in record.attached] == ["flannel"] * kept


@pytest.mark.parametrize(
    ("outcome", "complaint"),
    [
        (Outcome(status=1, stderr=b"panic: oh\ngoroutine 1"), "panic: oh"),
        (Outcome(status=-9), "killed by signal 9"),
        (Outcome(status=0, stdout=b"Hello"), "its result is no JSON"),
        (Outcome(status=0), "printed no result"),
        (Outcome(status=0, stdout=b'{"cniVersion": "1.0.0", "ips": [{"address": "x"}]}'), "ips[0]: address: expected"),
        (Outcome(status=-9, error="no answer within 60 seconds; killed"), "no answer within 60 seconds"),
    ],
)
def test_delegates_that_misbehave(node: Node, outcome: Outcome, complaint: str) -> None:
    node.kube.annotations = {"cni": "calico"}
    node.executor.act = lambda said: outcome if said.verb == "ADD" else None
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
        async def run(self, call: Call) -> Outcome:
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
        async def run(self, call: Call) -> Outcome:
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


def test_what_a_pod_asks_for_beside_its_default_network_comes_after_it(node: Node) -> None:
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
            gathered.append([said.ifname for said in self.calls[before:]])
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

    def act(said: Said) -> Outcome | None:
        return Outcome(status=1) if (said.verb, said.ifname) == ("ADD", "eth1") else None

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
    assert [said.container_id for said in node.executor.calls[2:]] == [second.container_id, CONTAINER]


def test_any_other_network_twice_keeps_the_containers_id(node: Node) -> None:
    node.install("ptp")
    node.add("ptp,ptp")
    assert [said.container_id for said in node.executor.calls] == [CONTAINER, CONTAINER]
    node.ok("DEL")
    node.conf["container_id_per_interface"] = ["ptp"]
    node.add("ptp,ptp")
    assert len({said.container_id for said in node.executor.calls if said.verb == "ADD"}) == 2


# --- the merged result ----------------------------------------------------------------------------------------------


def test_a_first_network_on_another_interface_than_the_runtimes(node: Node) -> None:
    result = node.add("calico@net1,weave-net@eth0")
    assert addresses(result) == ["10.1.0.2/24", "10.2.0.2/24"]
    assert on(result) == ["", "eth0"], "an address without an interface is the pod's own to the runtime"


def test_addresses_without_interfaces_are_given_theirs(node: Node) -> None:
    old = {"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.2/32"}]}

    def act(said: Said) -> Outcome | None:
        return (
            Outcome(status=0, stdout=json.dumps(old).encode())
            if (said.plugin, said.verb) == ("calico", "ADD")
            else None
        )

    node.executor.act = act
    result = node.add("weave-net,calico")
    assert on(result) == ["eth0", "eth1"]
    assert result["interfaces"][2] == {"name": "eth1", "sandbox": "/var/run/netns/web"}


MAC = "02:00:00:00:00:99"


def test_the_kernel_is_asked_once_and_only_for_what_a_result_lacks(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def links(self: Conversation) -> dict[str, Link]:
        asked.append("links")
        return {name: Link(ifindex=2, mac=MAC, mtu=1400) for name in ("eth0", "eth1")}

    monkeypatch.setattr(Conversation, "links", links)
    monkeypatch.setattr(Conversation, "__exit__", lambda *_: None)
    monkeypatch.setattr(Conversation, "enter", lambda *_: None)

    def act(said: Said) -> Outcome | None:
        if said.verb != "ADD":
            return None
        result = node.executor.result(said)
        del result["interfaces"][1]["mac"]
        return Outcome(status=0, stdout=json.dumps(result).encode())

    node.add("calico,flannel")
    assert asked == []
    node.ok("DEL")
    node.executor.act = act
    result = node.add("calico,flannel")
    assert asked == ["links"]
    assert [each.get("mtu") for each in result["interfaces"]] == [None, 1400, None, 1400]
    assert [each["mac"] for each in json.loads(node.kube.told["k8s.v1.cni.cncf.io/network-status"])] == [MAC, MAC]
    node.ok("DEL")
    node.add("calico")
    assert asked == ["links", "links"]


def test_the_merged_result_has_one_default_route(node: Node) -> None:
    def act(said: Said) -> Outcome | None:
        if said.verb != "ADD":
            return None
        result = node.executor.result(said)
        result["routes"] = [{"dst": "0.0.0.0/0"}]
        return Outcome(status=0, stdout=json.dumps(result).encode())

    node.executor.act = act
    assert node.add("calico,weave-net")["routes"] == [{"dst": "0.0.0.0/0"}]


def test_routes_are_arranged_for_several_networks_alone(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    nothing = routes.Plan(changes=[], arranged=())
    monkeypatch.setattr(routes, "hold", lambda kernel: done.append("hold") or ())
    monkeypatch.setattr(
        routes, "settle", lambda kernel, attached, links=None: done.append([one.ifname for one in attached]) or nothing
    )
    node.add("calico")
    assert done == []
    node.ok("DEL")
    node.add(ONCE)
    assert done == ["hold", "hold", ["eth0", "eth1", "eth2"]]
    node.ok("DEL")
    assert done[3:] == [[]], "and none are left in a namespace that stays"


def test_routes_that_cannot_be_arranged_undo_the_add(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(routes, "settle", refuse)
    node.kube.annotations = {"cni": "calico,flannel"}
    error = node.fails("ADD")
    assert error["code"] == 5 and "cannot arrange the routes in /var/run/netns/web: " in error["msg"]
    assert node.executor.made("DEL") == [("flannel", "eth1"), ("calico", "eth0")]


# --- versions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delegate", SUPPORTED)
@pytest.mark.parametrize("runtime", SUPPORTED)
def test_every_version_at_the_edge_over_every_version_of_a_delegate(node: Node, runtime: str, delegate: str) -> None:
    node.install("calico", version=delegate)
    node.conf["cniVersion"] = runtime
    result = node.add("calico,flannel")
    assert result["cniVersion"] == runtime
    if runtime < "0.3.0":
        assert result["ip4"]["ip"] == "10.1.0.2/24"
    else:
        assert addresses(result) == ["10.1.0.2/24", "10.2.0.2/24"]
        assert on(result) == ["eth0", "eth1"]
        assert ("version" in result["ips"][0]) == (runtime < "1.0.0")
    assert node.executor.calls[0].stdin["cniVersion"] == delegate
    node.ok("DEL")
    assert node.left() == []


@pytest.mark.parametrize("stdin", [b"", b"{}", b"x", b"[" * 100_000, b'{"cniVersion": ["x"]}'])
def test_version(node: Node, stdin: bytes) -> None:
    reply = node.call("VERSION", stdin, CNI_PATH=None, CNI_CONTAINERID=None)
    assert json.loads(reply.stdout) == {"cniVersion": "1.1.0", "supportedVersions": list(SUPPORTED)}
    assert json.loads(node.call("VERSION").stdout)["cniVersion"] == "1.0.0"


# --- what is written back -------------------------------------------------------------------------------------------


def test_the_status_is_written_to_the_pod(node: Node) -> None:
    node.add("calico,weave-net")
    status = json.loads(node.kube.told["k8s.v1.cni.cncf.io/network-status"])
    assert [(one["name"], one["interface"], one["ips"], one["default"]) for one in status] == [
        ("calico", "eth0", ["10.1.0.2"], True),
        ("weave-net", "eth1", ["10.2.0.2"], False),
    ]
    assert status[1]["mac"] == "02:00:00:00:00:02"
    assert json.loads(node.kube.told["multi-ip-preferences"]) == {
        "multi_entry": 2,
        "ips": {"ip1": {"ip": "10.1.0.2", "interface": "eth0"}, "ip2": {"ip": "10.2.0.2", "interface": "eth1"}},
    }
    assert node.record.annotations == node.kube.told


def test_a_status_that_cannot_be_written_keeps_no_pod_down(node: Node) -> None:
    class Late(FakeKube):
        async def annotate(self, pod: Any, annotations: Any) -> None:
            raise CniError(11, "away")

    node.kube = Late(annotations={"cni": "calico"})
    reply = node.call("ADD")
    assert reply.status == 0 and reply.story["annotate"] == "away"


def test_the_least_loaded_network_is_written_back(node: Node) -> None:
    node.add("weave-net")
    node.ok("DEL")
    result = node.add("")
    assert node.kube.told["cni"] == "calico", "all are idle and empty: the first configuration"
    assert on(result) == ["eth0"]
    node.kube.annotations = {"cni": ""}
    node.ok("ADD", CNI_CONTAINERID="another")
    assert node.kube.told["cni"] == "flannel", "the fewest attachments, then the order of the configurations"


def test_without_kubernetes(node: Node) -> None:
    node.kube.away = True
    notes = json.dumps({"networks": ""})
    result = node.ok("ADD", CNI_ARGS=f"IgnoreUnknown=1;K8S_ANNOT={notes}")
    assert addresses(result) == ["10.1.0.2/24"] and node.kube.asked == []
    for wrong in ("{", "5", '{"cni": 5}', "[" * 100_000):
        error = node.fails("ADD", CNI_CONTAINERID="other", CNI_ARGS=f"K8S_ANNOT={wrong}")
        assert error["code"] == 4 and error["msg"].startswith("CNI_ARGS: K8S_ANNOT: ")


# --- DEL ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("meanwhile", ["gone", "changed", "away", "net.d"])
def test_del_works_from_the_record(node: Node, meanwhile: str) -> None:
    node.add(ONCE)
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
    assert len(node.executor.made("DEL")) == 3


def test_del_hands_each_delegate_its_own_result(node: Node) -> None:
    node.add("calico,weave-net")
    node.ok("DEL")
    deletes = [said for said in node.executor.calls if said.verb == "DEL"]
    assert [said.stdin["prevResult"]["ips"][0]["address"] for said in deletes] == ["10.2.0.2/24", "10.1.0.2/24"]
    assert all(said.env["CNI_ARGS"] == ARGS for said in deletes)


def test_del_goes_on_past_a_failing_delegate_and_reports_it(node: Node) -> None:
    node.add(ONCE)
    node.executor.act = failing("weave-net", "DEL", code=111, msg="weave is away")
    error = node.fails("DEL")
    assert (error["code"], error["msg"]) == (111, "network 'weave-net': plugin 'weave-net': DEL: weave is away")
    assert [plugin for plugin, _ in node.executor.made("DEL")] == ["flannel", "weave-net", "calico"]
    assert [attached.label for attached in node.record.attached] == ["weave-net"]
    node.executor.calls.clear()
    assert node.fails("DEL")["code"] == 111
    node.executor.act = lambda said: None
    node.ok("DEL")
    assert [plugin for plugin, _ in node.executor.made("DEL")] == ["weave-net", "weave-net"]
    assert node.left() == []


def test_del_tells_every_failure(node: Node) -> None:
    node.add("calico,weave-net")
    node.executor.act = lambda said: (
        Outcome(status=1, stdout=b'{"code": 100, "msg": "no"}') if said.verb == "DEL" else None
    )
    error = node.fails("DEL")
    assert "'weave-net'" in error["msg"] and "'calico'" in error["details"]


def test_del_of_what_genie_never_attached(node: Node) -> None:
    node.ok("DEL")
    assert node.executor.made("DEL") == [("calico", "eth0")], "made before genie: by what was the first network then"
    node.executor.act = failing("calico", "DEL")
    node.ok("DEL")
    node.executor.calls.clear()
    node.ok("DEL", CNI_NETNS=None)
    assert node.executor.calls == []


def damage(node: Node, text: str = "{") -> str:
    """Damage the only record; returns its file."""
    (path,) = (node.root / "state").glob("*.json")
    path.write_text(text)
    return path.name


@pytest.mark.parametrize("text", ["", "{", "\0" * 99])
def test_del_of_a_damaged_record_asks_every_network_and_sets_it_aside(node: Node, text: str) -> None:
    node.add("calico,flannel")
    file = damage(node, text)
    node.executor.calls.clear()
    node.executor.act = failing("weave-net", "DEL")
    story = node.call("DEL", CNI_NETNS=None).story
    assert node.executor.made("DEL") == [("calico", "eth0"), ("flannel", "eth0"), ("weave-net", "eth0")]
    assert {said.container_id for said in node.executor.calls} == {CONTAINER}
    assert "is damaged" in story["damaged"] and "no more addresses" in story["ignored"][0]
    assert node.left() == [f"{file}.damaged"]
    node.ok("DEL", CNI_NETNS=None)
    node.add("calico")


def test_del_of_a_damaged_record_asks_for_the_interfaces_that_the_pod_has(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {name: Link(ifindex=1, mac="", mtu=0) for name in ("lo", "eth0", "data0")}
    node.add("calico")
    damage(node)
    monkeypatch.setattr(Conversation, "links", lambda self: there)
    node.ok("DEL")
    assert node.executor.made("DEL")[:2] == [("calico", "eth0"), ("calico", "data0")]


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


# --- CHECK ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def drift(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    arranged = ("rule from 10.2.0.2 lookup 2001",)
    monkeypatch.setattr(
        routes, "settle", lambda kernel, attached, links=None: routes.Plan(changes=[], arranged=arranged)
    )
    monkeypatch.setattr(
        routes, "drift", lambda kernel, attached, arranged: [f"{each}: {arranged[0]}" for each in found]
    )
    return found


def test_check_tells_of_routes_that_somebody_changed(node: Node, drift: list[Any]) -> None:
    node.add("calico,weave-net")
    node.ok("CHECK")
    drift.append("missing")
    error = node.fails("CHECK")
    assert error["code"] == 999 and "somebody changed the routes" in error["msg"]
    assert error["details"] == "missing: rule from 10.2.0.2 lookup 2001"


def test_check_asks_every_delegate_with_its_own_result(node: Node, drift: list[Any]) -> None:
    node.add("calico,weave-net")
    node.kube.away = True
    node.ok("CHECK")
    checks = [said for said in node.executor.calls if said.verb == "CHECK"]
    assert [(said.plugin, said.ifname) for said in checks] == [("calico", "eth0"), ("weave-net", "eth1")]
    assert [said.stdin["prevResult"]["ips"][0]["address"] for said in checks] == ["10.1.0.2/24", "10.2.0.2/24"]


def test_check_does_not_ask_for_a_default_route_that_genie_took_away(node: Node, drift: list[Any]) -> None:
    def act(said: Said) -> Outcome | None:
        if said.verb != "ADD":
            return None
        return Outcome(
            status=0, stdout=json.dumps({**node.executor.result(said), "routes": [{"dst": "0.0.0.0/0"}]}).encode()
        )

    node.executor.act = act
    node.add("calico,weave-net")
    node.ok("CHECK")
    checks = [said for said in node.executor.calls if said.verb == "CHECK"]
    assert [said.stdin["prevResult"].get("routes") for said in checks] == [[{"dst": "0.0.0.0/0"}], None]


def test_check_tells_what_a_delegate_found(node: Node, drift: list[Any]) -> None:
    node.add("calico,weave-net")
    node.executor.act = failing("weave-net", "CHECK", code=200, msg="eth1 has lost its address")
    error = node.fails("CHECK")
    assert (error["code"], error["msg"][-25:]) == (200, "eth1 has lost its address")


def test_check_of_what_is_not_attached(node: Node) -> None:
    node.kept = {"cniVersion": "1.0.0", "ips": []}
    assert node.fails("CHECK")["code"] == 3


@pytest.mark.parametrize(
    ("kept", "code", "complaint"),
    [
        (None, 7, "CHECK: prevResult: expected the result of the ADD, found nothing"),
        ({"cniVersion": "1.0.0", "ips": [{"address": "ten"}]}, 6, "ips[0]: address"),
        ({"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.3/24"}]}, 7, "CHECK: prevResult: expected 10.1.0.2/24"),
    ],
)
def test_check_consults_prev_result(node: Node, kept: Any, code: int, complaint: str) -> None:
    """Specification, section 2, "CHECK": "the plugin must consult the prevResult"."""
    node.add("calico")
    node.kept = kept
    error = node.fails("CHECK")
    assert error["code"] == code and complaint in error["msg"]
    assert node.executor.made("CHECK") == []


def test_check_of_an_add_that_was_cut_off(node: Node) -> None:
    """Not code 3, by which there would be nothing to clean up."""
    node.add("calico")
    (path,) = (node.root / "state").glob("*.json")
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    error = node.fails("CHECK")
    assert error["code"] == 999 and "never came to an end" in error["msg"]


def test_check_takes_what_a_later_plugin_of_the_chain_added(node: Node) -> None:
    node.add("calico")
    node.kept = {**node.kept, "ips": [*node.kept["ips"], {"address": "10.99.0.1/32"}], "dns": {"domain": "x"}}
    node.ok("CHECK")


# --- GC -------------------------------------------------------------------------------------------------------------


def valid(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"cni.dev/valid-attachments": [{"containerID": one, "ifname": two} for one, two in pairs]}


def test_gc_deletes_what_nothing_explains_and_hands_on_what_stays(node: Node) -> None:
    node.install("calico", "weave-net", version="1.1.0")
    node.add("calico,weave-net,weave-net")
    kept = node.record
    node.ok("ADD", CNI_CONTAINERID="gone")
    node.executor.calls.clear()
    node.conf.update(valid((CONTAINER, "eth0")))
    node.ok("GC", CNI_CONTAINERID=None, CNI_NETNS=None, CNI_IFNAME=None)
    assert {said.container_id for said in node.executor.calls if said.verb == "DEL"} > {"gone"}
    assert node.record == kept
    told = {said.plugin: said.stdin["cni.dev/valid-attachments"] for said in node.executor.calls if said.verb == "GC"}
    assert told["calico"] == [{"containerID": CONTAINER, "ifname": "eth0"}]
    second = {"containerID": kept.attached[2].container_id, "ifname": "eth2"}
    assert {"containerID": CONTAINER, "ifname": "eth1"} in told["weave-net"] and second in told["weave-net"]
    assert "flannel" not in told, "GC came with 1.1.0"


def test_gc_with_a_damaged_record_of_a_valid_container(node: Node) -> None:
    """What it has is not known, so no network may delete what it does not know of; what is garbage for sure goes."""
    node.install("calico", version="1.1.0")
    node.add("calico")
    damage(node)
    node.ok("ADD", CNI_CONTAINERID="gone")
    node.executor.calls.clear()
    node.conf.update(valid((CONTAINER, "eth0")))
    error = node.fails("GC", CNI_NETNS=None)
    assert error["code"] == 6 and "is damaged" in error["msg"]
    assert node.executor.made("GC") == []
    assert [(said.container_id, said.verb) for said in node.executor.calls] == [("gone", "DEL")]
    assert node.left() == [f"{CONTAINER}@eth0.json"]


def test_gc_with_a_damaged_record_of_a_container_that_is_gone(node: Node) -> None:
    node.install("calico", version="1.1.0")
    node.add("calico")
    damage(node)
    node.ok("ADD", CNI_CONTAINERID="alive")
    node.executor.calls.clear()
    node.conf.update(valid(("alive", "eth0")))
    node.ok("GC", CNI_NETNS=None)
    assert {said.container_id for said in node.executor.calls if said.verb == "DEL"} == {CONTAINER}
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
    (told,) = [said for said in node.executor.calls if said.verb == "GC"]
    assert told.plugin == "sriov"
    assert {"containerID": CONTAINER, "ifname": "net1"} in told.stdin["cni.dev/valid-attachments"]


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

    def act(said: Said) -> Outcome | None:
        return failing("flannel", "DEL", msg="stuck")(said) or failing("calico", "GC", msg="cannot")(said)

    node.executor.act = act
    error = node.fails("GC")
    assert error["msg"].endswith("DEL: stuck") and "GC: cannot" in error["details"]
    assert ("weave-net", "") in node.executor.made("GC")


# --- STATUS ---------------------------------------------------------------------------------------------------------


def test_status(node: Node) -> None:
    env = {"CNI_CONTAINERID": None, "CNI_NETNS": None, "CNI_IFNAME": None, "CNI_ARGS": None}
    node.install("calico", version="1.1.0")
    node.kube.away = True
    node.ok("STATUS", **env)
    assert node.executor.made("STATUS") == [("calico", "")]
    node.executor.act = failing("calico", "STATUS", code=51, msg="no address left")
    assert node.fails("STATUS", **env)["code"] == 51
    node.executor.act = failing("calico", "STATUS", code=7, msg="no")
    assert node.fails("STATUS", **env)["code"] == 50
    node.executor.act = lambda said: None
    node.conf["default_plugin"] = "flannel"
    node.ok("STATUS", **env)
    (node.root / "bin" / "flannel").unlink()
    error = node.fails("STATUS", **env)
    assert error["code"] == 50 and "no plugin 'flannel'" in error["msg"]
    node.conf.update(default_plugin="calico", state_dir=str(node.net_d / "10-calico.conf" / "x"))
    error = node.fails("STATUS", **env)
    assert error["code"] == 50 and "cannot keep records in" in error["msg"]


# --- conformance -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "below"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")])
def test_a_verb_that_came_with_a_later_version(node: Node, verb: str, below: str) -> None:
    """As containernetworking's plugins answer: the runtime may not call it."""
    node.conf.update(cniVersion=below, **valid())
    error = node.fails(verb)
    assert (error["code"], error["cniVersion"]) == (1, below)
    assert error["msg"].startswith(f"CNI {below} has no {verb}")
    assert node.executor.calls == []


def test_an_add_behind_another_plugin_is_refused(node: Node) -> None:
    """Specification, section 5, code 2: with key and value."""
    node.conf["prevResult"] = {"cniVersion": "1.0.0", "ips": [{"address": "10.5.0.1/24"}]}
    error = node.fails("ADD")
    assert error["code"] == 2 and "prevResult" in error["msg"] and "10.5.0.1/24" in error["msg"]
    assert node.executor.calls == [] and node.left() == []


@pytest.mark.parametrize("override", ["", "1", "true"])
def test_the_hosts_own_namespace_is_no_pods(node: Node, override: str) -> None:
    """Its routes would go; as containernetworking's plugins refuse it, unless the runtime says that it knows."""
    if not override:
        error = node.fails("ADD", CNI_NETNS="/proc/self/ns/net")
        assert error["code"] == 8 and "CNI_NETNS" in error["msg"]
        assert node.executor.calls == [] and node.left() == []
    else:
        node.ok("ADD", CNI_NETNS="/proc/self/ns/net", CNI_NETNS_OVERRIDE=override)
        assert [said.env["CNI_NETNS_OVERRIDE"] for said in node.executor.calls] == [override]


def test_nothing_is_deleted_in_the_hosts_own_namespace(node: Node) -> None:
    """A plugin would take the host's eth0 for the pod's."""
    assert node.fails("DEL", CNI_NETNS="/proc/self/ns/net")["code"] == 8
    node.add("calico")
    assert node.fails("DEL", CNI_NETNS="/proc/self/ns/net")["code"] == 8
    assert node.fails("CHECK", CNI_NETNS="/proc/self/ns/net")["code"] == 8
    assert node.executor.made("DEL") == []
    node.ok("DEL", CNI_NETNS="")


@pytest.mark.parametrize("name", ["", "-net", "a/b", "a b", "n\n"])
def test_a_name_that_no_network_can_have(node: Node, name: str) -> None:
    node.conf["name"] = name
    error = node.fails("ADD")
    assert error["code"] == 7 and "name" in error["msg"]


def test_an_unknown_container_is_one_that_needs_no_del(node: Node) -> None:
    """Specification, section 5, code 3: so it cannot be the answer where something is left."""
    unknown = failing("flannel", code=3, msg="unknown")
    stuck = failing("calico", "DEL", msg="stuck")
    node.executor.act = unknown
    node.kube.annotations = {"cni": "calico,flannel"}
    assert node.fails("ADD")["code"] == 3 and node.left() == []
    node.executor.act = lambda said: unknown(said) or stuck(said)
    error = node.fails("ADD")
    assert error["code"] == 999 and "unknown" in error["msg"] and "stuck" in error["details"]
    assert node.left() == [f"{CONTAINER}@eth0.json"]


def test_gc_with_no_attachment_at_all(node: Node) -> None:
    """libcni writes an empty list of Go as null."""
    node.install("calico", version="1.1.0")
    node.add("calico")
    node.conf.update({"cni.dev/valid-attachments": None, "cni.dev/attachments": None})
    node.ok("GC", CNI_NETNS=None)
    assert node.executor.made("DEL") == [("calico", "eth0")] and node.left() == []


# --- malformed input ------------------------------------------------------------------------------------------------

WRONG_ENV: list[tuple[dict[str, str | None], str]] = [
    ({"CNI_COMMAND": "PLAY"}, "CNI_COMMAND: expected one of ADD, DEL,"),
    ({"CNI_COMMAND": ""}, "CNI_COMMAND: expected one of"),
    ({"CNI_CONTAINERID": None}, "ADD needs CNI_CONTAINERID in the environment"),
    ({"CNI_NETNS": "", "CNI_PATH": None}, "ADD needs CNI_NETNS, CNI_PATH in the environment"),
    ({"CNI_CONTAINERID": "../../etc"}, "CNI_CONTAINERID '../../etc': expected"),
    ({"CNI_IFNAME": "a/b"}, "CNI_IFNAME 'a/b': expected"),
    ({"CNI_IFNAME": "0123456789abcdef"}, "CNI_IFNAME '0123456789abcdef': expected"),
    ({"CNI_IFNAME": "\udcff"}, "CNI_IFNAME '\\udcff': expected"),
]


@pytest.mark.parametrize(("env", "complaint"), WRONG_ENV)
def test_malformed_environments(node: Node, env: dict[str, str | None], complaint: str) -> None:
    error = node.fails("ADD", **env)
    assert error["code"] == 4 and complaint in error["msg"]
    assert node.left() == [] and node.executor.calls == []


WRONG_STDIN: list[tuple[bytes, int]] = [
    (b"", 6),
    (b"{", 6),
    (b"\xff\xfe", 6),
    (b"[" * 100_000, 6),
    (b"[]", 7),
    (b"null", 7),
    (b"{}", 7),
    (b'{"name": 5}', 7),
    (b'{"name": "n", "cniVersion": "7.0.0"}', 1),
    (b'{"name": "n", "default_plugin": 5}', 7),
]


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize(("stdin", "code"), WRONG_STDIN)
def test_malformed_input(node: Node, verb: str, stdin: bytes, code: int) -> None:
    assert node.fails(verb, stdin)["code"] == code
    assert node.left() == [] and node.executor.calls == []


def test_an_error_is_told_in_the_version_that_was_spoken(node: Node) -> None:
    assert node.fails("ADD", b'{"cniVersion": "0.3.1", "name": 5}')["cniVersion"] == "0.3.1"
    assert node.fails("ADD", b'{"cniVersion": "7", "name": "n"}')["cniVersion"] == "1.1.0"


def test_a_bug_is_one_error_object(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genie.select.choose.asks", lambda *_: 1 / 0)
    error = node.fails("ADD")
    assert error["code"] == 999 and error["msg"] == "genie failed: ZeroDivisionError: division by zero"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)
CONF_KEYS = ["name", "cniVersion", "default_plugin", "log_level", "policy", "kubernetes", "serial", "runtimeConfig"]
VERBS = st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "", "add"])
NETWORK = st.dictionaries(st.sampled_from(["name", "type", "cniVersion", "plugins", "ipam", "capabilities"]), JSON)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    verb=VERBS,
    env=st.dictionaries(
        st.sampled_from(["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS", "CNI_PATH"]),
        st.none() | st.text(max_size=20),
    ),
    conf=st.dictionaries(st.sampled_from([*CONF_KEYS, "cni.dev/valid-attachments"]), JSON),
    stdin=st.none() | st.binary(max_size=20),
    network=NETWORK,
    annotations=st.dictionaries(
        st.sampled_from(["cni", "networks", "k8s.v1.cni.cncf.io/networks"]), st.text(max_size=9)
    ),
    outcome=st.none()
    | st.builds(
        Outcome, status=st.integers(-9, 2), stdout=st.binary(max_size=9) | JSON.map(json.dumps).map(str.encode)
    ),
)
@example(verb="ADD", env={}, conf={}, stdin=None, network={}, annotations={"cni": "x,calico"}, outcome=None)
def test_serve_never_raises_and_a_failed_add_leaves_nothing(  # noqa: PLR0917
    node: Node,
    verb: str,
    env: dict[str, str | None],
    conf: dict[str, Any],
    stdin: bytes | None,
    network: dict[str, Any],
    annotations: dict[str, str],
    outcome: Outcome | None,
) -> None:
    node.conf = conf
    node.write("20-x.conf", {"name": "x", "type": "calico", **network})
    node.kube.annotations = annotations
    node.executor.act = lambda said: outcome if said.verb == "ADD" else None
    reply = node.call(verb, stdin, **env)
    answer = json.loads(reply.stdout) if reply.stdout else {}
    if reply.status:
        assert answer["code"] != 999 or "genie failed" not in answer["msg"], answer
        assert answer["code"] > 0 and answer["msg"]
    if reply.status or verb != "ADD":
        assert node.left() == []
    for record in node.records:
        node.records.remove(record.container_id, record.ifname)


def test_the_story_of_a_call(node: Node) -> None:
    node.kube.annotations = {"cni": "calico,flannel"}
    story = node.call("ADD").story
    assert (story["verb"], story["pod"], story["container"]) == ("ADD", "blue/web", CONTAINER)
    assert story["selection"] == [["calico", "eth0"], ["flannel", "eth1"]] and story["why"] == "annotation cni"
    assert [(one["plugin"], one["verb"], one["status"]) for one in story["delegates"]] == [
        ("calico", "ADD", 0),
        ("flannel", "ADD", 0),
    ]
    json.dumps(story)


def test_direct_mode_never_waits(node: Node) -> None:
    assert run_sync(serve(node.request("STATUS"), node.kube, node.executor)).status == 0
