"""JSON of any size: the same values as from the standard library, for every split, without long values."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.agent import sieve
from genie.agent.sieve import Sieve, TooLong, decode, pages
from genie.cni.errors import CniError
from genie.kube import ApiServer, Client

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)
OBJECT = st.dictionaries(st.sampled_from(["metadata", "spec", "other"]), JSON, max_size=3)
CUT = st.integers(1, 40)
WANTED = {"metadata": {"name": True}, "spec": True}


@pytest.fixture(autouse=True, params=[24, 60, sieve.WINDOW])
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    size: int = request.param
    monkeypatch.setattr(sieve, "WINDOW", size)
    return size


def cut(text: bytes, size: int) -> Iterator[bytes]:
    return (text[at : at + size] for at in range(0, len(text), size))


def agrees(found: Any, whole: Any, wanted: Any) -> None:
    """The result is the value, or the wanted parts of a long value."""
    if isinstance(found, TooLong):
        assert found.size == len(json.dumps(whole, ensure_ascii=False)) >= sieve.WINDOW  # =: a number's end is not seen
    elif isinstance(found, dict) and found != whole:
        assert isinstance(wanted, dict) and set(found) == set(whole) & set(wanted)
        for key, value in found.items():
            agrees(value, whole[key], wanted[key])
    else:
        assert found == whole


@given(items=st.lists(OBJECT, max_size=4), size=CUT, metadata_first=st.booleans(), line=st.booleans())
def test_a_list(items: list[dict[str, Any]], size: int, metadata_first: bool, line: bool) -> None:
    meta = {"metadata": {"continue": "c", "resourceVersion": "5"}}
    whole = {"kind": "List", **meta, "items": items} if metadata_first else {"items": items, "x": [1, "]"], **meta}
    text = json.dumps(whole, ensure_ascii=False).encode() + b"\n" * line
    list_ = Sieve(cut(text, size))
    for found, item in zip(list_.items(WANTED), items, strict=True):
        agrees(found, item, WANTED)
    assert list_.metadata == meta["metadata"]


@given(items=st.lists(OBJECT, max_size=4), size=CUT)
def test_a_watch_has_each_event_before_the_next_arrives(items: list[dict[str, Any]], size: int) -> None:
    arrived = 0

    def pieces() -> Iterator[bytes]:
        nonlocal arrived
        for item in items:
            arrived += 1
            event = {"type": "ADDED", "object": item}
            yield from cut(json.dumps(event, ensure_ascii=False).encode() + b"\n", size)

    wanted = {"type": True, "object": WANTED}
    for count, event in enumerate(Sieve(pieces()).events(WANTED)):
        assert arrived == count + 1
        agrees(event, {"type": "ADDED", "object": items[count]}, wanted)
    assert arrived == len(items)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()[:-1]), CUT)
def test_text_that_is_no_json_is_a_value_error(data: bytes, size: int) -> None:
    for read in (Sieve(cut(data, size)).items, Sieve(cut(data, size)).events):
        try:
            list(read(WANTED))
        except ValueError:
            continue


@given(
    number=st.integers(-(10**9), 10**9)
    | st.sampled_from([0.5, -1.25, 1e9]),  # short: a number over the window is skipped
    tail=st.sampled_from([".", "e", "E+", "x", "-", '"', "1.2.", "é", "\x00"]),
    end=st.sampled_from(["", "\n"]),
    size=CUT,
)
def test_a_number_that_does_not_end_is_an_error(number: float, tail: str, end: str, size: int) -> None:
    data = f"{json.dumps(number)}{tail}{end}".encode()
    with pytest.raises(ValueError, match="not valid JSON"):
        Sieve(cut(data, size)).value(True)


@pytest.mark.parametrize(
    "text",
    ['{"items": {"a": 1}}', '{"items": [1]}', '{"items": [null]}', '{"items": ', "[]", '{"items": [{}', "<html>", "",
     "{}", '{"metadata": {"resourceVersion": "1"}}', '{"message": "log in first"}'],
)  # fmt: skip
def test_an_answer_that_is_no_list_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        list(Sieve([text.encode()]).items(WANTED))

    class Proxy(Client):
        def open(self, *_: Any, **__: Any) -> tuple[int, Generator[bytes, None, None]]:
            return 200, (piece for piece in [text.encode()])

    with pytest.raises(CniError, match="the API server answers no list of /pods: ") as caught:
        list(pages(Proxy(ApiServer(url="http://proxy")), "/pods", WANTED))
    assert caught.value.code == 11


@pytest.mark.parametrize("size", [7, 100_000])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")])
def test_a_value_that_is_nested_too_deeply_hides_no_other(begin: str, end: str, size: int) -> None:
    deep = begin * 3000 + "1" + end * 3000
    text = (
        f'{{"items": [{{"metadata": {{"name": "a"}}, "spec": {deep}, "x": {deep}}}, {{"spec": 1}}], "metadata": {{}}}}'
    )
    first, second = Sieve(cut(text.encode(), size)).items(WANTED)
    assert (first["metadata"], second) == ({"name": "a"}, {"spec": 1})
    assert isinstance(first["spec"], TooLong)


def test_numbers_are_not_cut(window: int) -> None:
    for text in ("123456", "-1.5e3", "true", "null"):
        assert Sieve(cut(text.encode(), 1)).value(True) == json.loads(text)


def test_a_hundred_megabytes_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sieve, "WINDOW", 65536)

    def pieces() -> Iterable[bytes]:
        yield b'{"metadata": {"resourceVersion": "7"}, "items": ['
        for number in range(100):
            yield b'%s{"metadata": {"name": "n%d", "labels": "' % (b"," * bool(number), number)
            yield from [b"y" * 50_000] * 20
            yield b'"}, "spec": {"config": "' + b"z" * 100_000 + b'"}}'
        yield b"]}"

    tracemalloc.start()
    try:
        list_ = Sieve(pieces())
        wanted = {**WANTED, "spec": {"config": True}}
        names = [(item["metadata"], item["spec"]["config"]) for item in list_.items(wanted)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert names == [({"name": f"n{number}"}, TooLong(100_002)) for number in range(100)]
    assert list_.metadata == {"resourceVersion": "7"} and peak < 2 << 20


def test_one_object() -> None:
    big = {"metadata": {"name": "a", "managedFields": [{"x": ['"}', "\\"]}] * 9999}, "spec": {"config": "y" * 200_000}}
    found = decode(json.dumps(big).encode(), {"metadata": {"name": True}, "spec": {"config": True}})
    assert found == {"metadata": {"name": "a"}, "spec": {"config": TooLong(200_002)}}
    with pytest.raises(ValueError):
        decode(b"<html>", WANTED)
