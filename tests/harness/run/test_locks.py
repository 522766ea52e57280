"""Turns at a cluster: many beside each other, or one alone."""

from __future__ import annotations

import threading
from pathlib import Path

from harness.run.locks import turn


def test_one_that_is_alone_waits_for_those_before_it(tmp_path: Path) -> None:
    entered = threading.Event()

    def alone() -> None:
        with turn(tmp_path, alone=True):
            entered.set()

    waiting = threading.Thread(target=alone)
    with turn(tmp_path, alone=False), turn(tmp_path, alone=False):
        waiting.start()
        waiting.join(0.2)
        assert not entered.is_set()
    waiting.join(5)
    assert entered.is_set()
