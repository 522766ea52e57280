"""Attachments that nobody will ask to delete any more: which they are, and the DEL that takes one off.

A runtime that lost its state, or a node that was reset, never calls DEL for what it had. An attachment is such an
orphan if both its namespace and its pod are gone; what cannot be known counts as living. `genie gc` collects these in
direct mode (node/collect.py), the agent by itself (agent/collector.py).
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
    """Whether a namespace is there, by its path; None where this process cannot know.

    on_node: this process sees the node's files, mounts and processes as they are. Elsewhere a file without a namespace
    may be a mount that does not show, and a process may be of another PID namespace.
    """
    try:
        device = os.stat(netns).st_dev
    except FileNotFoundError:
        hidden = netns.startswith("/proc/") or not os.path.isdir(os.path.dirname(netns))
        return False if on_node or not hidden else None
    except OSError:
        return None
    if device == os.stat("/proc/self/ns/net").st_dev:  # of all namespaces there are: the kernel's nsfs
        return True
    return False if on_node else None


async def lives(record: Record, kube: Kube, *, on_node: bool) -> str:
    """Why an attachment is to stay, in words; "" for an orphan.

    on_node: see `has_namespace`.
    """
    there = has_namespace(record.netns, on_node=on_node)
    if there is not False:
        return "its namespace is there" if there else f"it is not known whether {record.netns} is there"
    if not record.pod:  # no Kubernetes, and so no pod to be gone
        return ""
    try:
        await kube.pod(record.namespace, record.pod, record.uid)
    except CniError as error:
        gone = error.code == Code.UNKNOWN_CONTAINER
        return "" if gone else f"it is not known whether its pod is gone: {error}"
    return "its pod is there"


def deletion(record: Record, env: Mapping[str, str], stdin: bytes) -> Request:
    """The DEL that the runtime should have called, after the namespace is gone.

    Args:
        env: of another call, or with what such a call has: CNI_PATH, PATH.
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
    """genie.conf without what another call's runtime said of its own container."""
    conf = json.loads(stdin)
    return json.dumps(
        {key: value for key, value in conf.items() if key not in ("prevResult", "runtimeConfig")}
    ).encode()
