"""Checks by the plugin's CHECK and STATUS: the texts of failures."""

from __future__ import annotations

import pytest

from tests.rigs.scenarios import Runner, two


@pytest.mark.parametrize(
    ("fault", "check", "reported"),
    [
        ("check", "check-passes: both", ["CNI CHECK of both fails: eth0 has lost its address"]),
        ("", "check-passes: {pods: both, fails: route}", ["CNI CHECK of both passes, expected 'route'"]),
        (
            "",
            "status-passes: {env: {CNI_PATH: /nowhere}}",
            ["CNI STATUS on one fails: no plugin in /nowhere", "on two fails"],
        ),
    ],
)
def test_a_failure_shows_the_values(go: Runner, fault: str, check: str, reported: list[str]) -> None:
    text = go.fails(two(check), faults=(fault,))
    for words in reported:
        assert words in text
