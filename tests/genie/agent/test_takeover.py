"""Two agents on one node, as in a rolling update with a surge: no call fails when either of them ends in any way."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from genie import locks
from tests.rigs.agent import ShimOutcome, end, until
from tests.rigs.agent_node import Node
from tests.rigs.fake_api import FakeApi


@pytest.fixture
def node(place: Path, binary: Path, api: FakeApi) -> Node:
    return Node(place, binary, api)


class Stream:
    """Continuous calls: each worker adds and deletes one container after the other."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.history: list[ShimOutcome] = []
        self._stop = False

    async def _work(self, worker: int) -> None:
        turn = 0
        while not self._stop:
            turn += 1
            for verb in ("ADD", "DEL"):
                self.history.append(await self.node.call(verb, container=f"c{worker}x{turn}"))

    async def more(self, count: int = 10) -> None:
        """Wait until this number of further calls is done."""
        so_far = len(self.history)
        await until(lambda: len(self.history) >= so_far + count, 30)

    @asynccontextmanager
    async def running(self, workers: int = 4) -> AsyncIterator[Stream]:
        tasks = [asyncio.create_task(self._work(n)) for n in range(workers)]
        yield self
        self._stop = True
        await asyncio.gather(*tasks)

    @property
    def failures(self) -> list[str]:
        return [outcome.stdout.decode() for outcome in self.history if outcome.status]


def test_no_call_fails_through_three_takeovers(node: Node) -> None:
    async def go() -> int:
        old = node.agent()
        process = await old.__aenter__()
        async with Stream(node).running() as stream:
            for _ in range(3):
                await stream.more()
                new = node.agent()
                following = await new.__aenter__()
                await stream.more()
                process.terminate()
                assert await asyncio.wait_for(process.wait(), 20) == 0
                await old.__aexit__(None, None, None)
                old, process = new, following
            await stream.more()
        await old.__aexit__(None, None, None)
        assert not stream.failures
        assert not node.records
        return len(stream.history)

    began = time.monotonic()
    calls = asyncio.run(go())
    print(f"{calls} calls in {time.monotonic() - began:.1f} s through three takeovers, none failed")


@asynccontextmanager
async def pod(node: Node, own: Path) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Both containers of the DaemonSet's pod, ready for its probes; they get the signal to end together."""
    own.mkdir()
    async with node.agent("--listen", "", "--ready-file", str(own / "agent")) as agent:
        keep = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "genie", "install", "--keep", "--conf", str(node.place / "genie.conf"),
            "--after", str(own / "agent"), "--ready-file", str(own / "kept"), "--no-kubeconfig",
            "--bin-dir", str(node.place / "plugins"), "--conf-dir", str(node.place / "net.d"),
            "--state-dir", str(node.place / "state"), stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await until(lambda: locks.is_held(str(own / "kept")), 30)
            yield [agent, keep]
        finally:
            keep.terminate()
            agent.terminate()
            await keep.wait()


def test_no_call_fails_while_one_pod_follows_the_other(node: Node) -> None:
    """A rolling update with all its parts except the kubelet; the called shim is the installed one."""

    async def go() -> int:
        node.binary = node.place / "plugins" / "genie"
        old = pod(node, node.place / "pod-1")
        await old.__aenter__()
        assert (node.place / "net.d" / "00-genie.conflist").exists()
        async with Stream(node).running() as stream:
            for number in (2, 3):
                await stream.more()
                new = pod(node, node.place / f"pod-{number}")
                await new.__aenter__()
                await stream.more()
                await old.__aexit__(None, None, None)
                old = new
            await stream.more()
            async with pod(node, node.place / "pod-4"):  # an update that is rolled back
                await stream.more()
            await stream.more()
        await old.__aexit__(None, None, None)
        assert not stream.failures and not node.records
        return len(stream.history)

    assert asyncio.run(go()) >= 50


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_the_old_agent_takes_the_socket_back_from_a_new_one_that_ends(node: Node, how: str) -> None:
    """A broken new version must not stop the node's network while the old one still runs."""

    async def go() -> None:
        async with node.agent(), Stream(node).running() as stream:
            await stream.more()
            async with node.agent() as new:
                await stream.more()
                getattr(new, how)()
                await new.wait()
                await stream.more()
        assert len(node.lines("taking the socket back: nobody answered on it")) == 1
        late = [text for text in stream.failures if "went away before the call was done" in text]
        # If killed, its running calls fail; on SIGTERM, it finishes them. No other call is lost.
        assert stream.failures == (late if how == "kill" else [])
        assert len(late) <= 4

    asyncio.run(go())


def test_a_socket_that_somebody_deleted_is_there_again(node: Node) -> None:
    async def go() -> None:
        async with node.agent():
            node.socket.unlink()
            assert (await node.call("ADD")).status == 0

    asyncio.run(go())


def test_an_agent_that_has_been_replaced_takes_its_time_to_finish(node: Node) -> None:
    """The grace period is only for agents without a successor."""

    async def go() -> None:
        node.set("slow")  # half a second
        async with node.agent("--listen", "", "--grace", "0.05") as old:
            shim = await node.start("ADD")
            await until(lambda: node.calls)
            async with node.agent():
                old.terminate()
                assert (await end(shim)).status == 0
                assert await asyncio.wait_for(old.wait(), 10) == 0

    asyncio.run(go())


def test_the_ready_file_tells_of_this_agent_alone(node: Node, tmp_path: Path) -> None:
    """Like the DaemonSet's probe: `flock` finds the file held while this agent serves, regardless of other agents."""

    def probe(path: Path) -> bool:
        command = f"flock -nE 9 {path} true; test $? = 9"
        return subprocess.run(["sh", "-c", command], check=False).returncode == 0

    async def go() -> None:
        mine, other = tmp_path / "mine", tmp_path / "other"
        assert not probe(mine)
        async with node.agent("--listen", "", "--ready-file", str(other)):
            assert probe(other) and not probe(mine)
            async with node.agent("--listen", "", "--ready-file", str(mine)) as new:
                assert probe(mine) and locks.is_held(str(mine))
                new.kill()
                await new.wait()
                assert mine.exists() and not probe(mine) and not locks.is_held(str(mine))

    asyncio.run(go())
