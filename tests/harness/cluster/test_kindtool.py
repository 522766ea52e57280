"""The kind command: its version."""

from __future__ import annotations

import pytest

from harness.cluster import kindtool


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("kind v0.33.0 go1.26.8 linux/amd64", (0, 33)),
        ("kind version 0.9", (0, 0)),
        ("kind v1.2.3-alpha", (1, 2)),
        ("", (0, 0)),
    ],
)
def test_kinds_version(output: str, version: tuple[int, int]) -> None:
    assert kindtool.version(output) == version
