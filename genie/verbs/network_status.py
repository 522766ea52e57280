"""What is shown on the pod of its networks: two annotations, built from a selection and its results. Pure.

`k8s.v1.cni.cncf.io/network-status` as the multi-network specification has it (v1.3, section 5), and
`multi-ip-preferences` as CNI-Genie wrote it, but with every address in it always (CNI-Genie #95).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genie.cni.result import Result, dns_json
from genie.select.selection import Choice

NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"
MULTI_IP = "multi-ip-preferences"
REFUSED, SHORTENED = "NetworkStatusRefused", "NetworkStatusShortened"
"""Reasons of the Events of a status that the API server did not take, or not whole."""
#: What is kept of each attachment where the status does not fit, longest first, and whether MULTI_IP is, too. First go
#: the fields that no client needs to find its addresses, then what can be read elsewhere.
_KEPT = (
    (("name", "interface", "ips", "mac", "default"), True),
    (("name", "interface", "ips", "default"), False),
    (("name", "interface"), False),
)


def on_pod(choices: Sequence[Choice], results: Sequence[Result]) -> dict[str, str]:
    """Both annotations of a pod.

    Args:
        results: one for each choice, its addresses on that choice's interface, its routes those that the pod has.
    """
    entries = [
        _entry(choice, result, default=position == 0)
        for position, (choice, result) in enumerate(zip(choices, results, strict=True))
    ]
    return {
        # A line for each: to be read by people, too, without the slow encoder that `indent` takes.
        NETWORK_STATUS: "[" + ",\n ".join(map(json.dumps, entries)) + "]",
        MULTI_IP: json.dumps(_multi_ip(entries), separators=(",", ":")),
    }


def shorter(annotations: Mapping[str, str]) -> Iterator[Mapping[str, str | None]]:
    """What to write of the annotations of a pod where all is too long: less and less. None: not at all, for what an
    earlier container of the pod had there would be wrong.
    """
    known = {key: annotations[key] for key in (NETWORK_STATUS, MULTI_IP) if key in annotations}
    entries = json.loads(annotations.get(NETWORK_STATUS, "[]"))
    for fields, multi_ip in _KEPT:
        less = [{key: entry[key] for key in fields if key in entry} for entry in entries]
        status = json.dumps(less, separators=(",", ":")) if NETWORK_STATUS in known else None
        changed = {NETWORK_STATUS: status, MULTI_IP: annotations.get(MULTI_IP) if multi_ip else None}
        yield {**annotations, **{key: changed[key] for key in known}}
    yield {**annotations, **dict.fromkeys(known)}


def _entry(choice: Choice, result: Result, *, default: bool) -> dict[str, Any]:
    at = next((i for i, each in enumerate(result.interfaces) if each.sandbox and each.name == choice.ifname), None)
    inside = None if at is None else result.interfaces[at]
    entry: dict[str, Any] = {
        "name": choice.label,
        "interface": choice.ifname,
        "ips": [ip.address.partition("/")[0] for ip in result.ips if ip.interface in (None, at)],
        "mac": inside.mac if inside else "",
        "mtu": inside.mtu if inside else 0,
        "default": default,
        "gateway": _gateways(result),
        "dns": dns_json(result.dns),
    }
    if choice.ask.default_route is not None:
        entry["default-route"] = entry["gateway"]  # the specification's name for it; clients read the other
    if choice.device_id:
        entry["device-info"] = {"type": "pci", "version": "1.1.0", "pci": {"pci-address": choice.device_id}}
    return {key: value for key, value in entry.items() if value or key in ("default", "dns", "ips")}


def _gateways(result: Result) -> list[str]:
    """Where the pod's default routes go, if they go by this attachment."""
    found = []
    for route in result.routes:
        if not route.table and route.dst in ("0.0.0.0/0", "::/0"):
            near = (ip.gateway for ip in result.ips if ip.gateway and ip.is_v6 == route.is_v6)
            found.append(route.gw or next(near, ""))
    return list(filter(None, found))


def _multi_ip(entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    addresses = [(ip, entry["interface"]) for entry in entries for ip in entry["ips"]]
    return {
        "multi_entry": len(addresses),
        "ips": {f"ip{n}": {"ip": ip, "interface": name} for n, (ip, name) in enumerate(addresses, 1)},
    }
