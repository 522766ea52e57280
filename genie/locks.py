"""Which of several processes are there: a file that is locked for as long as its process lives.

The kernel releases the lock however the process ends, and the lock counts between containers that share the file's
directory. So a probe, or the other agent of a rolling update, knows a living agent from a file that a dead one left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator


def hold(path: str) -> int:
    """Make the file if need be and hold it; to let go, close the descriptor that this returns.

    Raises:
        OSError: it cannot be made.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_SH)  # waits for a moment at most: for one who looks whether it is held
    return handle


def is_held(path: str) -> bool:
    """Whether a living process holds the file."""
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
    """Whether somebody listens on a unix socket; one whose queue is full does."""
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
def alone(directory: str) -> Iterator[None]:
    """Do something in a directory while nobody else does.

    Raises:
        OSError: there is no such directory.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
