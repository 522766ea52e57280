"""The agent's end of the socket: order of calls, accepted users, and effects of a bad client on others."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genie.agent import protocol, server
from genie.agent.protocol import Answer, Call, Frame, Result, Run, encode
from genie.agent.server import Server, ShimExecutor, answers
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
    """Work that waits until it is released, and records the order of starts."""

    def __init__(self, *, is_open: bool = False) -> None:
        self.begun: list[str] = []
        self.open = asyncio.Event()
        if is_open:
            self.open.set()

    async def __call__(self, call: Call, executor: ShimExecutor) -> Answer:
        self.begun.append(call.env["CNI_CONTAINERID"])
        await self.open.wait()
        return Answer(status=0, stdout=call.env["CNI_CONTAINERID"].encode())


async def one_plugin(call: Call, executor: ShimExecutor) -> Answer:
    """Work that runs one plugin, for the network and the verb in the call's environment."""
    env = {"CNI_COMMAND": call.env["CNI_COMMAND"]}
    outcome = await executor.run(PluginCall(binary="/b", env=env, stdin=b"", timeout=60, network=call.env["NET"]))
    return Answer(status=1 if outcome.error else 0, stdout=outcome.stdout)


async def calling(path: Path, container: str, *, verb: str = "ADD", net: str = "blue") -> Client:
    client = await Client.connect(path)
    client.send(Call(env={"CNI_CONTAINERID": container, "CNI_COMMAND": verb, "NET": net}, stdin=b""))
    return client


async def finish(client: Client) -> None:
    """Report the result of the requested plugin, and receive the answer."""
    run = await client.next()
    assert isinstance(run, Run), run
    client.send(result(run.id))
    assert (await client.next()).status == 0


def result(id_: int) -> Result:
    return Result(id=id_, how=protocol.How.EXITED, status=0, errno=0, micros=0, stdout=b"", stderr=b"")


def test_so_many_plugins_at_once_and_the_rest_in_the_order_in_which_their_calls_came(place: Path) -> None:
    async def go() -> None:
        async with serving(one_plugin, place / "s", concurrency=3) as served:
            clients = []
            for n in range(9):
                clients.append(await calling(place / "s", f"c{n}"))
                await until(partial(lambda n: served.active == n + 1, n))
            await until(lambda: served.waiting == 6)
            clients[5].close()  # gives up while it waits
            await until(lambda: served.waiting == 5)
            for n in (0, 1, 2, 3, 4, 6, 7, 8):
                await finish(clients[n])
            await until(lambda: (served.active, served.slots.taken, served.waiting) == (0, 0, 0))

    asyncio.run(go())


def test_a_network_that_hangs_and_an_api_server_that_does_not_answer_hold_up_nobody_else(place: Path) -> None:
    async def work(call: Call, executor: ShimExecutor) -> Answer:
        if call.env["NET"] == "api":
            await asyncio.sleep(60)
        return await one_plugin(call, executor)

    async def go() -> None:
        async with serving(work, place / "s", concurrency=2) as served:
            stuck = [await calling(place / "s", f"c{n}", net=net) for n in range(40) for net in ("stuck", "api")]
            await until(lambda: served.waiting == 38)
            await finish(await calling(place / "s", "other"))
            await finish(await calling(place / "s", "gone", verb="DEL", net="stuck"))
            for client in stuck:
                client.close()
            await until(lambda: (served.active, served.slots.taken, served.waiting) == (0, 0, 0))

    asyncio.run(go())


def test_a_shim_that_goes_while_one_plugin_runs_and_another_waits(place: Path) -> None:
    async def work(call: Call, executor: ShimExecutor) -> Answer:
        await asyncio.gather(one_plugin(call, executor), one_plugin(call, executor))
        return Answer(status=0, stdout=b"")

    async def go() -> None:
        async with serving(work, place / "s", concurrency=1) as served:
            client = await calling(place / "s", "c")
            await until(lambda: served.waiting == 1)
            client.close()
            await until(lambda: (served.active, served.slots.taken, served.waiting) == (0, 0, 0))
            assert served.metrics.waited.lines()[-1] == "genie_call_wait_seconds_count 1"  # it came to its end

    asyncio.run(go())


