"""Checks of packets between pods: passing cases, and the texts of failures."""

from __future__ import annotations

import pytest

from tests.rigs.scenarios import Runner, two


@pytest.mark.parametrize(
    ("fault", "check", "reported"),
    [
        (
            "unreachable",
            "reach: {from: both, to: peer, over: weave}",
            ["icmp from both to peer at 10.2.0.13: no answer", "udp from"],
        ),
        (
            "wrong-pod",
            "reach: {from: both, to: peer, over: weave}",
            ["somebody answered, expected peer: two pods have one"],
        ),
        (
            "",
            "reach: {from: both, to: peer, over: weave, seen-as: calico}",
            ["seen as 10.2.0.12, expected 10.1.0.11 (calico)"],
        ),
        (
            "narrow",
            "mtu-path: {from: both, to: peer, over: weave}",
            ["a packet of 1500 bytes, the interface's MTU, from both to peer at 10.2.0.13: message too long"],
        ),
        (
            "wide",
            "mtu-path: {from: both, to: peer, over: weave}",
            ["a packet of 1501 bytes from both to peer at 10.2.0.13 is answered, expected none"],
        ),
        ("", "mtu-path: {from: peer, to: both, over: calico}", ["peer has no address of calico"]),
        ("", "reach: {from: both, to: peer, over: calico}", ["peer has no address of calico to reach"]),
        (
            "",
            "isolated: {from: both, to: peer, over: weave}",
            ["icmp from both gets to peer at 10.2.0.13, expected it not to"],
        ),
        (
            "unreachable",
            "isolated: {from: both, to: peer, over: weave}",
            ["peer does not answer itself at 10.2.0.13, so being"],
        ),
        ("", "bandwidth: {from: both, to: peer, over: weave, at-most: 9}", ["bit/s, expected at most 9"]),
        ("", "service: {from: both, name: web, answered-by: peer}", ["there is no Service web"]),
    ],
)
def test_a_failure_shows_the_values(go: Runner, fault: str, check: str, reported: list[str]) -> None:
    text = go.fails(two(check), faults=(fault,))
    for words in reported:
        assert words in text


def test_isolation(go: Runner) -> None:
    outcome, _ = go(two("isolated: {from: both, to: peer, over: weave}"), faults=("isolate",))
    assert outcome.verdict == "passed", outcome.failures
