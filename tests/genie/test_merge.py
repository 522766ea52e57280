"""The results of a pod's networks made into one: which routes stay, and whose the default route is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from genie.cni.result import IP, Interface, Result, Route
from genie.merge import in_place


def default(gateway: str) -> Result:
    v6 = ":" in gateway
    return Result(
        interfaces=(Interface("eth0", sandbox="/n"),),
        ips=(IP("fd00::2/64" if v6 else "10.0.0.2/24", gateway, 0),),
        routes=(Route("::/0" if v6 else "0.0.0.0/0", gateway), Route("10.8.0.0/16", gateway)),
    )


def defaults(results: list[Result]) -> list[list[str]]:
    return [[route.gw for route in result.routes if route.dst.endswith("/0")] for result in results]


@pytest.mark.parametrize(
    ("asked", "gateways", "kept"),
    [
        ([[], []], ["10.0.0.1", "10.0.0.254"], [["10.0.0.1"], []]),
        ([[], ["10.7.7.7"]], ["10.0.0.1", "10.0.0.254"], [[], ["10.7.7.7"]]),
        ([[], []], ["10.0.0.1", "fd00::1"], [["10.0.0.1"], ["fd00::1"]]),
        ([[], ["fd00::9"]], ["10.0.0.1", "10.0.0.254"], [["10.0.0.1"], ["fd00::9"]]),
        ([["10.0.0.1"], []], ["10.0.0.1", "10.0.0.254"], [["10.0.0.1"], []]),
    ],
)
def test_one_default_route_of_each_family(asked: list[list[str]], gateways: list[str], kept: list[list[str]]) -> None:
    told = in_place(asked, [default(gateway) for gateway in gateways])
    assert defaults(told) == kept


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ([[], []], [["10.8.0.0/16", "0.0.0.0/0", "fd08::/48"], ["10.8.0.0/16", "10.9.0.0/16"]]),
        ([[], ["10.0.0.254"]], [["fd08::/48"], ["10.8.0.0/16", "10.8.0.0/16", "10.9.0.0/16", "0.0.0.0/0"]]),
    ],
)
def test_of_routes_in_one_place_one_is_told(asked: list[list[str]], kept: list[list[str]]) -> None:
    first, second = default("10.0.0.1"), default("10.0.0.254")
    first = replace(first, routes=(*first.routes, Route("fd08::/48")))
    own_table, further = Route("10.8.0.0/16", table=9), Route("10.9.0.0/16")
    second = replace(second, routes=(*second.routes, own_table, further))
    told = in_place(asked, [first, second])
    assert [[route.dst for route in result.routes] for result in told] == kept
