"""Both ends of the socket with input that no agent and no shim would send.

The shim's frame parser has its memory and arithmetic watched: against the agent's own decoder, and by libFuzzer.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.agent import protocol, shim
from genie.agent.protocol import Answer, Call, Frame, ProtocolError, Result, Run, encode
from genie.agent.server import DELEGATES_MAX, ShimExecutor
from genie.cni.execute import PluginCall
from tests.rigs.agent import serving, until

TARGET = Path(__file__).with_name("fuzz_shim.c")
RUNS = 30_000
"""How many inputs libFuzzer makes: some seconds."""
SANITIZERS = "address,undefined"

texts = st.text(st.characters(min_codepoint=1, max_codepoint=0x2FF), max_size=20)
names = st.text("ABC_", min_size=1, max_size=5)
numbers = st.integers(0, 2**32 - 1)
frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(
        Run,
        id=numbers,
        binary=texts,
        env=st.dictionaries(names, texts, max_size=4),
        stdin=st.binary(max_size=60),
        timeout=numbers,
    ),
    st.builds(Answer, status=st.integers(0, 300), stdout=st.binary(max_size=60)),
    st.builds(Call, env=st.dictionaries(names, texts, max_size=2), stdin=st.binary(max_size=10)),
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Input of an agent: complete frames, some with changed, removed or inserted bytes."""
    stream = bytearray(b"".join(encode(frame) for frame in draw(st.lists(frames, max_size=20))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(stream)))
        stream[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(stream)


def build(compiler: str, to: Path, *flags: str) -> None:
    """Compile the target; skips if the compiler lacks its libraries."""
    found = shutil.which(compiler)
    if not found:
        pytest.skip(f"the shim's parser is not fuzzed: there is no {compiler}")
    command = [found, "-std=gnu11", "-O1", "-g", "-w", "-fno-sanitize-recover=all", *flags, f'-DSHIM="{shim.SOURCE}"']
    done = subprocess.run([*command, "-o", to, TARGET], capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr:
        pytest.skip(f"the shim's parser is not fuzzed: {compiler} has no libraries for it: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr


class Parser:
    """The shim's parser as a process: a stream as input, its results as output."""

    def __init__(self, binary: Path) -> None:
        self.process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def parse(self, stream: bytes, piece: int) -> tuple[str, int, list[int]]:
        """Whether it waits (.), rejects the input (!) or ends (A) with a status, and the delegates that it runs."""
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.process.stdin.write(struct.pack(">IB", 1 + len(stream), piece) + stream)
        self.process.stdin.flush()
        words = self.process.stdout.readline().split()
        assert words, self.process.stderr.read().decode()
        return words[0].decode(), int(words[1]), [int(word) for word in words[2:]]


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parser]:
    binary = tmp_path_factory.mktemp("parser") / "parser"
    build("gcc", binary, "-DDRIVER", f"-fsanitize={SANITIZERS}")
    made = Parser(binary)
    yield made
    _, errors = made.process.communicate()
    assert (made.process.returncode, errors) == (0, b"")


def expected(stream: bytes) -> tuple[str, int, list[int]]:
    """The expected result by the agent's decoder, one frame at a time: an invalid frame does not undo earlier ones."""
    decoder, at = protocol.Decoder(), 0
    begun: list[int] = []
    while at < len(stream):
        length = 4 + int.from_bytes(stream[at : at + 4]) if len(stream) - at >= 4 else 0
        try:
            found = decoder.feed(stream[at : at + length] if length else stream[at:])
        except ProtocolError:
            return "!", 0, begun
        if not found:
            break
        at += length
        match found[0]:
            case Run(id=number) if len(begun) < DELEGATES_MAX:
                begun.append(number)
            case Answer(status=status) if status <= 255:
                return "A", status, begun
            case _:
                return "!", 0, begun
    return ".", 0, begun


@given(stream=streams(), piece=st.integers(0, 255))
def test_it_understands_what_the_agents_decoder_does_however_it_is_cut(
    parser: Parser, stream: bytes, piece: int
) -> None:
    assert parser.parse(stream, piece) == expected(stream)


@given(stream=st.binary(max_size=200), piece=st.integers(0, 255))
def test_it_survives_any_bytes(parser: Parser, stream: bytes, piece: int) -> None:
    assert parser.parse(stream, piece) == expected(stream)


def test_libfuzzer_finds_nothing(tmp_path: Path) -> None:
    build("clang", tmp_path / "fuzz", f"-fsanitize=fuzzer,{SANITIZERS}")
    seeds: list[Frame] = [
        Run(id=1, binary="/bin/true", env={"A": "1", "B": ""}, stdin=b"{}", timeout=5),
        Run(id=2, binary="", env={}, stdin=b""),
        Answer(status=0, stdout=b"{}"),
        Result(id=1, how=protocol.How.EXITED, status=0, errno=0, micros=1, stdout=b"", stderr=b""),
    ]
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        for piece in (0, 3):
            (corpus / f"{number}-{piece}").write_bytes(bytes([piece]) + encode(seed) * 2)
    command = ["./fuzz", f"-runs={RUNS}", "-seed=1", "-max_len=1024", "corpus"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


frames_said = st.one_of(
    frames,
    st.builds(
        Result,
        id=st.integers(0, 3),
        how=st.sampled_from(protocol.How),
        status=st.integers(-64, 255),
        errno=st.integers(0, 200),
        micros=numbers,
        stdout=st.binary(max_size=40),
        stderr=st.binary(max_size=40),
    ),
)


@st.composite
def calls(draw: st.DrawFn) -> bytes:
    """Input of a client: mostly a call and more; some with changed, removed or inserted bytes."""
    call = Call(env={"CNI_COMMAND": "ADD", "CNI_CONTAINERID": draw(names)}, stdin=b"{}")
    more = b"".join(encode(frame) for frame in draw(st.lists(frames_said, max_size=4)))
    stream = bytearray((encode(call) if draw(st.integers(0, 4)) else b"") + more)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(stream)))
        stream[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(stream)


async def work(_: Call, executor: ShimExecutor) -> Answer:
    """A call that runs two plugins at once, for every report about them."""
    plugin = PluginCall(binary="/plugin", env={"CNI_COMMAND": "ADD"}, stdin=b"", timeout=60)
    await executor.gather(executor.run(plugin), executor.run(plugin))
    return Answer(status=0, stdout=b"{}")


async def talk(path: Path, stream: bytes, cuts: list[int], half: bool) -> None:
    """Send it in pieces; then end the input or the connection."""
    reader, writer = await asyncio.open_unix_connection(path)
    for start, stop in pairwise((0, *cuts, len(stream))):
        writer.write(stream[start:stop])
        with suppress(ConnectionError):
            await writer.drain()
        await asyncio.sleep(0)
    if half:
        with suppress(OSError):
            writer.write_eof()
        with suppress(ConnectionError):
            await reader.read()
    writer.close()


@given(data=st.data(), clients=st.lists(calls(), min_size=1, max_size=4), half=st.booleans())
def test_the_agents_socket_survives_any_client(data: st.DataObject, clients: list[bytes], half: bool) -> None:
    """Their slots, containers and descriptors are free again."""
    places = [data.draw(st.lists(st.integers(0, len(stream)), max_size=5).map(sorted)) for stream in clients]

    async def go(path: Path) -> None:
        async with serving(work, path, concurrency=2) as server:
            before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
            talks = zip(clients, places, strict=True)
            await asyncio.wait_for(asyncio.gather(*(talk(path, stream, cuts, half) for stream, cuts in talks)), 20)
            await until(lambda: server.active == server.waiting == 0)
            await until(lambda: len(os.listdir("/proc/self/fd")) == before)  # noqa: PTH208
            ended = Call(env={"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "A"}, stdin=b"{}")
            results = [
                Result(id=number, how=protocol.How.EXITED, status=0, errno=0, micros=1, stdout=b"", stderr=b"")
                for number in (1, 2)
            ]
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(encode(ended))
            decoder, heard = protocol.Decoder(), 0
            while heard < len(results):  # both plugins have a slot
                heard += len(decoder.feed(await asyncio.wait_for(reader.read(1 << 16), 20)))
            writer.write(b"".join(map(encode, results)))
            answer = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            assert decoder.feed(answer) == [Answer(status=0, stdout=b"{}")]

    with tempfile.TemporaryDirectory(prefix="genie-") as folder:
        asyncio.run(go(Path(folder) / "s"))
