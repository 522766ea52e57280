"""Routes in a pod of several networks: the plan, and the kernel's handling of packets afterwards."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from genie.cni.result import IP, Interface, Result, Route
from genie.kernel import routes
from genie.kernel.netlink import (
    INET,
    INET6,
    MAIN,
    RTA_CACHEINFO,
    RTA_PREFSRC,
    RTPROT_KERNEL,
    RTPROT_RA,
    RTPROT_REDIRECT,
    Address,
    Change,
    KernelRoute,
    Netlink,
    Rule,
)
from genie.kernel.routes import Placed, Plan, State
from tests.rigs import routers
from tests.rigs.counting import is_linear
from tests.rigs.kernel import FakeKernel


def packed(address: str) -> bytes:
    return socket.inet_pton(INET6 if ":" in address else INET, address)


def family_of(address: str) -> int:
    return INET6 if ":" in address else INET


def take_away(pod: Any) -> tuple[KernelRoute, ...]:
    with Netlink(pod.path) as kernel:
        return routes.take_away(kernel)


def arrange(pod: Any, plan: Sequence[Placed]) -> Plan:
    """As routes.arrange; the reported state is then the real one."""
    with Netlink(pod.path) as kernel:
        done = routes.arrange(kernel, plan)
        bare = [replace(one, taken=()) for one in plan]
        assert routes.drift(bare, routes.look(kernel), done.arranged) == []
    return done


def default(gateway: str, oif: int, table: int = MAIN, *, onlink: bool = False) -> KernelRoute:
    return KernelRoute.to(family_of(gateway), oif=oif, gateway=packed(gateway), table=table, onlink=onlink)


def attached(ifname: str, *ips: IP, **more: Any) -> Placed:
    inside = Interface(ifname, sandbox="/n")
    placed = tuple(replace(ip, interface=1) for ip in ips)
    return Placed(ifname=ifname, result=Result(interfaces=(Interface("host"), inside), ips=placed), **more)


# Planning


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Placed], State]:
    """Up to four attachments of either or both families, overlapping or not, each with or without a default route,
    some of which are still in the main table."""
    links = {"lo": 1}
    plan: list[Placed] = []
    there: list[KernelRoute] = []
    for at in range(draw(st.integers(1, 4))):
        links[name := f"eth{at}"] = index = 10 + at
        ips: list[IP] = []
        held: list[KernelRoute] = []
        for net, family in ((f"10.{draw(st.integers(0, 1))}.0", INET), (f"fd0{draw(st.integers(0, 1))}:", INET6)):
            if not draw(st.booleans()):
                continue
            dot = "." if family == INET else ":"
            length = draw(st.sampled_from((24, 32) if family == INET else (64, 128)))
            gateway = f"{net}{dot}1" if draw(st.booleans()) else ""
            ips.append(IP(f"{net}{dot}{20 + at}/{length}", gateway))
            if draw(st.booleans()):
                route = default(f"{net}{dot}1", index)
                (held if draw(st.booleans()) else there).append(route)
        wants = draw(st.booleans())
        plan.append(attached(name, *ips, taken=tuple(held), wants_default=wants))
    # The kernel holds one default route of a metric and family.
    unique = {route.family: route for route in there}
    return plan, State(links=links, routes=list(unique.values()))


def after(state: State, changes: Sequence[Change]) -> State:
    """The state with the changes made, as strict as the kernel about what is there and what is not."""
    before: list[KernelRoute | Rule] = [*state.routes, *state.rules]
    kept = {routes._key(one): one for one in before}
    for change in changes:
        key = routes._key(change.what)
        assert (key in kept) != change.add, change
        if change.add:
            kept[key] = change.what
            same = [
                one
                for one in kept.values()
                if isinstance(one, KernelRoute)
                and one.is_default
                and one.table == MAIN
                and isinstance(change.what, KernelRoute)
                and one.family == change.what.family
            ]
            assert len(same) <= 1, "file exists"
        else:
            del kept[key]
    return replace(
        state,
        routes=[one for one in kept.values() if isinstance(one, KernelRoute)],
        rules=[one for one in kept.values() if isinstance(one, Rule)],
    )


def had_default(one: Placed, state: State, family: int) -> bool:
    index = state.links[one.ifname]
    return any(route.family == family and index in route.oifs for route in (*one.taken, *state.routes))


@given(situations())
def test_one_default_route_per_family_of_the_right_attachment(situation: tuple[list[Placed], State]) -> None:
    plan, state = situation
    done = after(state, routes.plan(plan, state).changes)
    for family in (INET, INET6):
        got = [route for route in done.routes if route.family == family and route.table == MAIN]
        could = [
            one
            for one in plan
            if had_default(one, state, family)
            or any(ip.gateway for ip in one.result.ips if ip.is_v6 == (family == INET6))
        ]
        wanted = [one for one in could if one.wants_default]
        wanted += [one for one in plan if had_default(one, state, family)]
        assert [route.oifs for route in got] == [(state.links[one.ifname],) for one in wanted[:1]]


@given(situations())
def test_every_address_but_of_the_one_that_main_serves_has_a_rule_and_a_table(
    situation: tuple[list[Placed], State],
) -> None:
    plan, state = situation
    done = after(state, routes.plan(plan, state).changes)
    chosen = {rule.source: rule.table for rule in done.rules}
    for family in (INET, INET6):
        having = [one for one in plan if any(ip.is_v6 == (family == INET6) for ip in one.result.ips)]
        without = 0
        for one in having:
            for ip in (ip for ip in one.result.ips if ip.is_v6 == (family == INET6)):
                address, _, length = ip.address.partition("/")
                if packed(address) not in chosen:
                    without += 1
                    continue
                table = chosen[packed(address)]
                assert table == routes.TABLE + plan.index(one)
                inside = [route for route in done.routes if route.table == table and route.family == family]
                assert {route.oifs for route in inside} <= {(state.links[one.ifname],)}
                assert any(route.is_default for route in inside) == bool(ip.gateway or had_default(one, state, family))
                if length not in ("32", "128"):
                    assert any(route.prefix == int(length) for route in inside)
        assert without <= 1


@given(situations())
def test_the_second_time_nothing_changes(situation: tuple[list[Placed], State]) -> None:
    plan, state = situation
    assert routes.plan(plan, after(state, routes.plan(plan, state).changes)).changes == []


@given(situations(), st.integers(0, 4))
def test_routes_of_an_earlier_plan_are_removed(situation: tuple[list[Placed], State], wants: int) -> None:
    plan, state = situation
    other = [replace(one, wants_default=at == wants) for at, one in enumerate(plan)]
    fresh = after(state, routes.plan(other, state).changes)
    moved = after(state, routes.plan(plan, state).changes)
    moved = after(moved, routes.plan(other, moved).changes)
    assert set(moved.rules) == set(fresh.rules)
    assert {route.key for route in moved.routes} == {route.key for route in fresh.routes}


@given(situations(), st.data())
def test_routes_that_the_kernel_learned_change_nothing(
    situation: tuple[list[Placed], State], data: st.DataObject
) -> None:
    plan, state = situation
    indices = sorted(state.links.values())
    expires = struct.pack("=IIiIIIII", 0, 0, 4_200, 0, 0, 0, 0, 0)
    learned = [
        replace(
            route,
            protocol=data.draw(st.sampled_from((RTPROT_RA, RTPROT_REDIRECT, RTPROT_KERNEL))),
            attributes=(*route.attributes, (RTA_CACHEINFO, expires)),
        )
        for oif in data.draw(st.lists(st.sampled_from(indices), unique=True))
        for route in (
            default("fe80::1", oif),
            KernelRoute.to(INET6, packed("fd00::"), 64, oif=oif, metric=256),
            KernelRoute.to(INET6, packed("2001:db8::"), 32, oif=oif, gateway=packed("fe80::1")),
        )
    ]
    known, before = replace(state, routes=[*state.routes, *learned]), routes.plan(plan, state)
    found = routes.plan(plan, known)
    assert (found.arranged, found.reported) == (before.arranged, before.reported)
    given_way = [change for change in found.changes if change not in before.changes]
    assert [change for change in found.changes if change not in given_way] == before.changes
    places = {change.what.place for change in before.changes if change.add and isinstance(change.what, KernelRoute)}
    for change in given_way:
        assert not change.add
        assert isinstance(change.what, KernelRoute)
        assert change.what in learned
        assert change.what.place in places, "the kernel refuses two of one place"
    done = after(state, before.changes)
    here = replace(done, routes=[*done.routes, *learned])
    bare = [replace(one, taken=()) for one in plan]
    assert routes.drift(bare, here, found.arranged) == []
    assert routes.plan(bare, here).changes == []


@given(situations(), st.data())
def test_an_address_that_the_pod_does_not_have_gets_no_rule(
    situation: tuple[list[Placed], State], data: st.DataObject
) -> None:
    """A plugin may report what it has not set: an address that a virtual machine will set, say."""
    plan, state = situation
    reported = [(state.links[one.ifname], ip) for one in plan for ip in one.result.ips]
    there = data.draw(st.lists(st.sampled_from(reported), unique=True) if reported else st.just([]))
    present = [
        Address(ifindex=index, packed=packed(ip.address.partition("/")[0]), prefix=int(ip.address.partition("/")[2]))
        for index, ip in there
    ]
    known = replace(state, addresses=present)
    done = after(known, routes.plan(plan, known).changes)
    assert {rule.source for rule in done.rules} <= {one.packed for one in present}
    sources = {route.get(RTA_PREFSRC) for route in done.routes} - {b""}
    assert sources <= {one.packed for one in present}
    assert {route.table for route in done.routes} - {MAIN} <= {rule.table for rule in done.rules}, "no idle table"
    assert routes.plan(plan, done).changes == []
    everything = [
        Address(ifindex=index, packed=packed(ip.address.partition("/")[0]), prefix=int(ip.address.partition("/")[2]))
        for index, ip in reported
    ]
    unasked, asked = routes.plan(plan, state), routes.plan(plan, replace(state, addresses=everything))
    if all(ip.gateway != other.address.partition("/")[0] for _, ip in reported for _, other in reported):
        assert asked == unasked, "what is there is served as before"


@pytest.mark.parametrize(
    "gateway",
    ["0.0.0.0", "0.0.0.1", "224.0.0.1", "255.255.255.255", "10.2.0.2", "10.2.0.255", "::", "ff02::1", "fd02::2"],
)
def test_an_address_that_leads_nowhere_is_no_gateway(gateway: str) -> None:
    ip = IP("fd02::2/64" if ":" in gateway else "10.2.0.2/24", gateway)
    plan = [attached("eth0", IP("10.1.0.2/24"), IP("fd01::2/64")), attached("eth1", ip)]
    present = [Address(ifindex=3, packed=packed("10.2.0.2"), prefix=24), Address(3, packed("fd02::2"), 64)]
    changes = routes.plan(plan, State(links={"eth0": 2, "eth1": 3}, routes=[], addresses=present)).changes
    assert changes, "a table and a rule"
    assert not [change for change in changes if isinstance(change.what, KernelRoute) and change.what.is_default]


@pytest.mark.parametrize(
    "gateway", ["1.0.0.1", "223.0.0.1", "10.2.0.254", "88.88.88.88", "fe80::1", "10.3.0.3", "10.4.0.1", "fd02::ff"]
)
def test_a_hosts_address_is_a_gateway(gateway: str) -> None:
    """Also the last address where it is a host's: of a subnet of two (RFC 3021)."""
    ip = IP("fd02::2/64" if ":" in gateway else "10.2.0.2/24", gateway)
    plan = [attached("eth0", IP("10.1.0.2/24"), IP("fd01::2/64")), attached("eth1", ip)]
    held = (("10.2.0.2", 24), ("fd02::2", 64), ("10.3.0.2", 31), ("10.4.0.0", 32))
    present = [Address(ifindex=3, packed=packed(address), prefix=prefix) for address, prefix in held]
    changes = routes.plan(plan, State(links={"eth0": 2, "eth1": 3}, routes=[], addresses=present)).changes
    found = [one.what for one in changes if isinstance(one.what, KernelRoute) and one.what.is_default]
    assert [one.gateway for one in found] == [packed(gateway)]


