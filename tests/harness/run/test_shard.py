"""Shards: every scenario is in exactly one, and they are as equal as their longest scenarios permit."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report import durations
from harness.report.reading import BadReport
from harness.run.shard import parts, shard
from tests.rigs.runs import outcome, report, saved

NAMES = st.lists(st.text("abc-", min_size=1, max_size=6), unique=True, max_size=60)
SECONDS = st.dictionaries(st.text("abc-", min_size=1, max_size=6), st.floats(0, 1000), max_size=60)


@given(NAMES, SECONDS, st.integers(1, 12), st.randoms(use_true_random=False))
def test_every_scenario_is_in_exactly_one_shard_on_every_machine(
    names: list[str], seconds: dict[str, float], count: int, order: random.Random
) -> None:
    cut = parts(names, seconds, count)
    assert len(cut) == count
    assert sorted(name for part in cut for name in part) == sorted(names)
    shuffled, items = list(names), list(seconds.items())
    order.shuffle(shuffled)
    order.shuffle(items)
    assert parts(shuffled, dict(items), count) == cut


@given(NAMES, SECONDS, st.integers(1, 12))
def test_no_shard_is_longer_than_another_by_more_than_one_scenario(
    names: list[str], seconds: dict[str, float], count: int
) -> None:
    known = {name: seconds.get(name, 1.0) for name in names}
    loads = [sum(known[name] for name in part) for part in parts(names, known, count)]
    assert max(loads) - min(loads) <= max(known.values(), default=0) + 1e-6


@given(NAMES, st.integers(1, 12))
def test_without_durations_shards_have_equally_many(names: list[str], count: int) -> None:
    sizes = [len(part) for part in parts(names, {}, count)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", "01/2", "1/2 "])
def test_a_shard_is_a_part_of_a_whole(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected I/N"):
        shard(text)
    assert shard("2/13") == (2, 13)


def test_durations_are_of_a_report_or_of_a_file_made_from_it(tmp_path: Path) -> None:
    made = report(outcome("passed", "a", seconds=3.04), outcome("failed", "b"), outcome("skipped", "c"))
    saved(made, tmp_path)
    (tmp_path / "durations.json").write_text(durations.text(durations.of(made.scenarios)))
    for path in (tmp_path, tmp_path / "report.json", tmp_path / "durations.json"):
        assert durations.read(path).seconds == {"a": 3.0, "b": 1.5}


@pytest.mark.parametrize("content", [[], {"a": "1"}, {"a": True}, {"a": -1}, {"a": None}, {"kind": "ScenarioReport"}])
def test_what_is_neither_is_refused_with_its_file(content: object, tmp_path: Path) -> None:
    path = tmp_path / "durations.json"
    path.write_text(json.dumps(content))
    with pytest.raises(BadReport, match=str(path)):
        durations.read(path)
