"""The selection of a run: all scenarios that options select, and the part of them that this shard runs.

Every machine of a run cuts the same selection in the same way, without knowing of the others: by durations of an
earlier run if there are any, and by names.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.report.durations import Durations, read
from harness.report.reading import BadReport
from harness.run.collect import ScenarioItem, deselect

_SHARD = re.compile(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The selected scenarios, those of other shards too."""

    names: tuple[str, ...] = ()
    networks: frozenset[str] = frozenset()
    sha256: str = ""  # over names and files


SELECTION = pytest.StashKey[Selection]()


def shard(text: str) -> tuple[int, int]:
    """The value of --shard: the number of this shard, and how many there are.

    Raises ArgumentTypeError: it is no part of a whole.
    """
    found = _SHARD.fullmatch(text)
    if not found or int(found[1]) > int(found[2]):
        raise argparse.ArgumentTypeError(f"expected I/N, the part I of N, as 1/3, 2/3 and 3/3; got {text!r}")
    return int(found[1]), int(found[2])


def parts(names: Iterable[str], seconds: Mapping[str, float], count: int) -> list[set[str]]:
    """The names of each shard: every name in exactly one, for the same input always in the same.

    The longest comes first, each to the shard with the least to do. A scenario without a duration counts like the
    median of the others.
    """
    usual = statistics.median(seconds.values()) if seconds else 1.0
    load, found = [0.0] * count, [set[str]() for _ in range(count)]
    for name in sorted(set(names), key=lambda name: (-seconds.get(name, usual), name)):
        at = min(range(count), key=lambda each: (load[each], len(found[each]), each))
        found[at].add(name)
        load[at] += seconds.get(name, usual)
    return found


def selection(items: Iterable[pytest.Item]) -> Selection:
    """The selection of these items."""
    scenarios = sorted((item for item in items if isinstance(item, ScenarioItem)), key=lambda item: item.name)
    whole = hashlib.sha256()
    for item in scenarios:
        whole.update(f"{item.name}\0{hashlib.sha256(item.path.read_bytes()).hexdigest()}\n".encode())
    return Selection(
        names=tuple(item.name for item in scenarios),
        networks=frozenset(network for item in scenarios for network in item.scenario.networks),
        sha256=whole.hexdigest(),
    )


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note the selection for the report, and deselect the scenarios of other shards.

    Raises UsageError: the file of --durations-from cannot be used.
    """
    config.stash[SELECTION] = chosen = selection(items)
    if config.option.shard is None:
        return
    number, count = config.option.shard
    mine = parts(chosen.names, _durations(config).seconds, count)[number - 1]
    deselect(config, items, lambda item: item.name not in mine)


def _durations(config: pytest.Config) -> Durations:
    if not config.option.durations_from:
        return Durations(seconds={})
    try:
        return read(config.invocation_params.dir / Path(config.option.durations_from))
    except BadReport as error:
        raise pytest.UsageError(f"--durations-from {error}") from error
