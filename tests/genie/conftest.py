"""Fixtures of the core's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from core_rig import Node

from genie import routes


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node with calico, weave-net and flannel. There is no pod's namespace, so routes stay untouched."""
    monkeypatch.setattr(routes, "hold_defaults", lambda netns: ())
    monkeypatch.setattr(routes, "settle", lambda netns, attached: [])
    made = Node(tmp_path)
    made.install("calico", "weave-net", "flannel")
    return made