def test_the_broadcast_address_of_a_subnet_of_four_is_no_gateway() -> None:
    plan = [attached("eth0", IP("10.1.0.2/24")), attached("eth1", IP("10.2.0.1/30", "10.2.0.3"))]
    state = State(links={"eth0": 2, "eth1": 3}, routes=[], addresses=[Address(3, packed("10.2.0.1"), 30)])
    made = [one.what for one in routes.plan(plan, state).changes]
    assert made and not any(isinstance(one, KernelRoute) and one.is_default for one in made)


def test_a_route_whose_interface_went_is_not_put_back() -> None:
    plan = [attached("eth0", taken=(default("10.0.0.1", 2), KernelRoute.to(INET, oif=9, gateway=packed("10.9.0.1"))))]
    assert routes.plan(plan, State(links={"eth0": 2}, routes=[])).changes == [Change(default("10.0.0.1", 2))]


def test_the_pod_s_word_on_the_gateway_counts() -> None:
    plan = [
        attached("eth0", IP("10.0.0.2/24", "10.0.0.1"), taken=(default("10.0.0.1", 2),)),
        attached(
            "eth1",
            IP("10.1.0.2/24", "10.1.0.1"),
            taken=(default("10.1.0.1", 3),),
            wants_default=True,
            gateways=("10.1.0.254",),
        ),
    ]
    changes = routes.plan(plan, State(links={"eth0": 2, "eth1": 3}, routes=[])).changes
    main = [str(change) for change in changes if isinstance(change.what, KernelRoute) and change.what.table == MAIN]
    assert main == ["add route default via 10.1.0.254 dev 3 table 254"]


def test_a_gateway_in_the_result_s_routes_counts() -> None:
    result = Result(ips=(IP("10.1.0.2/24"),), routes=(Route("0.0.0.0/0", "10.1.0.9"),))
    plan = [
        attached("eth0", IP("10.0.0.2/24"), taken=(default("10.0.0.1", 2),)),
        Placed(ifname="eth1", result=result),
    ]
    changes = routes.plan(plan, State(links={"eth0": 2, "eth1": 3}, routes=[])).changes
    assert "add route default via 10.1.0.9 dev 3 table 2001" in map(str, changes)


def test_addresses_outside_the_pod_are_not_its_own() -> None:
    outside = Result(
        interfaces=(Interface("eth1"), Interface("eth1", sandbox="/n")),
        ips=(IP("10.9.0.1/24", interface=0), IP("10.9.0.2/24", interface=1)),
    )
    plan = [attached("eth0", IP("10.0.0.2/24")), Placed(ifname="eth1", result=outside)]
    changes = routes.plan(plan, State(links={"eth0": 2, "eth1": 3}, routes=[])).changes
    rules = [change.what.source for change in changes if isinstance(change.what, Rule)]
    assert rules == [packed("10.9.0.2")]


