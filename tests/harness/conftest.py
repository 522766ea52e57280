"""Fixtures of the harness's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.backends import embedded
from harness.embedded import binaries, isolation
from tests.rigs.fake_cluster import FakeCluster
from tests.rigs.scenarios import Runner


@pytest.fixture
def go(tmp_path: Path) -> Runner:
    """Runs a scenario on a cluster in memory."""
    return Runner(tmp_path)


@pytest.fixture
def cluster() -> FakeCluster:
    """A cluster in memory on which all goes well."""
    return FakeCluster()


@pytest.fixture
def isolated() -> None:
    """Skips where there can be no namespaces."""
    try:
        isolation.probe()
    except isolation.Refused as error:
        pytest.skip(str(error))


@pytest.fixture
def embedded_possible(isolated: None) -> None:
    """Skips where there can be no embedded cluster."""
    try:
        binaries.plugins(binaries.given(), (), embedded.CORE)
    except binaries.NotFound as error:
        pytest.skip(str(error))
