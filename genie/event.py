"""What is shown with a pod in `kubectl describe`: a core/v1 Event. Pure; kube.py sends it.

Imported only where there is something to show: an ADD that has nothing to say does not pay for it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

COMPONENT = "genie"
_LONGEST = 1024
"""Characters of a message; what the newer events API allows (events.k8s.io/v1, `note`)."""
_NAME_LENGTH = 253 - 17
"""Characters of an object's name, less those that make an Event's name of it."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing to show with an object. Two that are equal are one Event that happened twice.

    reason: one word in CamelCase, for machines. message: one sentence, for people; what is over 1024 characters is cut.
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
    """A new name for an Event, made as client-go makes it: that of the object, a dot, and a number."""
    return f"{event.name[:_NAME_LENGTH].rstrip('.-')}.{os.urandom(8).hex()}"


def place(event: Event) -> str:
    """The namespace that an Event goes to: its object's, or `default` for an object of the cluster."""
    return event.namespace or "default"


def body(event: Event, name: str, node: str, *, first: float, last: float, count: int) -> dict[str, Any]:
    """The object for the API server.

    Args:
        name: as `object_name` makes it.
        node: the node that it happened on; may be empty.
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
    """What of an Event changes when it happens again."""
    return {"lastTimestamp": timestamp(last), "count": count}


def timestamp(seconds: float) -> str:
    """As the API has it: UTC, in whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