def test_a_plan_has_each_route_and_rule_as_the_kernel_gets_it() -> None:
    """Each route and rule as the kernel gets it: what a plugin set besides its default route, a gateway in
    no subnet, of two default routes the one of the lower metric, a table that the attachment had before.
    """
    links = {"eth0": 2, "eth1": 3, "data": 4}
    kernels = replace(KernelRoute.to(INET, packed("10.0.0.0"), 24, oif=2), protocol=RTPROT_KERNEL)
    own = KernelRoute.to(INET, packed("10.8.0.0"), 16, oif=3, gateway=packed("10.1.0.9"))
    to_gateway = KernelRoute.to(INET, packed("169.254.1.1"), 32, oif=3)
    blackhole = KernelRoute(family=INET, prefix=8, table=MAIN, kind=6, attributes=((1, packed("11.0.0.0")),))
    low, high = (
        KernelRoute.to(INET, oif=2, gateway=packed(gateway), metric=metric)
        for gateway, metric in (("10.0.0.1", 50), ("10.0.0.7", 100))
    )
    plan = [
        attached("eth0", IP("10.0.0.2/24"), taken=(high, low)),
        attached(
            "eth1", IP("10.1.0.2/24"), IP("10.5.0.3/24"), taken=(own, to_gateway, blackhole), gateways=("10.99.0.1",)
        ),
        attached("data", IP("10.2.0.2/24", "10.2.0.1"), IP("fd02::2/64", "fd02::1")),
    ]
    stale = KernelRoute.to(INET, oif=4, gateway=packed("10.2.0.99"), table=2002, protocol=71)
    state = State(links=links, routes=[kernels, stale])
    planned = routes.plan(plan, state)
    rule = {"family": INET, "priority": 32765, "protocol": 71}
    subnets = [
        KernelRoute.to(
            INET,
            packed(f"10.{net}.0.0"),
            24,
            oif=at + 2,
            source=packed(f"10.{net}.0.{end}"),
            table=2000 + at,
            protocol=71,
        )
        for at, net, end in ((1, 1, 2), (1, 5, 3), (2, 2, 2))
    ]
    gateways = [
        KernelRoute.to(INET, oif=3, gateway=packed("10.99.0.1"), table=2001, protocol=71, onlink=True),
        KernelRoute.to(INET, oif=4, gateway=packed("10.2.0.1"), table=2002, protocol=71),
    ]
    assert planned.changes == [
        Change(Rule(source=packed("10.1.0.2"), table=2001, **rule)),
        Change(Rule(source=packed("10.5.0.3"), table=2001, **rule)),
        Change(Rule(source=packed("10.2.0.2"), table=2002, **rule)),
        Change(stale, add=False),
        *map(Change, (to_gateway.moved(2001), *subnets[:2], own.moved(2001), gateways[0], subnets[2], gateways[1])),
        *map(Change, (to_gateway, blackhole, own, low)),
    ]
    assert planned.reported == ((Route("0.0.0.0/0", "10.0.0.1"),), (), ())
    assert routes.plan([replace(one, taken=()) for one in plan], after(state, planned.changes)).changes == []


TWO = {"eth0": 2, "eth1": 3}


def made(
    plan: Sequence[Placed], links: dict[str, int] = TWO, there: Sequence[KernelRoute] = (), **more: Any
) -> list[str]:
    return list(map(str, routes.plan(plan, State(links=links, routes=there, **more)).changes))


def test_a_gateway_is_on_the_link_where_a_route_leads_to_it() -> None:
    first = attached("eth0", IP("10.0.0.2/24"), taken=(default("10.0.0.1", 2),))
    to_gateway = KernelRoute.to(INET, packed("169.254.1.1"), 32, oif=3)
    second = attached("eth1", IP("10.1.0.2/32", "169.254.1.1"), taken=(to_gateway,))
    changes = routes.plan([first, second], State(links=TWO, routes=[])).changes
    by_it = KernelRoute.to(INET, oif=3, gateway=packed("169.254.1.1"), table=2001, protocol=71)
    assert Change(by_it) in changes
    wants = attached("eth1", IP("10.1.0.2/24", "10.1.0.1"), wants_default=True)
    changes = routes.plan([first, wants], State(links=TWO, routes=[])).changes
    no_route = KernelRoute.to(INET, oif=3, gateway=packed("10.1.0.1"), protocol=71, onlink=True)
    assert Change(no_route) in changes, "the main table has none to its subnet"


def test_a_gateway_is_not_that_of_another_route() -> None:
    result = Result(ips=(IP("10.1.0.2/24", "10.1.0.1"),), routes=(Route("10.8.0.0/16", "10.1.0.9"),))
    plan = [attached("eth0", IP("10.0.0.2/24")), Placed(ifname="eth1", result=result)]
    assert "add route default via 10.1.0.1 dev 3 table 2001" in made(plan)


def test_a_network_that_reports_no_interface_has_its_routes_all_the_same() -> None:
    plan = [Placed(ifname="eth0", result=Result(ips=(IP("10.0.0.2/24"),)))]
    found = routes.plan(plan, State(links=TWO, routes=[default("10.0.0.1", 2)]))
    assert (found.changes, found.reported) == ([], ((Route("0.0.0.0/0", "10.0.0.1"),),))


def test_routes_of_others_in_the_main_table_keep_their_places() -> None:
    """The kernel's route of another attachment's subnet, and one of an interface that is nobody's."""
    kernels = replace(KernelRoute.to(INET, packed("10.0.0.0"), 24, oif=2), protocol=RTPROT_KERNEL)
    foreign = KernelRoute.to(INET, packed("10.8.0.0"), 16, oif=9)
    gone = KernelRoute.to(INET, packed("10.7.0.0"), 16, oif=8)
    free = KernelRoute.to(INET, packed("10.9.0.0"), 16, oif=3)
    same = [KernelRoute.to(INET, route.destination, route.prefix, oif=3) for route in (kernels, foreign)]
    unreachable = KernelRoute(family=INET, kind=7)
    plan = [
        attached("eth0", IP("10.0.0.2/24"), taken=(default("10.0.0.1", 2), unreachable)),
        attached("eth1", IP("10.1.0.2/24"), taken=(*same, free, gone)),
    ]
    changes = routes.plan(plan, State(links={**TWO, "x": 9}, routes=[kernels, foreign])).changes
    main = [one for one in changes if isinstance(one.what, KernelRoute) and one.what.table == MAIN]
    assert main == [Change(free), Change(default("10.0.0.1", 2))]


def test_the_network_of_the_default_route_has_a_table_where_it_lost_a_route() -> None:
    own = KernelRoute.to(INET, packed("10.8.0.0"), 16, oif=2)
    plan = [
        attached("eth0", IP("10.0.0.2/24"), taken=(default("10.0.0.1", 2), own)),
        attached("eth1", IP("10.1.0.2/24")),
    ]
    assert not [one for one in made(plan) if "2000" in one]
    foreign = KernelRoute.to(INET, packed("10.8.0.0"), 16, oif=9)
    assert "add rule from 10.0.0.2 lookup 2000" in made(plan, {**TWO, "x": 9}, [foreign])


def test_an_address_is_its_attachments_unless_it_is_anothers() -> None:
    plan = [attached("eth0", IP("10.0.0.2/24")), attached("eth1", IP("10.1.0.2/24"))]
    for index, there in ((2, False), (3, True), (9, True)):
        rules = made(plan, {**TWO, "x": 9}, addresses=[Address(index, packed("10.1.0.2"), 24)])
        assert ("add rule from 10.1.0.2 lookup 2001" in rules) == there


def crowded(networks: int = 1, own: int = 1, foreign: int = 1, there: int = 1) -> Callable[[], object]:
    """A plan for many of something. own: addresses, gateways and routes of a network. foreign: the pod's own addresses,
    none of them on an interface of genie's. there: routes in the pod.
    """
    plan = []
    for at in range(networks):
        ips = [IP(f"10.{n >> 8}.{n & 255}.{at}/{20 + at % 8}", "10.0.0.255") for n in range(own)]
        one = attached(f"eth{at}", *ips)
        routes_ = tuple(Route(f"{100 + at}.{n >> 8}.{n & 255}.0/24", "10.0.0.255") for n in range(own))
        plan.append(replace(one, result=replace(one.result, routes=routes_), wants_default=at == 0))
    links = {"x": 9, **{f"eth{at}": 10 + at for at in range(networks)}}
    addresses = [Address(9, packed(f"172.{n >> 8}.{n & 255}.1"), 24) for n in range(foreign)]
    addresses += [Address(10, packed(f"10.{n >> 8}.{n & 255}.0"), 32) for n in range(own)]
    addresses += [Address(10, packed("10.0.0.255"), 32)]
    found = [KernelRoute.to(INET, packed(f"100.{n >> 8}.{n & 255}.0"), 24, oif=10) for n in range(there)]
    found.append(default("10.0.0.254", 10))
    return lambda: routes.plan(plan, State(links=links, routes=found, addresses=addresses))


