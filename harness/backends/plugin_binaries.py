"""Binaries of containernetworking/plugins for kind's nodes, which have only those of kind's default network."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.contract import Unavailable
from harness.download import NotHad
from harness.embedded import archives, binaries


def find(names: Sequence[str]) -> Mapping[str, bytes]:
    """The binaries by name: on Linux those that the embedded cluster would use, otherwise those of the pinned release.

    Raises Unavailable: some were not found; the message lists the places that were searched.
    """
    try:
        return {path.name: path.read_bytes() for path in _paths(names) if path.name in names}
    except (NotHad, binaries.NotFound) as error:
        raise Unavailable(str(error)) from error


def _paths(names: Sequence[str]) -> Sequence[Path]:
    if not names:
        return []
    if platform.system() != "Linux":  # binaries of this system do not run on the nodes
        return list(archives.programs(archives.pin("cni-plugins")).iterdir())
    return [Path(path) for path in binaries.plugins(binaries.given(), names, names).paths]
