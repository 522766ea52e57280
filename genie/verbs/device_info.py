"""What is known of the device that a network runs over: files of device information (device-info specification 1.1.0).

A device plugin writes one for each of its devices, and a CNI plugin that declares the capability `CNIDeviceInfoFile`
reads, changes or writes one for its attachment. genie copies the first to the place of the second before the ADD
(4.2.1), gives the plugins its path (5.1.1), shows what is in it after the ADD on the pod (6.1.1), and removes it with
the attachment. None of it fails a call: what is wrong with a file is logged, and then the pod shows none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from genie.cni.fields import decode, undecodable

ROOT = "/var/run/k8s.cni.cncf.io/devinfo"
LIMIT = 64 << 10  # bytes of a file
WHERE = "device information"
#: What each type of device has under its own name (3.1.3 to 3.1.6).
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "pci": ("pci-address",),
    "vdpa": ("parent-device", "driver", "path"),
    "vhost-user": ("mode", "path"),
    "memif": ("role", "path", "mode"),
}


def path(container_id: str, ifname: str) -> str:
    """The file of an attachment. No other of the node has that container's ID and interface."""
    return f"{ROOT}/cni/{container_id}@{ifname}.json"


def offer(file: str, resource: str, device: str) -> None:
    """Put what the device plugin wrote of the device, if it did, in the place of the attachment's file.

    Args:
        file: as `path` returns it. One that an earlier attachment left there goes.
        resource, device: the resource's name and the device's ID; empty for a network over none.

    Raises:
        OSError: it could not be read, or written.
    """
    remove(file)
    os.makedirs(os.path.dirname(file), exist_ok=True)
    if not (resource and device):
        return
    name = f"{resource.replace('/', '-')}-{device.replace('/', '-')}-device.json"
    with suppress(FileNotFoundError):
        content = _content(f"{ROOT}/dp/{name}")
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "wb") as copy:
            copy.write(content)


def read(file: str) -> Mapping[str, Any] | None:
    """What the file says of the device, None if there is no such file.

    Raises:
        OSError: it cannot be read, or is too long.
        CniError: 6; it is not what the specification has.
    """
    try:
        content = _content(file)
    except FileNotFoundError:
        return None
    return checked(decode(content, WHERE))


def remove(file: str) -> None:
    """Remove an attachment's file, if it is there; what is none of genie's stays. Raises OSError."""
    if os.path.dirname(file) == f"{ROOT}/cni":
        with suppress(FileNotFoundError):
            os.unlink(file)


def _content(file: str) -> bytes:
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
        content = opened.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise OSError(f"{file} is longer than {LIMIT} bytes")
    return content


def checked(info: Any) -> Mapping[str, Any]:
    """Section 3.1. Keys that it does not know stay: a later version may."""
    if not isinstance(info, dict):
        raise undecodable(WHERE, "expected an object")
    kind = info.get("type")
    if not isinstance(kind, str) or kind not in REQUIRED:
        raise undecodable(WHERE, f"type: expected one of {', '.join(REQUIRED)}, found {kind!r:.40}")
    if not isinstance(info.get("version"), str):
        raise undecodable(WHERE, "version: expected a string")
    device = info.get(kind)
    if not isinstance(device, dict):
        raise undecodable(WHERE, f"{kind}: expected an object")
    for key in REQUIRED[kind]:
        if not isinstance(device.get(key), str):
            raise undecodable(WHERE, f"{kind}: {key}: expected a string")
    return info
