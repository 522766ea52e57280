"""Fixtures of the core's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from genie.verbs.context import Context
from tests.rigs.api import Api, serve
from tests.rigs.core import Node


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node with calico, weave-net and flannel. `node.kernel` replaces the pod's namespace."""
    made = Node(tmp_path)
    made.install("calico", "weave-net", "flannel")
    monkeypatch.setattr(Context, "netlink", lambda _: made.kernel)
    return made


@pytest.fixture
def api() -> Iterator[Api]:
    """An API server that has the pod blue/web."""
    api = Api("")
    server = serve(api)
    yield api
    server.shutdown()
    server.server_close()
