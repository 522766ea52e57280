"""Finds and ends the processes that an interrupted call left running.

The runtime ends a call that takes too long with SIGKILL, which genie cannot catch. So each plugin gets a descriptor of
the call's file, and the file is locked through it (flock). The plugin's children inherit the descriptor, and the kernel
keeps the lock until the last of them has ended. When a plugin ends by itself, genie releases its lock: a daemon that it
started is meant to stay. So a process that holds the lock after the call is over was interrupted.

A call needs this module only when something went wrong; `execute.Claim` has the part that every call needs.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple, NoReturn

from genie.cni.errors import CniError, Code

PATIENCE = 10.0
"""Seconds to wait for killed processes to end. One that hangs in the kernel does not end."""
_PAUSE = 0.001


class Process(NamedTuple):
    """A process. started: in the kernel's ticks; PID and start time identify one process for ever."""

    pid: int
    parent: int
    session: int
    started: int


def end(
    handle: int, position: int | None = None, delegate: int | None = None, patience: float | None = None
) -> list[int]:
    """Kill the processes that hold a file locked, and their descendants, and wait until they have ended.

    This process and its ancestors are left alone.

    handle: a descriptor of the file.
    position: only locks through descriptors with this file offset, which mark one plugin; None: all locks.
    delegate: the PID of a plugin to kill with its session, whether or not they hold a lock.
    patience: seconds, instead of PATIENCE.

    Returns the PIDs that have not ended in time.
    """
    status, until = os.fstat(handle), time.monotonic() + (PATIENCE if patience is None else patience)
    file = status.st_dev, status.st_ino
    known: set[Process] = set()
    while True:
        now = _processes()
        roots = {
            process.pid
            for process in now
            if process in known or delegate in (process.pid, process.session) or _holds(process.pid, file, position)
        }
        spared = _ancestors(now, os.getpid())
        family = _family(now, roots - spared) - spared
        left = {process for process in now if process.pid in family}
        if left - known:  # a stopped process starts no other, and is still the parent of its children
            _signal(left - known, signal.SIGSTOP)
            known |= left
            continue
        _signal(left, signal.SIGKILL)
        if (not left and (position is not None or _is_free(handle))) or time.monotonic() > until:
            return sorted(family)
        time.sleep(_PAUSE)


def _signal(processes: Iterable[Process], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def clear(handle: int) -> None:
    """Lock a file for this process alone; other processes that have it locked are ended.

    Raises CniError: 11; one of them does not end.
    """
    left = end(handle)
    if _is_free(handle):
        return
    who = f"by processes {', '.join(map(str, left))}" if left else "by a process that is not visible from here"
    raise CniError(
        Code.TRY_AGAIN,
        "an earlier call for this container was cut off, and its processes have not ended, although they were killed",
        f"{os.readlink(f'/proc/self/fd/{handle}')} is locked {who}",
    )


def be_guard(pipe: int, handle: int) -> NoReturn:
    """Wait until the parent, at the other end of the pipe, is killed, then end the processes that it started."""
    try:
        os.setsid()
        first, second = sorted((pipe, handle))
        for low, high in ((0, first), (first + 1, second), (second + 1, os.sysconf("SC_OPEN_MAX"))):
            os.closerange(low, high)  # the runtime reads our standard output to its end, so close it
        os.read(pipe, 1)
        end(handle)
    finally:
        os._exit(0)


def _processes() -> list[Process]:
    """All running processes, without zombies."""
    return [process for name in os.listdir("/proc") if name.isdigit() and (process := _process(name))]


def _process(name: str) -> Process | None:
    try:
        with open(f"/proc/{name}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:  # it has ended
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return Process(pid=int(name), parent=int(fields[1]), session=int(fields[3]), started=int(fields[19]))


def _family(processes: Iterable[Process], roots: set[int]) -> set[int]:
    """The PIDs of roots and of their descendants."""
    children: dict[int, list[int]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process.pid)
    family, unseen = set(roots), list(roots)
    while unseen:
        new = [pid for pid in children.get(unseen.pop(), ()) if pid not in family]
        family.update(new)
        unseen += new
    return family


def _ancestors(processes: Iterable[Process], pid: int) -> set[int]:
    """A PID and its ancestors."""
    parents = {process.pid: process.parent for process in processes}
    found = {pid}
    while (pid := parents.get(pid, 0)) and pid not in found:
        found.add(pid)
    return found


def _is_free(handle: int) -> bool:
    """Whether no other process has the file locked. A process started just now may have been missed."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holds(pid: int, file: tuple[int, int], position: int | None) -> bool:
    """Whether a process has a descriptor of a file through which it is locked."""
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:  # it has ended
        return False
    return any(_is_mark(pid, number, file, position) for number in numbers)


def _is_mark(pid: int, number: str, file: tuple[int, int], position: int | None) -> bool:
    try:
        status = os.stat(f"/proc/{pid}/fd/{number}")
        if (status.st_dev, status.st_ino) != file:
            return False
        with open(f"/proc/{pid}/fdinfo/{number}", "rb") as info:
            lines = [line.split() for line in info]
    except OSError:  # it has just been closed
        return False
    at = next((int(line[1]) for line in lines if line[0] == b"pos:"), None)
    return position in (None, at) and any(line[0] == b"lock:" and b"FLOCK" in line for line in lines)
