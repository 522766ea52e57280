"""The pytest plugin: YAML files under `scenarios/` are tests, so all options of pytest work with them.

`pytest scenarios -k weave -x -n 2 --junit-xml …` works as for any test. There is one difference: a run on the embedded
backend continues inside private namespaces, where pytest starts again. This happens only if the arguments include
scenarios. Otherwise this plugin does nothing, and imports almost nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from harness.run import collect

_NETWORK = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of scenarios, in addition to pytest's."""
    group = parser.getgroup("scenarios", "genie's scenarios (YAML files under scenarios/)")
    group.addoption(
        "--backend",
        default=os.environ.get("GENIE_BACKEND", "auto"),
        metavar="NAME",
        help="where to run them: embedded, container, kind, existing, or auto (kind if a Docker engine and a node "
        "image are available, else embedded). Default: $GENIE_BACKEND, else auto.",
    )
    group.addoption(
        "--networks", default="", metavar="A,B", help="only scenarios that need no other networks than these"
    )
    group.addoption(
        "--keep",
        action="store_true",
        help="keep the pods of what failed, and the cluster, and print how to look at them",
    )
    group.addoption("--watch", action="store_true", help="run scenarios again when their files or genie change")
    group.addoption("--step", action="store_true", help="stop before each step; open shells in pods' networks")
    group.addoption("--report", default="", metavar="DIR", help="write an HTML page, JSON and JUnit XML into DIR")
    group.addoption(
        "--allow-skips", action="store_true", help="exit with 0 even if all scenarios of a network, or all, are skipped"
    )
    group.addoption(
        "--known-failures", metavar="FILE", help="failures that do not decide the exit code, see docs/ci.md"
    )
    group.addoption(
        "--shard", type=_shard, metavar="I/N", help="run the part I of N of the selected scenarios, each in one part"
    )
    group.addoption(
        "--durations-from",
        default="",
        metavar="FILE",
        help="make the parts of --shard equally long, by the report.json of an earlier run or by its durations "
        "(`harness report durations`)",
    )
    group.addoption(
        "--deadline",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="of the whole run: scenarios that have not begun then are not run, and the exit code is 3",
    )
    group.addoption(
        "--retry-broken", type=_count, default=0, metavar="N", help="run what the environment broke up to N times more"
    )
    group.addoption(
        "--rerun",
        type=_count,
        default=0,
        metavar="N",
        help="run what failed N times more, and report how often it failed",
    )
    group.addoption("--churn", type=int, default=0, metavar="N", help="no step `churn` makes more pods than this")
    group.addoption(
        "--profile",
        action="append",
        default=[],
        metavar="FILE",
        help="a vendor's description of a network (repeatable)",
    )
    testing = parser.getgroup("conformance", "checks of a CNI plugin (--pyargs harness.conformance)")
    testing.addoption("--plugin", metavar="FILE", help="the plugin's executable, if --profile is not enough")
    testing.addoption("--conf", metavar="FILE", help="its configuration, in place of --profile")
    testing.addoption("--plugin-path", action="append", default=[], metavar="DIR", help="the plugins beside it")
    testing.addoption("--cni-versions", default="", metavar="A,B", help="only these of the versions that it claims")
    testing.addoption("--rounds", type=int, default=200, help="of ADD and DEL, to find what fails now and then")
    group.addoption(
        "--swap",
        type=_swap,
        metavar="OLD=NEW",
        help="run the scenarios of network OLD with NEW in its place, and no others: --swap calico=mynet",
    )


def _shard(text: str) -> tuple[int, int]:
    from harness.run.shard import shard

    return shard(text)


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (seconds := float(text)) < 1e6:
            return seconds
    raise argparse.ArgumentTypeError(f"expected a number of seconds, got {text!r}")


def _count(text: str) -> int:
    if text.isdecimal() and int(text) <= 1000:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a number from 0 to 1000, got {text!r}")


def _swap(text: str) -> tuple[str, str]:
    old, _, new = text.partition("=")
    if not (_NETWORK.fullmatch(old) and _NETWORK.fullmatch(new)):
        raise argparse.ArgumentTypeError(f"expected OLD=NEW, two networks' names, got {text!r}")
    return old, new


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    """A run of scenarios ends with a code of `harness.exits`, and an environment that is broken with one sentence."""
    if not collect.requested(config) or hasattr(config, "workerinput"):  # xdist interrupts a worker to end it
        return (yield)
    from harness.exits import Ended, Exit

    try:
        code = yield
        suite: Any = config.stash.get(collect.SUITE, None)
        return Exit.INTERRUPTED if suite is not None and suite.stop.interrupted else code
    except Ended as ended:
        print(f"ERROR: {ended.why}", file=sys.stderr)
        return ended.code
    except OSError as error:
        print(f"ERROR: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return Exit.BROKEN
    except KeyboardInterrupt:
        print("ERROR: interrupted", file=sys.stderr)
        return Exit.INTERRUPTED


@pytest.hookimpl(tryfirst=True, specname="pytest_cmdline_main")
def pytest_begin_scenarios(config: pytest.Config) -> int | None:
    """Choose the backend, and restart pytest there if necessary."""
    option = config.option
    if collect.checks_requested(config) and not (option.help or option.collectonly):
        from harness.run import conformance

        conformance.prepare(config)
    if option.swap and not collect.requested(config) and config.args_source != pytest.Config.ArgsSource.ARGS:
        from harness.download import SCENARIOS

        config.args[:] = [str(SCENARIOS)]  # --swap is about scenarios: without any, those of the project
    if hasattr(config, "workerinput") or option.help or not collect.requested(config):
        return None
    if option.collectonly or getattr(option, "version", 0) or getattr(option, "showfixtures", False):
        return None
    from harness.run.enter import begin

    return begin(config)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Add the suite's session and reporter if there are scenarios."""
    if not collect.requested(config) or config.option.help or config.option.collectonly:
        return
    from harness.run.session import Suite

    suite = Suite.of(config)
    config.stash[collect.SUITE] = suite
    config.pluginmanager.register(suite, "genie_suite")


@pytest.hookimpl(tryfirst=True)
def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """The checks of a CNI plugin, by `--pyargs harness.conformance`."""
    if not collect.checks_requested(parent.config):
        return None
    from harness.run import conformance

    return conformance.folder(path, parent)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a YAML file under `scenarios/`, or one that an argument names."""
    return collect.file_of(file_path, parent)


@pytest.hookimpl(hookwrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Order the scenarios for several workers, and deselect those that --networks does not allow; note the selection
    after pytest's own options, -k for example."""
    if hasattr(config, "workerinput"):
        collect.order(items)
    collect.leave_out(config, items)
    yield
    if collect.requested(config):
        from harness.run import shard

        shard.select(config, items)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add the outcome to the report, so that it also arrives from a pytest-xdist worker."""
    made: Any = yield
    if isinstance(item, collect.ScenarioItem) and (call.when == "call" or (call.when == "setup" and call.excinfo)):
        collect.complete(item, made.get_result())