@pytest.mark.parametrize(
    "many",
    [("networks", "foreign"), ("networks", "there"), ("own", "foreign"), ("own", "there"), ("foreign", "there")],
    ids=" and ".join,
)
def test_a_plan_is_linear(many: tuple[str, str]) -> None:
    """Of two things that there are many of, one is not gone through for each of the other."""
    scale = {"networks": 1, "own": 2, "foreign": 20, "there": 20}
    others = {"networks": 2}
    assert is_linear(lambda n: crowded(**{**others, **{what: n * scale[what] for what in many}}), 40)


def nets(*written: str) -> list[ipaddress.IPv4Network]:
    return [ipaddress.IPv4Network(each) for each in written]


@example(nets("10.0.0.0/24"), nets("10.0.0.255"))  # the last address
@example(nets("10.0.0.0/24"), nets("10.0.1.0/24"))  # side by side
@given(
    *2 * (st.lists(st.builds(lambda a, b: ipaddress.IPv4Network((a << 20, b), strict=False), st.integers(0, 4095),
                             st.integers(6, 14)), max_size=4),)
)  # fmt: skip
def test_subnets_that_share_an_address_are_found(
    ours: list[ipaddress.IPv4Network], theirs: list[ipaddress.IPv4Network]
) -> None:
    meant = any(one.overlaps(two) for one in ours for two in theirs)
    both = ([(net.network_address.packed, net.prefixlen) for net in side] for side in (ours, theirs))
    assert routes._overlap(*both) == meant


def test_a_reported_default_route_that_is_not_there_gives_way_to_the_one_that_is() -> None:
    reported = (Route("0.0.0.0/0", "10.0.0.9"), Route("::/0", "fd00::9"), Route("10.8.0.0/16"))
    result = Result(ips=(IP("10.0.0.2/24"), IP("fd00::2/64")), routes=reported)
    there = [default("10.0.0.1", 2), default("fd00::1", 2)]
    (found,) = routes.plan([Placed(ifname="eth0", result=result)], State(links=TWO, routes=there)).reported
    assert found == (Route("10.8.0.0/16"), Route("0.0.0.0/0", "10.0.0.1"), Route("::/0", "fd00::1"))


def test_a_learned_route_stays_where_a_route_is_removed() -> None:
    stale = KernelRoute.to(INET6, oif=2, gateway=packed("fd00::1"), protocol=71)
    learned = replace(default("fe80::1", 2), protocol=RTPROT_RA)
    changes = routes.plan([attached("eth0", IP("fd00::2/64"))], State(links=TWO, routes=[stale, learned])).changes
    assert changes == [Change(stale, add=False)]


def test_a_subnets_route_of_ipv6_has_no_source() -> None:
    """The kernel refuses a source address that is still tentative."""
    plan = [attached("eth0", IP("fd00::2/64")), attached("eth1", IP("fd01::2/64"))]
    subnet = KernelRoute.to(INET6, packed("fd01::"), 64, oif=3, table=2001, protocol=71)
    assert Change(subnet) in routes.plan(plan, State(links=TWO, routes=[])).changes


def test_one_network_needs_nothing_but_its_default_route_back() -> None:
    held = default("10.0.0.1", 2)
    plan = [attached("eth0", IP("10.0.0.2/24", "10.0.0.1"), taken=(held,))]
    assert routes.plan(plan, State(links={"eth0": 2}, routes=[])).changes == [Change(held)]


# What results report: the routes that the pod has


def gated(gateway: str, at: int = 0) -> Result:
    """A result with a default route and another one, by a gateway."""
    v6 = ":" in gateway
    return Result(
        interfaces=(Interface(f"eth{at}", sandbox="/n"),),
        ips=(IP("fd00::2/64" if v6 else "10.0.0.2/24", gateway, 0),),
        routes=(
            Route("::/0" if v6 else "0.0.0.0/0", gateway),
            Route("fd09::/48" if v6 else "10.8.0.0/16", gateway),
        ),
    )


Asked = Sequence[Sequence[str] | None]


def reported(asked: Asked, *results: Result, sets: Sequence[Result] | None = None) -> list[list[Route]]:
    """What they report after the plan is carried out. sets: what the plugins do in the pod, where they do not report
    just that."""
    kernel: Any = FakeKernel()  # in the place of a Netlink
    taken = []
    for at, result in enumerate(sets or results):
        kernel.attach(f"eth{at}", result)
        taken.append(tuple(route for family in (INET, INET6) for route in kernel.routes(family)))
        kernel.there.clear()
    placed = [
        Placed(
            ifname=f"eth{at}",
            result=result,
            taken=taken[at],
            wants_default=asked[at] is not None,
            gateways=tuple(asked[at] or ()),
        )
        for at, result in enumerate(results)
    ]
    planned = routes.plan(placed, routes.look(kernel))
    kernel.apply(planned.changes)
    again = [replace(one, taken=()) for one in placed]
    assert routes.plan(again, routes.look(kernel)).reported == planned.reported, "CHECK comes to the same"
    defaults = {route.via for family in (INET, INET6) for route in kernel.routes(family) if route.is_default}
    assert {route.gw for each in planned.reported for route in each if route.dst.endswith("/0")} == defaults
    return [list(each) for each in planned.reported]


def gateways(found: Sequence[Sequence[Route]]) -> list[list[str]]:
    return [[route.gw for route in each if route.dst.endswith("/0")] for each in found]


@pytest.mark.parametrize(
    ("asked", "by", "kept"),
    [
        ([None, None], ["10.0.0.1", "10.0.0.254"], [["10.0.0.1"], []]),
        ([None, ["10.7.7.7"]], ["10.0.0.1", "10.0.0.254"], [[], ["10.7.7.7"]]),
        ([None, None], ["10.0.0.1", "fd00::1"], [["10.0.0.1"], ["fd00::1"]]),
        ([["10.0.0.1"], None], ["10.0.0.1", "10.0.0.254"], [["10.0.0.1"], []]),
        # the default route goes there, by the network's own gateway
        ([None, []], ["10.0.0.1", "10.0.0.254"], [[], ["10.0.0.254"]]),
        ([None, []], ["10.0.0.1", "fd00::1"], [["10.0.0.1"], ["fd00::1"]]),
        ([[], None], ["10.0.0.1", "10.0.0.254"], [["10.0.0.1"], []]),
        ([[]], ["10.0.0.1"], [["10.0.0.1"]]),
        ([["10.7.7.7"]], ["10.0.0.1"], [["10.7.7.7"]]),
        ([None, None, []], ["10.0.0.1", "10.0.0.9", "10.0.0.254"], [[], [], ["10.0.0.254"]]),
    ],
)
def test_one_default_route_of_each_family_is_reported(asked: Asked, by: list[str], kept: list[list[str]]) -> None:
    assert gateways(reported(asked, *[gated(gateway, at) for at, gateway in enumerate(by)])) == kept


def test_a_network_that_is_to_have_the_default_route_and_set_none_has_it_by_its_gateway() -> None:
    first, second = gated("10.0.0.1"), replace(gated("10.0.0.254", 1), routes=())
    assert gateways(reported([None, []], first, second)) == [[], ["10.0.0.254"]]
    without = replace(second, ips=(IP("10.0.0.2/24", "", 0),))
    assert gateways(reported([None, []], first, without)) == [["10.0.0.1"], []], "it cannot, so the first keeps it"


