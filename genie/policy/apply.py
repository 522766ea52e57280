"""Gives a pod's rules to the kernel: runs `nft` in the pod's own network namespace. Each function takes some
milliseconds and blocks; run it in a thread.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress

from genie.kernel.netns import inside
from genie.policy.nft import FAMILY, TABLE, first, replacing

TIMEOUT = 10.0
"""Seconds for one transaction."""


class ApplyError(Exception):
    """The rules cannot be set: nft is missing, or the kernel refuses them."""


def replace(netns: str, script: str, *, new: bool = False) -> None:
    """Replace the rules in the namespace of this path by those of `nft.script`.

    new: the namespace is probably without rules, as in an ADD.

    Raises ApplyError: it failed; nothing has changed.
    Raises OSError: the namespace cannot be entered.
    """

    def run() -> None:
        if new and script:
            with suppress(ApplyError):
                _nft(["-j", "-f", "-"], first(script))
                return
        _nft(["-j", "-f", "-"], replacing(script))

    inside(netns, run)


def listing(netns: str) -> str:
    """The listing of the present rules, to compare with an earlier one; "" if there are none.

    Raises OSError: the namespace cannot be entered.
    """
    try:
        return inside(netns, lambda: _nft(["-j", "list", "table", FAMILY, TABLE]))
    except ApplyError:
        return ""


def _nft(arguments: list[str], script: str = "") -> str:
    try:
        done = subprocess.run(
            ["nft", *arguments], input=script, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except OSError as error:
        raise ApplyError(f"nft cannot be run: {error.strerror} (Debian's package nftables)") from error
    except subprocess.TimeoutExpired as error:
        raise ApplyError(f"nft takes more than {TIMEOUT:g} seconds") from error
    if done.returncode:
        raise ApplyError(f"nft: {done.stderr.strip().partition(chr(10))[0] or f'exit status {done.returncode}'}")
    return done.stdout
