"""STATUS: whether an ADD for a pod without annotations can work now (specification, section 2, "STATUS")."""

from __future__ import annotations

import os
from contextlib import suppress

from genie.cni import invoke
from genie.cni.errors import CniError, Code
from genie.cni.regular import NEW
from genie.kube import Pod
from genie.select import networks
from genie.select.annotations import asks
from genie.select.choose import default_for
from genie.verbs.context import Context

_RECORD = 4096
"""Bytes of a usual record."""


async def status(call: Context) -> None:
    """Call STATUS of such a pod's networks, and check that records can be written.

    Raises CniError: 50, "the plugin is not available", with the reason; 51 if a network reports that.
    """
    anyone, path, default = Pod(namespace="", name=""), call.request.path, None
    with suppress(CniError):  # not known while the API server is away, which alone must not stop a node's pods
        default = await default_for(anyone, call.conf, call.kube)
    try:
        asked = asks(anyone, call.conf, default)
        for each in await networks.find(asked.primary, call.kube, call.directory, "", path):
            await invoke.status(each.network, call.nowhere, call.executor)
            for kind in each.network.types:
                invoke.find(kind, path)
    except CniError as error:
        code = error.code if error.code == Code.LIMITED_CONNECTIVITY else Code.NOT_AVAILABLE
        raise CniError(code, error.msg, error.details) from error
    _writable(call.conf.state_dir)


def _writable(directory: str) -> None:
    """Write a file of a record's size: only this finds a full disk, or one without free inodes."""
    path = f"{directory}/status.{os.getpid()}{NEW}"
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        try:
            with open(path, "wb") as file:
                file.write(bytes(_RECORD))
        finally:
            with suppress(OSError):
                os.unlink(path)
    except OSError as error:
        raise CniError(Code.NOT_AVAILABLE, f"cannot keep records in {directory}: {error.strerror}") from error