def test_more_calls_than_the_limit_are_refused_but_for_a_del(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CALLS_MAX", 3)

    async def go() -> None:
        async with serving(one_plugin, place / "s") as served:
            clients = [await calling(place / "s", f"c{n}") for n in range(3)]
            await until(lambda: served.slots.taken == 3)
            refused = await (await calling(place / "s", "c3")).next()
            assert refused.status == 1 and b'"code": 11' in refused.stdout and b"3 calls already" in refused.stdout
            await finish(await calling(place / "s", "c4", verb="DEL"))
            for client in clients:
                client.close()

    asyncio.run(go())


whole = encode(Call(env={"CNI_CONTAINERID": "c", "CNI_COMMAND": "ADD", "NET": "blue"}, stdin=b"{}"))


@given(
    parts=st.lists(
        st.one_of(
            st.sampled_from([whole, encode(result(1)), encode(Answer(status=0, stdout=b"")), b"", whole[:9]]),
            st.binary(max_size=20),
        ),
        min_size=1,
        max_size=4,
    ),
    apart=st.booleans(),
    half_closed=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_whatever_arrives_on_a_connection_nothing_of_it_is_left(
    parts: list[bytes], apart: bool, half_closed: bool
) -> None:
    """A regression: two calls in one packet cancelled a task before it started, and its slot was lost."""

    async def go(path: Path) -> None:
        async with serving(one_plugin, path, concurrency=1) as served:
            client = await Client.connect(path)
            for part in parts if apart else [b"".join(parts)]:
                client.writer.write(part)
                await asyncio.sleep(0)
            if half_closed:
                client.writer.write_eof()
            await asyncio.sleep(0.001)
            client.close()
            await until(lambda: (served.active, served.slots.taken, served.waiting) == (0, 0, 0))
            await finish(await calling(path, "next"))

    with tempfile.TemporaryDirectory(prefix="genie-") as folder:
        asyncio.run(go(Path(folder) / "s"))


def test_the_health_check_is_a_real_call(place: Path) -> None:
    async def version(call: Call, _: ShimExecutor) -> Answer:
        return Answer(status=0, stdout=b'{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}')

    async def go() -> None:
        assert not await answers(place / "s")
        async with serving(version, place / "s"):
            assert await answers(place / "s")
        async with serving(Gate(is_open=True), place / "s"):  # fails because the container's ID is missing
            assert not await answers(place / "s")

    asyncio.run(go())


def test_the_health_check_fails_where_nothing_is_answered(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEALTH_TIMEOUT", 0.2)

    async def wedged(_: Call, __: ShimExecutor) -> Answer:
        await asyncio.sleep(60)
        return Answer(status=0, stdout=b"")

    async def go() -> None:
        async with serving(wedged, place / "s"):
            assert not await answers(place / "s")

    asyncio.run(go())


def test_a_client_that_says_nothing_is_put_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CALL_TIMEOUT", 0.1)

    async def go() -> None:
        async with serving(Gate(is_open=True), place / "s", concurrency=1) as served:
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
        async with serving(Gate(is_open=True), place / "s", concurrency=1):
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
            client.send(result(77))
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


def test_a_lost_call_cancels_its_waits(place: Path) -> None:
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
                client.send(result(run.id))
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
        gate = Gate(is_open=True)
        first, second = Server(gate), Server(gate)
        await first.start(place / "s")
        await second.start(place / "s")
        assert await first.stop(1)
        assert (await (await Client.connect(place / "s", "c")).next()).stdout == b"c"
        assert await second.stop(1)
        assert not list(place.iterdir())

    asyncio.run(go())
