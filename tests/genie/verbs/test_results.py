"""The results of a pod's networks made into one: which routes stay, and whose the default route is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from genie.cni.result import IP, Interface, Result, Route
from genie.kernel.netns import Link
from genie.verbs.results import attributed, completed, in_place, lacks


def default(gateway: str) -> Result:
    v6 = ":" in gateway
    return Result(
        interfaces=(Interface("eth0", sandbox="/n"),),
        ips=(IP("fd00::2/64" if v6 else "10.0.0.2/24", gateway, 0),),
        routes=(Route("::/0" if v6 else "0.0.0.0/0", gateway), Route("10.8.0.0/16", gateway)),
    )


def defaults(results: list[Result]) -> list[list[str]]:
    return [[route.gw for route in result.routes if route.dst.endswith("/0")] for result in results]


Asked = Sequence[Sequence[str] | None]


@pytest.mark.parametrize(
    ("asked", "gateways", "kept"),
    [
        ([None, None], ["10.0.0.1", "10.0.0.254"], [["10.0.0.1"], []]),
        ([None, ["10.7.7.7"]], ["10.0.0.1", "10.0.0.254"], [[], ["10.7.7.7"]]),
        ([None, None], ["10.0.0.1", "fd00::1"], [["10.0.0.1"], ["fd00::1"]]),
        ([None, ["fd00::9"]], ["10.0.0.1", "10.0.0.254"], [["10.0.0.1"], ["fd00::9"]]),
        ([["10.0.0.1"], None], ["10.0.0.1", "10.0.0.254"], [["10.0.0.1"], []]),
        # the default route goes there, by the network's own gateway
        ([None, []], ["10.0.0.1", "10.0.0.254"], [[], ["10.0.0.254"]]),
        ([None, []], ["10.0.0.1", "fd00::1"], [["10.0.0.1"], ["fd00::1"]]),
        ([[], None], ["10.0.0.1", "10.0.0.254"], [["10.0.0.1"], []]),
        ([[]], ["10.0.0.1"], [["10.0.0.1"]]),
        ([["10.7.7.7"]], ["10.0.0.1"], [["10.7.7.7"]]),
    ],
)
def test_one_default_route_of_each_family(asked: Asked, gateways: list[str], kept: list[list[str]]) -> None:
    told = in_place(asked, [default(gateway) for gateway in gateways])
    assert defaults(told) == kept


def test_a_network_that_is_to_have_the_default_route_and_set_none_has_it_by_its_gateway() -> None:
    first, second = default("10.0.0.1"), replace(default("10.0.0.254"), routes=())
    assert defaults(in_place([None, []], [first, second])) == [[], ["10.0.0.254"]]
    without = replace(second, ips=(IP("10.0.0.2/24", "", 0),))
    assert defaults(in_place([None, []], [first, without])) == [["10.0.0.1"], []], "it cannot, so the first keeps it"


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ([None, None], [["10.8.0.0/16", "0.0.0.0/0", "fd08::/48"], ["10.8.0.0/16", "10.9.0.0/16"]]),
        ([None, ["10.0.0.254"]], [["fd08::/48"], ["10.8.0.0/16", "10.8.0.0/16", "10.9.0.0/16", "0.0.0.0/0"]]),
        ([None, []], [["fd08::/48"], ["10.8.0.0/16", "10.8.0.0/16", "10.9.0.0/16", "0.0.0.0/0"]]),
    ],
)
def test_of_routes_in_one_place_one_is_told(asked: Asked, kept: list[list[str]]) -> None:
    first, second = default("10.0.0.1"), default("10.0.0.254")
    first = replace(first, routes=(*first.routes, Route("fd08::/48")))
    own_table, further = Route("10.8.0.0/16", table=9), Route("10.9.0.0/16")
    second = replace(second, routes=(*second.routes, own_table, further))
    told = in_place(asked, [first, second])
    assert [[route.dst for route in result.routes] for result in told] == kept


# --- what a result lacks of the pod's interface -----------------------------------------------------------------------

LINK = Link(ifindex=2, mac="02:00:00:00:00:09", mtu=1376)
WHOLE = Interface("eth0", mac=LINK.mac, sandbox="/n", mtu=LINK.mtu)
HOST = Interface("veth1", mac="02:00:00:00:00:01")
ADDRESS = IP("10.0.0.2/24")


@pytest.mark.parametrize(
    ("told", "complete"),
    [
        (Result(interfaces=(HOST, WHOLE), ips=(replace(ADDRESS, interface=1),)), None),
        (Result(interfaces=(HOST, replace(WHOLE, mac=""))), (HOST, WHOLE)),
        (Result(interfaces=(replace(WHOLE, mtu=0), HOST)), None),
        (Result(interfaces=(replace(WHOLE, mac="", mtu=1400), HOST)), (replace(WHOLE, mtu=1400), HOST)),
        (Result(), (WHOLE,)),
        (Result(ips=(ADDRESS,)), (WHOLE,)),
        (Result(interfaces=(HOST, Interface("eth0"))), (HOST, WHOLE)),
        (Result(interfaces=(HOST, Interface("eth0", mac=LINK.mac.upper()))), (HOST, replace(WHOLE, mac=LINK.mac))),
        # the host's eth0, which is not the pod's
        (Result(interfaces=(replace(HOST, name="eth0"),)), (replace(HOST, name="eth0"), WHOLE)),
        (
            Result(interfaces=(replace(HOST, name="eth0"),), ips=(replace(ADDRESS, interface=0),)),
            (replace(WHOLE, mac=HOST.mac),),
        ),
    ],
)
def test_what_a_result_lacks_is_filled_in(told: Result, complete: tuple[Interface, ...] | None) -> None:
    assert lacks(told, "eth0") == (complete is not None)
    whole = told if complete is None else attributed(completed(told, "eth0", "/n", LINK), "eth0", "/n")
    shown = [replace(each, mac=each.mac.lower()) for each in whole.interfaces]
    assert shown == list(told.interfaces if complete is None else complete)
    assert not lacks(whole, "eth0")
    assert all(whole.interfaces[ip.interface].sandbox for ip in whole.ips if ip.interface is not None)
    assert len(whole.ips) == len(told.ips) and all(ip.interface is not None for ip in whole.ips)


def test_a_plugin_that_makes_no_interface_is_told_as_it_is() -> None:
    user_space = Result(interfaces=(Interface("net1", socket_path="/run/x.sock"),))
    assert completed(user_space, "net1", "/n", None) == user_space
