"""Which networks can be attached to a pod at once: those with known routes that cannot conflict."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.verbs.footprint import MOST, MOST_TOGETHER, Footprint, at_once, footprint
from tests.rigs.core import network

HOST_LOCAL = {"type": "host-local", "subnet": "10.1.0.0/16"}
EVERYWHERE = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]


def nets(*cidrs: str) -> Footprint:
    return tuple(map(ip_network, cidrs))


@pytest.mark.parametrize(
    ("plugins", "expected"),
    [
        ([{"type": "bridge", "ipam": HOST_LOCAL}], ()),
        ([{"type": "bridge", "ipam": HOST_LOCAL}, {"type": "tuning"}], ()),
        ([{"type": "macvlan", "ipam": {}}], ()),
        ([{"type": "macvlan"}], ()),
        ([{"type": "bridge", "ipam": {**HOST_LOCAL, "routes": [{"dst": "10.0.0.0/8"}]}}], ("10.0.0.0/8",)),
        ([{"type": "bridge", "ipam": {**HOST_LOCAL, "routes": EVERYWHERE}}], ("0.0.0.0/0", "::/0")),
        ([{"type": "bridge", "isDefaultGateway": True, "ipam": HOST_LOCAL}], ("0.0.0.0/0", "::/0")),
        ([{"type": "ptp", "ipam": HOST_LOCAL}], ("10.1.0.0/16",)),
        ([{"type": "ptp", "ipam": {**HOST_LOCAL, "gateway": "10.1.0.9"}}], ("10.1.0.0/16",)),
        ([{"type": "ptp", "ipam": {**HOST_LOCAL, "gateway": "169.254.1.1"}}], ("10.1.0.0/16", "169.254.1.1/32")),
        (
            [
                {
                    "type": "ptp",
                    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd02::/64"}]]},
                }
            ],
            ("10.2.0.0/24", "fd02::/64"),
        ),
        ([{"type": "ptp", "ipam": {"type": "static", "addresses": [{"address": "10.1.0.2/24"}]}}], None),
        ([{"type": "ptp", "capabilities": {"ipRanges": True}, "ipam": HOST_LOCAL}], None),
        ([{"type": "bridge", "ipam": {**HOST_LOCAL, "routes": ["x"]}}], None),
        ([{"type": "bridge", "ipam": {**HOST_LOCAL, "routes": 5}}], None),
        ([{"type": "bridge", "ipam": {**HOST_LOCAL, "routes": [{"dst": "x"}]}}], None),
        ([{"type": "macvlan", "ipam": {"type": "dhcp"}}], None),
        ([{"type": "calico"}], None),
        ([{"type": "bridge", "ipam": HOST_LOCAL}, {"type": "route-override"}], None),
    ],
)
def test_a_footprint_has_the_routes_in_a_configuration(
    plugins: list[dict[str, Any]], expected: tuple[str, ...] | None
) -> None:
    assert footprint(network("x", *plugins)) == (None if expected is None else nets(*expected))


A, B, INSIDE_A, DEFAULT, DEFAULT6 = (
    nets(cidr) for cidr in ("10.1.0.0/16", "10.2.0.0/16", "10.1.2.0/24", "0.0.0.0/0", "::/0")
)


@pytest.mark.parametrize(
    ("first", "others", "chosen"),
    [
        (None, [(), A, ()], [0, 2]),
        ((), [None, A, None], [1]),
        (A, [B, (), None], [0, 1]),
        (A, [A, B], [1]),
        (A, [INSIDE_A, B, B], [1]),
        (DEFAULT, [A, B], [0, 1]),
        (DEFAULT, [DEFAULT, DEFAULT6], [1]),
        (A, [DEFAULT, DEFAULT], [0]),
    ],
)
def test_those_that_are_apart_go_at_once(first: Footprint | None, others: list[Any], chosen: list[int]) -> None:
    assert at_once(first, others) == chosen


CIDRS = st.sampled_from(["10.1.0.0/16", "10.1.2.0/24", "10.2.0.0/16", "0.0.0.0/0", "::/0", "fd00::/64", "fd00::/48"])
PRINTS = st.none() | st.lists(CIDRS, max_size=2).map(lambda cidrs: nets(*cidrs))


@given(PRINTS, st.lists(PRINTS, max_size=4))
def test_no_two_that_go_at_once_have_a_route_of_one_place(
    first: Footprint | None, others: list[Footprint | None]
) -> None:
    chosen = at_once(first, others)
    assert [i for i, one in enumerate(others) if one == ()] == [i for i in chosen if others[i] == ()]
    routes = [(first or ()), *(others[i] or () for i in chosen)]
    everything = [destination for one in routes for destination in set(one)]
    assert len(everything) == len(set(everything))
    assert first is not None or all(others[i] == () for i in chosen)


@pytest.mark.parametrize("key", ["routes", "ranges", "a range"])
def test_a_network_with_very_many_destinations_is_unknown(key: str) -> None:
    """A definition is a user's: what is compared with each other must not grow with its length."""
    more: dict[str, Any] = {
        "routes": {"routes": [{"dst": f"1.0.{n}.0/24"} for n in range(MOST + 1)]},
        "ranges": {"ranges": [[{"subnet": f"1.0.{n}.0/24"}] for n in range(MOST + 1)]},
        "a range": {"ranges": [[{"subnet": f"1.0.{n}.0/24"} for n in range(MOST + 1)]]},
    }
    assert footprint(network("x", {"type": "ptp", "ipam": {"type": "host-local", **more[key]}})) is None


def test_networks_with_very_many_destinations_together_are_attached_one_by_one() -> None:
    each = [nets(*(f"{net}.0.{n}.0/24" for n in range(MOST))) for net in range(1, 10)]
    assert at_once(each[0], each[1:]) == list(range(MOST_TOGETHER // MOST - 1))
