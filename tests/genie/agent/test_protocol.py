"""The frames: encoding and decoding agree for every split of the stream, and invalid data is rejected."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.agent import protocol, server, shim
from genie.agent.protocol import Answer, Call, Decoder, How, ProtocolError, Result, Run, decode, encode

u32 = st.integers(0, 2**32 - 1)
names = st.text(st.characters(exclude_characters="=\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
envs = st.dictionaries(names, values, max_size=5)
blobs = st.binary(max_size=64)
frames = st.one_of(
    st.builds(Call, env=envs, stdin=blobs, version=u32),
    st.builds(Run, id=u32, binary=values, env=envs, stdin=blobs, timeout=u32),
    st.builds(
        Result, id=u32, how=st.sampled_from(How), status=st.integers(-128, 255), errno=u32, micros=u32,
        stdout=blobs, stderr=blobs,
    ),
    st.builds(Answer, status=u32, stdout=blobs),
)  # fmt: skip


@given(st.lists(frames, max_size=4), st.lists(st.integers(0, 400), max_size=5))
def test_whatever_way_a_stream_is_cut_it_holds_the_same_frames(sent: list[protocol.Frame], cuts: list[int]) -> None:
    stream = b"".join(map(encode, sent))
    edges = [0, *sorted(cuts), len(stream)]
    decoder = Decoder()
    got = [frame for a, b in pairwise(edges) for frame in decoder.feed(stream[a:b])]
    assert got == sent


@given(st.binary(max_size=200))
def test_nonsense_is_refused_and_nothing_else_happens(noise: bytes) -> None:
    try:
        decode(noise)
        Decoder().feed(noise)
    except ProtocolError:
        pass


@given(frames, st.data())
def test_a_frame_cut_short_or_with_more_behind_is_none(frame: protocol.Frame, data: st.DataObject) -> None:
    body = encode(frame)[4:]
    with pytest.raises(ProtocolError):
        decode(body[: data.draw(st.integers(0, len(body) - 1))])
    with pytest.raises(ProtocolError):
        decode(body + b"\0")


def test_a_length_beyond_the_limit_is_refused_before_anything_is_kept() -> None:
    with pytest.raises(ProtocolError, match="of at most"):
        Decoder().feed((protocol.FRAME_MAX + 1).to_bytes(4, "big"))
    with pytest.raises(ProtocolError, match="of at most"):
        encode(Answer(status=0, stdout=b"x" * protocol.FRAME_MAX))


def test_an_environment_cannot_smuggle_a_second_variable_in() -> None:
    with pytest.raises(ProtocolError, match="NUL"):
        encode(Run(id=1, binary="/b", env={"A": "1\0B=2"}, stdin=b""))


def test_bytes_that_are_no_utf8_survive() -> None:
    frame = decode(encode(Call(env={"A": "\udcff"}, stdin=b""))[4:])
    assert isinstance(frame, Call) and frame.env == {"A": "\udcff"}


def test_both_ends_have_the_same_numbers() -> None:
    source = shim.SOURCE.read_text()
    assert f"PROTOCOL = {protocol.VERSION}," in source
    assert f"FRAME_MAX = {protocol.FRAME_MAX >> 20} << 20," in source
    assert f"DELEGATES_MAX = {server.DELEGATES_MAX}," in source
    for how in protocol.How:
        assert f"{how.name} = {how.value}" in source
