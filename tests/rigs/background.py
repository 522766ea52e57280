"""Work in a thread, beside a test."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Work that goes on until `stop`. work: gets the event that tells it to end."""

    def __init__(self, work: Callable[[threading.Event], None]) -> None:
        self._ending = threading.Event()
        self._thread = threading.Thread(target=work, args=(self._ending,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()