def test_a_family_that_the_network_does_not_have_is_not_reported_as_granted() -> None:
    assert gateways(reported([None, ["fd00::9"]], gated("10.0.0.1"), gated("10.0.0.254", 1))) == [["10.0.0.1"], []]


def test_each_family_goes_where_it_was_asked_for() -> None:
    """Two networks may have a default route each, of another family (see annotations.asks)."""
    both = [
        replace(one, ips=(*one.ips, *two.ips), routes=(*one.routes, *two.routes))
        for one, two in ((gated("10.0.0.1"), gated("fd00::1")), (gated("10.0.0.254", 1), gated("fd00::254", 1)))
    ]
    assert gateways(reported([None, ["fd00::9"]], *both)) == [["10.0.0.1"], ["fd00::9"]]
    assert gateways(reported([["fd00::9"], ["10.0.0.9"]], *both)) == [["fd00::9"], ["10.0.0.9"]]


def test_a_default_route_that_is_set_and_not_reported_is_reported() -> None:
    first, second = gated("169.254.1.1"), gated("10.0.0.254", 1)
    assert gateways(reported([None, None], replace(first, routes=()), second, sets=[first, second])) == [
        ["169.254.1.1"],
        [],
    ]


def test_a_default_route_that_is_reported_and_not_set_is_not() -> None:
    first, second = gated("10.0.0.1"), gated("10.0.0.254", 1)
    assert gateways(reported([None, None], first, second, sets=[replace(first, routes=()), second])) == [
        [],
        ["10.0.0.254"],
    ]
    nothing = [replace(each, routes=()) for each in (first, second)]
    assert gateways(reported([None, None], first, second, sets=nothing)) == [[], []]


def test_a_default_route_stays_in_its_plugins_words() -> None:
    by_gateway = Route("0.0.0.0/0", mtu=1400, priority=3)
    first = replace(gated("10.0.0.1"), routes=(by_gateway,))
    plan = [Placed(ifname="eth0", result=first), attached("eth1", IP("10.1.0.2/24", "10.1.0.1"))]
    state = State(links={"eth0": 2, "eth1": 3}, routes=[default("10.0.0.1", 2)])
    assert routes.plan(plan, state).reported == ((by_gateway,), ())
    made = State(links={"eth0": 2, "eth1": 3}, routes=[default("10.0.0.9", 2)])
    assert routes.plan([replace(plan[0], wants_default=True, gateways=("10.0.0.9",))], made).reported == (
        (Route("0.0.0.0/0", "10.0.0.9"),),
    )


def test_an_address_is_the_same_however_it_is_written() -> None:
    route = Route("::/0", "FD00:0::1")
    first = replace(gated("fd00::1"), routes=(route,))
    assert routes.plan(
        [Placed(ifname="eth0", result=first)], State(links={"eth0": 2}, routes=[default("fd00::1", 2)])
    ).reported == ((route,),)


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ([None, None], [["0.0.0.0/0", "10.8.0.0/16", "fd08::/48"], ["10.8.0.0/16", "10.9.0.0/16"]]),
        ([None, ["10.0.0.254"]], [["fd08::/48"], ["0.0.0.0/0", "10.8.0.0/16", "10.8.0.0/16", "10.9.0.0/16"]]),
        ([None, []], [["fd08::/48"], ["0.0.0.0/0", "10.8.0.0/16", "10.8.0.0/16", "10.9.0.0/16"]]),
    ],
)
def test_one_of_several_routes_in_one_place_is_reported(asked: Asked, kept: list[list[str]]) -> None:
    first, second = gated("10.0.0.1"), gated("10.0.0.254", 1)
    first = replace(first, routes=(*first.routes, Route("fd08::/48")))
    own_table, further = Route("10.8.0.0/16", table=9), Route("10.9.0.0/16")
    second = replace(second, routes=(*second.routes, own_table, further))
    found = reported(asked, first, second)
    assert [[route.dst for route in each] for each in found] == kept


def test_a_default_route_of_a_table_of_its_own_is_nobodys_default_route() -> None:
    own = Route("0.0.0.0/0", "10.0.0.254", table=9)
    first, second = gated("10.0.0.1"), replace(gated("10.0.0.254", 1), routes=(own,))
    plan = [Placed(ifname="eth0", result=first), Placed(ifname="eth1", result=second)]
    state = State(links={"eth0": 2, "eth1": 3}, routes=[default("10.0.0.1", 2)])
    assert routes.plan(plan, state).reported == (first.routes, (own,))


@pytest.mark.parametrize("gateway", ["10.0.0.1", "10.0.0.9"])
def test_a_default_route_of_a_table_of_its_own_is_not_the_one_of_the_main_table(gateway: str) -> None:
    own = Route("0.0.0.0/0", gateway, table=9)
    plan = [Placed(ifname="eth0", result=replace(gated("10.0.0.1"), routes=(own,)))]
    state = State(links={"eth0": 2}, routes=[default("10.0.0.1", 2)])
    assert routes.plan(plan, state).reported == ((own, Route("0.0.0.0/0", "10.0.0.1")),)


def test_routes_of_different_metrics_are_all_reported() -> None:
    first, second = Route("10.8.0.0/16"), Route("10.8.0.0/16", priority=9)
    plan = [
        Placed(ifname="eth0", result=replace(gated("10.0.0.1"), routes=(first,))),
        Placed(ifname="eth1", result=replace(gated("10.0.0.254", 1), routes=(second, first))),
    ]
    assert routes.plan(plan, State(links={"eth0": 2, "eth1": 3}, routes=[])).reported == ((first,), (second,))


def test_a_network_without_an_interface_in_the_pod_reports_what_nobody_else_has() -> None:
    first, second = gated("10.0.0.1"), gated("10.0.0.254", 1)
    both = [Placed(ifname="eth0", result=first), Placed(ifname="eth1", result=second)]
    nobody = State(links={}, routes=[])
    assert gateways(routes.plan(both, nobody).reported) == [["10.0.0.1"], []]
    alone = State(links={"eth1": 3}, routes=[default("10.0.0.254", 3)])
    assert gateways(routes.plan(both, alone).reported) == [[], ["10.0.0.254"]]


# The kernel


@dataclass
class Net:
    """A pod with eth0 and eth1, each on a router of its own; the two know each other's far side alone.

    Behind each router, at 192.0.2.1 and 2001:db8::1, is a client that reaches the pod by that router only.
    """

    pod: Any
    routers: list[Any]


@pytest.fixture
def pod(namespace: Callable[[], Any]) -> Any:
    made = namespace()
    made.ip(
        "link add eth0 type veth peer name r0",
        "link add eth1 type veth peer name r1",
        *(f"link set {name} up" for name in ("eth0", "r0", "eth1", "r1")),
    )
    return made


def listing(pod: Any, what: str) -> list[str]:
    return [" ".join(line.split()) for line in pod.ip(what).splitlines()]


def defaults(pod: Any) -> list[str]:
    return [*listing(pod, "-4 route show default"), *listing(pod, "-6 route show default")]


ODD_DEFAULTS = [
    "default via 10.1.0.1 dev eth0",
    "default via 10.1.0.1 dev eth0 proto static src 10.1.0.2 metric 42 mtu 1400",
    "default via 169.254.1.1 dev eth0 onlink",
    "default dev eth0 scope link",
    "default metric 5 nexthop via 10.1.0.1 dev eth0 weight 1 nexthop via 10.1.0.3 dev eth0 weight 3",
    "default via inet6 fe80::1 dev eth0",
    "-6 default via fd01::1 dev eth0",
    "-6 default via fe80::1 dev eth0 metric 77",
    "-6 default via fd09::1 dev eth0 onlink",
]


