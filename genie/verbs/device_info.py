"""Information about the device that a network runs over, in files (device-info specification 1.1.0).

A device plugin writes one for each of its devices, and a CNI plugin that declares the capability `CNIDeviceInfoFile`
reads, changes or writes one for its attachment. Before the ADD, genie copies the first file to the place of the second
(4.2.1), and passes its path to the plugins (5.1.1). After the ADD it shows the content on the pod (6.1.1). It removes
the file with the attachment. A problem with a file never fails a call: it is logged, and the pod shows no device.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from genie.cni.fields import decode, undecodable
from genie.cni.regular import opened, put

ROOT = "/var/run/k8s.cni.cncf.io/devinfo"
LIMIT = 64 << 10  # bytes of a file
WHERE = "device information"
#: The required fields of each type of device (3.1.3 to 3.1.6).
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "pci": ("pci-address",),
    "vdpa": ("parent-device", "driver", "path"),
    "vhost-user": ("mode", "path"),
    "memif": ("role", "path", "mode"),
}


def path(container_id: str, ifname: str) -> str:
    """The path of an attachment's file. Container ID and interface make it unique on the node."""
    return f"{ROOT}/cni/{container_id}@{ifname}.json"


def offer(file: str, resource: str, device: str) -> None:
    """Copy the device plugin's file, if there is one, to the attachment's.

    file: as `path` returns it. A file that an earlier attachment left there is removed.
    resource, device: the resource's name and the device's ID; empty for a network without a device.

    Raises OSError: a file could not be read or written.
    """
    remove(file)
    os.makedirs(os.path.dirname(file), exist_ok=True)
    if not (resource and device):
        return
    name = f"{resource.replace('/', '-')}-{device.replace('/', '-')}-device.json"
    with suppress(FileNotFoundError):
        put(file, _content(f"{ROOT}/dp/{name}"), 0o644)


def read(file: str) -> Mapping[str, Any] | None:
    """Read the device information in a file; None if there is no such file.

    Raises OSError: it cannot be read, or is too long.
    Raises CniError: 6; the content does not match the specification.
    """
    try:
        content = _content(file)
    except FileNotFoundError:
        return None
    return checked(decode(content, WHERE))


def remove(file: str) -> None:
    """Remove an attachment's file, if it exists; files of others stay. Raises OSError."""
    if os.path.dirname(file) == f"{ROOT}/cni":
        with suppress(FileNotFoundError):
            os.unlink(file)


def _content(file: str) -> bytes:
    with opened(file) as handle:
        content = handle.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise OSError(f"{file} is longer than {LIMIT} bytes")
    return content


def checked(info: Any) -> Mapping[str, Any]:
    """Section 3.1. Unknown keys stay: a later version may define them."""
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
