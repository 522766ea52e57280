"""The node of a pod."""

from __future__ import annotations

from harness.pods import place
from harness.scenario.reading import parse

NODES = {"a": "any", "b": "other", "c": "same-as b", "d": "other-than c", "e": "first", "f": "second"}


def test_places() -> None:
    text = "scenario: x\nnetworks: []\npods:\n" + "".join(
        f"  {name}: {{node: {node}}}\n" for name, node in NODES.items()
    )
    pods = parse(text).pods
    nodes = place(pods, ["one", "two"], seed="it")
    assert nodes["a"] != nodes["b"] == nodes["c"] != nodes["d"]
    assert (nodes["e"], nodes["f"]) == ("one", "two")
    assert place(pods, ["only"], seed="it") == dict.fromkeys("abcdef", "only")
