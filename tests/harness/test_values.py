"""Functions over plain JSON values."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from harness.values import change_texts, merged, subnets, texts

LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
KEYS = st.text("abc", min_size=1, max_size=2)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=10
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=3)


def test_a_change_is_merged_and_null_removes() -> None:
    conf = {"name": "g", "policy": {"a": 1, "b": 2}, "default_plugin": "weave"}
    change = {"policy": {"a": None}, "default_plugin": None, "serial": True}
    assert merged(conf, change) == {"name": "g", "policy": {"b": 2}, "serial": True}


@given(OBJECTS, OBJECTS)
def test_merging_twice_is_merging_once_and_changes_nothing_else(value: dict[str, Any], change: dict[str, Any]) -> None:
    before = repr((value, change))
    once = merged(value, change)
    assert merged(once, change) == once
    assert repr((value, change)) == before


@given(VALUES)
def test_texts_are_changed_wherever_they_are(value: Any) -> None:
    assert change_texts(value, lambda text: text) == value
    changed = change_texts({"a": [value, "x"]}, lambda text: f"<{text}>")
    assert changed["a"][1] == "<x>"
    assert change_texts(changed, lambda text: text[1:-1]) == {"a": [value, "x"]}


def test_texts_and_subnets_of_a_configuration() -> None:
    conf = {
        "name": "n",
        "ipam": {"subnet": "10.1.0.0/16", "ranges": [[{"subnet": "fd00::/64", "gateway": "fd00::1"}]]},
        "subnet": "not one",
        "mtu": 1500,
    }
    assert list(texts(conf)) == [
        (("name",), "n"),
        (("ipam", "subnet"), "10.1.0.0/16"),
        (("ipam", "ranges", 0, 0, "subnet"), "fd00::/64"),
        (("ipam", "ranges", 0, 0, "gateway"), "fd00::1"),
        (("subnet",), "not one"),
    ]
    assert list(subnets(conf)) == ["10.1.0.0/16", "fd00::/64"]
