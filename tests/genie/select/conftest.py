"""A node without networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rigs.core import Node


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)
