"""Which gateways a network can have for the pod's default route."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.cni.result import IP, Interface, Result, Route
from genie.select.annotations import SelectionError
from genie.verbs.default_route import check_gateways, check_granted

V4 = st.ip_addresses(v=4, network="10.0.0.0/22") | st.ip_addresses(v=4)
V6 = st.ip_addresses(v=6, network="fd00::/120") | st.ip_addresses(v=6)
ADDRESS = st.one_of(
    st.builds(lambda ip, length: f"{ip}/{length}", V4, st.integers(20, 32)),
    st.builds(lambda ip, length: f"{ip}/{length}", V6, st.integers(116, 128)),
)
GATEWAY = (V4 | V6 | st.ip_addresses(network="169.254.0.0/16") | st.ip_addresses(network="fe80::/10")).map(str)
ROUTE = st.builds(
    Route, dst=ADDRESS | st.sampled_from(["0.0.0.0/0", "::/0"]), gw=st.just("") | GATEWAY, table=st.none() | st.just(7)
)
INSIDE = (Interface("veth1"), Interface("net1", sandbox="/n"))


def refused(gateway: str, result: Result) -> str:
    try:
        check_gateways("item 1", [gateway], result, "net1")
    except SelectionError as error:
        return str(error)
    return ""


@given(GATEWAY, st.lists(st.tuples(ADDRESS, st.just("") | GATEWAY), max_size=3), st.lists(ROUTE, max_size=2))
def test_a_gateway_is_near_or_announced_or_refused(
    gateway: str, given_ips: list[tuple[str, str]], routes: list[Route]
) -> None:
    result = Result(interfaces=INSIDE, ips=tuple(IP(ip, gw, interface=1) for ip, gw in given_ips), routes=tuple(routes))
    wanted = ip_address(gateway)
    subnets = [net for ip, _ in given_ips if (net := ip_interface(ip).network).version == wanted.version]
    whole = [ip_network("0.0.0.0/0"), ip_network("::/0")]
    on_link = [net for r in routes if not r.gw and (net := ip_interface(r.dst).network) not in whole]
    on_link += [ip_interface(r.dst).network for r in routes if not r.gw and r.table and r.dst.endswith("/0")]
    announced = [gw for _, gw in given_ips] + [route.gw for route in routes]
    near = any(wanted in net for net in (*subnets, *on_link)) or wanted.is_link_local
    unfit = [ip_interface(ip).ip for ip, _ in given_ips]
    unfit += [net.broadcast_address for net in subnets if net.version == 4 and net.prefixlen < 31]
    allowed = (
        wanted not in unfit and bool(subnets) and (near or wanted in [ip_address(each) for each in announced if each])
    )
    assert bool(refused(gateway, result)) != allowed


@pytest.mark.parametrize("gateway", ["10.0.0.2", "10.0.0.255", "fd00::2", "10.0.8.1"])
@pytest.mark.parametrize("announced", [False, True])
def test_a_gateway_is_another_hosts_address(gateway: str, announced: bool) -> None:
    """The kernel took the pod's own address for "all of the world is on this link"."""
    ips = [IP(each, gateway if announced else "", interface=1) for each in ("10.0.0.2/24", "fd00::2/64", "10.0.8.1/31")]
    assert refused(gateway, Result(interfaces=INSIDE, ips=tuple(ips))) == (
        f"item 1: default-route: expected another host's address, found {gateway}, which is net1's own or its subnet's "
        "broadcast address"
    )
    assert not refused("10.0.8.0", Result(interfaces=INSIDE, ips=tuple(ips)))


def test_addresses_of_another_interface_do_not_count() -> None:
    result = Result(interfaces=INSIDE, ips=(IP("fd00::1/64", interface=0), IP("10.0.0.2/24")))
    assert refused("fd00::9", result) == (
        "item 1: default-route: fd00::9 is of IPv6, and the network gave net1 no such address"
    )
    assert not refused("10.0.0.9", result)
    assert refused("10.0.1.9", result).startswith("item 1: default-route: 10.0.1.9 is in no subnet of the network (10.")


@pytest.mark.parametrize(
    ("gateways", "reported", "granted"),
    [
        ((), [], False),
        ((), [Route("0.0.0.0/0")], True),
        ((), [Route("0.0.0.0/0", table=7), Route("10.0.0.0/8")], False),
        (("10.0.0.1",), [Route("0.0.0.0/0", "10.0.0.1")], True),
        (("10.0.0.1",), [Route("0.0.0.0/0", "10.0.0.2")], False),
        (("10.0.0.1", "FD00::1"), [Route("0.0.0.0/0", "10.0.0.1"), Route("::/0", "fd00::1")], True),
        (("10.0.0.1", "fd00::1"), [Route("0.0.0.0/0", "10.0.0.1")], False),
    ],
)
def test_granted_is_what_the_pod_has(gateways: tuple[str, ...], reported: list[Route], granted: bool) -> None:
    if granted:
        check_granted("item 1", gateways, reported)
    else:
        with pytest.raises(SelectionError, match="item 1: default-route: "):
            check_granted("item 1", gateways, reported)
