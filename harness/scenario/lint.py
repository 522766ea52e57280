"""Finds mistakes in scenario files without a cluster, including those that a run would report as a skip."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness import catalog
from harness.scenario.file import FIRST, OTHER, UNDER_TEST
from harness.scenario.reading import read
from harness.yamlfile import Mistake, Mistakes, YamlFile, hint


def known_networks(profiles: Iterable[Path] = ()) -> frozenset[str]:
    """The networks that the project and these profiles describe.

    Raises ProfileError: a profile is not valid.
    """
    return frozenset(catalog.load(profiles))


def mistakes(path: Path, networks: Iterable[str] | None = None) -> list[Mistake]:
    """All mistakes in a file: those that its model finds, and networks without a description."""
    known = frozenset(known_networks() if networks is None else networks)
    try:
        scenario = read(path)
    except Mistakes as found:
        return list(found.mistakes)
    source = YamlFile.read(path)
    return [
        source.mistake(("networks", index), f"unknown network {name!r}{hint(name, known)}")
        for index, name in enumerate(scenario.networks)
        if known and name not in known | {FIRST, OTHER, UNDER_TEST}
    ]
