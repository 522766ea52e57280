"""The network-status of a pod."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.cni.result import DNS, IP, Interface, Result, Route
from genie.select.annotations import Ask
from genie.select.selection import Choice
from genie.verbs.network_status import MULTI_IP, NETWORK_STATUS, added, on_pod, shorter
from tests.rigs.core import network

V4 = IP("10.0.0.2/24", "10.0.0.1", 1)
V6 = IP("fd00::2/64", "fd00::1", 1)
INTERFACES = (Interface("veth1"), Interface("eth0", mac="02:00:00:00:00:01", sandbox="/n", mtu=1450))
PLAIN = Choice(ask=Ask(name="calico", where="x"), label="calico", network=network(), ifname="eth0")


def entry(result: Result, choice: Choice = PLAIN) -> dict[str, Any]:
    (shown,) = json.loads(on_pod([choice], [result])[NETWORK_STATUS])
    return dict(shown)


@pytest.mark.parametrize(
    ("routes", "gateway"),
    [
        ((), None),
        ((Route("10.8.0.0/16", "10.0.0.9"),), None),
        ((Route("0.0.0.0/0", "10.0.0.9"),), ["10.0.0.9"]),
        ((Route("0.0.0.0/0"),), ["10.0.0.1"]),
        ((Route("::/0"),), ["fd00::1"]),
        ((Route("0.0.0.0/0", "10.0.0.9"), Route("::/0")), ["10.0.0.9", "fd00::1"]),
        ((Route("0.0.0.0/0", "10.0.0.9", table=9),), None),
    ],
)
def test_a_gateway_is_that_of_a_default_route_that_the_pod_has(
    routes: tuple[Route, ...], gateway: list[str] | None
) -> None:
    assert entry(Result(interfaces=INTERFACES, ips=(V4, V6), routes=routes)).get("gateway") == gateway


def test_a_default_route_by_no_gateway_has_none() -> None:
    alone = replace(V4, gateway="")
    assert "gateway" not in entry(Result(interfaces=INTERFACES, ips=(alone, V6), routes=(Route("0.0.0.0/0"),)))


def test_the_specifications_name_for_it_is_there_where_the_pod_asked() -> None:
    asked = replace(PLAIN, ask=replace(PLAIN.ask, default_route=("10.0.0.9",)))
    result = Result(interfaces=INTERFACES, ips=(V4,), routes=(Route("0.0.0.0/0", "10.0.0.9"),))
    assert entry(result, asked)["default-route"] == ["10.0.0.9"]
    assert "default-route" not in entry(result)
    assert "default-route" not in entry(replace(result, routes=()), asked), "it was not granted"


def test_an_entry_has_what_the_specification_has() -> None:
    dns = DNS(nameservers=("10.0.0.10",), domain="x.org")
    shown = entry(Result(interfaces=INTERFACES, ips=(V4, replace(V6, interface=0)), dns=dns))
    assert shown == {
        "name": "calico", "interface": "eth0", "ips": ["10.0.0.2"], "mac": "02:00:00:00:00:01", "mtu": 1450,
        "default": True, "dns": {"nameservers": ["10.0.0.10"], "domain": "x.org"},
    }  # fmt: skip


UDN = Interface("udn1", mac="02:00:00:00:00:02", sandbox="/n", mtu=1400)


def entries(result: Result, *before: Result) -> list[dict[str, Any]]:
    shown = json.loads(on_pod([PLAIN] * (len(before) + 1), [*before, result])[NETWORK_STATUS])
    return [{key: each[key] for key in ("interface", "ips", "default", "gateway") if key in each} for each in shown]


def test_each_interface_that_a_network_made_in_the_pod_has_an_entry() -> None:
    """Like OVN-Kubernetes with a primary user-defined network; the default is the network with the gateway."""
    ips = (IP("10.128.0.5/24", interface=1), IP("10.200.0.5/16", "10.200.0.1", 2), IP("fd00::5/64", "fd00::1", 2))
    result = Result(interfaces=(*INTERFACES, UDN), ips=ips, routes=(Route("0.0.0.0/0"), Route("::/0", "fd00::1")))
    shown = json.loads(on_pod([PLAIN], [result])[NETWORK_STATUS])
    assert shown == [
        {
            "name": "calico", "interface": "eth0", "ips": ["10.128.0.5"], "mac": "02:00:00:00:00:01", "mtu": 1450,
            "default": False, "dns": {},
        },
        {
            "name": "calico", "interface": "udn1", "ips": ["10.200.0.5", "fd00::5"], "mac": "02:00:00:00:00:02",
            "mtu": 1400, "default": True, "gateway": ["10.200.0.1", "fd00::1"], "dns": {},
        },
    ]  # fmt: skip
    assert json.loads(on_pod([PLAIN], [result])[MULTI_IP])["multi_entry"] == 3


def test_without_a_gateway_the_first_interface_is_the_default_and_a_further_network_has_none() -> None:
    result = Result(interfaces=(*INTERFACES, UDN), ips=(IP("10.0.0.2/24", interface=1), IP("10.1.0.2/24", interface=2)))
    assert [one["default"] for one in entries(result)] == [True, False]
    assert [one["default"] for one in entries(result, result)] == [True, False, False, False]


def test_a_default_route_by_a_gateway_that_no_interface_has_is_shown_at_each() -> None:
    result = Result(interfaces=(*INTERFACES, UDN), ips=(V4,), routes=(Route("0.0.0.0/0", "169.254.1.1"),))
    assert [one["gateway"] for one in entries(result)] == [["169.254.1.1"], ["169.254.1.1"]]


def test_an_interface_that_is_not_in_the_pod_has_no_entry() -> None:
    """Amazon's plugin reports an interface of sandbox "0", which is nowhere."""
    dummy = Interface("dummy1f2a", mac="0", sandbox="0")
    assert entries(Result(interfaces=(*INTERFACES, dummy), ips=(V4,))) == [
        {"interface": "eth0", "ips": ["10.0.0.2"], "default": True}
    ]


