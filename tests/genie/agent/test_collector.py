"""The shim of another call deletes orphans, and never an attachment that may be alive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from genie import config
from genie.agent import collector as collecting
from genie.agent.daemon import Agent, Settings
from genie.agent.traffic import Sample
from genie.cni.errors import CniError
from genie.config import Conf
from genie.records import Records
from genie.verbs import collect
from tests.rigs.agent import until
from tests.rigs.agent_node import Node
from tests.rigs.fake_api import FakeApi

FOLDER = "/run/netns-of-test"
LIVING, GONE = f"{FOLDER}/living", f"{FOLDER}/gone"


@pytest.fixture
def namespaces(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The paths of existing namespaces; those outside of the node's folders are unknown."""
    there = {LIVING, GONE}

    def has_namespace(netns: str, *, on_node: bool) -> bool | None:
        return (netns in there) if netns.startswith(f"{FOLDER}/") else None

    monkeypatch.setattr(collect, "has_namespace", has_namespace)
    return there


@pytest.fixture
def node(place: Path, binary: Path, api: FakeApi, namespaces: set[str]) -> Node:
    node = Node(place, binary, api)
    api.pod("forgotten", annotations={"cni": "net"})
    api.pod("q", annotations={"cni": "net"})
    return node


@asynccontextmanager
async def serving(node: Node) -> AsyncIterator[Agent]:
    """An agent in this process; the test starts its checks."""
    path = node.place / "genie.conf"
    path.write_bytes(node.stdin)
    settings = Settings(
        socket=node.socket, node="node-1", conf=path, kubeconfig="", concurrency=4, listen="", grace=5.0,
        ready_file=None, log_level="info",
    )  # fmt: skip
    agent = Agent(settings, config.read(node.stdin))
    await agent.server.start(node.socket)
    try:
        yield agent
    finally:
        await agent.server.stop(5)
        agent.kube.stop()


async def look(agent: Agent) -> None:
    await asyncio.to_thread(agent.collector.look, agent.conf.state_dir)
    await agent.collector.judge()


async def forgotten(node: Node, namespaces: set[str]) -> None:
    """A pod that is gone with its namespace, without a DEL."""
    assert (await node.call("ADD", "forgotten", "c-forgotten", netns=GONE)).status == 0
    namespaces.discard(GONE)


def gone(api: FakeApi) -> None:
    api.remove("/api/v1/pods", "default", "forgotten")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "PATIENCE", 0.0)


def test_an_orphan_is_deleted_beside_the_next_call(node: Node, api: FakeApi, namespaces: set[str]) -> None:
    async def run() -> None:
        async with serving(node) as agent:
            await forgotten(node, namespaces)
            gone(api)
            await look(agent)
            assert (await node.call("ADD", "q", "c-q", netns=LIVING)).status == 0
            assert "DEL c-forgotten eth0" in node.calls
            assert node.records == ["c-q@eth0.json"]
            assert agent.metrics.collected.value("ok") == 1
            await look(agent)
            assert not agent.collector.waiting

    asyncio.run(run())


