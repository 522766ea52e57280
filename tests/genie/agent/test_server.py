"""The agent's end of the socket: whose turn it is, who is let in, and what a bad client costs the others."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from genie.agent import protocol, server
from genie.agent.protocol import Answer, Call, Frame, Result, Run, encode
from genie.agent.server import Server, ShimExecutor
from genie.cni.execute import Outcome, PluginCall
from tests.rigs.agent import serving, until


class Client:
    """A shim in Python."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.decoder = protocol.Decoder()

    @classmethod
    async def connect(cls, path: Path, container: str = "") -> Client:
        client = cls(*await asyncio.open_unix_connection(path))
        if container:
            client.send(Call(env={"CNI_CONTAINERID": container}, stdin=b""))
        return client

    def send(self, frame: Frame) -> None:
        self.writer.write(encode(frame))

    async def next(self) -> Any:
        """The next frame, or None at the end."""
        while data := await asyncio.wait_for(self.reader.read(65536), 10):
            for frame in self.decoder.feed(data):
                return frame
        return None

    def close(self) -> None:
        self.writer.transport.abort()


class Gate:
    """Work that waits until it is let go, and tells in which order it was begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.open = asyncio.Event()

    async def __call__(self, call: Call, executor: ShimExecutor) -> Answer:
        self.begun.append(call.env["CNI_CONTAINERID"])
        await self.open.wait()
        return Answer(status=0, stdout=call.env["CNI_CONTAINERID"].encode())


def test_so_many_at_once_and_the_rest_in_the_order_in_which_they_came(place: Path) -> None:
    async def go() -> None:
        gate = Gate()
        async with serving(gate, place / "s", concurrency=3) as served:
            clients = []
            for n in range(9):
                clients.append(await Client.connect(place / "s", f"c{n}"))
                await until(partial(lambda n: served.active + served.waiting == n + 1, n))
            await until(lambda: len(gate.begun) == 3)
            assert (served.active, served.waiting) == (3, 6)
            clients[5].close()  # gives up while it waits: its turn is over at once
            gate.open.set()
            answers = [await client.next() for n, client in enumerate(clients) if n != 5]
        assert [a.stdout.decode() for a in answers] == gate.begun == [f"c{n}" for n in range(9) if n != 5]

    asyncio.run(go())


def test_a_thousand_that_gave_up_while_they_waited(place: Path) -> None:
    async def go() -> None:
        gate = Gate()
        async with serving(gate, place / "s", concurrency=1) as served:
            first = await Client.connect(place / "s", "first")
            await until(lambda: gate.begun)
            for _ in range(11):
                clients = [await Client.connect(place / "s", "c") for _ in range(100)]
                await until(lambda: not served.waiting % 100)
                for client in clients:
                    client.close()
            assert served.waiting == 1100
            gate.open.set()
            assert (await first.next()).stdout == b"first"
            await until(lambda: not served.waiting)
        assert gate.begun == ["first"]

    asyncio.run(go())


def test_a_client_that_says_nothing_is_put_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CALL_TIMEOUT", 0.1)

    async def go() -> None:
        gate = Gate()
        gate.open.set()
        async with serving(gate, place / "s", concurrency=1) as served:
            silent = await Client.connect(place / "s")
            patient = await Client.connect(place / "s", "c")
            assert (await patient.next()).stdout == b"c"
            assert await silent.next() is None
            assert served.metrics.shims_dropped.value("it says nothing") == 1

    asyncio.run(go())


@pytest.mark.parametrize(
    "bad",
    [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, encode(Answer(status=0, stdout=b""))],
    ids=["http", "noise", "an answer"],
)
def test_a_client_that_sends_nonsense_is_put_out_and_the_others_are_served(place: Path, bad: bytes) -> None:
    async def go() -> None:
        gate = Gate()
        gate.open.set()
        async with serving(gate, place / "s", concurrency=1):
            client = await Client.connect(place / "s")
            client.writer.write(bad)
            assert await client.next() is None
            assert (await (await Client.connect(place / "s", "c")).next()).stdout == b"c"

    asyncio.run(go())


def test_a_result_of_nothing_that_runs_ends_the_call(place: Path) -> None:
    async def work(_: Call, executor: ShimExecutor) -> Answer:
        outcome = await executor.run(PluginCall(binary="/b", env={}, stdin=b"", timeout=5))
        seen.append(outcome)
        return Answer(status=0, stdout=b"")

    seen: list[Outcome] = []

    async def go() -> None:
        async with serving(work, place / "s"):
            client = await Client.connect(place / "s", "c")
            assert isinstance(await client.next(), Run)
            client.send(Result(id=77, how=protocol.How.EXITED, status=0, errno=0, micros=0, stdout=b"", stderr=b""))
            assert await client.next() is None
            await until(lambda: seen)
            assert "went away" in seen[0].error

    asyncio.run(go())


def test_a_shim_that_never_reports_is_given_up(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_LATE", 0.1)
    seen: list[Outcome] = []

    async def work(_: Call, executor: ShimExecutor) -> Answer:
        seen.append(await executor.run(PluginCall(binary="/b", env={}, stdin=b"", timeout=0.1)))
        return Answer(status=0, stdout=b"")

    async def go() -> None:
        async with serving(work, place / "s") as served:
            client = await Client.connect(place / "s", "c")
            assert isinstance(await client.next(), Run)
            assert await client.next() is None
            await until(lambda: not served.active)
            assert seen and seen[0].error

    asyncio.run(go())


def test_what_a_lost_call_waits_for_elsewhere_is_cancelled(place: Path) -> None:
    ended: list[str] = []

    async def work(_: Call, __: ShimExecutor) -> Answer:
        try:
            await asyncio.sleep(60)  # an API server that does not answer
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return Answer(status=0, stdout=b"")

    async def go() -> None:
        async with serving(work, place / "s") as served:
            client = await Client.connect(place / "s", "c")
            await until(lambda: served.active)
            await asyncio.sleep(0.05)
            client.close()
            await until(lambda: ended and not served.active)

    asyncio.run(go())


def test_calls_for_one_container_do_not_overlap(place: Path) -> None:
    log: list[str] = []

    async def work(call: Call, executor: ShimExecutor) -> Answer:
        log.append(f"begin {call.env['N']}")
        await executor.run(PluginCall(binary="/b", env={}, stdin=b"", timeout=5))
        log.append(f"end {call.env['N']}")
        return Answer(status=0, stdout=b"")

    async def go() -> None:
        async with serving(work, place / "s") as served:
            clients = []
            for n in range(3):
                client = await Client.connect(place / "s")
                client.send(Call(env={"CNI_CONTAINERID": "same", "N": str(n)}, stdin=b""))
                await until(partial(lambda n: served.active == n + 1, n))
                clients.append(client)
            await clients[0].next()
            clients[0].close()
            for client in clients[1:]:
                run = await client.next()
                client.send(
                    Result(id=run.id, how=protocol.How.EXITED, status=0, errno=0, micros=0, stdout=b"", stderr=b"")
                )
                assert isinstance(await client.next(), Answer)

    asyncio.run(go())
    assert log == [f"{what} {n}" for n in range(3) for what in ("begin", "end")]


def test_a_shim_of_another_protocol_is_told_so(place: Path) -> None:
    async def go() -> None:
        async with serving(Gate(), place / "s"):
            client = await Client.connect(place / "s")
            client.send(Call(env={}, stdin=b"", version=99))
            refusal = await client.next()
            assert refusal.status == 1 and b'"code": 11' in refusal.stdout and b"99" in refusal.stdout

    asyncio.run(go())


def test_only_root_gets_in(place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    place.chmod(0o755)
    knock = f"import os, socket; os.setuid(65534); socket.socket(socket.AF_UNIX).connect({str(place / 's')!r})"

    async def go() -> subprocess.CompletedProcess[str]:
        async with serving(Gate(), place / "s"):
            assert stat.S_IMODE((place / "s").stat().st_mode) == 0o600
            command = [sys.executable, "-c", knock]
            return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)

    assert "PermissionError" in asyncio.run(go()).stderr


def test_the_next_agent_takes_the_place_in_one_step(place: Path) -> None:
    async def go() -> None:
        gate = Gate()
        gate.open.set()
        first, second = Server(gate), Server(gate)
        await first.start(place / "s")
        await second.start(place / "s")
        assert await first.stop(1)
        assert (await (await Client.connect(place / "s", "c")).next()).stdout == b"c"
        assert await second.stop(1)
        assert not list(place.iterdir())

    asyncio.run(go())
