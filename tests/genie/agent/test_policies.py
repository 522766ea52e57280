"""The agent enforces network policies: before a pod's interfaces exist, and after every change."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genie import kube
from genie.agent import policies as agent_policies
from genie.agent.cache import CachedKube, read_object
from genie.agent.metrics import Metrics
from genie.agent.policies import Policies
from genie.agent.reporter import Reporter
from genie.agent.writer import Writer
from genie.cni.execute import SubprocessExecutor
from genie.event import Event
from genie.policy import apply, rules
from genie.records import Record, RecordedAttachment, Records
from tests.rigs.agent import until
from tests.rigs.agent_node import Node
from tests.rigs.core import network
from tests.rigs.fake_api import FakeApi
from tests.rigs.netns import Namespace

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not there (Debian's package nftables)"),
]
MULTI = "/apis/k8s.cni.cncf.io/v1beta1/multi-networkpolicies"
STATUS = "k8s.v1.cni.cncf.io/network-status"
FROM_FRIENDS = [{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}]


def policy(api: FakeApi, name: str = "p", spec: dict[str, Any] | None = None, **notes: str) -> None:
    annotations = {"k8s.v1.cni.cncf.io/policy-for": "net", **notes}
    api.put(MULTI, "default", name, annotations=annotations, spec={"podSelector": {}, **(spec or {})})


def peer(api: FakeApi, name: str, address: str, **labels: str) -> None:
    status = json.dumps([{"name": "net", "interface": "eth0", "ips": [address]}])
    api.pod(name, annotations={STATUS: status}, labels=labels)


class Here:
    """One container of the pod `p`, and the policies of its node."""

    def __init__(self, api: FakeApi, place: Path, namespace: Namespace) -> None:
        self.api, self.place, self.namespace = api, place, namespace
        self.events: list[Event] = []
        self.metrics = Metrics()

    def container(self) -> Record:
        """The record of the container; the agent finds it at its start."""
        attached = RecordedAttachment(label="net", network=network("net"), container_id="c1", ifname="eth0")
        record = Record(
            container_id="c1", ifname="eth0", netns=self.namespace.path, namespace="default", pod="p", uid="uid-p",
            attached=(attached,), complete=True,
        )  # fmt: skip
        Records(str(self.place)).write(record)
        return record

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[Policies]:
        server = kube.ApiServer(url=self.api.url)

        def connect(seconds: float) -> kube.Client:
            return kube.Client(server, seconds, read_object)

        reporter = Reporter(lambda question: None, "node-1", self.metrics.events)
        writer = Writer(lambda pod, notes: "", self.metrics, reporter)
        cached = CachedKube(connect, "node-1", writer, self.metrics, labels=True)
        enforced = Policies(
            connect, node="node-1", kube=cached, metrics=self.metrics, report=self.events.append,
            state_dir=str(self.place),
        )  # fmt: skip
        cached.start()
        enforced.start()
        try:
            await until(lambda: cached.synced() and enforced.synced())
            yield enforced
        finally:
            enforced.stop()
            cached.stop()

    def nft(self, command: str) -> None:
        self.namespace.run(lambda: subprocess.run(["nft", *command.split()], check=True))

    @property
    def rules(self) -> str:
        """The rules in the pod, as people read them; "" if there are none."""

        def listed() -> str:
            done = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
            return done.stdout

        return self.namespace.run(listed)


@pytest.fixture
def here(api: FakeApi, tmp_path: Path, namespace: Callable[[], Namespace]) -> Here:
    api.pod("p", labels={"app": "web"})
    made = Here(api, tmp_path, namespace())
    made.container()
    return made


def test_every_change_reaches_the_pod(here: Here) -> None:
    async def go() -> None:
        async with here.agent():
            assert here.rules == ""
            policy(here.api, spec={"podSelector": {"matchLabels": {"app": "web"}}, "ingress": FROM_FRIENDS})
            await until(lambda: "drop" in here.rules)
            peer(here.api, "friend", "10.1.0.7", role="friend")
            peer(here.api, "stranger", "10.1.0.8")
            await until(lambda: "10.1.0.7" in here.rules)
            assert "10.1.0.8" not in here.rules
            peer(here.api, "stranger", "10.1.0.8", role="friend")
            await until(lambda: "10.1.0.8" in here.rules)
            here.api.pod("p", labels={"app": "other"})
            await until(lambda: here.rules == "")
            here.api.pod("p", labels={"app": "web"})
            await until(lambda: "10.1.0.8" in here.rules)
            here.api.remove(MULTI, "default", "p")
            await until(lambda: here.rules == "")

    asyncio.run(go())
    assert here.metrics.policy_rules.value("failed") == 0


def test_a_full_disk_keeps_no_rules_from_being_set(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genie.agent.policies.MARK", "not there/.policies")

    async def go() -> None:
        async with here.agent():
            policy(here.api, spec={"podSelector": {"matchLabels": {"app": "web"}}, "ingress": FROM_FRIENDS})
            await until(lambda: "drop" in here.rules)

    asyncio.run(go())


def test_labels_of_namespaces_and_a_second_network(here: Here) -> None:
    async def go() -> None:
        async with here.agent():
            everyone = {"namespaceSelector": {"matchLabels": {"team": "one"}}}
            policy(here.api, spec={"ingress": [{"from": [everyone], "ports": [{"port": 80}]}]})
            status = json.dumps(
                [{"name": "other", "ips": ["10.9.0.9"]}, {"name": "net", "ips": ["10.1.0.9", "fd00::9"]}]
            )
            here.api.put("/api/v1/pods", "team-one", "a", annotations={STATUS: status})
            await until(lambda: "drop" in here.rules)
            assert "10.1.0.9" not in here.rules
            here.api.put("/api/v1/namespaces", "", "team-one", labels={"team": "one"})
            await until(lambda: "10.1.0.9" in here.rules)
            assert "fd00::9" in here.rules and "tcp dport 80" in here.rules and "10.9.0.9" not in here.rules

    asyncio.run(go())


def test_named_ports_of_every_pod(here: Here) -> None:
    """Without peers and without a selector of namespaces, the namespaces need not be known. A sidecar's ports count."""
    sidecar = {"name": "s", "restartPolicy": "Always", "ports": [{"name": "web", "containerPort": 81}]}
    once = {"name": "i", "ports": [{"name": "web", "containerPort": 82}]}
    main = {"name": "c", "ports": [{"name": "web", "containerPort": 80}]}

    async def go() -> None:
        async with here.agent():
            policy(here.api, spec={"policyTypes": ["Egress"], "egress": [{"ports": [{"port": "web"}]}]})
            for name, address, spec in (
                ("a", "10.1.0.7", {"containers": [main]}),
                ("b", "10.1.0.8", {"containers": [], "initContainers": [sidecar, once]}),
            ):
                status = json.dumps([{"name": "net", "interface": "eth0", "ips": [address]}])
                here.api.put("/api/v1/pods", "elsewhere", name, annotations={STATUS: status}, spec=spec)
            await until(lambda: "10.1.0.7" in here.rules and "10.1.0.8" in here.rules)
            assert "tcp dport 80" in here.rules and "tcp dport 81" in here.rules and "82" not in here.rules

    asyncio.run(go())


