"""Binaries of containernetworking/plugins for a cluster's nodes, which have only what kind's default network needs."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.contract import Unavailable
from harness.download import NotHad
from harness.embedded import archives, binaries


def find(names: Sequence[str]) -> Mapping[str, bytes]:
    """The binaries, by name: those that the embedded cluster would use, or on other systems the pinned release's.

    Raises:
        Unavailable: some are nowhere; the message says where they were looked for.
    """
    try:
        return {path.name: path.read_bytes() for path in _paths(names) if path.name in names}
    except (NotHad, binaries.NotFound) as error:
        raise Unavailable(str(error)) from error


def _paths(names: Sequence[str]) -> Sequence[Path]:
    if not names:
        return []
    if platform.system() != "Linux":  # what is installed here does not run on the nodes
        return list(archives.programs(archives.pin("cni-plugins")).iterdir())
    return [Path(path) for path in binaries.plugins(binaries.given(), names, names).paths]
