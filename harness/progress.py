"""Progress of a preparation for people: one line for each step, with its time.

Steps can overlap (images load while networks start), so a line is printed when its step ends. On a terminal, running
steps show a spinner below. Otherwise (CI, a pipe) there are only the lines.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.status import Status


@dataclass
class Progress:
    """Shows steps as they end. Safe to use from several threads."""

    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    started: float = field(default_factory=time.monotonic)
    times: dict[str, float] = field(default_factory=dict)  # the seconds of each step, for reports
    _open: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _status: Status | None = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step; its line has ✓ or ✗, and its time."""
        began, mark = time.monotonic(), "[red]✗[/]"
        self._change(add=name)
        try:
            yield
            mark = "[green]✓[/]"
        finally:
            self.times[name] = time.monotonic() - began
            self._change(remove=name)
            self.console.print(f" {mark} {escape(name)} [dim]{self.times[name]:.1f} s[/]")

    def note(self, line: str) -> None:
        """Print a line without a step."""
        self.console.print(f"   {escape(line)}")

    def total(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def _change(self, *, add: str = "", remove: str = "") -> None:
        with self._lock:
            self._open = [name for name in [*self._open, add] if name and name != remove]
            if not self.console.is_terminal:
                return
            if self._status is None:
                self._status = self.console.status("")
                self._status.start()
            self._status.update(escape(", ".join(self._open)))
            if not self._open:
                self._status.stop()
                self._status = None
