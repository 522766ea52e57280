"""A route read back from its text, as a record keeps it."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.cni.result import IP, Result
from genie.kernel.netlink import INET, INET6, KernelRoute
from genie.kernel.repair import route_of
from genie.kernel.routes import Placed

BOTH = [Placed(ifname="eth0", result=Result(ips=(IP("10.0.0.2/24"), IP("fd00::2/64"))))]
ALONE = [Placed(ifname="eth0", result=Result(ips=(IP("10.0.0.2/24"),)))]


@given(
    st.sampled_from(["10.0.0.0/8", "192.0.2.7/32", "fd00::/64", "2001:db8::9/128", ""]),
    st.ip_addresses(),
    st.booleans(),
    st.integers(0, 4000),
)
def test_a_route_is_read_back_from_its_text(
    to: str, gateway: ipaddress.IPv4Address | ipaddress.IPv6Address, on_link: bool, metric: int
) -> None:
    net = ipaddress.ip_network(to) if to else None
    version = net.version if net else gateway.version
    route = KernelRoute.to(
        INET6 if version == 6 else INET,
        net.network_address.packed if net else b"",
        net.prefixlen if net else 0,
        oif=3,
        gateway=b"" if on_link or gateway.version != version else gateway.packed,
        table=2001,
        metric=metric,
    )
    again = route_of(str(route), BOTH)
    if route.on_link and not to:
        assert again is None, "it does not show the family"
    else:
        assert again is not None and again.key == route.key and str(again) == str(route)


@pytest.mark.parametrize(
    "text",
    [
        "rule from 10.0.0.2 lookup 2001",
        "route default dev 3 table 2001",
        "route default via 10.0.0.1 dev 3+4 table 254",
        "route 10.0.0.0/8 via fe80::1 dev 3 table 254",
        "route default via 10.0.0.1 dev ? table 254",
        "",
    ],
)
def test_a_text_that_does_not_show_a_whole_route_is_not_guessed(text: str) -> None:
    assert route_of(text, BOTH) is None


def test_a_default_route_by_a_gateway_of_the_other_family_is_not_taken_for_one_of_that_family() -> None:
    text = "route default via fe80::1 dev 3 table 254"
    assert route_of(text, ALONE) is None
    found = route_of(text, BOTH)
    assert found is not None and found.family == INET6
