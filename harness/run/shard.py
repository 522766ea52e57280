"""The selected scenarios of a run, for its report."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from harness.run.collect import ScenarioItem


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The selected scenarios: their names, and a SHA-256 over names and files."""

    names: tuple[str, ...] = ()
    sha256: str = ""


SELECTION = pytest.StashKey[Selection]()


def selection(items: Iterable[pytest.Item]) -> Selection:
    """The selection of these items."""
    scenarios = sorted((item.name, item.path) for item in items if isinstance(item, ScenarioItem))
    whole = hashlib.sha256()
    for name, path in scenarios:
        whole.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return Selection(names=tuple(name for name, _ in scenarios), sha256=whole.hexdigest())


def note(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    """Keep the selection for the report."""
    config.stash[SELECTION] = selection(items)
