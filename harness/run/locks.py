"""Whose turn it is on a cluster that several pytest-xdist workers share.

Most scenarios may run beside others. One that changes genie.conf on the nodes or cuts them off from the API server
may not. Files are locked, so that a worker which dies gives its turn up. Whoever wants the cluster for itself waits
at the gate and so keeps newcomers behind it; otherwise it might wait for ever.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(directory: Path, *, alone: bool) -> Iterator[None]:
    """Wait for a turn, beside others or alone, and have it for the time of the context."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "gate.lock").open("a") as gate, (directory / "turn.lock").open("a") as lock:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
