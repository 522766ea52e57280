"""Gives a pod's rules to the kernel, in the pod's own network namespace: by `nft`, or, during an ADD, by the library
that `nft` is made of. Each function takes some milliseconds and blocks; run it in a thread.
"""

from __future__ import annotations

import socket
import subprocess
import threading
from contextlib import suppress
from functools import cache
from typing import Any

from genie.kernel.netns import inside
from genie.policy.nft import FAMILY, TABLE, first, replacing

TIMEOUT = 10.0
"""Seconds for one transaction."""
LIBRARY = "libnftables.so.1"
LIBRARY_MAX = 1 << 14
"""The limit for what the library gets, in characters: some 900 addresses. It keeps up to 4 MB of memory for them."""

_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON of <nftables/libnftables.h>; input is JSON then, too
_NETLINK_NETFILTER = 12  # <linux/netlink.h>
_one_at_a_time = threading.Lock()


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
            if _by_library(first(script)):
                return
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


def _by_library(commands: str) -> bool:
    """Run a transaction in this process: to start `nft` takes longer than the transaction. False: it failed, or there
    is no library; nothing has changed.
    """
    library = _library() if len(commands) <= LIBRARY_MAX else None
    if library is None:
        return False
    with _one_at_a_time:
        try:  # without it, the library ends the process
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER).close()
        except OSError:
            return False
        context = library.nft_ctx_new(0)
        try:
            library.nft_ctx_buffer_error(context)
            library.nft_ctx_buffer_output(context)
            library.nft_ctx_output_set_flags(context, _JSON)
            return bool(library.nft_run_cmd_from_buffer(context, commands.encode()) == 0)
        finally:
            library.nft_ctx_free(context)


@cache
def _library() -> Any:
    """libnftables; None if it is not there."""
    from ctypes import CDLL, c_char_p, c_uint, c_void_p

    try:
        library = CDLL(LIBRARY)
    except OSError:
        return None
    library.nft_ctx_new.restype = c_void_p
    for name, arguments in {
        "free": (), "buffer_error": (), "buffer_output": (), "output_set_flags": (c_uint,),
    }.items():  # fmt: skip
        getattr(library, f"nft_ctx_{name}").argtypes = (c_void_p, *arguments)
    library.nft_run_cmd_from_buffer.argtypes = (c_void_p, c_char_p)
    return library