@pytest.mark.parametrize("why", ["pod", "namespace", "unseen", "patience", "unknown folder", "busy"])
def test_a_container_that_may_live_stays(
    node: Node, api: FakeApi, namespaces: set[str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with serving(node) as agent:
            await forgotten(node, namespaces)
            if why != "pod":
                gone(api)
            if why == "patience":
                monkeypatch.setattr(collecting, "PATIENCE", 300.0)
            if why == "namespace":
                namespaces.add(GONE)
            await look(agent)
            if why == "unseen":  # the agent does not see the node's namespaces, and so not this one
                namespaces.discard(LIVING)
            if why == "busy":
                monkeypatch.setattr(agent.collector, "_is_busy", lambda container: container == "c-forgotten")
            netns = "/elsewhere/living" if why == "unknown folder" else LIVING
            await node.call("ADD", "q", "c-q", netns=netns)
            assert "DEL c-forgotten eth0" not in node.calls
            assert "c-forgotten@eth0.json" in node.records

    asyncio.run(run())


def test_an_orphan_whose_namespace_came_back_meanwhile_stays(node: Node, api: FakeApi, namespaces: set[str]) -> None:
    async def run() -> None:
        async with serving(node) as agent:
            await forgotten(node, namespaces)
            gone(api)
            await look(agent)
            namespaces.add(GONE)
            await node.call("ADD", "q", "c-q", netns=LIVING)
            assert "c-forgotten@eth0.json" in node.records

    asyncio.run(run())


def test_an_orphan_that_cannot_be_deleted_costs_one_call_and_waits(
    node: Node, api: FakeApi, namespaces: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "LIMIT", 0.3)

    async def run() -> None:
        async with serving(node) as agent:
            await forgotten(node, namespaces)
            assert (await node.call("ADD", "q", "c-q", netns=LIVING)).status == 0
            gone(api)
            await look(agent)
            script = (node.place / "bin" / "plug").read_text()
            hangs = '[ "$CNI_COMMAND $CNI_CONTAINERID" = "DEL c-forgotten" ] && sleep 60\n'
            (node.place / "bin" / "plug").write_text(script.replace("\n", f"\n{hangs}", 1))
            for _ in range(3):
                assert (await node.call("CHECK", "q", "c-q", netns=LIVING)).status == 1, "it has no prevResult"
            assert agent.metrics.collected.value("error") == 1
            assert "c-forgotten@eth0.json" in node.records

    asyncio.run(run())


def test_unfinished_records_are_swept(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with serving(node) as agent:
            left = node.place / "records" / "c1@eth0.json.17.4.new"
            left.parent.mkdir()
            left.write_text("{")
            await look(agent)
            assert left.exists(), "a writer may be at it"
            monkeypatch.setattr(collecting, "UNFINISHED", 0.0)
            await look(agent)
            assert not left.exists()

    asyncio.run(run())


def test_a_sweep_leaves_records_alone(tmp_path: Path) -> None:
    (tmp_path / "c1@eth0.json").write_text("{}")
    (tmp_path / "c1@eth0.json.1.2.new").write_text("{}")
    assert Records(str(tmp_path)).sweep(3600.0) == []
    assert Records(str(tmp_path)).sweep(0.0) == [f"{tmp_path}/c1@eth0.json.1.2.new"]
    assert [path.name for path in tmp_path.iterdir()] == ["c1@eth0.json"]


def test_an_agent_looks_by_itself(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """At what nobody asks to delete, and at what somebody changed; a disk that fails once does not end it."""
    monkeypatch.setattr(collecting, "EVERY", 0.0)
    looks: list[str] = []

    def look(state_dir: str) -> None:
        looks.append(state_dir)
        if len(looks) == 1:
            raise CniError(5, "cannot read the records")

    async def run() -> None:
        async with serving(node) as agent:
            monkeypatch.setattr(agent.collector, "look", look)
            monkeypatch.setattr(agent.checker, "look", look)
            tending = asyncio.create_task(agent._tend())
            await until(lambda: len(looks) > 4)
            tending.cancel()

    asyncio.run(run())
    assert set(looks) == {str(node.place / "records")}


@pytest.mark.parametrize(("conf", "most"), [({}, 3), ({"repair": True}, 3), ({"repair": False}, 0)])
def test_genie_conf_says_whether_what_somebody_changed_is_repaired(
    node: Node, conf: dict[str, bool], most: int
) -> None:
    node.conf["agent"] = conf

    async def run() -> None:
        async with serving(node) as agent:
            agent.checker.look(agent.conf.state_dir)
            assert agent.checker.most == most

    asyncio.run(run())


def test_readings_go_on_after_any_error(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As with no more threads for a while; the choice of the least loaded network needs them."""
    monkeypatch.setattr("genie.agent.daemon._SAMPLED", 0.01)
    errors: list[Exception] = [RuntimeError("can't start new thread"), OSError("no"), CniError(5, "damaged")]

    async def go() -> None:
        async with serving(node) as agent:
            real = agent.traffic.sample

            def sample(conf: Conf) -> Sample:
                if errors:
                    raise errors.pop(0)
                return real(conf)

            monkeypatch.setattr(agent.traffic, "sample", sample)
            before = agent.traffic.last
            reading = asyncio.get_running_loop().create_task(agent._sample())
            await until(lambda: agent.traffic.last is not before)
            reading.cancel()

    asyncio.run(go())
    assert not errors and "the traffic of the networks cannot be read" in caplog.text
