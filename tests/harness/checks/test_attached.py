"""Checks of interfaces and addresses: the texts of failures."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_interface
from typing import Any, cast

import pytest

from harness.checks.attached import Addresses
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


class View:
    """One pod with these addresses."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = [ip_interface(each) for each in addresses]

    def look(self, pod: str) -> str:
        return pod

    def addresses(self, look: str, network: str, family: int | None) -> list[Any]:
        return [each for each in self._addresses if family in (None, each.version)]

    def describe(self, *looks: str, networks: Sequence[str]) -> str:
        return ""


@pytest.mark.parametrize(
    ("addresses", "more", "right"),
    [
        (["10.1.0.1/24", "fd00::1/64"], {"count": 1}, True),
        (["10.1.0.1/24", "fd00::1/64", "fd00::2/64"], {"count": 1}, False),
        (["10.1.0.1/24", "10.1.0.2/24", "fd00::1/64", "fd00::2/64"], {"count": 2}, True),
        (["10.1.0.1/24", "10.1.0.2/24", "fd00::1/64"], {"count": 2}, False),
        (["fd00::1/64"], {"count": 1}, True),
        (["fd00::1/64"], {"count": 1, "family": 4}, False),
        ([], {"count": 0}, True),
        ([], {"count": 1}, False),
    ],
)
def test_addresses_are_counted_in_each_family(addresses: list[str], more: dict[str, int], right: bool) -> None:
    check = Addresses.model_validate({"pods": "one", "network": "net", **more})
    assert (check.attempt(cast("Any", View(*addresses))) is None) is right
