"""Well-formed results in every version, and detection of a single mistake."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from harness.conformance.spec import VERSIONS, number
from harness.conformance.wellformed import complaints


def right(version: str) -> dict[str, Any]:
    if number(version) < number("0.3.0"):
        ip4 = {"ip": "10.1.0.5/16", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]}
        return {"cniVersion": version, "ip4": ip4, "dns": {"nameservers": ["10.1.0.1"]}}
    ip = {"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 0}
    if number(version) < number("1.0.0"):
        ip["version"] = "4"
    return {
        "cniVersion": version,
        "interfaces": [{"name": "eth0", "mac": "99:88:77:66:55:44", "sandbox": "/run/netns/blue"}],
        "ips": [ip],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
        "dns": {"nameservers": ["10.1.0.1"], "search": ["example.org"]},
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_no_complaint_about_a_right_result(version: str) -> None:
    assert list(complaints(right(version), version)) == []


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        (("interfaces", 0, "name"), "", "interfaces[0].name"),
        (("interfaces", 0, "mac"), "99:88", "interfaces[0].mac"),
        (("interfaces", 0, "mtu"), "1500", "interfaces[0].mtu"),
        (("interfaces", 0, "sandbox"), 5, "interfaces[0].sandbox"),
        (("interfaces",), {}, "interfaces"),
        (("ips", 0, "address"), "10.1.0.5", "ips[0].address"),
        (("ips", 0, "gateway"), "10.1.0.1/16", "ips[0].gateway"),
        (("ips", 0, "interface"), 1, "ips[0].interface"),
        (("ips", 0, "interface"), -1, "ips[0].interface"),
        (("ips", 0, "interface"), True, "ips[0].interface"),
        (("ips",), None, ""),
        (("routes", 0, "dst"), "default", "routes[0].dst"),
        (("routes", 0, "gw"), "eth0", "routes[0].gw"),
        (("routes", 0, "priority"), -1, "routes[0].priority"),
        (("dns", "nameservers"), "10.1.0.1", "dns.nameservers"),
        (("dns", "nameservers"), ["ns.example"], "dns.nameservers[0]"),
        (("ip4",), {}, "ip4"),
    ],
)
def test_what_is_wrong_is_named(path: tuple[str | int, ...], value: Any, word: str) -> None:
    result = deepcopy(right("1.1.0"))
    inner: Any = result
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    found = list(complaints(result, "1.1.0"))
    assert [text for text in found if word in text] == found
    assert len(found) == (1 if word else 0)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("other", VERSIONS)
def test_the_form_of_another_version_is_found(version: str, other: str) -> None:
    def form(of: str) -> int:
        return sum(number(of) >= number(since) for since in ("0.3.0", "1.0.0"))

    wrong = bool(list(complaints(right(other), version)))
    # 1.0.0 removed `version` from `ips`, but does not forbid unknown keys.
    assert wrong == (form(other) != form(version) and not (form(version) == 2 and form(other) == 1))
