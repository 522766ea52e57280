"""The pytest plugin: YAML files under `scenarios/` are tests, so all that people know of pytest works with them.

`pytest scenarios -k weave -x -n 2 --junit-xml …` does what it says. What is special comes before: a run that is to
use the embedded backend goes on inside private namespaces, so pytest is started there once more. That happens only
when scenarios are among what was asked for; for anything else this plugin does nothing, and imports nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness.report.outcome import Outcome
    from harness.run.session import Suite
    from harness.scenario.file import Scenario

SUFFIXES = (".yaml", ".yml")
FOLDER = "scenarios"
_NETWORK = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_IS_SCENARIO = re.compile(r"^scenario\s*:", re.MULTILINE)
_SUITE: pytest.StashKey[Suite] = pytest.StashKey()


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


# --- what was asked for


def requested(config: pytest.Config) -> bool:
    """Whether scenarios are among what pytest was asked to run; told from the arguments, before anything is
    collected.
    """
    return any(_may_hold_scenarios(config.invocation_params.dir / _path_of(arg)) for arg in config.args)


def _path_of(arg: str) -> str:
    return str(arg).partition("::")[0]


def _may_hold_scenarios(path: Path) -> bool:
    if path.is_dir():
        return FOLDER in path.parts or (path / FOLDER).is_dir()
    return path.suffix in SUFFIXES


def files(config: pytest.Config) -> list[Path]:
    """The scenario files among what pytest was asked to run."""
    found: dict[Path, None] = {}
    for arg in config.args:
        path = config.invocation_params.dir / _path_of(arg)
        inside = sorted(path.rglob("*.y*ml")) if path.is_dir() else [path]
        found |= dict.fromkeys(each for each in inside if _is_scenario(each, explicit=not path.is_dir()))
    return list(found)


def _is_scenario(path: Path, *, explicit: bool) -> bool:
    if path.suffix not in SUFFIXES or not (explicit or FOLDER in path.parts):
        return False
    try:
        return explicit or bool(_IS_SCENARIO.search(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError):
        return False


# --- before pytest starts


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Choose the backend, and go where it needs to be."""
    option = config.option
    if hasattr(config, "workerinput") or option.help or not requested(config):
        return None
    if option.collectonly or getattr(option, "version", 0) or getattr(option, "showfixtures", False):
        return None
    from harness.run.session import begin

    return begin(config)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Have the suite's session and reporter, when there are scenarios."""
    if not requested(config) or config.option.help or config.option.collectonly:
        return
    from harness.run.session import Suite

    suite = Suite.of(config)
    config.stash[_SUITE] = suite
    config.pluginmanager.register(suite, "genie_suite")


# --- collection


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A YAML file under `scenarios/`, or one that was named, if it says `scenario:`."""
    named = {parent.config.invocation_params.dir / _path_of(arg) for arg in parent.config.args}
    if _is_scenario(file_path, explicit=file_path in named):
        return ScenarioFile.from_parent(parent, path=file_path)
    return None


class ScenarioFile(pytest.File):
    """A file that holds one scenario."""

    def collect(self) -> Iterable[pytest.Item]:
        """The scenario, once it is known to be sound."""
        from harness.yamlfile import Mistakes

        try:
            scenario = scenario_of(self.config, self.path)
        except Mistakes as mistakes:
            raise pytest.Collector.CollectError(str(mistakes)) from None
        if scenario is not None:
            yield ScenarioItem.from_parent(self, name=scenario.name, scenario=scenario)


def scenario_of(config: pytest.Config, path: Path) -> Scenario | None:
    """The scenario of a file; None: --swap wants others.

    Raises:
        Mistakes: everything that is wrong with the file.
    """
    from harness.scenario.file import read

    here, swap = config.invocation_params.dir, config.option.swap
    shown = str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
    scenario = read(path, shown)
    if swap is None:
        return scenario
    old, new = swap
    fits = old in scenario.networks and new not in scenario.networks
    return read(path, shown, swap=swap) if fits else None


class ScenarioFailed(Exception):
    """A scenario failed; its outcome has all that is to be said."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        super().__init__(outcome.failures[0][1] if outcome.failures else "failed")


class ScenarioItem(pytest.Item):
    """A scenario as a test."""

    def __init__(self, *, scenario: Scenario, **rest: Any) -> None:
        super().__init__(**rest)
        self.scenario = scenario
        self.outcome: Outcome | None = None
        for word in (*scenario.networks, *scenario.spec.labels):
            self.config.addinivalue_line("markers", f"{word}: a label or network of scenarios")
            self.add_marker(word)

    def runtest(self) -> None:
        """Run it on the session's cluster."""
        self.outcome = self.config.stash[_SUITE].run(self.scenario)
        self.user_properties += [("networks", ",".join(self.scenario.networks)), ("title", self.scenario.title)]
        if self.outcome.verdict == "skipped":
            raise pytest.skip.Exception(self.outcome.reason, _use_item_location=True)
        if self.outcome.verdict == "failed":
            raise ScenarioFailed(self.outcome)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The values that were wrong, not the code that compared them."""
        if isinstance(excinfo.value, ScenarioFailed):
            from harness.report.words import failure

            return failure(excinfo.value.outcome, self.config.stash[_SUITE].report)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it is, and what it is called."""
        return self.path, 0, f"{self.name}: {self.scenario.title}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """--networks: leave out the scenarios that take others. Several workers begin with those that take longest, so that
    none is left with one of these at the end.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: -item.scenario.pods_made if isinstance(item, ScenarioItem) else 0)
    allowed = {name.strip() for name in config.option.networks.split(",") if name.strip()}
    if not allowed:
        return
    out = [item for item in items if isinstance(item, ScenarioItem) and not set(item.scenario.networks) <= allowed]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Have the outcome travel with the report, also from a pytest-xdist worker."""
    made: Any = yield
    if isinstance(item, ScenarioItem) and call.when == "call" and item.outcome is not None:
        made.get_result().genie = item.outcome.to_json()


def argv(config: pytest.Config) -> list[str]:
    """How to start this very pytest again."""
    return [sys.executable, "-m", "pytest", *map(str, config.invocation_params.args)]
