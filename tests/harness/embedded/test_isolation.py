"""Isolation: signals reach the run, and it ends when it should."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.rigs.processes import alive

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("isolated")]


def enter(code: str) -> list[str]:
    """The command that runs Python code in isolation."""
    inner = [sys.executable, "-c", code]
    return [sys.executable, "-c", f"from harness.embedded import isolation; isolation.enter({inner!r})"]


def test_a_signal_to_the_outer_process_reaches_the_program_and_its_end_is_told() -> None:
    code = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7));"
        "print('up', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(enter(code), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.terminate()
    assert process.wait(10) == 7


def test_isolation_that_is_kept_goes_on_until_its_keeper_is_killed() -> None:
    code = "import sys; from harness.embedded import isolation; print(isolation.keep(), flush=True); sys.exit(3)"
    process = subprocess.run(enter(code), stdout=subprocess.PIPE, text=True, timeout=10, check=False)
    keeper = int(process.stdout)
    try:
        assert process.returncode == 3
        assert alive([keeper])
    finally:
        os.kill(keeper, signal.SIGTERM)
    assert not alive([keeper], within=10)
