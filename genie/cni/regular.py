"""Opens files in directories to which others may write: what is no file there is an error, and is never waited for."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO


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


def _at_once(path: str, flags: int) -> int:
    """Open a file; a FIFO without waiting for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)
