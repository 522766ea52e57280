"""The pod's network namespace comes with the call as an open descriptor: the agent may be unable to open its path."""

from __future__ import annotations

import array
import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from genie.agent import protocol
from genie.agent.server import ShimExecutor
from genie.request import Request
from tests.rigs.agent import ShimOutcome, call, environment, serving, until
from tests.rigs.agent_node import Node
from tests.rigs.fake_api import FakeApi

OWN = "/proc/self/ns/net"


class Seen:
    """An agent that records the namespaces of calls."""

    def __init__(self) -> None:
        self.namespaces: list[str] = []

    async def __call__(self, given: protocol.Call, executor: ShimExecutor) -> protocol.Answer:
        entrance = Request(env=given.env, stdin=given.stdin, namespace=executor.namespace).entrance
        self.namespaces.append(os.readlink(entrance) if executor.namespace >= 0 else f"at {entrance}")  # noqa: PTH115
        return protocol.Answer(status=0, stdout=b"")


def files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.mark.parametrize(
    ("netns", "seen"),
    [
        (OWN, os.readlink(OWN)),  # noqa: PTH115
        ("/run/netns/none", "at /run/netns/none"),
        ("/etc/passwd", "at /etc/passwd"),
        ("", "at "),
    ],
)
def test_it_comes_with_the_call_if_it_is_one(binary: Path, place: Path, netns: str, seen: str) -> None:
    work = Seen()

    async def go() -> None:
        async with serving(work, place / "s"):
            before = files()
            for _ in range(3):
                assert (await call(binary, place / "s", CNI_NETNS=netns)).status == 0
            await until(lambda: files() == before)

    asyncio.run(go())
    assert work.namespaces == [seen] * 3


def test_a_fifo_keeps_nobody_waiting(binary: Path, place: Path) -> None:
    os.mkfifo(place / "fifo")
    work = Seen()

    async def go() -> ShimOutcome:
        async with serving(work, place / "s"):
            return await call(binary, place / "s", CNI_NETNS=str(place / "fifo"))

    assert asyncio.run(go()).status == 0
    assert work.namespaces == [f"at {place}/fifo"]


@pytest.fixture
def handles(place: Path) -> Iterator[list[int]]:
    """Descriptors that a client may send: namespaces, a file, a pipe."""
    opened = [*(os.open(path, os.O_RDONLY) for path in (OWN, "/proc/self/ns/uts", place)), *os.pipe()]
    yield opened
    for handle in opened:
        os.close(handle)


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("whole", [True, False])
def test_a_client_that_sends_more_descriptors_leaves_none(
    place: Path, handles: list[int], piece: int, whole: bool
) -> None:
    """With each piece of its call, which may never be complete."""
    work = Seen()
    frame = protocol.encode(protocol.Call(env=environment(place / "s"), stdin=b"{}"))

    def client() -> None:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(place / "s"))
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", handles))]
            sent = frame if whole else frame[:-1]
            for at in range(0, len(sent), piece):
                peer.sendmsg([sent[at : at + piece]], rights)
            if whole:
                peer.settimeout(10)
                assert protocol.Decoder().feed(peer.recv(100)) == [protocol.Answer(status=0, stdout=b"")]

    async def go() -> None:
        async with serving(work, place / "s") as server:
            before = files()
            await asyncio.to_thread(client)
            await until(lambda: server.active == 0 and files() <= before)

    asyncio.run(go())
    assert work.namespaces == ([os.readlink(OWN)] if whole else [])  # noqa: PTH115


def test_an_agent_from_before_understands_the_call(binary: Path, place: Path) -> None:
    """It requests no descriptor, so the kernel passes none."""

    def agent(listener: socket.socket) -> protocol.Frame:
        peer, _ = listener.accept()
        with peer:
            (frame,) = protocol.Decoder().feed(peer.recv(1 << 20))
            peer.sendall(protocol.encode(protocol.Answer(status=0, stdout=b"")))
            return frame

    async def go() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place / "s"))
            listener.listen()
            frame, outcome = await asyncio.gather(
                asyncio.to_thread(agent, listener), call(binary, place / "s", CNI_NETNS=OWN)
            )
        assert isinstance(frame, protocol.Call)
        assert (frame.env["CNI_NETNS"], outcome.status) == (OWN, 0)

    asyncio.run(go())


@pytest.mark.root
def test_a_namespace_named_by_a_process_that_the_agent_cannot_see(binary: Path, place: Path, api: FakeApi) -> None:
    """As in the agent's DaemonSet: in another PID namespace."""
    with subprocess.Popen(["unshare", "-n", "sleep", "60"]) as pod:
        node = Node(place, binary, api)
        api.pod("two", annotations={"cni": "net,net"})

        async def go() -> tuple[ShimOutcome, ShimOutcome]:
            await until(lambda: os.readlink(f"/proc/{pod.pid}/ns/net") != os.readlink(OWN))  # noqa: PTH115
            netns = f"/proc/{pod.pid}/ns/net"
            async with node.agent(prefix=("unshare", "-p", "-f", "--mount-proc", "--kill-child")) as agent:
                outcome = (await node.call("ADD", "two", netns=netns), await node.call("DEL", "two", netns=netns))
                agent.kill()
                await agent.wait()
                return outcome

        added, deleted = asyncio.run(go())
        pod.kill()
    assert added.status == 0, added.stdout
    assert {each["sandbox"] for each in added.json["interfaces"]} == {f"/proc/{pod.pid}/ns/net"}
    assert (deleted.status, node.records) == (0, [])
