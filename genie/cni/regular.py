"""Opens files in directories to which others may write: anything but a file is an error there, and is never waited for.
Replaces files atomically.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress
from typing import BinaryIO

NEW = ".new"
"""The end of the names of files that are being written; left over only if their writer is killed."""


class NotRegularError(OSError):
    """A FIFO or a device is in the file's place."""


def opened(path: str) -> BinaryIO:
    """A file, open for reading.

    Raises NotRegularError: something else is there.
    Raises OSError: it cannot be opened; IsADirectoryError for a directory.
    """
    file = open(path, "rb", opener=_at_once)  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotRegularError(errno.EINVAL, "it is no file", path)
    return file


def put(path: str, content: bytes, mode: int = 0o600) -> None:
    """Write a file, atomically, also if the power fails. Raises OSError: the disk does not take it."""
    new = f"{path}.{os.getpid()}{NEW}"
    try:
        with open(new, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(new)
        if isinstance(error, OSError):  # that of a write names no file
            error.filename = path
            error.filename2 = None
        raise


def swept(directory: str, seconds: float = 0.0, prefix: str = "") -> list[str]:
    """Remove the files of killed writers that are older than this, with names that begin so. Returns the paths.

    Raises OSError: one cannot be removed.
    """
    gone = []
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        path = f"{directory}/{name}"
        if name.startswith(prefix) and name.endswith(NEW):
            with suppress(FileNotFoundError):
                if time.time() - os.stat(path).st_mtime >= seconds:
                    os.unlink(path)
                    gone.append(path)
    return gone


def _at_once(path: str, flags: int) -> int:
    """Open a file; a FIFO without waiting for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)
