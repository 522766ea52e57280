"""Core/v1 Events, which `kubectl describe` shows with a pod. Pure; kube.py sends them.

Imported only when there is an Event to send.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

COMPONENT = "genie"
_LONGEST = 1024
"""The limit for a message, in characters, from the newer events API (events.k8s.io/v1, `note`)."""
_NAME_LENGTH = 253 - 17
"""The limit for an object's name, in characters, less the part that an Event's name adds to it."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One Event of an object. If two are equal, they are one Event that happened twice.

    reason: one word in CamelCase, for machines. message: one sentence, for people; cut after 1024 characters.
    namespace: the object's own; empty for an object of the cluster, such as a Node. warning: something is wrong.
    """

    reason: str
    message: str
    namespace: str
    name: str
    uid: str
    kind: str = "Pod"
    warning: bool = False


def object_name(event: Event) -> str:
    """A new name for an Event, in client-go's form: the object's name, a dot, and a number."""
    return f"{event.name[:_NAME_LENGTH].rstrip('.-')}.{os.urandom(8).hex()}"


def place(event: Event) -> str:
    """The namespace of an Event: its object's, or `default` for an object of the cluster."""
    return event.namespace or "default"


def body(event: Event, name: str, node: str, *, first: float, last: float, count: int) -> dict[str, Any]:
    """The object for the API server.

    name: from `object_name`.
    node: the node on which it happened; may be empty.
    first, last: when it happened first and last, in seconds since 1970.
    """
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": place(event)},
        "involvedObject": {
            "apiVersion": "v1", "kind": event.kind, "name": event.name, "namespace": event.namespace, "uid": event.uid,
        },
        "reason": event.reason,
        "message": event.message[:_LONGEST],
        "type": "Warning" if event.warning else "Normal",
        "source": {"component": COMPONENT, "host": node},
        "reportingComponent": COMPONENT,
        "reportingInstance": node,
        "firstTimestamp": timestamp(first),
        **happened(last, count),
    }  # fmt: skip


def happened(last: float, count: int) -> dict[str, Any]:
    """The changes to an Event when it happens again."""
    return {"lastTimestamp": timestamp(last), "count": count}


def timestamp(seconds: float) -> str:
    """A time in the API's form: UTC, in whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
