"""How often somebody took genie off this node: noted by what keeps it there, shown by the agent and `genie status`."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Removals:
    """What was noted last.

    count: since genie was installed. why: what was found then. at: when, in seconds since 1970. wait: seconds from then
    until genie is put back.
    """

    count: int
    why: str
    at: float
    wait: float


def path(state_dir: str) -> str:
    return f"{state_dir}/install/removals.json"


def read(state_dir: str) -> Removals | None:
    """What is noted; None where nothing is, or nothing that can be read."""
    with suppress(OSError, ValueError, TypeError, AttributeError), open(path(state_dir), encoding="utf-8") as file:
        return Removals(**json.load(file))
    return None


def write(state_dir: str, removals: Removals) -> None:
    """Raises OSError."""
    target = path(state_dir)
    with open(f"{target}.new", "w", encoding="utf-8") as file:
        json.dump(asdict(removals), file)
    os.replace(f"{target}.new", target)
