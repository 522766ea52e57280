"""The shim's frame parser with memory and arithmetic watched: against the agent's own decoder, and by libFuzzer."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.agent import protocol, shim
from genie.agent.protocol import Answer, Call, Frame, ProtocolError, Result, Run, encode
from genie.agent.server import DELEGATES_MAX

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
    """What an agent may say: whole frames, some with bytes changed, cut out or put in."""
    stream = bytearray(b"".join(encode(frame) for frame in draw(st.lists(frames, max_size=20))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(stream)))
        stream[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(stream)


def build(compiler: str, to: Path, *flags: str) -> None:
    """Compile the target; a compiler without its libraries is no reason to fail."""
    found = shutil.which(compiler)
    if not found:
        pytest.skip(f"the shim's parser is not fuzzed: there is no {compiler}")
    command = [found, "-std=gnu11", "-O1", "-g", "-w", "-fno-sanitize-recover=all", *flags, f'-DSHIM="{shim.SOURCE}"']
    done = subprocess.run([*command, "-o", to, TARGET], capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr:
        pytest.skip(f"the shim's parser is not fuzzed: {compiler} has no libraries for it: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr


class Parser:
    """The shim's parser as a process: a stream in, what becomes of it out."""

    def __init__(self, binary: Path) -> None:
        self.process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def parse(self, stream: bytes, piece: int) -> tuple[str, int, list[int]]:
        """Whether it waits (.), understands nothing (!) or ends (A), with which status, and which delegates it runs."""
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
    """What is right, by the agent's decoder: a frame at a time, for one that is wrong undoes none before it."""
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
