"""Progress that a person can follow while something is prepared: one line a step, with its time.

Steps of one preparation may overlap (images load while networks start), so a line is printed when its step ends, and
what is under way shows as a spinner beneath on a terminal. Elsewhere (CI, a pipe) only the lines remain.
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
    times: dict[str, float] = field(default_factory=dict)  # what each step took, for reports
    _open: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _status: Status | None = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step; its line has ✓ or ✗, and how long it took."""
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
        """A line that is no step."""
        self.console.print(f"   {escape(line)}")

    def total(self) -> float:
        """Seconds since the first step could begin."""
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
