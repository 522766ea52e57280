"""What is shown on the pod of its networks: two annotations, built from a selection and its results. Pure.

`k8s.v1.cni.cncf.io/network-status` as the multi-network specification has it (v1.3, section 5), and
`multi-ip-preferences` as CNI-Genie wrote it, but with every address in it always (CNI-Genie #95).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genie.cni.result import IP, Result, dns_json
from genie.select.selection import Choice

NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"
MULTI_IP = "multi-ip-preferences"
REFUSED, SHORTENED = "NetworkStatusRefused", "NetworkStatusShortened"
"""Reasons of the Events of a status that the API server did not take, or not whole."""
ADDED = "AddedInterface"
"""The reason of the Event of an attachment, as Multus has it."""
#: What is kept of each attachment where the status does not fit, longest first, and whether MULTI_IP is, too. First go
#: the fields that no client needs to find its addresses, then what can be read elsewhere.
_KEPT = (
    (("name", "interface", "ips", "mac", "default"), True),
    (("name", "interface", "ips", "default"), False),
    (("name", "interface"), False),
)


def on_pod(
    choices: Sequence[Choice], results: Sequence[Result], devices: Mapping[int, Mapping[str, Any]] | None = None
) -> dict[str, str]:
    """Both annotations of a pod.

    Args:
        results: one for each choice, its addresses on that choice's interface, its routes those that the pod has.
        devices: what is known of the devices of some (see device_info.py), by position.
    """
    known = devices or {}
    entries = [
        entry
        for position, (choice, result) in enumerate(zip(choices, results, strict=True))
        for entry in _entries(choice, result, known.get(position) or _pci(choice.device_id), default=position == 0)
    ]
    return {
        # A line for each: to be read by people, too, without the slow encoder that `indent` takes.
        NETWORK_STATUS: "[" + ",\n ".join(map(json.dumps, entries)) + "]",
        MULTI_IP: json.dumps(_multi_ip(entries), separators=(",", ":")),
    }


def added(choice: Choice, result: Result) -> str:
    """The message of an attachment's Event, in Multus' words; "" for a plugin that made nothing, which has none."""
    if not (result.interfaces or result.ips):
        return ""
    return f"Add {choice.ifname} [{' '.join(ip.address for ip in result.ips)}] from {choice.label}"


def shorter(annotations: Mapping[str, str]) -> Iterator[Mapping[str, str | None]]:
    """What to write of the annotations of a pod where all is too long: less and less. None: not at all, for what an
    earlier container of the pod had there would be wrong.
    """
    known = {key: annotations[key] for key in (NETWORK_STATUS, MULTI_IP) if key in annotations}
    entries = json.loads(annotations.get(NETWORK_STATUS, "[]"))
    for fields, multi_ip in _KEPT:
        less = [{key: entry[key] for key in fields if key in entry} for entry in entries]
        status = json.dumps(less, separators=(",", ":"))
        changed = {NETWORK_STATUS: status, MULTI_IP: annotations.get(MULTI_IP) if multi_ip else None}
        yield {**annotations, **{key: changed[key] for key in known}}
    yield {**annotations, **dict.fromkeys(known)}


def _pci(device: str) -> Mapping[str, Any]:
    """What a device's ID alone says of it: something if it is the address of a PCI device (device-info specification
    1.1.0, 3.1.3.1). The IDs of other devices are of many forms.
    """
    if not re.fullmatch(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]", device):
        return {}
    return {"type": "pci", "version": "1.1.0", "pci": {"pci-address": device}}


def _entries(choice: Choice, result: Result, device: Mapping[str, Any], *, default: bool) -> list[dict[str, Any]]:
    """An entry for each interface of the pod that a network reports, as Multus has it; the first alone has that of the
    attachment. Of the pod's network one is the default: the interface of the first address with a gateway, else the
    first.
    """
    found = _inside(choice, result)
    if not found:  # as plugins for user space make none, and report none
        return [_entry(choice, result, None, device, default=default, alone=True)]
    gated = next((ip.interface for ip in result.ips if ip.gateway and ip.interface in found), found[0])
    return [_entry(choice, result, at, device, default=default and at == gated, alone=len(found) == 1) for at in found]


def _inside(choice: Choice, result: Result) -> list[int]:
    """Where the pod's interfaces are among a result's. An interface in another sandbox than the attachment's is not in
    the pod: Amazon's plugin so reports what is on no machine at all.
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
    """at: the interface's position in the result. alone: it is the network's only one in the pod."""
    inside = None if at is None else result.interfaces[at]
    ips = [ip for ip in result.ips if ip.interface in (None, at)]
    entry: dict[str, Any] = {
        "name": choice.label,
        "interface": inside.name if inside else choice.ifname,
        "ips": [ip.address.partition("/")[0] for ip in ips],
        "mac": inside.mac if inside else "",
        "mtu": inside.mtu if inside else 0,
        "default": default,
        "gateway": _gateways(result, None if alone else ips),
        "dns": dns_json(result.dns),
        "device-info": device,
    }
    if choice.ask.default_route is not None:
        entry["default-route"] = entry["gateway"]  # the specification's name for it; clients read the other
    return {key: value for key, value in entry.items() if value or key in ("default", "dns", "ips")}


def _gateways(result: Result, ips: Sequence[IP] | None) -> list[str]:
    """Where the pod's default routes go, if they go by this attachment.

    ips: those of the interface, where the attachment has several: a route is then that of the interface that has its
    gateway. One that no interface has is shown at each, for nobody knows which it is by.
    """
    found = []
    for route in result.routes:
        if not route.table and route.dst in ("0.0.0.0/0", "::/0"):
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
