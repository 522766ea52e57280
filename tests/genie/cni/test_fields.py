"""Strict JSON: refused values and their messages."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.cni.errors import CniError
from genie.cni.fields import Fields, decode, hardware_address, is_address, is_cidr, shown, undecodable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "x: not valid JSON at character 1 (line 1, column 1): it is empty"),
        (" \n", "x: not valid JSON at character 3 (line 2, column 1): it is empty"),
        ('{"a":}', "x: not valid JSON at character 6 (line 1, column 6): Expecting value, found '}'"),
        ('{"a": [1', "x: not valid JSON at character 9 (line 1, column 9): Expecting ',' delimiter, but the text ends"),
        ('{\n "a": 1,\n}', "x: not valid JSON at character 12 (line 3, column 1): Expecting property name"),
        ('["NaN",\nNaN]', "x: not valid JSON at character 9 (line 2, column 1): NaN is not JSON"),
        ("-Infinity", "x: not valid JSON at character 1 (line 1, column 1): -Infinity is not JSON"),
        ("[" * 100_000, "x: nested too deeply: more than 100 levels"),
        ("[" * 101 + "]" * 101, "x: nested too deeply: more than 100 levels"),
        (b'{"a":' * 960 + b"1" + b"}" * 960, "x: nested too deeply: more than 100 levels"),
        (b'{\n"\xff"}', "x: not valid JSON at character 4 (line 2, column 2): 'utf-8' codec can't decode"),
        (
            '["1e999", 1e99,\n-1.5E+999]',
            "x: not valid JSON at character 17 (line 2, column 1): -1.5E+999 is larger than",
        ),
        ("9" * 400 + ".0", "x: not valid JSON: 99999999999999999999 is larger than any number"),
        ("[1, " + "9" * 5000, "x: not valid JSON at character 5 (line 1, column 5): Exceeds the limit"),
    ],
)
def test_decode_refuses_text_that_is_no_json(text: str | bytes, complaint: str) -> None:
    with pytest.raises(CniError) as caught:
        decode(text, "x")
    assert str(caught.value).startswith(complaint)
    assert caught.value.code == 6


def test_a_hundred_levels_are_read() -> None:
    text = "[" * 99 + '{"a": "[[["}' + "]" * 99
    assert decode(f"[{text[1:-1]}, {text[1:-1]}]", "x") == json.loads(f"[{text[1:-1]}, {text[1:-1]}]")
    assert decode('"' + "[" * 200 + '"', "x") == "[" * 200


@pytest.mark.parametrize("data", [None, [], "x", 5, True])
def test_fields_refuse_anything_but_an_object(data: Any) -> None:
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
def test_a_field_of_the_wrong_type_is_refused_by_name(method: str, value: Any, complaint: str) -> None:
    with pytest.raises(CniError) as caught:
        getattr(Fields({"k": value}, "x", undecodable), method)("k")
    assert str(caught.value).startswith(f"x: {complaint}")
    assert caught.value.code == 6


@pytest.mark.parametrize("value", [0, -1, 86400, float("inf"), float("nan"), True, "5"])
def test_seconds_refuses_other_values(value: Any) -> None:
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


def test_the_inside_of_a_strict_object_is_strict() -> None:
    read = Fields({"one": {}, "many": [{}]}, "x", undecodable, strict=True)
    for inner in (read.inner("one"), read.objects("many")[0]):
        with pytest.raises(CniError, match=r"x: (one|many\[0\]): k: expected a string, found nothing") as caught:
            inner.string("k")
        assert caught.value.code == 6


@given(JSON)
def test_a_value_is_shown_in_one_short_line(value: Any) -> None:
    assert 0 < len(shown(value)) <= 80 and "\n" not in shown(value)


@given(st.dictionaries(st.text(), JSON))
def test_decode_reads_all_json(data: dict[str, Any]) -> None:
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
def test_is_address_is_false_for_other_text(text: str) -> None:
    assert not is_address(text) and not is_cidr(text)


@given(st.dictionaries(st.text(max_size=4), JSON, min_size=1), st.integers(0, 2), st.data())
def test_a_mistake_is_reported_with_its_position(value: dict[str, Any], indent: int, data: st.DataObject) -> None:
    """An invalid character or an early end is reported with its line and column."""
    try:
        text = json.dumps(value, indent=indent or None, allow_nan=False)
    except ValueError:
        return
    tokens = [token.start() for token in re.finditer(r'"(?:\\.|[^"\\])*"|[{}\[\]:,]|[-.0-9eE+]+|\w+', text)]
    at = data.draw(st.sampled_from(tokens))
    for wrong, end in ((text[:at] + "?" + text[at:], False), (text[:at], True)):
        with pytest.raises(CniError, match="x: not valid JSON at character ") as caught:
            decode(wrong.encode() if data.draw(st.booleans()) else wrong, "x")
        output = str(caught.value)
        where = re.search(r"character (\d+) \(line (\d+), column (\d+)\)", output)
        assert where
        character, line, column = (int(each) for each in where.groups())
        before = wrong[: character - 1]
        assert (line, column) == (before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
        assert character - 1 == at if not end else wrong[character - 1 :].strip() in ("", ",")


HEX = "0123456789abcdefABCDEF"


@given(st.integers(0, 20), st.sampled_from([6, 8]), st.sampled_from([(":", 2), ("-", 2), (".", 4)]), st.data())
def test_hardware_addresses_in_every_form(size: int, wanted: int, form: tuple[str, int], data: st.DataObject) -> None:
    """As Go's net.ParseMAC reads them, and so Multus and the reference plugins."""
    separator, width = form
    digits = data.draw(st.text(HEX, min_size=size * 2, max_size=size * 2))
    text = separator.join(digits[at : at + width] for at in range(0, len(digits), width))
    normal = ":".join(digits[at : at + 2] for at in range(0, len(digits), 2)).lower()
    assert hardware_address(text, wanted) == (normal if size == wanted else "")
    assert hardware_address(text.swapcase(), wanted) == hardware_address(text, wanted)


@given(st.text(HEX + ":-. g\u0661", max_size=20) | st.text(max_size=20))
def test_hardware_address_is_empty_for_other_text(text: str) -> None:
    pairs, groups = r"[0-9a-fA-F]{2}", r"[0-9a-fA-F]{4}"
    valid = rf"{pairs}(:{pairs}){{5}}|{pairs}(-{pairs}){{5}}|{groups}(\.{groups}){{2}}"
    assert bool(hardware_address(text, 6)) == bool(re.fullmatch(valid, text))


@pytest.mark.parametrize(
    "text", ["02:00-00:00:00:01", "020000000001", "02.00.00.00.00.01", "0200:0000:0001", "0200-0000-0001"]
)
def test_mixed_forms_are_none(text: str) -> None:
    assert hardware_address(text, 6) == ""


@given(st.integers(-(2**40), 2**40))
def test_a_count_below_zero_is_none(number: int) -> None:
    read = Fields({"k": number}, "x", undecodable)
    if abs(number) < 2**32:
        assert read.count("k") == (number if number >= 0 else None)
    else:
        with pytest.raises(CniError, match="k: expected a whole number of 32 bits"):
            read.count("k")
