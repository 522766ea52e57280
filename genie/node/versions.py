"""The versions of the specification that another plugin speaks: the plugin is called once for each of its files."""

from __future__ import annotations

import os
from functools import lru_cache

from genie.cni.errors import CniError
from genie.cni.execute import SubprocessExecutor, run_sync
from genie.cni.invoke import Attachment, supported_versions

TIMEOUT = 5.0  # seconds


def spoken(path: str) -> tuple[str, ...]:
    """A plugin's answer to VERSION; empty if it cannot be called.

    path: of the executable.
    """
    try:
        stat = os.stat(path)
    except OSError:
        return ()
    return _asked(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)
def _asked(path: str, mtime: int, size: int) -> tuple[str, ...]:
    directory, kind = os.path.split(path)
    try:
        at = Attachment(path=(directory,), timeout=TIMEOUT)
        return run_sync(supported_versions(kind, at, SubprocessExecutor()))
    except CniError:
        return ()
