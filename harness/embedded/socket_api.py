"""Requests of the harness to a node: over a unix socket, with one line of JSON for each request and each answer.

A connection can also hold a change (`hold`), such as changed settings. The change is undone on request and when the
connection ends, so a killed test process leaves no changed node.
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Answer = Callable[[Json], Any]


class Failed(Exception):
    """The node could not fulfil the request; the message comes from the node."""


class Line:
    """A connection to a node. Not thread-safe; `ask` makes a new one."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rwb")

    def ask(self, do: str, **what: Any) -> Any:
        """One request and its answer.

        Raises Failed: the node could not fulfil it.
        Raises OSError: the connection broke.
        """
        self._file.write(json.dumps({"do": do, **what}).encode() + b"\n")
        self._file.flush()
        if not (line := self._file.readline()):
            raise OSError("the node's daemon has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["answer"]

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def ask(path: Path, do: str, **what: Any) -> Any:
    """One request on a new connection; see `Line.ask`."""
    line = Line(path)
    try:
        return line.ask(do, **what)
    finally:
        line.close()


@contextmanager
def hold(paths: Mapping[str, Path], do: str, **what: Any) -> Iterator[None]:
    """Make nodes hold a change during the context."""
    lines = []
    try:
        for path in paths.values():
            lines.append(line := Line(path))
            line.ask(do, **what)
        yield
    finally:
        for line in lines:
            try:
                line.ask("let-go")
            finally:
                line.close()


def serve(path: Path, answers: Mapping[str, Answer], holds: Mapping[str, Callable[[Json], Callable[[], None]]]) -> None:
    """Serve in threads. `answers` by request; `holds` return what undoes them. The path exists when this listens."""
    early = path.with_suffix(".early")
    server = socketserver.ThreadingUnixStreamServer(str(early), _handler(answers, holds))
    early.rename(path)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()


def _handler(
    answers: Mapping[str, Answer], holds: Mapping[str, Callable[[Json], Callable[[], None]]]
) -> type[socketserver.StreamRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            held: list[Callable[[], None]] = []
            try:
                for line in self.rfile:
                    self.wfile.write(json.dumps(self._answer(json.loads(line), held)).encode() + b"\n")
            except OSError:
                pass  # the client is gone
            finally:
                _let_go(held)

        def _answer(self, request: Json, held: list[Callable[[], None]]) -> Json:
            do = request.pop("do")
            try:
                if do == "let-go":
                    _let_go(held)
                    return {"answer": None}
                if do in holds:
                    held.append(holds[do](request))
                    return {"answer": None}
                return {"answer": answers[do](request)}
            except Exception as error:  # report any error to the client; the daemon continues
                return {"error": str(error.args[0]) if isinstance(error, KeyError) else str(error) or repr(error)}

    return Handler


def _let_go(held: list[Callable[[], None]]) -> None:
    while held:
        held.pop()()
