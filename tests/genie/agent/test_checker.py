"""The agent's CHECK: genie's routes and rules are restored, everything else is reported once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genie.agent import checker
from genie.agent.checker import Checker
from genie.agent.metrics import Metrics
from genie.cni.result import IP, Interface, Result
from genie.event import Event
from genie.kernel import routes
from genie.kernel.netlink import Netlink
from genie.records import Record, RecordedAttachment, Records
from genie.verbs.context import placed
from tests.rigs.core import network

pytestmark = pytest.mark.root


class Pod:
    """A pod on two networks after its ADD, and the agent's check of it."""

    def __init__(self, namespace: Any, place: Path, *names: str, most: int = checker.MOST) -> None:
        self.namespace, self.place, self.records = namespace, str(place), Records(str(place))
        for n, name in enumerate(names):
            namespace.ip(
                f"link add {name} type veth peer name r{n}",
                f"link set {name} up",
                f"link set r{n} up",
                f"addr add 10.{n}.0.2/24 dev {name}",
            )
        attached = tuple(self._attached(n, name) for n, name in enumerate(names))
        placings = [placed(one, one.result or Result()) for one in attached]
        arranged: tuple[str, ...] = ()
        if len(names) > 1:
            with Netlink(namespace.path) as kernel:
                arranged = routes.arrange(kernel, placings).arranged
        self.record = Record(
            container_id="c1", ifname="eth0", netns=namespace.path, namespace="blue", pod="web", uid="u-1",
            attached=attached, complete=True, arranged=arranged,
        )  # fmt: skip
        self.records.write(self.record)
        self.busy: set[str] = set()
        self.events: list[Event] = []
        self.counter = Metrics().drift
        self.checker = Checker(self.busy.__contains__, self.counter, self.events.append, lambda: most)

    def _attached(self, n: int, name: str) -> RecordedAttachment:
        interface = Interface(name, f"02:00:00:00:00:0{n}", self.namespace.path)
        result = Result(interfaces=(interface,), ips=(IP(f"10.{n}.0.2/24", f"10.{n}.0.1", 0),))
        net = network(f"net{n}")
        return RecordedAttachment(label=f"net{n}", network=net, container_id="c1", ifname=name, result=result)

    def look(self) -> list[str]:
        """The messages of the Events of this check."""
        self.events.clear()
        self.checker.look(self.place)
        return [event.message for event in self.events]

    def counted(self) -> tuple[float, float]:
        return self.counter.value("repaired"), self.counter.value("left")


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker, "SETTLE", 0.0)


@pytest.fixture
def pod(namespace: Callable[[], Any], tmp_path: Path) -> Pod:
    return Pod(namespace(), tmp_path, "eth0", "eth1")


def test_a_rule_that_is_taken_away_is_put_back_and_said(pod: Pod) -> None:
    assert pod.look() == []
    before = pod.namespace.ip("rule")
    pod.namespace.ip("rule del from 10.1.0.2")
    (outcome,) = pod.look()
    assert outcome == "somebody changed the pod's network; put back: rule from 10.1.0.2 lookup 2001"
    assert pod.namespace.ip("rule") == before and pod.counted() == (1, 0)
    (event,) = pod.events
    assert (event.reason, event.namespace, event.name, event.uid, event.warning) == (
        "NetworkChanged", "blue", "web", "u-1", True,
    )  # fmt: skip
    assert pod.look() == [] and pod.counted() == (1, 0)


def test_a_route_that_was_repaired_too_often_is_left(pod: Pod) -> None:
    for count in range(checker.MOST):
        pod.namespace.ip("rule del from 10.1.0.2")
        (outcome,) = pod.look()
        assert ("genie will not do so again" in outcome) == (count == checker.MOST - 1)
    pod.namespace.ip("rule del from 10.1.0.2")
    assert pod.look() == ["somebody changed the pod's network; left as it is: missing: rule from 10.1.0.2 lookup 2001"]
    assert "10.1.0.2" not in pod.namespace.ip("rule")
    assert pod.look() == [], "once"
    assert pod.counted() == (checker.MOST, 1)


def test_genie_conf_can_have_it_only_reported(namespace: Callable[[], Any], tmp_path: Path) -> None:
    pod = Pod(namespace(), tmp_path, "eth0", "eth1", most=0)
    pod.namespace.ip("rule del from 10.1.0.2")
    assert pod.look()[0].endswith("left as it is: missing: rule from 10.1.0.2 lookup 2001")
    assert pod.counted() == (0, 1)


def test_an_addition_is_reported_once_each_time_that_it_comes(pod: Pod) -> None:
    pod.look()
    for _ in range(2):
        pod.namespace.ip("route add 10.9.0.0/16 dev eth1 table 2001")
        (outcome,) = pod.look()
        assert "left as it is: unexpected: route 10.9.0.0/16" in outcome
        assert pod.look() == []
        pod.namespace.ip("route del 10.9.0.0/16 dev eth1 table 2001")
        assert pod.look() == []


@pytest.mark.parametrize("names", [["eth0"], ["eth0", "eth1"]])
def test_an_address_that_is_taken_away_is_reported(
    namespace: Callable[[], Any], tmp_path: Path, names: list[str]
) -> None:
    pod = Pod(namespace(), tmp_path, *names)
    assert pod.look() == []
    pod.namespace.ip("addr del 10.0.0.2/24 dev eth0")
    assert any("missing: address 10.0.0.2" in outcome for outcome in pod.look())
    assert "10.0.0.2" not in pod.namespace.ip("addr show dev eth0"), "that is its network's"


def test_an_address_that_never_was_there_is_no_change(namespace: Callable[[], Any], tmp_path: Path) -> None:
    pod = Pod(namespace(), tmp_path, "eth0")
    pod.namespace.ip("addr del 10.0.0.2/24 dev eth0")
    assert pod.look() == [] and pod.look() == []


@pytest.mark.parametrize("why", ["busy", "incomplete", "gone", "deleted meanwhile"])
def test_nothing_is_done_to_a_pod_that_comes_or_goes(pod: Pod, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pod.look()
    pod.namespace.ip("rule del from 10.1.0.2")
    if why == "busy":
        pod.busy.add("c1")
    elif why == "incomplete":
        pod.records.write(replace(pod.record, complete=False))
    elif why == "gone":
        pod.records.write(replace(pod.record, netns="/var/run/netns/no-such-namespace"))
    else:
        monkeypatch.setattr("time.sleep", lambda _: pod.records.remove("c1", "eth0"))
    assert pod.look() == []
    assert "10.1.0.2" not in pod.namespace.ip("rule") and pod.counted() == (0, 0)


def test_a_damaged_record_is_passed_over(pod: Pod) -> None:
    (Path(pod.place) / "c0@eth0.json").write_text("{")
    pod.namespace.ip("rule del from 10.1.0.2")
    assert len(pod.look()) == 1