@pytest.mark.root
@pytest.mark.parametrize("route", ODD_DEFAULTS)
def test_a_held_default_comes_back_as_it_was(pod: Any, route: str) -> None:
    pod.ip("addr add 10.1.0.2/24 dev eth0", "-6 addr add fd01::2/64 dev eth0 nodad")
    family, _, words = route.rpartition("default") if route.startswith("-6") else ("", "", route)
    pod.ip(f"{family} route add {'default' + words if family else words}")
    before = defaults(pod)
    assert before
    held = take_away(pod)
    assert defaults(pod) == []
    assert len(held) == 1
    assert take_away(pod) == ()
    arrange(pod, [Placed(ifname="eth0", result=Result(), taken=held)])
    assert defaults(pod) == before


@pytest.mark.root
def test_two_delegates_that_each_set_a_default_route(pod: Any) -> None:
    pod.ip("addr add 10.1.0.2/24 dev eth0", "addr add 10.2.0.2/24 dev eth1", "route add default via 10.1.0.1")
    first = take_away(pod)
    pod.ip("route add default via 10.2.0.1")  # "file exists", had it not been held (CNI-Genie #205, #213)
    plan = [
        attached("eth0", IP("10.1.0.2/24", "10.1.0.1"), taken=first),
        attached("eth1", IP("10.2.0.2/24", "10.2.0.1")),
    ]
    assert arrange(pod, plan).changes
    assert defaults(pod) == ["default via 10.1.0.1 dev eth0"]
    assert listing(pod, "route show table 2001") == [
        "default via 10.2.0.1 dev eth1",
        "10.2.0.0/24 dev eth1 proto kernel scope link src 10.2.0.2",
    ]
    assert "32765: from 10.2.0.2 lookup 2001 proto 71" in listing(pod, "rule")
    assert arrange(pod, plan).changes == []

    asked = [plan[0], replace(plan[1], wants_default=True)]
    assert arrange(pod, asked).changes
    assert defaults(pod) == ["default via 10.2.0.1 dev eth1"]
    assert listing(pod, "rule")[1] == "32765: from 10.1.0.2 lookup 2000 proto 71"
    assert listing(pod, "route show table 2001") == []
    assert arrange(pod, asked).changes == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("address", "setup", "client"),
    [
        ("10.2.0.2/24", ["route add default via 10.2.0.1 dev eth1"], "192.0.2.1"),
        (
            "10.2.0.2/32",
            ["route add 169.254.1.1 dev eth1 scope link", "route add default via 169.254.1.1 dev eth1"],
            "192.0.2.1",
        ),
        ("fd02::2/64", ["-6 route add default via fd02::1 dev eth1"], "2001:db8::1"),
        ("fd02::2/128", ["-6 route add default via fe80::1 dev eth1"], "2001:db8::1"),
    ],
)
def test_replies_leave_by_the_interface_of_their_address(pod: Any, address: str, setup: list[str], client: str) -> None:
    own, first = address.partition("/")[0], "fd01::2" if ":" in address else "10.1.0.2"
    gateway = "fd01::1" if ":" in address else "10.1.0.1"
    v6 = "-6" if ":" in address else "-4"
    length = 64 if ":" in address else 24
    nodad = "nodad" if ":" in address else ""
    pod.ip(
        f"{v6} addr add {first}/{length} dev eth0 {nodad}",
        f"{v6} addr add {address} dev eth1 {nodad}",
        f"{v6} route add default via {gateway}",
    )
    held = take_away(pod)
    pod.ip(*setup)
    plan = [
        attached("eth0", IP(f"{first}/{length}", gateway), taken=held),
        attached("eth1", IP(address)),
    ]
    arrange(pod, plan)
    assert "dev eth1" in pod.ip(f"{v6} route get {client} from {own}")
    assert "dev eth0" in pod.ip(f"{v6} route get {client} from {first}")
    assert "dev eth0" in pod.ip(f"{v6} route get {client}")
    assert arrange(pod, plan).changes == []


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a second network reports, and what it did in the pod. tables: what its own table has then, [] if none."""

    does: Sequence[str]
    reports: IP
    table: Sequence[str] = ()


CLAIMS = {
    "an address that is not there": Claim(does=(), reports=IP("10.2.0.5/24", "10.2.0.1")),
    "an address of IPv6 that is not there": Claim(does=(), reports=IP("fd02::5/64", "fd02::1")),
    "an address of an interface that is down": Claim(
        does=("addr add 10.2.0.5/24 dev eth1", "link set eth1 down"), reports=IP("10.2.0.5/24", "10.2.0.1")
    ),
    "an interface that is not there": Claim(does=("link del eth1",), reports=IP("10.2.0.5/24", "10.2.0.1")),
    "an address that the first network has": Claim(does=(), reports=IP("10.1.0.2/24", "10.1.0.1")),
    "a subnet that is not there": Claim(
        does=("addr add 10.2.0.5/32 dev eth1", "route add 169.254.1.1 dev eth1 scope link"),
        reports=IP("10.2.0.5/24", "169.254.1.1"),
        table=("default via 169.254.1.1 dev eth1 proto 71", "169.254.1.1 dev eth1 scope link"),
    ),
    "a subnet that it set no route to": Claim(
        does=("addr add 10.2.0.5/24 dev eth1 noprefixroute",),
        reports=IP("10.2.0.5/24", "10.2.0.1"),
        table=("default via 10.2.0.1 dev eth1 proto 71 onlink",),
    ),
    "one of a pair": Claim(
        does=("addr add 10.2.0.5 peer 10.2.0.1/32 dev eth1",),
        reports=IP("10.2.0.5/24", "10.2.0.1"),
        table=("default via 10.2.0.1 dev eth1 proto 71", "10.2.0.1 dev eth1 proto kernel scope link src 10.2.0.5"),
    ),
    "no gateway, in words": Claim(
        does=("addr add 10.2.0.5/24 dev eth1",),
        reports=IP("10.2.0.5/24", "0.0.0.0"),
        table=("10.2.0.0/24 dev eth1 proto kernel scope link src 10.2.0.5",),
    ),
    "itself as the gateway": Claim(
        does=("addr add 10.2.0.5/24 dev eth1",),
        reports=IP("10.2.0.5/24", "10.2.0.5"),
        table=("10.2.0.0/24 dev eth1 proto kernel scope link src 10.2.0.5",),
    ),
    "everybody as the gateway": Claim(
        does=("addr add 10.2.0.5/24 dev eth1",),
        reports=IP("10.2.0.5/24", "10.2.0.255"),
        table=("10.2.0.0/24 dev eth1 proto kernel scope link src 10.2.0.5",),
    ),
    "an address that another interface of its own has": Claim(
        does=("addr add 10.2.0.5/32 dev lo",),
        reports=IP("10.2.0.5/32", "10.2.0.1"),
        table=("default via 10.2.0.1 dev eth1 proto 71 onlink",),
    ),
}


@pytest.mark.root
@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_a_pod_comes_up_whatever_a_network_reports_that_it_did_not_do(pod: Any, claim: Claim) -> None:
    """With rules and a table for what is there."""
    pod.ip("addr add 10.1.0.2/24 dev eth0", "-6 addr add fd01::2/64 dev eth0 nodad", "route add default via 10.1.0.1")
    held = take_away(pod)
    pod.ip(*claim.does)
    first = attached("eth0", IP("10.1.0.2/24", "10.1.0.1"), IP("fd01::2/64"), taken=held)
    arrange(pod, [first, attached("eth1", claim.reports)])
    assert defaults(pod) == ["default via 10.1.0.1 dev eth0"]
    family = "-6" if ":" in claim.reports.address else "-4"
    every = listing(pod, f"{family} route show table all")  # a request for a missing table is an error
    assert [line.replace(" table 2001", "") for line in every if "table 2001" in line] == list(claim.table)
    own = [line for line in listing(pod, f"{family} rule") if "2001" in line]
    assert own == (
        [f"32765: from {claim.reports.address.partition('/')[0]} lookup 2001 proto 71"] if claim.table else []
    )


def leaves_by(pod: Any, source: str) -> str:
    """Where a packet from this address to another network goes. source: as `ip route get` has it."""
    words = pod.ip(f"route get 198.51.100.1 from {source}").split()
    return f"via {words[words.index('via') + 1]}" if "via" in words else "on the link"


@pytest.mark.root
@pytest.mark.parametrize(
    ("sets", "source", "gateway"),
    [
        (["rule add from 10.2.0.5 lookup 100"], "10.2.0.5", "via 10.2.0.100"),
        (["rule add from 10.2.0.0/24 lookup 100"], "10.2.0.5", "via 10.2.0.100"),
        (["rule add from 10.2.0.5 lookup 100", "rule add from 10.2.0.6 lookup 101"], "10.2.0.5", "via 10.2.0.100"),
        (["rule add from 10.2.0.5 lookup 100", "rule add from 10.2.0.6 lookup 101"], "10.2.0.6", "via 10.2.0.101"),
        (["rule add from 10.2.0.5 lookup 100 priority 30000"], "10.2.0.5", "via 10.2.0.100"),
        (["rule add from 10.2.0.5 lookup 100 priority 32765"], "10.2.0.5", "via 10.2.0.100"),
        (["rule add fwmark 7 lookup 101"], "10.2.0.5 mark 7", "via 10.2.0.101"),
        (["rule add fwmark 7 lookup 101"], "10.2.0.5", "via 10.2.0.1"),
        # genie's table has the routes that its table lacks
        (["rule add from 10.2.0.5 lookup 102"], "10.2.0.5", "via 10.2.0.1"),
        (["rule add from 10.2.0.5 lookup 100"], "10.2.0.6", "via 10.2.0.1"),
    ],
)
def test_a_plugin_s_rules_hold(pod: Any, sets: list[str], source: str, gateway: str) -> None:
    """Set before genie's, as the reference plugin sbr does, or after, as a daemon does."""
    pod.ip(
        "addr add 10.1.0.2/24 dev eth0",
        "addr add 10.2.0.5/24 dev eth1",
        "addr add 10.2.0.6/24 dev eth1",
        "route add default via 10.2.0.100 dev eth1 table 100",
        "route add default via 10.2.0.101 dev eth1 table 101",
        "route add 192.0.2.0/24 via 10.2.0.102 dev eth1 table 102",
    )
    plan = [
        attached("eth0", IP("10.1.0.2/24", "10.1.0.1"), taken=(default("10.1.0.1", index_of(pod, "eth0")),)),
        attached("eth1", IP("10.2.0.5/24", "10.2.0.1"), IP("10.2.0.6/24", "10.2.0.1")),
    ]
    pod.ip(*sets)
    arrange(pod, plan)
    assert leaves_by(pod, source) == gateway
    if "priority 32765" not in sets[0]:  # of the same priority the older rule is first
        pod.ip(*(rule.replace("add", "del", 1) for rule in sets), *sets)
        assert leaves_by(pod, source) == gateway


