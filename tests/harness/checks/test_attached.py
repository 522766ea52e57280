"""Checks of interfaces and addresses: the texts of failures."""

from __future__ import annotations

import pytest

from tests.rigs.scenarios import Runner, two


@pytest.mark.parametrize(
    ("fault", "check", "reported"),
    [
        (
            "missing-interface",
            "interfaces: {pod: both, eth0: calico, eth1: weave}",
            ["eth1 is missing: expected it on weave", "eth0 up, 10.1.0.11/16 (calico)", "weave: 10.2.0.0/16"],
        ),
        (
            "",
            "interfaces: {pod: both, eth0: weave, eth1: calico}",
            ["eth0 has no address of weave", "it has 10.1.0.11/16"],
        ),
        ("", "interfaces: {pod: both, eth0: calico}", ["eth1 is there and nothing asked for it"]),
        ("", "addresses: {pods: [both, peer], network: calico}", ["peer has no address of calico"]),
        ("", "addresses: {pods: both, network: calico, count: 2}", ["both has 1 addresses of calico, expected 2"]),
        (
            "",
            "mtu: {pod: both, eth0: 1400, eth7: 1500}",
            ["eth0 has the MTU 1500, expected 1400", "eth7 has the MTU None"],
        ),
        ("probe-away", "interfaces: {pod: both, eth0: calico}", ["a probe could not be asked"]),
    ],
)
def test_a_failure_shows_the_values(go: Runner, fault: str, check: str, reported: list[str]) -> None:
    text = go.fails(two(check), faults=(fault,))
    for words in reported:
        assert words in text
