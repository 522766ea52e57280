"""Fixtures of the harness's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.backends import embedded
from harness.embedded import binaries, isolation
from tests.rigs.fake_cluster import FakeCluster
from tests.rigs.folder import Folder
from tests.rigs.scenarios import Runner


@pytest.fixture
def go(tmp_path: Path) -> Runner:
    """Runs a scenario on a cluster in memory."""
    return Runner(tmp_path)


@pytest.fixture
def cluster() -> FakeCluster:
    """A cluster in memory without faults."""
    return FakeCluster()


@pytest.fixture
def isolated() -> None:
    """Skips if namespaces are not possible."""
    try:
        isolation.probe()
    except isolation.Refused as error:
        pytest.skip(str(error))


@pytest.fixture
def embedded_possible(isolated: None) -> None:
    """Skips if an embedded cluster is not possible."""
    try:
        binaries.plugins(binaries.given(), (), embedded.CORE)
    except binaries.NotFound as error:
        pytest.skip(str(error))


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Scenarios in a folder; only for modules with pytest's `pytester`."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("GENIE_WHY", raising=False)
    return Folder(pytester)
