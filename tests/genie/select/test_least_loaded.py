"""`cni: ""`: loads from the host's counters, and the decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.cni.errors import CniError
from genie.cni.result import Interface, Result
from genie.config import Conf
from genie.records import Record, RecordedAttachment
from genie.select import least_loaded, networks
from tests.rigs.core import Node, network
from tests.rigs.counting import is_linear

CONF = Conf(name="k8s", cni_version="1.0.0")


def attached(name: str, *host: str) -> Record:
    interfaces = (*map(Interface, host), Interface("eth0", sandbox="/n"))
    one = RecordedAttachment(
        label=name, network=network(name), container_id="c", ifname="eth0", result=Result(interfaces=interfaces)
    )
    return Record(container_id="c", ifname="eth0", netns="/n", attached=(one,))


@pytest.mark.parametrize(
    ("rates", "attachments", "best"),
    [
        ({}, {}, "a"),
        ({}, {"a": 1}, "b"),
        ({}, {"a": 1, "b": 1, "c": 1}, "a"),
        ({"va": 5.0}, {"a": 1, "b": 7, "c": 8}, "b"),
        ({"va": 5.0, "vb": 4.0, "vb2": 2.0, "vc": 9.0}, {}, "a"),
        ({"elsewhere": 5.0}, {"a": 3}, "b"),
    ],
)
def test_the_decision(rates: dict[str, float], attachments: dict[str, int], best: str) -> None:
    interfaces = {"a": ["va"], "b": ["vb", "vb2"], "c": ["vc"]}
    choice = least_loaded.least_loaded(["a", "b", "c"], interfaces, rates, attachments, {})
    assert choice.network == best
    assert choice.why.startswith(f"{best} (a ")


@given(
    st.lists(st.sampled_from("abc"), min_size=1, unique=True),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9)),
)
def test_the_decision_is_one_of_the_networks(names: list[str], attachments: dict[str, int]) -> None:
    best = least_loaded.least_loaded(names, {}, {}, attachments, {}).network
    assert best in names
    assert attachments.get(best, 0) == min(attachments.get(name, 0) for name in names)


def test_attachments_without_an_interface_on_the_host_count() -> None:
    choice = least_loaded.least(["macvlan", "calico"], [attached("macvlan")], CONF)
    assert choice.network == "calico"


def test_no_network_to_choose_from() -> None:
    with pytest.raises(CniError, match="nothing to choose from") as caught:
        least_loaded.least([], [], CONF)
    assert caught.value.code == 11


def test_rates() -> None:
    earlier = least_loaded.Reading(at=10.0, sent={"a": 100, "b": 100, "gone": 1})
    later = least_loaded.Reading(at=12.0, sent={"a": 300, "b": 50, "new": 7})
    assert least_loaded.rates_between(earlier, later) == {"a": 100.0, "b": 0.0}
    assert least_loaded.rates_between(earlier, replace(later, at=10.0))["a"] > 0


def test_counters_of_the_host() -> None:
    assert set(least_loaded.read(["lo", "none"]).sent) == {"lo"}
    assert least_loaded.is_pair("lo") is False and least_loaded.is_pair("none") is False


def test_what_all_attachments_share_is_none_of_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(least_loaded, "is_pair", lambda name: not name.startswith("eth"))
    records = [attached("a", "br0", "v1"), attached("a", "br0", "v2"), attached("b", "eth9", "v3")]
    assert least_loaded.host_interfaces(records) == {"a": ["v1", "v2"], "b": ["v3"]}


class Name(str):
    """A name with counted comparisons."""

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) is True

    __hash__ = str.__hash__


def test_an_interface_is_not_compared_with_every_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(least_loaded, "is_pair", lambda name: True)

    def make(count: int) -> Callable[[], object]:
        records = [attached("a", Name(f"v{n}")) for n in range(count)]
        return lambda: least_loaded.host_interfaces(records)

    assert is_linear(make, 200)


INTERFACE_MAKERS = ["bridge", "macvlan", "calico", "flannel"]
NO_MAKERS = ["loopback", "tuning", "portmap", "host-local"]


@given(st.lists(st.sampled_from(NO_MAKERS + INTERFACE_MAKERS), min_size=1, max_size=4), st.sampled_from([0, 1]))
def test_a_chain_that_makes_no_interface_is_no_candidate(kinds: list[str], other: int) -> None:
    """A loopback configuration in net.d, as CRI-O installs it; also with plugins before or after it."""
    path = ["/bin-none"]
    why = networks.unusable(network("x", *({"type": kind} for kind in kinds)), path)
    assert why
    assert why.endswith("cannot be a pod's network") == (not set(kinds) & set(INTERFACE_MAKERS))


def test_the_loopback_is_never_chosen(node: Node) -> None:
    node.install("calico")
    node.binary("loopback", "bandwidth", "portmap")
    chain = [{"type": "loopback"}, {"type": "bandwidth"}]
    node.write("00-lo.conflist", {"cniVersion": "1.0.0", "name": "lo", "plugins": chain})
    node.write("99-loopback.conf", {"cniVersion": "1.0.0", "name": "loopback", "type": "loopback"})
    for number in range(3):
        node.add("", container=f"c{number}")
        assert node.kube.written["cni"] == "calico"
    (node.net_d / "10-calico.conf").unlink()
    node.kube.annotations = {"cni": ""}
    assert "nothing to choose from" in node.fails("ADD", CNI_CONTAINERID="c9")["msg"]
    node.kube.annotations = {"cni": "loopback"}
    node.ok("ADD", CNI_CONTAINERID="c9")


def test_a_network_whose_plugin_is_gone_is_no_candidate(node: Node) -> None:
    node.install("aaa", "bbb")
    (node.root / "bin" / "aaa").unlink()
    node.add("")
    assert node.kube.written["cni"] == "bbb"
