"""JSON read strictly: what is refused, and in which words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.cni.errors import CniError
from genie.cni.fields import Fields, decode, is_address, is_cidr, shown, undecodable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "x: not valid JSON at character 1: Expecting value"),
        ('{"a":}', "x: not valid JSON at character 6: Expecting value"),
        ('{\n "a": 1,\n}', "x: not valid JSON at character 12 (line 3, column 1): Expecting property name"),
        ("[NaN]", "x: not valid JSON: NaN is not JSON"),
        ("-Infinity", "x: not valid JSON: -Infinity is not JSON"),
        ("[" * 100_000, "x: not valid JSON: nested too deeply"),
        (b"\xff", "x: not valid JSON: 'utf-8' codec can't decode"),
        ("9" * 5000, "x: not valid JSON: Exceeds the limit"),
    ],
)
def test_what_is_not_json(text: str | bytes, complaint: str) -> None:
    with pytest.raises(CniError) as caught:
        decode(text, "x")
    assert str(caught.value).startswith(complaint)
    assert caught.value.code == 6


@pytest.mark.parametrize("data", [None, [], "x", 5, True])
def test_what_is_not_an_object(data: Any) -> None:
    with pytest.raises(CniError, match=r"^x: expected an object, found ") as caught:
        Fields(data, "x")
    assert caught.value.code == 7


@pytest.mark.parametrize(
    ("method", "value", "complaint"),
    [
        ("string", 5, "k: expected a string, found 5"),
        ("string", [1], "k: expected a string, found a list"),
        ("text", "a\0", r"k: expected a string of printable characters, found 'a\x00'"),
        ("text", "a\udc80", r"k: expected a string of printable characters, found 'a\udc80'"),
        ("boolean", "true", "k: expected true or false, found 'true'"),
        ("boolean", 1, "k: expected true or false, found 1"),
        ("number", True, "k: expected a whole number from 0, found true"),
        ("number", -1, "k: expected a whole number from 0, found -1"),
        ("number", 1.5, "k: expected a whole number from 0, found 1.5"),
        ("object", {1}, "k: expected an object"),
        ("inner", [], "k: expected an object, found []"),
        ("objects", {"a": 1}, "k: expected a list, found an object"),
        ("objects", [{}, None], "k[1]: expected an object, found nothing"),
        ("strings", ["a", None], "k: expected a list of strings, found a list"),
        ("addresses", "10.0.0.1", "k: expected a list of addresses, found '10.0.0.1'"),
        ("addresses", ["10.0.0.1/8"], "k: expected an IP address, found '10.0.0.1/8'"),
        ("addresses", [5], "k: expected an IP address, found 5"),
    ],
)
def test_a_field_of_the_wrong_type(method: str, value: Any, complaint: str) -> None:
    with pytest.raises(CniError) as caught:
        getattr(Fields({"k": value}, "x", undecodable), method)("k")
    assert str(caught.value).startswith(f"x: {complaint}")
    assert caught.value.code == 6


@pytest.mark.parametrize("value", [0, -1, 86400, float("inf"), float("nan"), True, "5"])
def test_what_is_no_number_of_seconds(value: Any) -> None:
    with pytest.raises(CniError, match="k: expected a positive number of seconds"):
        Fields({"k": value}, "x").seconds("k", 1.0)


@pytest.mark.parametrize("data", [{}, {"k": None}])
def test_null_counts_as_absent(data: dict[str, Any]) -> None:
    read = Fields(data, "x")
    assert (read.string("k"), read.text("k", "d"), read.boolean("k"), read.number("k")) == ("", "d", False, None)
    assert (read.seconds("k", 3.0), read.object("k"), read.inner("k").data) == (3.0, {}, {})
    assert (read.objects("k"), read.strings("k"), read.addresses("k")) == ([], (), ())


@pytest.mark.parametrize("method", ["string", "boolean", "number", "object", "inner", "objects", "strings"])
@pytest.mark.parametrize("data", [{}, {"k": None}])
def test_strictly_an_absent_field_is_wrong(method: str, data: dict[str, Any]) -> None:
    with pytest.raises(CniError, match="x: k: expected .*, found nothing"):
        getattr(Fields(data, "x", strict=True), method)("k")


def test_what_is_inside_a_strict_object_is_strict() -> None:
    read = Fields({"one": {}, "many": [{}]}, "x", undecodable, strict=True)
    for inner in (read.inner("one"), read.objects("many")[0]):
        with pytest.raises(CniError, match=r"x: (one|many\[0\]): k: expected a string, found nothing") as caught:
            inner.string("k")
        assert caught.value.code == 6


@given(JSON)
def test_a_value_is_shown_in_one_short_line(value: Any) -> None:
    assert 0 < len(shown(value)) <= 80 and "\n" not in shown(value)


@given(st.dictionaries(st.text(), JSON))
def test_what_json_has_is_read_back(data: dict[str, Any]) -> None:
    try:
        text = json.dumps(data, allow_nan=False)
    except ValueError:
        return
    assert decode(text, "x") == data


@pytest.mark.parametrize("text", ["10.0.0.1", "::1", "fe80::1"])
def test_addresses(text: str) -> None:
    assert is_address(text) and not is_cidr(text)
    assert is_cidr(f"{text}/8") and not is_address(f"{text}/8")


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0", "10.0.0.1/", "10.0.0.1/33", "10.0.0.1/08x", "10.0.0.1/-1", "::1/129", "10.0.0.1/٣", "1\0", "é"],
)
def test_what_is_no_address(text: str) -> None:
    assert not is_address(text) and not is_cidr(text)
