"""The versions of the specification that another plugin speaks: the plugin is called once for each of its files."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache

from genie.cni import version

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
    try:
        done = subprocess.run(
            [path], env={"CNI_COMMAND": "VERSION"}, input=b'{"cniVersion": "1.0.0"}', capture_output=True,
            timeout=TIMEOUT, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ()
    return version.of_version_reply(done.stdout)
