"""The annotations that show a pod's networks: two, built from a selection and its results. Pure.

`k8s.v1.cni.cncf.io/network-status` follows the multi-network specification (v1.3, section 5).
`multi-ip-preferences` is as in CNI-Genie, but always has every address (CNI-Genie #95).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genie.cni.fields import compact
from genie.cni.result import IP, Result, dns_json
from genie.select.selection import Choice

NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"
MULTI_IP = "multi-ip-preferences"
REFUSED, SHORTENED = "NetworkStatusRefused", "NetworkStatusShortened"
"""Reasons of the Events for a status that could not be written, or only shortened."""
ADDED = "AddedInterface"
"""The reason of an attachment's Event, as in Multus."""
#: The fields of each attachment to keep if the status is too long, longest list first, and whether to keep MULTI_IP.
#: Fields that clients do not need to find addresses are dropped first, then those that can be read elsewhere.
_KEPT = (
    (("name", "interface", "ips", "mac", "default"), True),
    (("name", "interface", "ips", "default"), False),
    (("name", "interface"), False),
)


def on_pod(
    choices: Sequence[Choice], results: Sequence[Result], devices: Mapping[int, Mapping[str, Any]] | None = None
) -> dict[str, str]:
    """Both annotations of a pod.

    results: one for each choice, with its addresses on that choice's interface, and the pod's actual routes.
    devices: the device information (see device_info.py), by position, for choices that have it.
    """
    known = devices or {}
    entries = [
        entry
        for position, (choice, result) in enumerate(zip(choices, results, strict=True))
        for entry in _entries(choice, result, known.get(position) or _pci(choice.device_id), default=position == 0)
    ]
    return {
        # One line each, so that people can read it too. `indent` would use Python's slow encoder.
        NETWORK_STATUS: "[" + ",\n ".join(map(json.dumps, entries)) + "]",
        MULTI_IP: compact(_multi_ip(entries)),
    }


def added(choice: Choice, result: Result) -> str:
    """The message of an attachment's Event, as in Multus; "" (no Event) for a plugin that made nothing."""
    if not (result.interfaces or result.ips):
        return ""
    return f"Add {choice.ifname} [{' '.join(ip.address for ip in result.ips)}] from {choice.label}"


def shorter(annotations: Mapping[str, str]) -> Iterator[Mapping[str, str | None]]:
    """Shorter and shorter annotations, for when the full ones are too long. None removes an annotation, because the
    value of an earlier container of the pod would be wrong.
    """
    known = {key: annotations[key] for key in (NETWORK_STATUS, MULTI_IP) if key in annotations}
    entries = json.loads(annotations.get(NETWORK_STATUS, "[]"))
    for fields, multi_ip in _KEPT:
        less = [{key: entry[key] for key in fields if key in entry} for entry in entries]
        status = compact(less)
        changed = {NETWORK_STATUS: status, MULTI_IP: annotations.get(MULTI_IP) if multi_ip else None}
        yield {**annotations, **{key: changed[key] for key in known}}
    yield {**annotations, **dict.fromkeys(known)}


def _pci(device: str) -> Mapping[str, Any]:
    """Device information made from a device's ID, if the ID is a PCI address (device-info specification 1.1.0,
    3.1.3.1). The IDs of other devices have many forms.
    """
    if not re.fullmatch(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]", device):
        return {}
    return {"type": "pci", "version": "1.1.0", "pci": {"pci-address": device}}


def _entries(choice: Choice, result: Result, device: Mapping[str, Any], *, default: bool) -> list[dict[str, Any]]:
    """One entry for each interface of the pod in a network's result, as in Multus. Only the first entry has the
    attachment's own fields. For the pod's own network, one entry is the default: the interface of the first address
    with a gateway, otherwise the first.
    """
    found = _inside(choice, result)
    if not found:  # plugins for user space make no interface, and report none
        return [_entry(choice, result, None, device, default=default, alone=True)]
    gated = next((ip.interface for ip in result.ips if ip.gateway and ip.interface in found), found[0])
    return [_entry(choice, result, at, device, default=default and at == gated, alone=len(found) == 1) for at in found]


def _inside(choice: Choice, result: Result) -> list[int]:
    """The indices of the pod's interfaces in a result. An interface with another sandbox is not in the pod: Amazon's
    plugin reports one that does not exist on any machine.
    """
    sandboxed = [at for at, each in enumerate(result.interfaces) if each.sandbox]
    own = next((at for at in sandboxed if result.interfaces[at].name == choice.ifname), None)
    if own is None:
        return sandboxed
    sandbox = result.interfaces[own].sandbox
    return [at for at in sandboxed if result.interfaces[at].sandbox == sandbox]


def _entry(
    choice: Choice, result: Result, at: int | None, device: Mapping[str, Any], *, default: bool, alone: bool
) -> dict[str, Any]:
    """at: the interface's position in the result. alone: it is the network's only interface in the pod."""
    inside = None if at is None else result.interfaces[at]
    ips = [ip for ip in result.ips if ip.interface in (None, at)]
    entry: dict[str, Any] = {
        "name": choice.label,
        "interface": inside.name if inside else choice.ifname,
        "ips": [ip.plain for ip in ips],
        "mac": inside.mac if inside else "",
        "mtu": inside.mtu if inside else 0,
        "default": default,
        "gateway": _gateways(result, None if alone else ips),
        "dns": dns_json(result.dns),
        "device-info": device,
    }
    if choice.ask.default_route is not None:
        entry["default-route"] = entry["gateway"]  # the specification's name; clients read the other one
    return {key: value for key, value in entry.items() if value or key in ("default", "dns", "ips")}


def _gateways(result: Result, ips: Sequence[IP] | None) -> list[str]:
    """The gateways of the pod's default routes that use this attachment.

    ips: the interface's addresses, if the attachment has several interfaces. A route belongs to the interface with an
    address of its gateway. A gateway that matches no interface is shown at each of them.
    """
    found = []
    for route in result.routes:
        if route.is_default:
            near = (ip.gateway for ip in result.ips if ip.gateway and ip.is_v6 == route.is_v6)
            found.append(route.gw or next(near, ""))
    if ips is not None:
        known = {ip.gateway for ip in result.ips}
        found = [gateway for gateway in found if gateway not in known or gateway in {ip.gateway for ip in ips}]
    return list(filter(None, found))


def _multi_ip(entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    addresses = [(ip, entry["interface"]) for entry in entries for ip in entry["ips"]]
    return {
        "multi_entry": len(addresses),
        "ips": {f"ip{n}": {"ip": ip, "interface": name} for n, (ip, name) in enumerate(addresses, 1)},
    }
