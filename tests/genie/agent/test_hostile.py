"""The shim with agents that are broken, hostile, or gone half-way: one error in time, and no process left."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from genie.agent import protocol
from genie.agent.protocol import Answer, Run, encode
from tests.rigs.agent import ShimOutcome, call, gone, hanging, running, script, serving, until

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
BIG = protocol.FRAME_MAX


def against(binary: Path, place: Path, *peers: Peer, rounds: int = 1) -> list[ShimOutcome]:
    """Calls to an agent with these connections, one after the other; the last one repeats."""
    count = 0

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        try:
            await peers[min(count, len(peers)) - 1](reader, writer)
        finally:
            writer.close()

    async def go() -> list[ShimOutcome]:
        server = await asyncio.start_unix_server(accept, place / "s")
        async with server:
            return [await call(binary, place / "s") for _ in range(rounds)]

    return asyncio.run(go())


def saying(data: bytes, *, then_wait: bool = False) -> Peer:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(data)
        await writer.drain()
        if then_wait:
            await reader.read()

    return peer


def blob(data: bytes, length: int | None = None) -> bytes:
    return (len(data) if length is None else length).to_bytes(4, "big") + data


def run_frame(*blobs: bytes) -> bytes:
    return blob(b"R" + bytes(8) + b"".join(blobs))


NONSENSE = {
    "no frame at all": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an empty frame": bytes(4),
    "an unknown kind": blob(b"X"),
    "a frame that is too long": (BIG + 1).to_bytes(4, "big") + b"R",
    "the longest length": b"\xff" * 4 + b"R",
    "a RUN of nothing": blob(b"R"),
    "a RUN without blobs": blob(b"R" + bytes(8)),
    "a blob longer than its frame": run_frame(blob(b"/bin/true\0", 5000)),
    "the longest blob": run_frame(blob(b"/bin/true\0", 0xFFFFFFFF)),
    "a path without a NUL": run_frame(blob(b"/bin/true"), blob(b""), blob(b"")),
    "no path": run_frame(blob(b""), blob(b""), blob(b"")),
    "an environment without a NUL": run_frame(blob(b"/bin/true\0"), blob(b"A=1"), blob(b"")),
    "a missing blob": run_frame(blob(b"/bin/true\0"), blob(b"")),
    "one blob too many": run_frame(*[blob(b"/bin/true\0"), blob(b""), blob(b""), blob(b"")]),
    "an ANSWER cut short": blob(b"A\0\0"),
    "an ANSWER with an absurd status": encode(Answer(status=256, stdout=b"{}")),
    "too many RUNs": b"".join(encode(Run(id=n, binary="/bin/cat", env={}, stdin=b"")) for n in range(2000)),
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_one_error(either: Path, place: Path, nonsense: bytes) -> None:
    # some /bin/cat may have been done, and reported, before the seventeenth: then nothing follows but our end
    (outcome,) = against(either, place, saying(nonsense))
    assert (outcome.status, outcome.json["code"], outcome.stderr) == (1, 11, b"")


@pytest.mark.parametrize("length", [1, 3, 4, 5, 14])
def test_an_agent_that_goes_in_the_middle_of_a_frame(either: Path, place: Path, length: int) -> None:
    (outcome,) = against(either, place, saying(encode(Answer(status=0, stdout=b"{}"))[:length]))
    assert outcome.status == 1 and "went away" in outcome.json["msg"] and not outcome.stderr


def test_the_shim_survives_random_bytes(sanitized: Path, place: Path) -> None:
    """Some are invalid frames; the shim always ends with an answer or an error."""
    dice = random.Random(4)
    whole = encode(Run(id=1, binary="/bin/true", env={"A": "1"}, stdin=b"x" * 50)) + encode(
        Answer(status=0, stdout=b"{}")
    )

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        data = bytearray(whole)
        for _ in range(dice.choice([1, 1, 2, 5])):
            data[dice.randrange(len(data))] = dice.randrange(256)
        writer.write(bytes(data))

    for outcome in against(sanitized, place, peer, rounds=60):
        assert outcome.status in (0, 1) or outcome.stdout == b"{}", outcome
        assert b"Sanitizer" not in outcome.stderr and b"runtime error" not in outcome.stderr, outcome
        assert outcome.stdout


def test_an_agent_that_goes_before_it_begins_is_looked_for_again(either: Path, place: Path) -> None:
    """A rolling update: the old agent closes calls that it had not started; the new one is ready a moment later."""

    async def close(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(10)

    (outcome,) = against(either, place, close, close, saying(encode(Answer(status=0, stdout=b"{}"))))
    assert (outcome.status, outcome.stdout) == (0, b"{}")
    assert against(either, place, close)[0].json["code"] == 11


def test_an_agent_that_goes_half_way_takes_the_delegates_with_it(either: Path, place: Path) -> None:
    plugin = hanging(place)

    async def peer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode(Run(id=1, binary=plugin, env=dict(os.environ), stdin=b"")))
        await until((place / "self").exists)

    (outcome,) = against(either, place, peer)
    assert outcome.status == 1 and outcome.json["code"] == 11 and "went away" in outcome.json["msg"]
    gone(place)


def test_an_agent_that_reads_nothing_is_given_no_more_than_a_few_megabytes(either: Path, place: Path) -> None:
    """It may request delegates without end: the shim's memory stays bounded."""
    chatty = script(place, "p", "head -c 1000000 /dev/zero")
    peak = 0

    async def peer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal peak
        pid = _peer_pid(writer)
        for n in range(60):
            writer.write(encode(Run(id=n, binary=chatty, env={"PATH": os.environ["PATH"]}, stdin=b"")))
            await asyncio.sleep(0.02)
            peak = max(peak, _resident(pid))
        writer.transport.abort()  # a close would wait for the shim to read, which waits for this to

    (outcome,) = against(either, place, peer)
    assert outcome.json["code"] == 11
    if "release" in os.environ.get("PYTEST_CURRENT_TEST", ""):
        assert peak < 40 << 20, f"{peak >> 20} MiB"


def test_a_server_answers_the_sanitized_shim(sanitized: Path, place: Path) -> None:
    plugin = script(place, "p", "cat; echo err >&2")

    async def go() -> ShimOutcome:
        async with serving(running(plugin, stdin=b"q" * 100_000), place / "s"):
            return await call(sanitized, place / "s")

    outcome = asyncio.run(go())
    assert len(outcome.json["stdout"]) == 100_000 and outcome.json["stderr"] == "err\n" and not outcome.stderr


def _peer_pid(writer: asyncio.StreamWriter) -> int:
    import socket
    import struct

    peer = writer.get_extra_info("socket")
    return int(struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
