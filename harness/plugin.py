"""The pytest plugin: YAML files under `scenarios/` are tests, so whatever people know of pytest works with them.

`pytest scenarios -k weave -x -n 2 --junit-xml …` works as for any test. One thing is special: a run on the embedded
backend goes on inside private namespaces, so pytest is started there once more. That happens only when scenarios are
among what was asked for; for anything else this plugin does nothing, and imports next to nothing.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.run import collect

_NETWORK = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options that scenarios have beside pytest's own."""
    group = parser.getgroup("scenarios", "genie's scenarios (YAML files under scenarios/)")
    group.addoption(
        "--backend",
        default=os.environ.get("GENIE_BACKEND", "auto"),
        metavar="NAME",
        help="where to run them: embedded, container, kind, existing, or auto (kind where a Docker engine and a node "
        "image are at hand, else embedded). Default: $GENIE_BACKEND, else auto.",
    )
    group.addoption(
        "--networks", default="", metavar="A,B", help="only scenarios that take no other networks than these"
    )
    group.addoption("--keep", action="store_true", help="leave pods and cluster, and say how to look at them")
    group.addoption("--report", default="", metavar="DIR", help="write an HTML page, JSON and JUnit XML into DIR")
    group.addoption(
        "--profile",
        action="append",
        default=[],
        metavar="FILE",
        help="a vendor's description of a network (repeatable)",
    )
    group.addoption(
        "--swap",
        type=_swap,
        metavar="OLD=NEW",
        help="run the scenarios of network OLD with NEW in its place, and no others: --swap calico=mynet",
    )


def _swap(text: str) -> tuple[str, str]:
    old, _, new = text.partition("=")
    if not (_NETWORK.fullmatch(old) and _NETWORK.fullmatch(new)):
        raise argparse.ArgumentTypeError(f"expected OLD=NEW, two networks' names, got {text!r}")
    return old, new


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Choose the backend, and go where it needs to be."""
    option = config.option
    if option.swap and not collect.requested(config) and config.args_source != pytest.Config.ArgsSource.ARGS:
        from harness.download import SCENARIOS

        config.args[:] = [str(SCENARIOS)]  # --swap is about scenarios alone: without any here, about the project's own
    if hasattr(config, "workerinput") or option.help or not collect.requested(config):
        return None
    if option.collectonly or getattr(option, "version", 0) or getattr(option, "showfixtures", False):
        return None
    from harness.run.enter import begin

    return begin(config)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Have the suite's session and reporter, when there are scenarios."""
    if not collect.requested(config) or config.option.help or config.option.collectonly:
        return
    from harness.run.session import Suite

    suite = Suite.of(config)
    config.stash[collect.SUITE] = suite
    config.pluginmanager.register(suite, "genie_suite")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A YAML file under `scenarios/`, or one that was named."""
    return collect.file_of(file_path, parent)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the scenarios for several workers, and leave out what --networks does not allow."""
    if hasattr(config, "workerinput"):
        collect.order(items)
    collect.leave_out(config, items)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Have the outcome travel with the report, also from a pytest-xdist worker."""
    made: Any = yield
    if isinstance(item, collect.ScenarioItem) and call.when == "call" and item.outcome is not None:
        made.get_result().genie = item.outcome.to_json()