def index_of(pod: Any, ifname: str) -> int:
    return int(json.loads(pod.ip(f"-j link show {ifname}"))[0]["ifindex"])


def test_an_interface_in_a_vrf_has_its_routes_there() -> None:
    """It has a table of its own, and the kernel refuses its addresses as sources in any other."""
    kernel: Any = FakeKernel()
    results = [attached(f"eth{at}", IP(f"10.{at}.0.2/24", f"10.{at}.0.1")) for at in range(3)]
    for one in results:
        kernel.attach(one.ifname, one.result)
    kernel.masters = {"eth1": 9, "eth2": 8}
    kernel.kinds = {9: "vrf", 8: "bridge"}
    rules = [
        change.what for change in routes.plan(results, routes.look(kernel)).changes if isinstance(change.what, Rule)
    ]
    assert [(rule.source, rule.table) for rule in rules] == [(packed("10.2.0.2"), 2002)]


@pytest.fixture
def advertised(namespace: Callable[[], Any], pod: Any) -> Any:
    """A router on the link of eth1."""
    router = namespace()
    pod.run(lambda: _move("r1", router))
    routers.link(router, "r1")
    router.ip("-6 addr add fd02::1/64 dev r1 nodad")
    pod.ip(
        "addr add 10.1.0.2/24 dev eth0",
        "-6 addr add fd01::2/64 dev eth0 nodad",
        "-6 addr add fd02::2/64 dev eth1 nodad",
    )
    return router


FIRST = attached("eth0", IP("10.1.0.2/24", "10.1.0.1"), IP("fd01::2/64", "fd01::1"))
SECOND = attached("eth1", IP("fd02::2/64", "fd02::1"))


def hear(pod: Any, router: Any) -> None:
    routers.advertise(router, "r1")
    routers.until(pod, "-6 route show default", "proto ra")
    routers.until(pod, "-6 addr show dev eth1 scope global", "dynamic")


