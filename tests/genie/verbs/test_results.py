"""One merged result from a pod's networks, with the missing fields of the pod's interface."""

from __future__ import annotations

from dataclasses import replace

import pytest

from genie.cni.errors import CniError, Code
from genie.cni.result import DNS, IP, Interface, Result, Route
from genie.kernel.netns import Link
from genie.kernel.routes import Plan
from genie.verbs.results import attributed, check_total, completed, in_place, lacks, merged, results_size

# --- missing fields of the pod's interface -----------------------------------------------------------------------

LINK = Link(ifindex=2, mac="02:00:00:00:00:a9", mtu=1376)
WHOLE = Interface("eth0", mac=LINK.mac, sandbox="/n", mtu=LINK.mtu)
HOST = Interface("veth1", mac="02:00:00:00:00:01")
ADDRESS = IP("10.0.0.2/24")


@pytest.mark.parametrize(
    ("reported", "complete"),
    [
        (Result(interfaces=(HOST, WHOLE), ips=(replace(ADDRESS, interface=1),)), None),
        (Result(interfaces=(HOST, replace(WHOLE, mac=""))), (HOST, WHOLE)),
        (Result(interfaces=(replace(WHOLE, mtu=0), HOST)), None),
        (Result(interfaces=(replace(WHOLE, mac="", mtu=1400), HOST)), (replace(WHOLE, mtu=1400), HOST)),
        (Result(), (WHOLE,)),
        (Result(ips=(ADDRESS,)), (WHOLE,)),
        (Result(interfaces=(HOST, Interface("eth0"))), (HOST, WHOLE)),
        (Result(interfaces=(Interface("eth0"), HOST)), (WHOLE, HOST)),
        (Result(interfaces=(Interface("veth1"),)), (Interface("veth1"), WHOLE)),
        (Result(interfaces=(HOST, Interface("eth0", mac=LINK.mac.upper()))), (HOST, replace(WHOLE, mac=LINK.mac))),
        # the host's eth0, which is not the pod's
        (Result(interfaces=(replace(HOST, name="eth0"),)), (replace(HOST, name="eth0"), WHOLE)),
        (
            Result(interfaces=(replace(HOST, name="eth0"),), ips=(replace(ADDRESS, interface=0),)),
            (replace(WHOLE, mac=HOST.mac),),
        ),
    ],
)
def test_missing_fields_of_a_result_are_filled_in(reported: Result, complete: tuple[Interface, ...] | None) -> None:
    assert lacks(reported, "eth0") == (complete is not None)
    whole = (
        reported if complete is None else attributed(completed(reported, "eth0", "/n", {"eth0": LINK}), "eth0", "/n")
    )
    shown = [replace(each, mac=each.mac.lower()) for each in whole.interfaces]
    assert shown == list(reported.interfaces if complete is None else complete)
    assert not lacks(whole, "eth0")
    assert all(whole.interfaces[ip.interface].sandbox for ip in whole.ips if ip.interface is not None)
    assert len(whole.ips) == len(reported.ips) and all(ip.interface is not None for ip in whole.ips)


def test_an_address_without_an_interface_is_on_the_pods() -> None:
    inside = Interface("eth0", sandbox="/n")
    assert attributed(Result(ips=(ADDRESS,)), "eth0", "/n") == Result((inside,), (replace(ADDRESS, interface=0),))
    mixed = Result(interfaces=(HOST, WHOLE), ips=(replace(ADDRESS, interface=0), ADDRESS))
    assert attributed(mixed, "eth0", "/n") == replace(
        mixed, ips=(replace(ADDRESS, interface=0), replace(ADDRESS, interface=1))
    )
    added = (HOST, inside)
    assert attributed(replace(mixed, interfaces=(HOST,)), "eth0", "/n").interfaces == added


def test_a_plugin_that_makes_no_interface_is_told_as_it_is() -> None:
    user_space = Result(interfaces=(Interface("net1", socket_path="/run/x.sock"),))
    assert completed(user_space, "net1", "/n", {}) == user_space


def test_further_interfaces_of_a_network_are_completed_too() -> None:
    udn = Interface("udn1", sandbox="/n")
    elsewhere = Interface("udn1", sandbox="0", mac="0")
    links = {"eth0": LINK, "udn1": Link(ifindex=3, mac="02:00:00:00:00:0a", mtu=1300), "veth1": LINK}
    done = completed(Result(interfaces=(HOST, WHOLE, udn, elsewhere)), "eth0", "/n", links).interfaces
    assert done[:3] == (HOST, WHOLE, replace(udn, mac="02:00:00:00:00:0a", mtu=1300))
    assert done[3].mac == "0"


# --- one result -----------------------------------------------------------------------------------------------------


def test_the_first_networks_addresses_go_without_an_index_where_it_is_on_another_interface_than_the_runtimes() -> None:
    first = Result(interfaces=(HOST, WHOLE), ips=(replace(ADDRESS, interface=1), IP("fd00::2/64", interface=1)))
    second = Result(interfaces=(replace(WHOLE, name="net1"),), ips=(IP("10.1.0.2/24", interface=0),))
    assert [ip.interface for ip in merged([first, second], first_elsewhere=False).ips] == [1, 1, 2]
    assert [ip.interface for ip in merged([first, second], first_elsewhere=True).ips] == [None, None, 2]


def test_too_many_addresses_or_routes_in_all_are_refused() -> None:
    ips, routes = (IP("10.0.0.1/8"),) * 64, (Route("10.0.0.0/8"),) * 256
    check_total([Result(ips=ips, routes=routes)] * 2 + [Result(ips=ips)] * 2)
    for more, complaint in (
        (Result(ips=ips[:1]), "257 addresses, of at most 256"),
        (
            Result(routes=routes[:1]),
            "513 routes, of at most 512",
        ),
    ):
        with pytest.raises(CniError, match=f"the pod's networks report {complaint}") as caught:
            check_total([Result(ips=ips, routes=routes)] * 2 + [Result(ips=ips)] * 2 + [more])
        assert caught.value.code == Code.INVALID_CONFIG


def test_each_result_gets_the_routes_that_were_decided_for_it() -> None:
    had = [Result(ips=(ADDRESS,), routes=(Route("0.0.0.0/0"),)), Result(routes=(Route("10.8.0.0/16"),))]
    assert in_place(had, [(), (Route("10.9.0.0/16"),)]) == [
        Result(ips=(ADDRESS,)),
        Result(routes=(Route("10.9.0.0/16"),)),
    ]
    with pytest.raises(ValueError):
        in_place(had, [()])


def test_the_size_of_results_counts_every_list_that_can_be_long() -> None:
    dns = DNS(search=("a", "b", "c", "d", "e"))
    one = Result(interfaces=(HOST, WHOLE), ips=(ADDRESS,) * 3, routes=(Route("10.0.0.0/8"),) * 4, dns=dns)
    arranged = Plan(changes=[], arranged=("a rule",) * 6, reported=())
    assert results_size([one, Result(ips=(ADDRESS,))]) == 200 * (2 + 3 + 4 + 5 + 1)
    assert results_size([one], None) == 200 * 14
    assert results_size([one], arranged) == 200 * 14 + 100 * 6
    assert results_size([]) == 0
