"""Checks of routes: the texts of failures."""

from __future__ import annotations

import pytest

from tests.rigs.scenarios import Runner, two


@pytest.mark.parametrize(
    ("fault", "check", "reported"),
    [
        (
            "two-defaults",
            "default-route: {pod: both, network: calico}",
            "2 IPv4 default routes, expected one by eth0 (calico)",
        ),
        (
            "no-gateway",
            "default-route: {pod: both, interface: eth0}",
            "0 IPv4 default routes, expected one by eth0: none",
        ),
        ("", "default-route: {pod: both, network: weave}", "leaves by eth0, expected by eth1 (weave)"),
        (
            "",
            "default-route: {pod: both, none: true}",
            "both has a default route: default via 10.1.0.1 dev eth0",
        ),
        ("", "routes: {pod: both, has: [{to: 10.9.0.0/16, via: 10.2.0.1}]}", "no route 10.9.0.0/16 via 10.2.0.1"),
    ],
)
def test_a_failure_shows_the_values(go: Runner, fault: str, check: str, reported: str) -> None:
    assert reported in go.fails(two(check), faults=(fault,))