def test_a_restart_changes_nothing(here: Here) -> None:
    peer(here.api, "friend", "10.1.0.7", role="friend")
    policy(here.api, spec={"ingress": FROM_FRIENDS})

    async def go() -> None:
        async with here.agent():
            await until(lambda: "10.1.0.7" in here.rules)
        before = here.rules
        seen = {before}
        async with here.agent():
            while here.metrics.policy_rules.value("ok") != 2:
                seen.add(here.rules)
            seen.add(here.rules)
        assert seen == {before}

    asyncio.run(go())


def test_rules_of_a_policy_that_was_deleted_while_no_agent_ran_are_removed(here: Here) -> None:
    policy(here.api)

    async def go() -> None:
        async with here.agent():
            await until(lambda: "drop" in here.rules)
        here.api.remove(MULTI, "default", "p")
        async with here.agent():
            await until(lambda: here.rules == "")
            await until(lambda: not (here.place / agent_policies.MARK).exists())

    asyncio.run(go())


@pytest.mark.parametrize("moment", ["the container becomes known", "its rules are decided"])
def test_what_goes_on_during_a_del_leaves_no_rules(here: Here, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    asked = SimpleNamespace(container_id="c1", ifname="eth0", netns=here.namespace.path, entrance=here.namespace.path)
    deletion: Any = SimpleNamespace(request=asked, executor=SubprocessExecutor())
    begun, deleted = threading.Event(), threading.Event()
    place, name = (agent_policies, "_guarded") if moment == "the container becomes known" else (rules, "decide")
    original = getattr(place, name)

    def slowly(*args: Any, **kwargs: Any) -> Any:
        begun.set()
        deleted.wait(20.0 if place is agent_policies else 0.3)  # a DEL that waits for the rules cannot end before them
        return original(*args, **kwargs)

    async def go() -> None:
        async with here.agent() as enforced:
            monkeypatch.setattr(place, name, slowly)
            policy(here.api)
            await until(begun.is_set)
            await enforced.release(deletion)
            deleted.set()
            monkeypatch.setattr(place, name, original)
            policy(here.api, "bad", spec={"ingres": []})
            await until(lambda: here.metrics.policies.read()["bad",] == 1)
            policy(here.api, "worse", spec={"ingres": []})
            await until(lambda: here.metrics.policies.read()["bad",] == 2)  # what came before it has ended

    asyncio.run(go())
    assert here.rules == ""


def test_a_pod_that_comes_while_no_policy_is_there_gets_those_of_later(here: Here) -> None:
    record = here.container()
    records = Records(str(here.place))
    deletion: Any = SimpleNamespace(request=SimpleNamespace(container_id="c1", ifname="eth0", netns=""))

    async def go() -> None:
        async with here.agent() as enforced:
            for _ in range(3):
                policy(here.api)
                await until(lambda: "drop" in here.rules)
                here.api.remove(MULTI, "default", "p")
                await until(lambda: here.rules == "" and not enforced.active)
                here.api.remove("/api/v1/pods", "default", "p")
                records.remove(record.container_id, record.ifname)
                await enforced.release(deletion)
                here.api.pod("p", labels={"app": "web"})
                records.write(record)
                await enforced.protect(deletion, kube.Pod(namespace="default", name="p"), record)

    asyncio.run(go())


def test_a_pod_that_no_policy_selects_waits_for_nothing(here: Here) -> None:
    """Also with labels that no pod had before, and after a change of other pods; after one of policies, it does."""
    policy(here.api, spec={"podSelector": {"matchLabels": {"app": "web"}}, "ingress": FROM_FRIENDS})
    call: Any = SimpleNamespace()  # without an executor
    pod = kube.Pod(namespace="default", name="new")

    async def go() -> None:
        async with here.agent() as enforced:
            await until(lambda: "drop" in here.rules)
            here.api.pod("new", labels={"unique": "1"})
            await until(lambda: enforced._kube.pods.get("default", "new"))
            enforced._stopped.set()
            enforced._dirty.set()
            await until(lambda: "policies" not in [thread.name for thread in threading.enumerate()])
            record = replace(here.container(), pod="new", container_id="c2")
            enforced._changed()
            await enforced.protect(call, pod, record)
            enforced._policies_changed()
            with pytest.raises(AttributeError, match="executor"):
                await enforced.protect(call, pod, record)

    asyncio.run(go())


def test_somebody_who_removes_the_rules(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_policies, "LOOK", 0.1)
    policy(here.api)

    async def go() -> None:
        async with here.agent() as enforced:
            for command in ("flush ruleset", "flush chain inet genie from0", "insert rule inet genie from0 accept"):
                await until(lambda: here.rules.count("drop") == 2 and "accept\n\t\t" not in here.rules)
                await until(lambda: enforced._here["c1", "eth0"].seen)
                here.nft(command)
                await until(lambda: here.metrics.policy_rules.value("repaired"))
                here.metrics.policy_rules.add(-1, "repaired")
            await until(lambda: here.rules.count("drop") == 2)
            await until(lambda: enforced._here["c1", "eth0"].seen)
        assert here.metrics.policy_rules.value("repaired") == 0

    asyncio.run(go())


def test_nobody_switches_policies_off_by_making_too_many(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genie.agent.cache.OBJECTS_MAX", 3)
    policy(here.api)

    async def go() -> None:
        async with here.agent() as enforced:
            await until(lambda: "drop" in here.rules)
            for number in range(5):
                policy(here.api, f"p{number}", {"podSelector": {"matchLabels": {"no": "pod"}}})
            await until(lambda: enforced._sources[0].overflowing)
            enforced._update()
            assert enforced.active and "drop" in here.rules

    asyncio.run(go())


def test_peers_without_room_change_no_rules(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_policies, "PEERS_SIZE", 3000)
    peer(here.api, "friend", "10.1.0.7", role="friend")
    policy(here.api, spec={"ingress": FROM_FRIENDS})

    async def go() -> None:
        async with here.agent() as enforced:
            await until(lambda: "10.1.0.7" in here.rules)
            for number in range(10):
                peer(here.api, f"other-{number}", f"10.2.0.{number}", role="friend")
            await until(lambda: enforced._peers is not None and enforced._peers.overflowing)
            enforced._update()
            assert "10.1.0.7" in here.rules

    asyncio.run(go())


def test_a_malformed_policy_is_an_event_of_the_policy(here: Here) -> None:
    async def go() -> None:
        async with here.agent():
            policy(here.api, "good")
            policy(here.api, "bad", {"ingres": []})
            policy(here.api, "bad-closed", {"ingres": [], "podSelector": {}}, **{"genie.io/fail": "closed"})
            await until(lambda: len(here.events) == 2)
            await until(lambda: here.metrics.policies.read() == {("ok",): 1, ("bad",): 2})
            here.api.remove(MULTI, "default", "good")
            await until(lambda: here.rules.count("drop") == 4)
            here.api.remove(MULTI, "default", "bad-closed")
            await until(lambda: here.rules == "")

    asyncio.run(go())
    assert {(each.kind, each.name, each.reason) for each in here.events} == {
        ("MultiNetworkPolicy", "bad", agent_policies.BAD), ("MultiNetworkPolicy", "bad-closed", agent_policies.BAD),
    }  # fmt: skip
    assert all("'ingres': no such field" in each.message for each in here.events)


# --- the whole agent


SHOWS = """#!/bin/sh
[ $CNI_COMMAND = ADD ] || exit 0
nsenter --net=$CNI_NETNS nft list ruleset >{place}/seen-$CNI_CONTAINERID
echo '{{"cniVersion": "1.0.0", "interfaces": [{{"name": "eth0", "sandbox": "'$CNI_NETNS'"}}]}}'
"""


@pytest.fixture
def node(place: Path, binary: Path, api: FakeApi) -> Node:
    made = Node(place, binary, api)
    (place / "bin" / "plug").write_text(SHOWS.format(place=place))
    made.conf = {**made.conf, "agent": {"policy": True}}
    return made


def test_the_rules_are_there_before_the_plugin_starts(node: Node, namespace: Callable[[], Namespace]) -> None:
    pod = namespace()
    policy(node.api, spec={"ingress": FROM_FRIENDS})

    async def go() -> None:
        async with node.agent():
            assert (await node.call("ADD", netns=pod.path)).status == 0
            assert "drop" in (node.place / "seen-c1").read_text()
            assert (await node.call("DEL", netns=pod.path)).status == 0

    asyncio.run(go())
    assert apply.listing(pod.path) == "", "DEL removes them"


@pytest.mark.parametrize("fail", ["open", "closed"])
def test_rules_that_cannot_be_set(node: Node, namespace: Callable[[], Namespace], fail: str) -> None:
    """There are too many of them."""
    pod = namespace()
    for first in range(1, 4501, 450):
        many = [{"ports": [{"port": port}]} for port in range(first, first + 450)]
        policy(node.api, f"p{first}", {"ingress": many}, **{"genie.io/fail": fail})

    async def go() -> None:
        async with node.agent():
            outcome = await node.call("ADD", netns=pod.path)
            if fail == "open":
                assert outcome.status == 0
                await until(lambda: agent_policies.NOT_SET in [each["reason"] for each in node.api.events.values()])
            else:
                assert outcome.json["code"] == 11
                assert "one of them fails closed: the policies for net come to more than" in outcome.json["msg"]
                assert node.records == []

    asyncio.run(go())


def test_without_policies_nothing_is_imported(api: FakeApi, tmp_path: Path) -> None:
    code = """
import asyncio, sys
from genie import kube
from genie.agent import daemon
from genie.agent.cache import CachedKube
from genie.agent.metrics import Metrics
from genie.agent.policies import Policies
from genie.kube import Pod
server = kube.ApiServer(url=sys.argv[1])
connect = lambda seconds: kube.Client(server, seconds)
enforced = Policies(connect, node="n", kube=None, metrics=Metrics(), report=print, state_dir=sys.argv[2])
for watch in enforced._sources:
    watch.start()
while not enforced.synced():
    pass
enforced._update()
asyncio.run(enforced.protect(None, Pod(namespace="a", name="b"), None))
print([name for name in sys.modules if name.startswith("genie.policy")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, api.url, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
