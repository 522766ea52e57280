"""`cni: ""`: loads from the host's counters, and the decision."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.cni import invoke
from genie.cni.errors import CniError
from genie.cni.execute import SubprocessExecutor, run_sync
from genie.cni.invoke import Attachment
from genie.cni.result import Interface, Result
from genie.config import SMART_FIGURES, Conf, parse
from genie.records import Record, RecordedAttachment
from genie.select import least_loaded, networks
from genie.select.least_loaded import Load
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
def test_the_least_loaded_network_is_chosen(rates: dict[str, float], attachments: dict[str, int], best: str) -> None:
    interfaces = {"a": ["va"], "b": ["vb", "vb2"], "c": ["vc"]}
    candidates = [
        Load(network=name, received=sum(rates.get(one, 0) for one in own), attachments=attachments.get(name, 0))
        for name, own in interfaces.items()
    ]
    choice = least_loaded.least_loaded(candidates, CONF)
    assert choice.network == best
    assert choice.why.startswith(f"{best} (a ")


@given(
    st.lists(st.sampled_from("abc"), min_size=1, unique=True),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9)),
)
def test_the_decision_is_one_of_the_networks(names: list[str], attachments: dict[str, int]) -> None:
    candidates = [Load(network=name, attachments=attachments.get(name, 0)) for name in names]
    best = least_loaded.least_loaded(candidates, CONF).network
    assert best in names
    assert attachments.get(best, 0) == min(attachments.get(name, 0) for name in names)


def test_what_cannot_be_measured_counts_as_the_busiest() -> None:
    candidates = least_loaded.loads(["macvlan", "calico"], [attached("macvlan")])
    assert str(candidates[0]) == (
        "macvlan traffic not known (its pods' interfaces cannot be read from here), 1 attachments"
    )
    busy = replace(candidates[1], received=1e9, sent=1e9, drops=9)
    assert least_loaded.least_loaded([candidates[0], busy], CONF).network == "calico"
    for weights, best in (
        ({"sent": 1}, "macvlan"),
        ({"sent": 1, "attachments": 1}, "calico"),
        ({"drops": 9}, "macvlan"),
    ):
        found = least_loaded.least_loaded([candidates[0], busy], replace(CONF, smart_weights=weights))
        assert found.network == best, "as busy as the busiest, and not more"


@pytest.mark.root
def test_a_macvlan_network_has_the_traffic_of_its_pods(
    namespace: Callable[[], Any], cni_bin: str, tmp_path: Path
) -> None:
    host, one, two = namespace(), namespace(), namespace()
    host.ip("link add up0 type veth peer name up1", "link set up0 up", "link set up1 up")
    ipam = {"type": "host-local", "subnet": "10.7.0.0/24", "dataDir": str(tmp_path)}
    side = network("side", {"type": "macvlan", "master": "up0", "mode": "bridge", "ipam": ipam})
    records = []
    for container, pod in (("c1", one), ("c2", two)):
        given = Attachment(container_id=container, netns=pod.path, ifname="eth0", path=(cni_bin,), timeout=60)
        result = host.run(lambda given=given: run_sync(invoke.add(side, given, SubprocessExecutor())))
        made = RecordedAttachment(label="side", network=side, container_id=container, ifname="eth0", result=result)
        records.append(Record(container_id=container, ifname="eth0", netns=pod.path, attached=(made,)))
    interfaces = least_loaded.measured(records)["side"]
    assert interfaces == [f"{one.path}/eth0", f"{two.path}/eth0"]

    def send() -> None:
        with pytest.raises(ConnectionRefusedError):  # by then its hardware address is known
            socket.create_connection(("10.7.0.3", 9), timeout=30)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            for _ in range(100):
                made.sendto(bytes(1000), ("10.7.0.3", 9))

    earlier = least_loaded.read(interfaces)
    one.run(send)
    (_, sent, _), (received, _, _) = (
        [new - old for new, old in zip(least_loaded.read([each]).counters[each], earlier.counters[each], strict=True)]
        for each in interfaces
    )
    assert sent >= 100_000 and received >= 100_000
    loads = least_loaded.loads(["side", "calico"], records, earlier)
    assert loads[0].sent > 0 and loads[0].received > 0 and not loads[0].unmeasured
    assert least_loaded.least_loaded(loads, CONF).network == "calico", "although it comes later"


def test_choosing_from_no_network_is_an_error() -> None:
    with pytest.raises(CniError, match="nothing to choose from") as caught:
        least_loaded.least_loaded([], CONF)
    assert caught.value.code == 11


def test_rates_are_per_second() -> None:
    earlier = least_loaded.Reading(at=10.0, counters={"a": (100, 0, 0), "b": (100, 2, 4), "gone": (1, 1, 1)})
    later = least_loaded.Reading(at=12.0, counters={"a": (300, 20, 1), "b": (50, 2, 4), "new": (7, 7, 7)})
    assert least_loaded.rates_between(earlier, later) == {"a": (100.0, 10.0, 0.5), "b": (0.0, 0.0, 0.0)}
    assert least_loaded.rates_between(earlier, replace(later, at=10.0))["a"][0] > 0


def test_counters_of_interfaces_that_exist_are_read() -> None:
    assert set(least_loaded.read(["lo", "none"]).counters) == {"lo"}
    assert least_loaded.is_pair("lo") is False and least_loaded.is_pair("none") is False


def test_a_shared_bridge_counts_for_no_attachment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(least_loaded, "is_pair", lambda name: not name.startswith("eth"))
    records = [attached("a", "br0", "v1"), attached("a", "br0", "v2"), attached("b", "eth9", "v3")]
    assert least_loaded.measured(records) == {"a": ["v1", "v2"], "b": ["v3"]}


class Name(str):
    """A name with counted comparisons."""

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) is True

    __hash__ = str.__hash__


def test_an_interface_is_not_compared_with_every_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(least_loaded, "is_pair", lambda name: True)

    def make(count: int) -> Callable[[], object]:
        records = [attached("a", Name(f"v{n}")) for n in range(count)]
        return lambda: least_loaded.measured(records)

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


# --- what a network has left ----------------------------------------------------------------------------------------

LOADS = st.builds(
    Load,
    network=st.text("abcdef", min_size=1, max_size=3),
    received=st.floats(0, 1e9), sent=st.floats(0, 1e9), drops=st.floats(0, 1e3),
    attachments=st.integers(0, 250), used=st.integers(0, 250), total=st.just(250),
    latency=st.none() | st.floats(0, 1), unmeasured=st.sampled_from(["", "", "why"]),
    out=st.sampled_from(["", "no free address"]),
)  # fmt: skip
WEIGHTS = st.dictionaries(st.sampled_from(SMART_FIGURES), st.integers(1, 100))


@given(st.lists(LOADS, min_size=1, max_size=6, unique_by=lambda each: each.network), WEIGHTS)
def test_a_network_that_cannot_take_the_pod_is_never_before_one_that_can(
    candidates: list[Load], weights: dict[str, int]
) -> None:
    best = least_loaded.least_loaded(candidates, replace(CONF, smart_weights=weights)).network
    chosen = next(each for each in candidates if each.network == best)
    assert not chosen.out or all(each.out for each in candidates)


@given(st.lists(LOADS, min_size=2, max_size=6, unique_by=lambda each: each.network), WEIGHTS)
def test_a_network_that_is_better_in_each_figure_ranks_first(candidates: list[Load], weights: dict[str, int]) -> None:
    ranks = dict(zip([each.network for each in candidates], least_loaded.ranked(candidates, weights), strict=True))
    for one in candidates:
        for other in candidates:
            figures = [(one.figure(name), other.figure(name)) for name in SMART_FIGURES]
            known = [(each.out, each.unmeasured, each.latency is None) for each in (one, other)]
            alike = known[0] == known[1]
            if alike and all(a <= b for a, b in figures):
                assert ranks[one.network][1] <= ranks[other.network][1]


@pytest.mark.parametrize("figure", SMART_FIGURES)
def test_a_weight_decides_by_its_figure(figure: str) -> None:
    worse = {"used": 9, "total": 10} if figure == "used" else {figure: 9}
    better = {"used": 1, "total": 10} if figure == "used" else {figure: 1}
    others = {name: 8 for name in SMART_FIGURES if name not in (figure, "used")}
    candidates = [Load(network="a", **worse), Load(network="b", **{**others, **better})]  # type: ignore[arg-type]
    conf = replace(CONF, smart_weights={figure: 1})
    assert least_loaded.least_loaded(candidates, conf).network == "b"


def test_a_gateway_that_does_not_answer_counts_as_the_slowest() -> None:
    conf = replace(CONF, smart_weights={"latency": 1})
    silent, slow, new = (
        Load(network="a", attachments=1),
        Load(network="b", attachments=9, latency=0.2),
        Load(network="c"),
    )
    fast = replace(slow, network="d", latency=0.0001)
    assert least_loaded.least_loaded([silent, slow, fast], conf).network == "d"
    assert least_loaded.least_loaded([silent, slow, fast, new], conf).network == "c", "it has no pod to measure from"
    assert least_loaded.least_loaded([silent, new], conf).network == "a", "nobody measures, as in direct mode"
    assert str(fast).endswith("9 attachments, 0.10 ms")


def test_drops_and_sent_bytes_count_without_weights() -> None:
    a, b, c = Load(network="a", sent=9), Load(network="b", drops=1), Load(network="c", attachments=5)
    assert least_loaded.least_loaded([a, b, c], CONF).network == "c"
    assert least_loaded.least_loaded([a, b], CONF).network == "b"
    assert least_loaded.least_loaded([a], CONF).why == "a (a 0 B/s received, 9 B/s sent, 0 attachments)"


@pytest.mark.parametrize(
    ("smart", "complaint"),
    [
        ({"weights": {"recieved": 1}}, "no such key: did you mean received?"),
        ({"weights": {"received": 101}}, "received: expected a whole number from 0 to 100"),
        ({"weights": {"received": -1}}, "received: expected a whole number from 0 to 100"),
        ({"weights": 5}, "weights: expected an object"),
    ],
)
def test_weights_that_are_wrong(smart: object, complaint: str) -> None:
    with pytest.raises(CniError, match=complaint.replace("?", r"\?")):
        parse({"name": "k8s", "smart": smart})
    assert parse({"name": "k8s", "smart": {"weights": {"sent": 3, "drops": 0}}}).smart_weights == {"sent": 3}
