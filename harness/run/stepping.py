"""--step: stops before each step of a scenario, at the terminal, and opens shells in the networks of its pods."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from harness.contract import ProbeError, Unavailable
from harness.steps.scene import Scene

_ANSWERS = "Enter: do this step; POD: a shell in its network; c: do all other steps, too; q: end the run"


class Stepper:
    """The stops of one run."""

    def __init__(self, config: pytest.Config) -> None:
        self._config, self._silent = config, False

    def before(self, scene: Scene, step: str) -> None:
        """Show the next step, and return when the user wants it.

        Raises KeyboardInterrupt: the user ends the run, or there is no more input.
        """
        if self._silent:
            return
        with _terminal(self._config):
            print(f"\nnext step: {step}\n  pods: {_pods(scene)}\n  {_ANSWERS}")
            while answer := _asked():
                if answer == "c":
                    self._silent = True
                    return
                if answer == "q":
                    raise KeyboardInterrupt
                _open_shell(scene, answer)


def _asked() -> str:
    try:
        return input("step> ").strip()
    except EOFError:
        print("--step: expected answers at a terminal, but standard input has ended")
        raise KeyboardInterrupt from None


def _pods(scene: Scene) -> str:
    there = [f"{name} on {scene.nodes[name]}" for name in dict.fromkeys(scene.there)]
    return ", ".join(there) or f"none yet; namespace {scene.namespace}"


def _open_shell(scene: Scene, pod: str) -> None:
    if pod not in scene.there:
        print(f"expected Enter, c, q or one of the pods {_pods(scene)}, got {pod!r}")
        return
    try:
        command = scene.cluster.shell(scene.namespace, scene.view.name(pod))
        print(f"$ {shlex.join(command)}   (`exit` returns here)")
        subprocess.run(command, check=False)
    except (OSError, ProbeError, Unavailable) as error:
        print(f"no shell: {error}")


@contextmanager
def _terminal(config: pytest.Config) -> Iterator[None]:
    """Give standard input and output back to the terminal for a moment."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    capture.suspend_global_capture(in_=True)
    try:
        yield
    finally:
        capture.resume_global_capture()
