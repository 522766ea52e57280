"""Requests to a node, and changes that last as long as a connection holds them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.embedded import socket_api


def test_what_is_held_is_let_go_when_the_holder_goes(tmp_path: Path) -> None:
    held: list[str] = []
    gone = threading.Event()

    def hold(request: dict[str, Any]) -> Callable[[], None]:
        held.append(str(request["what"]))

        def undo() -> None:
            held.clear()
            gone.set()

        return undo

    def fail(request: dict[str, Any]) -> None:
        raise KeyError("no such pod")

    path = tmp_path / "s"
    socket_api.serve(path, {"fail": fail}, {"hold": hold})
    line = socket_api.Line(path)
    line.ask("hold", what="it")
    assert held == ["it"]
    line.close()
    assert gone.wait(5)
    with pytest.raises(socket_api.Failed, match="no such pod"):
        socket_api.ask(path, "fail")
    with socket_api.hold({"n": path}, "hold", what="again"):
        assert held == ["again"]
    assert not held
