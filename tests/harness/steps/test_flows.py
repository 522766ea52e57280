"""Connections that are held during steps: over a real link, which a step takes down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from harness import probe
from tests.rigs.fake_cluster import FakeCluster
from tests.rigs.netns import Namespace
from tests.rigs.scenarios import PODS, Runner, failures, two

HELD = (
    PODS
    + """\
steps:
  - create: [both, peer]
  - stays-connected:
      from: both
      to: peer
      over: weave
      at-most: 1500ms
      steps:
        - with-settings: {genie: {serial: true}, steps: []}
"""
)


class Wired(FakeCluster):
    """The cluster in memory, with a real link between two namespaces for the network weave."""

    def __init__(self, both: Namespace, peer: Namespace, cut: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._places, self._cut = {"both": both, "peer": peer}, cut

    def ask(self, namespace: str, pod: str, request: Mapping[str, Any]) -> dict[str, Any]:
        if request["op"] == "look":
            return super().ask(namespace, pod, request)
        return self._places[pod].run(lambda: probe.answer(request))

    @contextmanager
    def settings(self, genie_conf: Mapping[str, Any], namespace: str) -> Iterator[None]:
        self._cut()
        yield


@pytest.fixture
def pair(namespace: Callable[[], Namespace]) -> tuple[Namespace, Namespace]:
    """Two namespaces with the addresses that the cluster in memory gives to the pods."""
    both, peer = namespace(), namespace()
    both.ip(f"link add eth1 type veth peer name eth0 netns {peer.path}")
    both.ip("address add 10.2.0.12/16 dev eth1", "link set eth1 up")
    peer.ip("address add 10.2.0.13/16 dev eth0", "link set eth0 up")
    return both, peer


@pytest.fixture
def served(pair: tuple[Namespace, Namespace]) -> Iterator[tuple[Namespace, Namespace]]:
    """The same, with a probe that answers in the second."""
    server = pair[1].run(lambda: probe.serve(name="peer"))
    yield pair
    server.close()


@pytest.mark.root
def test_a_link_that_is_cut_is_a_gap_and_its_figure_is_in_the_report(
    go: Runner, served: tuple[Namespace, Namespace]
) -> None:
    both, peer = served

    def cut() -> None:
        peer.ip("link set eth0 down")
        time.sleep(2)
        peer.ip("link set eth0 up")

    outcome, _ = go(HELD, cluster=Wired(both, peer, cut))
    text = failures(outcome)
    for protocol in ("tcp", "udp"):
        assert f"{protocol} from both to peer at 10.2.0.13 over weave had a gap of " in text
    figures = {each.name: each for each in outcome.figures}
    assert set(figures) == {
        f"longest gap of {protocol} to 10.2.0.13 from both to peer over weave" for protocol in ("tcp", "udp")
    }
    assert all(each.value > 1500 and each.unit == "ms" for each in figures.values())  # as HELD allows


@pytest.mark.root
def test_connections_that_stay_pass(go: Runner, served: tuple[Namespace, Namespace]) -> None:
    outcome, _ = go(HELD.replace("1500ms", "60s"), cluster=Wired(*served))
    assert outcome.verdict == "passed", outcome.failures
    assert all(each.value < 60000 for each in outcome.figures)


@pytest.mark.root
def test_a_connection_that_ends_has_failed_whatever_its_gap(go: Runner, pair: tuple[Namespace, Namespace]) -> None:
    both, peer = pair
    servers = [peer.run(lambda: probe.serve(name="peer"))]

    def again() -> None:
        servers.pop().close()
        servers.append(peer.run(lambda: probe.serve(name="peer")))

    text = failures(go(HELD.replace("1500ms", "60s"), cluster=Wired(both, peer, again))[0])
    servers.pop().close()
    assert "tcp from both to peer at 10.2.0.13 over weave broke: " in text
    assert "udp" not in text


@pytest.mark.root
def test_flows_that_cannot_begin(go: Runner, pair: tuple[Namespace, Namespace]) -> None:
    pair[0].ip("route add unreachable 10.2.0.13")
    text = failures(go(HELD, cluster=Wired(*pair))[0])
    assert "both cannot connect to peer: tcp to 10.2.0.13: no route to host" in text


@pytest.mark.root
def test_throughput_is_a_figure_with_a_limit(go: Runner, served: tuple[Namespace, Namespace]) -> None:
    usual = "throughput: {from: both, to: peer, over: weave, seconds: 0.2}"
    outcome, _ = go(two(usual), cluster=Wired(*served))
    assert outcome.verdict == "passed", outcome.failures
    [figure] = outcome.figures
    assert figure.name.startswith("throughput from both to peer at 10.2.0.13 over weave")
    assert (figure.value > 0, figure.unit) == (True, "bit/s")
    text = failures(go(two(usual.replace("}", ", at-least: 999999999999999}")), cluster=Wired(*served))[0])
    assert "bit/s, expected at least 999999999999999" in text


@pytest.mark.parametrize("limit", ["500", "5 min", "fast", "-1s", "0ms"])
def test_a_limit_has_a_unit(go: Runner, limit: str) -> None:
    with pytest.raises(Exception, match="at-most"):
        go(HELD.replace("1500ms", limit))
