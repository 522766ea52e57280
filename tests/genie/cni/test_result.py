"""Results: reading returns the written result in every version, except for fields that the version lacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.cni import result as results
from genie.cni.errors import CniError, Code
from genie.cni.result import DNS, IP, Interface, Result, Route
from genie.cni.version import SUPPORTED

OLD = ("0.1.0", "0.2.0")
MIDDLE = ("0.3.0", "0.3.1", "0.4.0")
NEW = ("1.0.0", "1.1.0")

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
v4 = st.ip_addresses(v=4).map(str)
v6 = st.ip_addresses(v=6).map(str).filter(lambda address: "." not in address)
cidr4 = st.tuples(v4, st.integers(0, 32)).map(lambda pair: f"{pair[0]}/{pair[1]}")
cidr6 = st.tuples(v6, st.integers(0, 128)).map(lambda pair: f"{pair[0]}/{pair[1]}")
numbers = st.integers(0, 2**32 - 1)

interfaces = st.builds(
    Interface,
    name=words,
    mac=st.just("") | st.just("02:00:00:00:00:01"),
    sandbox=st.just("") | words,
    mtu=st.integers(0, 9000),
    socket_path=st.just("") | words,
    pci_id=st.just("") | words,
)
routes = st.one_of(
    *(
        st.builds(
            Route,
            dst=dst,
            gw=st.just("") | gw,
            mtu=st.integers(0, 9000),
            advmss=st.integers(0, 9000),
            priority=st.none() | numbers,
            table=st.none() | numbers,
            scope=st.none() | st.integers(0, 255),
        )
        for dst, gw in ((cidr4, v4), (cidr6, v6))
    )
)
lists = st.lists(words, max_size=3).map(tuple)
dnses = st.builds(DNS, nameservers=lists, domain=st.just("") | words, search=lists, options=lists)


@st.composite
def any_result(draw: st.DrawFn, min_ips: int = 0) -> Result:
    made = tuple(draw(st.lists(interfaces, max_size=3)))
    index = st.none() | st.integers(0, len(made) - 1) if made else st.none()
    ips = st.one_of(
        st.builds(IP, address=cidr4, gateway=st.just("") | v4, interface=index),
        st.builds(IP, address=cidr6, gateway=st.just("") | v6, interface=index),
    )
    return Result(
        interfaces=made,
        ips=tuple(draw(st.lists(ips, min_size=min_ips, max_size=4))),
        routes=tuple(draw(st.lists(routes, max_size=4))),
        dns=draw(dnses),
    )


def through(result: Result, version: str) -> Result:
    """Written in a version, over the wire, and read again."""
    written = json.loads(json.dumps(results.to_json(result, version)))
    assert written["cniVersion"] == version
    return results.parse(written)


@given(any_result(), st.sampled_from(NEW))
def test_new_versions_lose_nothing(result: Result, version: str) -> None:
    assert through(result, version) == result


@given(any_result(), st.sampled_from(MIDDLE))
def test_middle_versions_lose_what_interfaces_got_later(result: Result, version: str) -> None:
    kept = tuple(replace(one, mtu=0, socket_path="", pci_id="") for one in result.interfaces)
    assert through(result, version) == replace(result, interfaces=kept)
    families = ["6" if ip.is_v6 else "4" for ip in result.ips]
    assert [ip["version"] for ip in results.to_json(result, version).get("ips", [])] == families


@given(any_result(min_ips=1), st.sampled_from(OLD))
def test_old_versions_keep_the_first_address_of_each_family(result: Result, version: str) -> None:
    kept = through(result, version)
    for is_v6 in (False, True):
        had = [ip for ip in result.ips if ip.is_v6 == is_v6]
        has = [ip for ip in kept.ips if ip.is_v6 == is_v6]
        assert has == [replace(ip, interface=None) for ip in had[:1]]
        lanes = [Route(route.dst, route.gw) for route in result.routes if route.is_v6 == is_v6]
        assert [route for route in kept.routes if route.is_v6 == is_v6] == (lanes if had else [])
    assert kept.interfaces == ()
    assert kept.dns == result.dns


@given(any_result(min_ips=1), st.sampled_from(SUPPORTED))
def test_writing_twice_loses_no_more_than_once(result: Result, version: str) -> None:
    once = through(result, version)
    assert through(once, version) == once


def test_old_versions_refuse_a_result_without_address() -> None:
    with pytest.raises(CniError, match=r"without an address cannot be written as version 0\.2\.0"):
        results.to_json(Result(), "0.2.0")


@given(st.lists(any_result(), max_size=4))
def test_merging_keeps_order_and_every_index_on_its_interface(parts: list[Result]) -> None:
    merged = results.merge(parts)
    assert merged.interfaces == tuple(one for part in parts for one in part.interfaces)
    assert merged.routes == tuple(one for part in parts for one in part.routes)

    def placed(result: Result) -> list[tuple[str, str, Interface | None]]:
        on = [None if ip.interface is None else result.interfaces[ip.interface] for ip in result.ips]
        return [(ip.address, ip.gateway, where) for ip, where in zip(result.ips, on, strict=True)]

    assert placed(merged) == [one for part in parts for one in placed(part)]
    for joined, each in (
        (merged.dns.nameservers, [part.dns.nameservers for part in parts]),
        (merged.dns.search, [part.dns.search for part in parts]),
        (merged.dns.options, [part.dns.options for part in parts]),
    ):
        assert len(set(joined)) == len(joined)
        assert set(joined) == {entry for entries in each for entry in entries}
    assert merged.dns.domain == next((part.dns.domain for part in parts if part.dns.domain), "")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
fields = ("interfaces", "ips", "routes", "dns", "ip4", "ip6", "cniVersion", "address", "dst", "interface", "name")
results_like = st.dictionaries(
    st.sampled_from(fields),
    json_values
    | st.lists(st.dictionaries(st.sampled_from(fields), json_values, max_size=4), max_size=2)
    | st.dictionaries(st.sampled_from(("ip", "gateway", "routes", "nameservers")), json_values, max_size=3),
)


@given(json_values | results_like, st.sampled_from(SUPPORTED))
def test_reading_anything_is_a_result_or_an_error_of_ours(data: object, version: str) -> None:
    try:
        assert isinstance(results.parse(data, version), Result)
    except CniError as error:
        assert error.code in (Code.DECODING_FAILURE, Code.INCOMPATIBLE_VERSION)
        assert "result" in error.msg


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ([], "result: expected an object, found []"),
        ({"cniVersion": "9.9.9"}, "cniVersion: expected one of 0.1.0"),
        ({"ips": {}}, "ips: expected a list, found {}"),
        ({"ips": [None]}, "ips[0]: expected an object, found nothing"),
        ({"ips": [{"address": "10.0.0.1"}]}, "ips[0]: address: expected an address like 10.1.2.3/24"),
        ({"ips": [{"address": "10.0.0.1/33"}]}, "ips[0]: address: expected"),
        ({"ips": [{"address": "10.0.0.1/8", "interface": "0"}]}, "ips[0]: interface: expected a whole number"),
        ({"ips": [{"address": "10.0.0.1/8", "interface": True}]}, "ips[0]: interface: expected a whole number"),
        ({"routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.0/8"}]}, "routes[0]: gw: expected an address"),
        ({"dns": {"search": "a"}}, "dns: search: expected a list, found 'a'"),
        ({"cniVersion": "0.2.0", "ip4": {"ip": "::1/64"}}, "ip4: ip: expected an IPv4 address"),
    ],
)
def test_complaints_name_the_field(data: object, complaint: str) -> None:
    with pytest.raises(CniError) as caught:
        results.parse(data, "1.0.0")
    assert complaint in str(caught.value)


NUMBERS = {"mtu": 0, "advmss": 0, "priority": None, "table": None, "scope": None}


@given(st.dictionaries(st.sampled_from([*NUMBERS, "interface"]), st.integers(-5, -1), min_size=1))
def test_numbers_below_zero_say_nothing(below: dict[str, int]) -> None:
    """CNI's library 0.5 writes `"interface": -1` (types/current, convertFrom020); libcni takes any of Go's numbers, and
    so does the multi-network specification (5.3.3.1, "or where the interface property is less than zero").
    """
    index = below.pop("interface", -1)
    data = {
        "ips": [{"version": "4", "interface": index, "address": "10.2.0.2/24", "gateway": "10.2.0.1"}],
        "interfaces": [{"name": "eth0", "mtu": below.get("mtu", -1)}],
        "routes": [{"dst": "0.0.0.0/0", **below}],
    }
    read = results.parse(data, "0.3.0")
    assert read.ips == (IP("10.2.0.2/24", "10.2.0.1"),)
    assert read.interfaces[0].mtu == 0
    assert {key: getattr(read.routes[0], key) for key in NUMBERS} == NUMBERS


def test_reading_is_tolerant_where_that_harms_nobody() -> None:
    data: dict[str, Any] = {
        "ips": [{"address": "10.0.0.1/8", "interface": 7, "new": 1}],
        "interfaces": None,
        "dns": None,
        "more": {},
    }
    assert results.parse(data, "1.0.0") == Result(ips=(IP("10.0.0.1/8"),))


def test_a_result_without_version_is_read_as_asked_but_the_old_form_is_known_by_its_keys() -> None:
    assert results.parse({"ips": [{"address": "10.0.0.1/8"}]}, "1.0.0").ips == (IP("10.0.0.1/8"),)
    assert results.parse({"ip4": {"ip": "10.0.0.1/8"}}, "1.0.0").ips == (IP("10.0.0.1/8"),)


@pytest.mark.parametrize("key", results.MOST)
def test_lists_longer_than_the_limit_are_refused(key: str) -> None:
    for where in ("", "dns", "ip4", "ip6"):
        for length in (results.MOST[key], results.MOST[key] + 1, 10**5):
            entries = {key: [None] * length}
            data = {where: entries} if where else entries
            if length == results.MOST[key]:
                results.check_length(data)
                continue
            with pytest.raises(CniError, match=f"result: {key}: {length} entries, of at most {results.MOST[key]}"):
                results.check_length(data)
    results.check_length([])
    results.check_length({key: "many", "dns": 5})


FULL = Result(
    interfaces=(
        Interface("veth1", mac="02:00:00:00:00:01"),
        Interface("eth0", "02:00:00:00:00:02", "/n", 1400, "/run/x.sock", "0000:3b:00.1"),
    ),
    ips=(IP("10.0.0.2/24", "10.0.0.1", 1), IP("fd00::2/64", "", 0), IP("10.9.0.2/24")),
    routes=(
        Route("0.0.0.0/0", "10.0.0.1", mtu=1300, advmss=1200, priority=0, table=0, scope=0),
        Route("fd00:1::/64"),
    ),
    dns=DNS(("10.0.0.10",), "x.org", ("a.org",), ("ndots:2",)),
)
DNS_JSON = {"nameservers": ["10.0.0.10"], "domain": "x.org", "search": ["a.org"], "options": ["ndots:2"]}
ROUTES_JSON = [
    {"dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1300, "advmss": 1200, "priority": 0, "table": 0, "scope": 0},
    {"dst": "fd00:1::/64"},
]


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_result_as_each_version_has_it(version: str) -> None:
    veth: dict[str, Any] = {"name": "veth1", "mac": "02:00:00:00:00:01"}
    eth: dict[str, Any] = {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/n"}
    ips: list[dict[str, Any]] = [
        {"address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 1},
        {"address": "fd00::2/64", "interface": 0},
        {"address": "10.9.0.2/24"},
    ]
    if version in OLD:
        assert results.to_json(FULL, version) == {
            "cniVersion": version,
            "ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}]},
            "ip6": {"ip": "fd00::2/64", "routes": [{"dst": "fd00:1::/64"}]},
            "dns": DNS_JSON,
        }
        return
    if version in NEW:
        eth |= {"mtu": 1400, "socketPath": "/run/x.sock", "pciID": "0000:3b:00.1"}
    else:
        ips = [{"version": family, **ip} for family, ip in zip("464", ips, strict=True)]
    expected = {"cniVersion": version, "interfaces": [veth, eth], "ips": ips, "routes": ROUTES_JSON, "dns": DNS_JSON}
    assert results.to_json(FULL, version) == expected
    assert results.to_json(Result(), version) == {"cniVersion": version}
    assert results.parse(expected, "0.1.0").interfaces[1].name == "eth0", "its own version counts"


@pytest.mark.parametrize(
    ("attempt", "code", "message"),
    [
        (
            lambda: results.parse({"cniVersion": "9.9.9"}),
            Code.INCOMPATIBLE_VERSION,
            f"result: cniVersion: expected one of {', '.join(SUPPORTED)}, found '9.9.9'",
        ),
        (
            lambda: results.to_json(Result(), "9.9.9"),
            Code.INCOMPATIBLE_VERSION,
            "no result can be written as version '9.9.9'",
        ),
        (
            lambda: results.to_json(Result(), "0.1.0"),
            Code.DECODING_FAILURE,
            "a result without an address cannot be written as version 0.1.0",
        ),
        (
            lambda: results.parse({"ip6": {"ip": "10.0.0.1/8"}}),
            Code.DECODING_FAILURE,
            "result: ip6: ip: expected an IPv6 address, found '10.0.0.1/8'",
        ),
        (
            lambda: results.parse({"ip4": {"ip": "10.0.0.1/8", "gateway": "x"}}),
            Code.DECODING_FAILURE,
            "result: ip4: gateway: expected an address like 10.1.2.1, found 'x'",
        ),
        (
            lambda: results.parse({"ips": [{"address": "x"}]}, "1.0.0"),
            Code.DECODING_FAILURE,
            "result: ips[0]: address: expected an address like 10.1.2.3/24, found 'x'",
        ),
        (
            lambda: results.check_length({"ips": [0] * 65}),
            Code.DECODING_FAILURE,
            "result: ips: 65 entries, of at most 64",
        ),
    ],
)
def test_a_malformed_result_is_refused(attempt: Callable[[], object], code: int, message: str) -> None:
    with pytest.raises(CniError) as caught:
        attempt()
    assert (caught.value.code, caught.value.msg) == (code, message)


def test_without_any_version_it_is_the_first() -> None:
    address = {"address": "10.0.0.1/8", "interface": 0}
    assert results.parse({"ips": [address]}) == Result(), "which has no `ips`"
    assert results.parse({"ip6": {"ip": "fd00::1/64"}, "dns": {"domain": "x"}}, "1.0.0") == Result(
        ips=(IP("fd00::1/64"),), dns=DNS(domain="x")
    )
    made = [{"name": "a"}, {"name": "b"}]
    for index, kept in ((0, 0), (1, 1), (2, None), (-1, None)):
        data = {"interfaces": made, "ips": [{**address, "interface": index}]}
        assert results.parse(data, "1.0.0").ips == (IP("10.0.0.1/8", interface=kept),)
