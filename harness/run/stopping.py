"""Stops what runs: after Ctrl-C, after a signal that ends the run, and when the time is over.

Only the main thread of a process stops, by an exception that no `except Exception` catches. Code that must not stop in
the middle is outside of `within`, so it goes on; what cleans up is inside of `closing`, which cuts it off later.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from harness.exits import Exit

CLOSING = 30.0  # seconds for cleaning up
ECHO = 0.5  # seconds in which one Ctrl-C can arrive more than once, because other processes pass it on
HASTY = 4.0  # after an interrupt: the reports must be there after 10
TOLD = signal.SIGUSR1  # from the process that started the workers, to them


class Stopped(BaseException):
    """What runs ends now; the message has the reason."""


@dataclass
class Stop:
    """The reasons to stop a run, in one process.

    deadline: of the whole run, by time.monotonic(); what has not begun then does not begin. seconds: the option. first:
    what an interrupt does outside of `within`. second: what another Ctrl-C does first.
    """

    deadline: float = 0.0  # 0: none
    seconds: float = 0.0
    interrupted: bool = False
    first: Callable[[], None] = lambda: None
    second: Callable[[], None] = lambda: None
    _pressed: float = 0.0  # when Ctrl-C was
    _listens: bool = False
    _inside: bool = False  # an interrupt may raise here
    _alarm: str = ""  # the reason of the next alarm, if it may raise

    def listen(self, *, worker: bool) -> None:
        """Handle signals from now on. A worker also gets the Ctrl-C of the terminal, once or twice."""
        self._listens = True
        signal.signal(signal.SIGALRM, self._ring)
        signal.signal(signal.SIGTERM, self._interrupt)
        signal.signal(signal.SIGINT, self._interrupt if worker else self._press)
        if worker:
            signal.signal(TOLD, self._interrupt)

    def reason(self) -> str:
        """Why nothing more may begin; empty if something may."""
        if self.interrupted:
            return "interrupted"
        late = self.deadline and time.monotonic() >= self.deadline
        return f"the run's deadline of {self.seconds:g} s was over" if late else ""

    def left(self) -> float:
        """Seconds until the deadline of the run; 0 without one."""
        return max(self.deadline - time.monotonic(), 0.001) if self.deadline else 0.0

    @contextmanager
    def within(self, seconds: float, reason: str) -> Iterator[None]:
        """Stop the context after an interrupt, and after this time (0: no limit).

        Raises Stopped: one of them happened; what holds the context up after that is stopped, too.
        """
        if self.interrupted:
            raise Stopped("interrupted")
        self._inside, self._alarm = True, reason
        self._time(seconds, CLOSING if seconds else 0)
        try:
            yield
        finally:
            self._quiet()

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Give the context a limited time, which is short after an interrupt; a first interrupt does not stop it.

        Raises Stopped: the time is over.
        """
        self._alarm = "cleaning up took too long"
        self._time(HASTY if self.interrupted else CLOSING, 1.0)
        try:
            yield
        finally:
            self._quiet()

    def _quiet(self) -> None:
        self._inside, self._alarm = False, ""
        self._time(0, 0)

    def _time(self, seconds: float, again: float) -> None:
        if self._listens:  # nobody handles an alarm otherwise
            signal.setitimer(signal.ITIMER_REAL, seconds, again)

    def _press(self, *_: Any) -> None:
        """Ctrl-C."""
        if self.interrupted and time.monotonic() < self._pressed + ECHO:
            return
        if self.interrupted:
            self.second()
            os.write(2, b"\ninterrupted twice: ended at once\n")
            os._exit(Exit.INTERRUPTED)
        self._pressed = time.monotonic()
        self._interrupt()

    def _interrupt(self, *_: Any) -> None:
        if self.interrupted:
            return
        self.interrupted = True
        if self._alarm:
            self._time(HASTY, 1.0)
        if self._inside:
            self._inside = False
            raise Stopped("interrupted")
        if not self._alarm:
            self.first()

    def _ring(self, *_: Any) -> None:
        if self._alarm:
            raise Stopped(self._alarm)