def test_an_attachments_only_interface_has_the_gateway_of_any_address() -> None:
    """Also if the address is reported on the host's end, or the network has no interface in the pod."""
    on_host = Result(interfaces=INTERFACES, ips=(replace(V4, interface=0),), routes=(Route("0.0.0.0/0"),))
    assert entry(on_host)["gateway"] == ["10.0.0.1"]
    assert entry(replace(on_host, interfaces=INTERFACES[:1])) == {
        "name": "calico", "interface": "eth0", "ips": [], "default": True, "gateway": ["10.0.0.1"], "dns": {},
    }  # fmt: skip


@pytest.mark.parametrize("made", [INTERFACES, ()])
def test_a_device_is_in_its_attachments_entry(made: tuple[Interface, ...]) -> None:
    def shown(device: str, known: dict[int, dict[str, Any]] | None = None) -> Any:
        choice = replace(PLAIN, network=network("sriov", {"type": "sriov", "deviceID": device}))
        notes = on_pod([choice, PLAIN], [Result(interfaces=made)] * 2, known)
        first, second = json.loads(notes[NETWORK_STATUS])
        assert "device-info" not in second
        return first.get("device-info")

    for address in ("0000:af:1F.7", "0000BEef:0a:00.0"):
        assert shown(address) == {"type": "pci", "version": "1.1.0", "pci": {"pci-address": address}}
    for other in ("", "eth1", "0000:3b:00.8", "x0000:3b:00.1", "0000:3b:00.1x", "000:3b:00.1"):
        assert shown(other) is None
    assert shown("0000:3b:00.1", {0: {"type": "vdpa"}}) == {"type": "vdpa"}


def test_each_choice_has_a_result() -> None:
    with pytest.raises(ValueError):
        on_pod([PLAIN, PLAIN], [Result()])


