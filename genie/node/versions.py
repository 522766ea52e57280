"""Which versions of the specification another plugin speaks: asked of the plugin itself, once for each of its files."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache

from genie.cni import version

TIMEOUT = 5.0  # seconds


def spoken(path: str) -> tuple[str, ...]:
    """What a plugin answers to VERSION; nothing where it cannot be asked.

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
