"""Files that stay locked while a process lives, to find out which processes are running.

The kernel releases the lock when the process ends, for any reason. Locks work between containers that share the file's
directory. So a probe, or the other agent in a rolling update, can distinguish a running agent's file from a dead one's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator


def hold(path: str) -> int:
    """Create the file if needed and lock it. Closing the returned descriptor releases it.

    Raises OSError: it cannot be created.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_SH)  # waits only while another process checks whether it is held
    return handle


def is_held(path: str) -> bool:
    """Whether a running process holds the file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def answers(path: str) -> bool:
    """Whether a process listens on a unix socket; also True if its queue is full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
        knock.setblocking(False)
        try:
            knock.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True


@contextlib.contextmanager
def alone(path: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a directory or a file, so that only one process at a time works in it.

    Raises OSError: it does not exist, or without `wait`, it is held.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
