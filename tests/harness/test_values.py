"""Functions over plain JSON values."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from harness.values import change_texts, merged

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
