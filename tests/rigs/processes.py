"""Processes of tests, from /proc."""

from __future__ import annotations

from pathlib import Path

from harness.waiting import until_nothing


def child(pid: int) -> int:
    """The first child of a process."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for each in found:
        found += [int(one) for one in Path(f"/proc/{each}/task/{each}/children").read_text().split()]
    return found


def alive(pids: list[int], within: float = 0) -> list[int]:
    """The processes that still run after a wait for their end."""

    def runs(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    return until_nothing(lambda: [pid for pid in pids if runs(pid)], within)