@given(
    st.lists(st.tuples(st.sampled_from(["eth0", "net1", "veth1"]), st.sampled_from(["", "/n", "0"])), max_size=4),
    st.data(),
)
def test_every_address_is_at_one_interface_and_one_is_the_default(
    made: list[tuple[str, str]], data: st.DataObject
) -> None:
    interfaces = tuple(Interface(name, sandbox=sandbox) for name, sandbox in dict(made).items())
    at = st.sampled_from(range(len(interfaces)))
    ips = (
        data.draw(st.lists(st.builds(IP, st.just("10.0.0.2/24"), st.sampled_from(["", "10.0.0.1"]), at), max_size=4))
        if interfaces
        else []
    )
    shown = entries(Result(interfaces=interfaces, ips=tuple(ips)))
    assert [one["default"] for one in shown].count(True) == 1
    names = [one["interface"] for one in shown]
    assert len(names) == len(set(names))
    for position, one in enumerate(interfaces):
        if one.name in names and one.sandbox:
            own = next(each for each in shown if each["interface"] == one.name)
            assert len(own["ips"]) == len([ip for ip in ips if ip.interface == position])


def test_every_address_is_in_the_preferences() -> None:
    second = replace(PLAIN, ifname="eth1", label="weave")
    results = [Result(interfaces=INTERFACES, ips=(V4, V6)), Result(ips=(IP("10.1.0.2/24"),))]
    assert json.loads(on_pod([PLAIN, second], results)[MULTI_IP]) == {
        "multi_entry": 3,
        "ips": {
            "ip1": {"ip": "10.0.0.2", "interface": "eth0"},
            "ip2": {"ip": "fd00::2", "interface": "eth0"},
            "ip3": {"ip": "10.1.0.2", "interface": "eth1"},
        },
    }


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (Result(interfaces=INTERFACES, ips=(V4, V6)), "Add eth0 [10.0.0.2/24 fd00::2/64] from calico"),
        (Result(interfaces=INTERFACES), "Add eth0 [] from calico"),
        (Result(ips=(V4,)), "Add eth0 [10.0.0.2/24] from calico"),
        (Result(routes=(Route("0.0.0.0/0"),)), ""),
    ],
)
def test_an_attachments_event_is_in_multus_words(result: Result, message: str) -> None:
    assert added(PLAIN, result) == message


def test_a_status_that_is_too_long_is_shortened_step_by_step() -> None:
    result = Result(interfaces=INTERFACES, ips=(V4,), routes=(Route("0.0.0.0/0"),))
    notes = {**on_pod([PLAIN], [result]), "cni": "calico"}
    tried = [dict(each) for each in shorter(notes)]
    statuses = [json.loads(each[NETWORK_STATUS] or "null") for each in tried]
    address = {"name": "calico", "interface": "eth0", "ips": ["10.0.0.2"], "default": True}
    assert statuses == [
        [{**address, "mac": "02:00:00:00:00:01"}],
        [address],
        [{"name": "calico", "interface": "eth0"}],
        None,
    ]
    assert [each[MULTI_IP] for each in tried] == [notes[MULTI_IP], None, None, None]
    assert tried[2][NETWORK_STATUS] == '[{"name":"calico","interface":"eth0"}]', "no blanks"
    assert notes[MULTI_IP] == '{"multi_entry":1,"ips":{"ip1":{"ip":"10.0.0.2","interface":"eth0"}}}'
    assert all(each["cni"] == "calico" for each in tried), "the choice of a least loaded network is no status"


@given(st.dictionaries(st.sampled_from(["name", "interface", "ips", "mac", "mtu", "dns", "more"]), st.text()))
def test_each_is_shorter_than_the_one_before_and_none_leaves_something_old(one: dict[str, str]) -> None:
    for notes in ({NETWORK_STATUS: json.dumps([one]), MULTI_IP: "{}"}, {NETWORK_STATUS: json.dumps([one])}, {}):
        tried = list(shorter(notes))
        lengths = [sum(len(value or "") for value in each.values()) for each in (notes, *tried)]
        assert lengths == sorted(lengths, reverse=True)
        assert all(each.keys() == notes.keys() for each in tried), "what an earlier container left is removed"
