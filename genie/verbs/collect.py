"""Orphans: attachments that the runtime will never delete. Finds them, and builds the DEL for one.

A runtime that lost its state, or a node that was reset, never calls DEL for its old attachments. An attachment is an
orphan if both its namespace and its pod are gone; if this cannot be found out, it is not one. `genie gc` collects
orphans in direct mode (node/collect.py), the agent does so by itself (agent/collector.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from genie.cni.errors import CniError, Code
from genie.kube import Kube
from genie.records import Record
from genie.request import Request


def has_namespace(netns: str, *, on_node: bool) -> bool | None:
    """Whether a namespace exists, by its path; None if this process cannot find out.

    on_node: this process sees the node's own files, mounts and processes. Without that, a plain file may be a mount
    that is not visible here, and a PID may be of another PID namespace.
    """
    try:
        device = os.stat(netns).st_dev
    except FileNotFoundError:
        hidden = netns.startswith("/proc/") or not os.path.isdir(os.path.dirname(netns))
        return False if on_node or not hidden else None
    except OSError:
        return None
    if device == os.stat("/proc/self/ns/net").st_dev:  # the device of the kernel's nsfs, the same for all namespaces
        return True
    return False if on_node else None


async def lives(record: Record, kube: Kube, *, on_node: bool) -> str:
    """The reason to keep an attachment, as a sentence; "" for an orphan.

    on_node: see `has_namespace`.
    """
    there = has_namespace(record.netns, on_node=on_node)
    if there is not False:
        return "its namespace is there" if there else f"it is not known whether {record.netns} is there"
    if not record.pod:  # not Kubernetes: there is no pod to look up
        return ""
    try:
        await kube.pod(record.namespace, record.pod, record.uid)
    except CniError as error:
        gone = error.code == Code.UNKNOWN_CONTAINER
        return "" if gone else f"it is not known whether its pod is gone: {error}"
    return "its pod is there"


def deletion(record: Record, env: Mapping[str, str], stdin: bytes) -> Request:
    """The DEL that the runtime should have called, for a namespace that is gone.

    env: another call's, or at least its CNI_PATH and PATH.
    stdin: genie.conf, as for any call.
    """
    own = {
        "CNI_COMMAND": "DEL",
        "CNI_CONTAINERID": record.container_id,
        "CNI_IFNAME": record.ifname,
        "CNI_NETNS": "",
        "CNI_ARGS": record.args,
    }
    return Request(env={**env, **own}, stdin=_without_result(stdin))


def _without_result(stdin: bytes) -> bytes:
    """genie.conf without the fields that the runtime of another call set for its container."""
    conf = json.loads(stdin)
    return json.dumps(
        {key: value for key, value in conf.items() if key not in ("prevResult", "runtimeConfig")}
    ).encode()
