"""How the harness asks a node: a unix socket that takes a line of JSON and answers with one, for each connection any
number.

A connection can also hold something (`hold`): changed settings, for example. It is undone when the holder asks for it,
and when the connection ends, so that a test process that is killed leaves no changed node to the others.
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
    """The other side could not do what it was asked for; the message is its own."""


class Line:
    """A connection to a node. Not for several threads at once; `ask` makes one of its own."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rwb")

    def ask(self, do: str, **what: Any) -> Any:
        """One request and its answer.

        Raises:
            Failed: the node could not; its message.
            OSError: the connection broke.
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
    """One request on a connection of its own; see `Line.ask`."""
    line = Line(path)
    try:
        return line.ask(do, **what)
    finally:
        line.close()


@contextmanager
def hold(paths: Mapping[str, Path], do: str, **what: Any) -> Iterator[None]:
    """Have nodes do something for the time of the context."""
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
    """Serve in threads. `answers` by request; `holds` return what undoes them. The path is there once this listens."""
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
                pass  # the asker has gone
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
            except Exception as error:  # whatever it is, it is reported to the asker and the daemon goes on
                return {"error": str(error.args[0]) if isinstance(error, KeyError) else str(error) or repr(error)}

    return Handler


def _let_go(held: list[Callable[[], None]]) -> None:
    while held:
        held.pop()()