@pytest.mark.root
def test_routes_learned_from_a_router_are_no_drift(pod: Any, advertised: Any) -> None:
    pod.run(lambda: Path("/proc/sys/net/ipv6/conf/eth1/use_tempaddr").write_text("2"))
    pod.ip("route add default via 10.1.0.1", "-6 route add default via fd01::1")
    arranged = arrange(pod, [FIRST, SECOND]).arranged

    def drifted() -> list[str]:
        with Netlink(pod.path) as kernel:
            return routes.drift([FIRST, SECOND], routes.look(kernel), arranged)

    hear(pod, advertised)
    routers.until(pod, "-6 addr show dev eth1 scope global", "temporary")
    assert drifted() == []

    sender = pod.run(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    with sender:
        sender.bind(("fd02::2", 0))
        sender.connect(("2001:db8:9::1", 9))
        routers.too_big(advertised, "r1", sent_from=sender.getsockname()[:2], sent_to=("2001:db8:9::1", 9))
        routers.until(pod, "-6 route get 2001:db8:9::1 from fd02::2", "mtu 1280")
        assert drifted() == []

    routers.advertise(advertised, "r1", router_lifetime=0)
    routers.until(pod, "-6 route show default", "proto ra", gone=True)
    assert drifted() == []

    pod.ip("-6 route add default via fd02::9 dev eth1 metric 9")
    index = index_of(pod, "eth1")
    assert drifted() == [f"unexpected: route default via fd02::9 dev {index} table 254 metric 9"]


@pytest.mark.root
def test_a_pod_that_a_router_advertises_to_during_its_add_hears_the_next_one(pod: Any, advertised: Any) -> None:
    """A learned route that is taken away and put back is the kernel's no longer: it would refuse to hear of it."""
    hear(pod, advertised)
    pod.ip("route add default via 10.1.0.1")
    held = take_away(pod)
    assert [route.family for route in held] == [INET]
    arrange(pod, [replace(FIRST, taken=held), SECOND])
    arrange(pod, [FIRST, SECOND])
    assert "proto ra" in pod.ip("-6 route show default")
    routers.advertise(advertised, "r1", lifetime=100_000)
    shown = routers.until(pod, "-6 addr show dev eth1 scope global", "valid_lft 86", gone=True)
    assert "dynamic" in shown, "its address has the new life time"


@pytest.mark.root
def test_a_router_s_route_gives_way_to_what_the_pod_is_to_have(pod: Any, advertised: Any) -> None:
    pod.ip("route add default via 10.1.0.1", "-6 route add default via fd01::1")
    held = take_away(pod)
    hear(pod, advertised)
    plan = [replace(FIRST, taken=held), SECOND]
    arrange(pod, plan)
    assert [line.partition(" metric")[0] for line in listing(pod, "-6 route show default")] == [
        "default via fd01::1 dev eth0"
    ]
    hear(pod, advertised)
    assert arrange(pod, plan).changes == [], "the kernel's own may come back"


@pytest.mark.root
def test_one_network_twice_keeps_its_own_neighbours_apart(pod: Any) -> None:
    pod.ip("addr add 10.1.0.3/24 dev eth1", "addr add 10.1.0.2/24 dev eth0")
    plan = [attached("eth0", IP("10.1.0.2/24", "10.1.0.1")), attached("eth1", IP("10.1.0.3/24", "10.1.0.1"))]
    arrange(pod, plan)
    for client in ("10.1.0.9", "192.0.2.1"):
        assert "dev eth0" in pod.ip(f"route get {client} from 10.1.0.2")
        assert "dev eth1" in pod.ip(f"route get {client} from 10.1.0.3")


@pytest.mark.root
def test_a_failed_change_undoes_itself(pod: Any) -> None:
    pod.ip("addr add 10.1.0.2/24 dev eth0", "addr add 10.2.0.2/24 dev eth1", "route add default via 10.1.0.1")
    held = take_away(pod)
    pod.ip("route add default via 10.2.0.1")
    before = (defaults(pod), listing(pod, "rule"), listing(pod, "route show table all"))
    broken = default("10.9.0.1", held[0].oifs[0])  # not on a network of the pod
    plan = [
        attached("eth0", IP("10.1.0.2/24", "10.1.0.1"), taken=(broken,)),
        attached("eth1", IP("10.2.0.2/24", "10.2.0.1")),
    ]
    with pytest.raises(
        OSError, match=r"add route default via 10\.9\.0\.1 dev \d+ table 254: ENETUNREACH, Network"
    ) as caught:
        arrange(pod, plan)
    assert caught.value.errno
    assert (defaults(pod), listing(pod, "rule"), listing(pod, "route show table all")) == before


@pytest.mark.root
@pytest.mark.parametrize(
    ("link", "default"),
    [
        ("route add 169.254.1.1 dev eth0 scope link", "route add default via 169.254.1.1 dev eth0"),
        ("-6 route add fd09::1 dev eth0", "-6 route add default via fd09::1 dev eth0"),
    ],
)
def test_routes_that_cannot_all_be_taken_away_are_put_back_in_an_order_that_the_kernel_takes(
    pod: Any, link: str, default: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway can be set only when the route to it is there again."""
    pod.ip("addr add 10.1.0.2/32 dev eth0", "-6 addr add fd01::2/128 dev eth0 nodad", link, default)
    before = listing(pod, "route show table main"), listing(pod, "-6 route show table main")
    read = Netlink.routes

    def with_a_ghost(self: Netlink, family: int, tables: Any = (MAIN,)) -> list[KernelRoute]:
        index = self.links()["eth0"].ifindex
        ghost = KernelRoute.to(INET, packed("10.99.0.0"), 16, oif=index)  # somebody else removes it meanwhile
        return [*read(self, family, tables), *([ghost] if family == INET else [])]

    monkeypatch.setattr(Netlink, "routes", with_a_ghost)
    with pytest.raises(OSError, match=r"delete route 10\.99\.0\.0/16 .*: ESRCH"):
        take_away(pod)
    assert (listing(pod, "route show table main"), listing(pod, "-6 route show table main")) == before


@pytest.mark.root
def test_the_calling_thread_stays_where_it_is(pod: Any) -> None:
    def here() -> str:
        return os.readlink("/proc/thread-self/ns/net")  # noqa: PTH115

    before, threads, files = here(), threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    take_away(pod)
    with Netlink(pod.path) as there, Netlink() as local:
        assert "eth1" in there.links()
        assert "lo" in local.links()
    assert here() == before
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == files  # noqa: PTH208


@dataclass
class Anywhere:
    path: str


def test_a_namespace_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        take_away(Anywhere("/proc/self/no-such-namespace"))


@pytest.mark.root
def test_a_path_that_is_no_namespace_is_an_error(pod: Any) -> None:
    with pytest.raises(OSError, match="enter network namespace: Invalid argument"):
        take_away(Anywhere("/dev/null"))


@pytest.mark.root
def test_links_and_tables_as_ip_shows_them(pod: Any) -> None:
    pod.ip(
        "addr add 10.1.0.2/24 dev eth0", "route add 10.5.0.0/16 via 10.1.0.1 table 300", "rule add from 1.1.1.1 table 9"
    )
    with Netlink(pod.path) as kernel:
        index, mac, mtu, up, master = kernel.links()["eth0"]
        (shown,) = json.loads(pod.ip("-j link show eth0"))
        assert (index, mac, mtu, up, master) == (shown["ifindex"], shown["address"], shown["mtu"], True, 0)
        pod.ip("link add br0 type bridge", "link set eth1 down master br0")
        found = kernel.links()
        assert not found["eth1"].up
        assert found["eth1"].master == found["br0"].ifindex
        assert kernel.of_kind("bridge") == {found["br0"].ifindex}
        assert kernel.of_kind("veth") == {found[name].ifindex for name in ("eth0", "eth1", "r0", "r1")}
        assert kernel.of_kind("vrf") == frozenset()
        assert [str(route) for route in kernel.routes(INET, {300})] == [
            f"route 10.5.0.0/16 via 10.1.0.1 dev {index} table 300"
        ]
        assert [str(rule) for rule in kernel.rules(INET)] == ["rule from 1.1.1.1 lookup 9"]


@pytest.mark.root
def test_a_family_that_the_kernel_does_not_have_has_nothing(pod: Any) -> None:
    with Netlink(pod.path) as kernel:
        assert kernel.rules(socket.AF_IPX) == []
        assert kernel.routes(socket.AF_IPX) == []


@contextmanager
def routed(namespace: Callable[[], Any], pod: Any) -> Iterator[list[Any]]:
    """Give each of the pod's interfaces a router, and behind it a client's address that both routers have."""
    routers = []
    for at in range(2):
        router = namespace()
        pod.run(lambda at=at, router=router: _move(f"r{at}", router))
        router.ip(
            f"link set r{at} up",
            f"addr add 10.{at + 1}.0.1/24 dev r{at}",
            f"addr add 192.0.2.{at + 1}/32 dev lo",
        )
        routers.append(router)
    yield routers


def _move(link: str, to: Any) -> None:
    import subprocess

    subprocess.run(["ip", "link", "set", link, "netns", str(to.path)], check=True)


@pytest.mark.root
def test_a_client_behind_each_router_talks_to_the_address_it_knows(namespace: Callable[[], Any], pod: Any) -> None:
    pod.ip("addr add 10.1.0.2/24 dev eth0", "addr add 10.2.0.2/24 dev eth1", "route add default via 10.1.0.1")
    with routed(namespace, pod) as routers:
        held = take_away(pod)
        plan = [
            attached("eth0", IP("10.1.0.2/24", "10.1.0.1"), taken=held),
            attached("eth1", IP("10.2.0.2/24", "10.2.0.1")),
        ]
        arrange(pod, plan)
        server = pod.run(lambda: socket.create_server(("0.0.0.0", 0)))
        port = server.getsockname()[1]
        threading.Thread(target=_greet, args=(server, 2), daemon=True).start()
        for at, router in enumerate(routers):
            target, source = (f"10.{at + 1}.0.2", port), (f"192.0.2.{at + 1}", 0)
            output = router.run(lambda target=target, source=source: _dial(target, source))
            assert output == target[0]
        server.close()


def _greet(server: socket.socket, times: int) -> None:
    for _ in range(times):
        connection, _ = server.accept()
        with connection:
            connection.sendall(connection.getsockname()[0].encode())


def _dial(target: tuple[str, int], source: tuple[str, int]) -> str:
    with socket.create_connection(target, timeout=5, source_address=source) as connection:
        return connection.recv(64).decode()
