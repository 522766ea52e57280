"""Counts removals of genie from this node by others: written by the keeper, shown by the agent and `genie status`."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass

from genie.cni import regular


@dataclass(frozen=True, kw_only=True)
class Removals:
    """The last removal.

    count: removals since genie was installed. why: the problem found. at: the time in seconds since 1970. wait: seconds
    from then until genie is restored.
    """

    count: int
    why: str
    at: float
    wait: float


def path(state_dir: str) -> str:
    return f"{state_dir}/install/removals.json"


def read(state_dir: str) -> Removals | None:
    """Read the file; None if it does not exist or is not readable."""
    with suppress(OSError, ValueError, TypeError, AttributeError), open(path(state_dir), encoding="utf-8") as file:
        return Removals(**json.load(file))
    return None


def write(state_dir: str, removals: Removals) -> None:
    """Write the file. Raises OSError."""
    regular.put(path(state_dir), json.dumps(asdict(removals)).encode())
