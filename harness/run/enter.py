"""The start of a run: chooses the backend, and starts pytest again elsewhere if the backend needs it.

It is separate from `session.py`, which imports everything for scenarios: the original process needs little.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.backends.registry import choose
from harness.catalog import ProfileError
from harness.contract import Backend, RunOptions, Unavailable
from harness.exits import Ended, Exit
from harness.run import collect
from harness.run.evidence import remove_old

DEADLINE = "GENIE_DEADLINE"  # by time.monotonic()
#: Options of other plugins that repeat or end a scenario behind its back.
_CONTRADICTING = {"reruns": "--rerun N", "timeout": "`timeout:` in the scenario's file, or --deadline"}
CHOSEN = pytest.StashKey[tuple[Backend, str]]()


def begin(config: pytest.Config) -> int | None:
    """Choose the backend and print it; if the backend needs pytest elsewhere, run it there.

    Returns the exit status of a run elsewhere; None if the run continues here.

    Raises Ended: the backend cannot be used here.
    Raises UsageError: an option or a profile is wrong.
    """
    for option, instead in _CONTRADICTING.items():
        if getattr(config.option, option, None):
            raise pytest.UsageError(f"--{option}: the reports would contradict each other: expected {instead}")
    try:
        _refuse_together(config)
        _check_profiles(config)
        collect.known(config)
        remove_old(report_dir(config), reports=bool(config.option.report))
        if config.option.report and not config.option.xmlpath:
            config.option.xmlpath = str(report_dir(config) / "junit.xml")
        backend, why = choose(config.option.backend, os.environ)
        config.stash[CHOSEN] = backend, why
        _note_deadline(config.option.deadline)
        if not backend.inside() or "GENIE_WHY" not in os.environ:
            _print(config, f"backend: {backend.name} ({why})")
        if backend.inside():
            return None
        os.environ["GENIE_WHY"] = why
        _release(config)
        return backend.enter(run_options(config, why, collect.names(config)), collect.argv(config))
    except ProfileError as error:
        raise pytest.UsageError(str(error)) from error
    except Unavailable as error:
        raise Ended(Exit.BROKEN, str(error)) from error


def _refuse_together(config: pytest.Config) -> None:
    """Refuse options that contradict each other."""
    option = config.option
    for name in ("watch", "step"):
        if getattr(option, name) and (getattr(option, "tx", None) or getattr(option, "numprocesses", None)):
            raise pytest.UsageError(f"--{name}: expected no -n, because several workers cannot share one terminal")
    if option.watch and option.keep:
        raise pytest.UsageError("--watch: expected no --keep: the cluster is kept until the run ends")


def _note_deadline(seconds: float) -> None:
    """The end of a run's time, for the process that runs it: the search for programs counts, too."""
    if seconds and DEADLINE not in os.environ:
        os.environ[DEADLINE] = str(time.monotonic() + seconds)


def _check_profiles(config: pytest.Config) -> None:
    """Refuse profiles with mistakes, before anything is started. A backend finds the plugins, here or in its nodes."""
    if config.option.profile and "GENIE_WHY" not in os.environ:
        from harness.conformance.profile.check import mistakes

        found = [str(each) for path in config.option.profile for each in mistakes(Path(path), binaries=False)]
        if found:
            raise pytest.UsageError("\n".join(found))


def _print(config: pytest.Config, line: str) -> None:
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(line)
        return
    manager: Any = config.pluginmanager.getplugin("capturemanager")
    with manager.global_and_fixture_disabled():
        print(line, flush=True)


def _release(config: pytest.Config) -> None:
    """Restore standard output and error, for another process or for a prompt."""
    manager: Any = config.pluginmanager.getplugin("capturemanager")
    if manager is not None:
        manager.suspend_global_capture(in_=True)


def run_options(config: pytest.Config, why: str, networks: Iterable[str]) -> RunOptions:
    return RunOptions(
        networks=tuple(networks),
        profiles=tuple(Path(each).resolve() for each in config.option.profile),
        why=why,
        keep=config.option.keep,
        console=Console(stderr=True, highlight=False),
    )


def report_dir(config: pytest.Config) -> Path:
    """The directory for evidence: the report's directory, or `report/` in pytest's start directory."""
    return (config.invocation_params.dir / (config.option.report or "report")).resolve()
