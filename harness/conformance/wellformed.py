"""Checks the form of a result in a version of the specification: pure functions over the answer."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Any

from harness.conformance.spec import number

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}([0-9a-fA-F]{2}|(:[0-9a-fA-F]{2}){14})?")
Complaints = Iterator[str]


def complaints(result: Any, version: str) -> Complaints:
    """The mistakes in a result's form for a version, each with its place and the expected value.

    Unknown keys are no mistake: the specification does not forbid them.
    """
    if not isinstance(result, dict):
        yield f"the result is {_kind(result)}, expected an object"
        return
    if number(version) < number("0.3.0"):
        yield from _old(result)
    else:
        yield from _listed(result, "interfaces", lambda item, at: _interface(item, at, version))
        key = (
            "ip" if version == "0.3.0" and "ip" in result else "ips"
        )  # the text of the specification has `ip`, but means `ips`
        yield from _listed(result, key, lambda item, at: _ip(item, at, version))
        for old in ("ip4", "ip6"):
            if old in result:
                yield f"`{old}` is the form of 0.2.0; {version} has `ips`"
        yield from _listed(result, "routes", _route)
        yield from _indices(result, key)
    yield from _dns(result.get("dns"))


def _old(result: dict[str, Any]) -> Complaints:
    if "ips" in result and not any(key in result for key in ("ip4", "ip6")):
        yield "`ips` is the form of 0.3.0 and later; this version has `ip4` and `ip6`"
    for key, family in (("ip4", 4), ("ip6", 6)):
        part = result.get(key)
        if part is None:
            continue
        if not isinstance(part, dict):
            yield f"{key} is {_kind(part)}, expected an object"
            continue
        yield from _cidr(part.get("ip"), f"{key}.ip", family)
        if part.get("gateway") is not None:
            yield from _address(part["gateway"], f"{key}.gateway", family)
        yield from _listed(part, "routes", lambda item, at: _route(item, f"{key}.{at}"))  # noqa: B023


def _listed(result: dict[str, Any], key: str, each: Callable[[dict[str, Any], str], Complaints]) -> Complaints:
    items = result.get(key)
    if items is None:
        return
    if not isinstance(items, list):
        yield f"{key} is {_kind(items)}, expected a list"
        return
    for index, item in enumerate(items):
        if isinstance(item, dict):
            yield from each(item, f"{key}[{index}]")
        else:
            yield f"{key}[{index}] is {_kind(item)}, expected an object"


def _interface(item: dict[str, Any], at: str, version: str) -> Complaints:
    if not isinstance(item.get("name"), str) or not item["name"]:
        yield f"{at}.name: expected the interface's name, found {_shown(item.get('name'))}"
    mac = item.get("mac")
    if mac not in (None, "") and not (isinstance(mac, str) and _MAC.fullmatch(mac)):
        yield f"{at}.mac: expected a hardware address, found {_shown(mac)}"
    yield from _text(item, "sandbox", at)
    if number(version) >= number("1.1.0"):
        yield from _whole(item, "mtu", at)
        for key in ("socketPath", "pciID"):
            yield from _text(item, key, at)
        if isinstance(item.get("socketPath"), str) and item["socketPath"] and not item["socketPath"].startswith("/"):
            yield f"{at}.socketPath: expected an absolute path, found {_shown(item['socketPath'])}"


def _ip(item: dict[str, Any], at: str, version: str) -> Complaints:
    yield from _cidr(item.get("address"), f"{at}.address")
    if item.get("gateway") not in (None, ""):
        yield from _address(item["gateway"], f"{at}.gateway")
    if number(version) < number("1.0.0"):
        if item.get("version") not in ("4", "6"):
            yield f'{at}.version: expected "4" or "6", found {_shown(item.get("version"))}'
        elif (found := _family(item.get("address"))) and item["version"] != str(found):
            yield f"{at}.version: {item['version']} for {item['address']}"
    index = item.get("interface")
    if index is not None and (not isinstance(index, int) or isinstance(index, bool) or index < 0):
        yield f"{at}.interface: expected an index into `interfaces`, found {_shown(index)}"


def _indices(result: dict[str, Any], key: str) -> Complaints:
    interfaces = result.get("interfaces")
    if interfaces is not None and not isinstance(interfaces, list):
        return  # reported already
    count = len(interfaces or ())
    for at, item in enumerate(result[key] if isinstance(result.get(key), list) else []):
        index = item.get("interface") if isinstance(item, dict) else None
        if isinstance(index, int) and not isinstance(index, bool) and index >= count:
            yield f"{key}[{at}].interface: {index}, but there are {count} interfaces"


def _route(item: dict[str, Any], at: str) -> Complaints:
    yield from _cidr(item.get("dst"), f"{at}.dst", strict=False)
    if item.get("gw") not in (None, ""):
        yield from _address(item["gw"], f"{at}.gw")
    for key in ("mtu", "advmss", "priority", "table", "scope"):
        yield from _whole(item, key, at)


def _dns(dns: Any) -> Complaints:
    if dns is None:
        return
    if not isinstance(dns, dict):
        yield f"dns is {_kind(dns)}, expected an object"
        return
    yield from _text(dns, "domain", "dns")
    for key in ("nameservers", "search", "options"):
        texts = dns.get(key)
        if texts is not None and not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
            yield f"dns.{key}: expected a list of texts, found {_shown(texts)}"
        elif key == "nameservers":
            for index, server in enumerate(texts or []):
                yield from _address(server, f"dns.nameservers[{index}]")


def _text(item: dict[str, Any], key: str, at: str) -> Complaints:
    if item.get(key) is not None and not isinstance(item[key], str):
        yield f"{at}.{key}: expected a text, found {_shown(item[key])}"


def _whole(item: dict[str, Any], key: str, at: str) -> Complaints:
    value = item.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        yield f"{at}.{key}: expected a whole number, found {_shown(value)}"


def _cidr(value: Any, at: str, family: int = 0, *, strict: bool = True) -> Complaints:
    found = _family(value) if isinstance(value, str) and "/" in value else 0
    if not found or (family and found != family):
        what = f"an IPv{family} address" if family else "an address" if strict else "a destination"
        yield f"{at}: expected {what} in CIDR notation, found {_shown(value)}"


def _address(value: Any, at: str, family: int = 0) -> Complaints:
    found = _family(value) if isinstance(value, str) and "/" not in value else 0
    if not found or (family and found != family):
        yield f"{at}: expected an IP{f'v{family}' if family else ''} address, found {_shown(value)}"


def _family(value: Any) -> int:
    try:
        return ipaddress.ip_interface(value).version if isinstance(value, str) else 0
    except ValueError:
        return 0


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
    return "missing" if value is None else kinds.get(type(value), "something else")


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:80]
