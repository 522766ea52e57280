"""Fixtures of tests about real clusters."""

from __future__ import annotations

import pytest

from harness import catalog
from harness.cluster import software
from harness.cluster.software import Software


@pytest.fixture(scope="module")
def known() -> dict[str, Software]:
    """The networks of fixtures/."""
    return software.known(catalog.load())
