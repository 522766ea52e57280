"""Locks for scenarios on a cluster that several pytest-xdist workers or several runs share.

Most scenarios can run at the same time as others. Scenarios that change genie.conf on the nodes or cut them off from
the API server must run alone. The locks are file locks, so a worker that dies releases them. A scenario that must run
alone holds the gate while it waits, and new scenarios wait behind it; otherwise it might wait for ever.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(directory: Path, *, alone: bool) -> Iterator[None]:
    """Wait for a turn, shared or alone, and hold it during the context."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "gate.lock").open("a") as gate, (directory / "turn.lock").open("a") as lock:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
