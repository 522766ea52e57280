"""Scenario files as pytest's items: selects files, collects items, runs them and formats failures.

The suite of this pytest process runs the items; `session.py` puts it into the configuration's stash.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from harness.report.known import Entry
    from harness.report.outcome import Outcome
    from harness.scenario.file import Scenario

SUFFIXES = (".yaml", ".yml")
FOLDER = "scenarios"
_IS_SCENARIO = re.compile(r"^scenario\s*:", re.MULTILINE)


class Runs(Protocol):
    """The part of a suite that items use."""

    report: Path

    def run(self, scenario: Scenario) -> Outcome:
        """Run one scenario."""


CHECKS_PACKAGE = "harness.conformance"
SUITE: pytest.StashKey[Runs] = pytest.StashKey()
_KNOWN: pytest.StashKey[dict[str, Entry]] = pytest.StashKey()


def requested(config: pytest.Config) -> bool:
    """Whether pytest's arguments include scenarios; nothing is collected yet."""
    return any(_may_hold_scenarios(config.invocation_params.dir / _path_of(arg)) for arg in config.args)


def checks_requested(config: pytest.Config) -> bool:
    """Whether pytest's arguments include the checks of a CNI plugin."""
    return any(_path_of(arg) == CHECKS_PACKAGE for arg in config.args if config.option.pyargs)


def _path_of(arg: str) -> str:
    return str(arg).partition("::")[0]


def _may_hold_scenarios(path: Path) -> bool:
    if path.is_dir():
        return FOLDER in path.parts or (path / FOLDER).is_dir()
    return path.suffix in SUFFIXES


def files(config: pytest.Config) -> list[Path]:
    """The scenario files among pytest's arguments."""
    found: dict[Path, None] = {}
    for arg in config.args:
        path = config.invocation_params.dir / _path_of(arg)
        inside = sorted(path.rglob("*.y*ml")) if path.is_dir() else [path]
        found |= dict.fromkeys(each for each in inside if _is_scenario(each, explicit=not path.is_dir()))
    return list(found)


def file_of(path: Path, parent: pytest.Collector) -> ScenarioFile | None:
    """The collector for a YAML file with the key `scenario` that is under `scenarios/` or named in the arguments."""
    named = {parent.config.invocation_params.dir / _path_of(arg) for arg in parent.config.args}
    return ScenarioFile.from_parent(parent, path=path) if _is_scenario(path, explicit=path in named) else None


def _is_scenario(path: Path, *, explicit: bool) -> bool:
    if path.suffix not in SUFFIXES or not (explicit or FOLDER in path.parts):
        return False
    try:
        return explicit or bool(_IS_SCENARIO.search(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError):
        return False


def is_scenario_id(nodeid: str) -> bool:
    """Whether a collector's node ID is that of a scenario file."""
    return nodeid.endswith(SUFFIXES)


class ScenarioFile(pytest.File):
    def collect(self) -> Iterable[pytest.Item]:
        """The scenario, if nothing is wrong with the file; of one about two networks, one for each other network."""
        from harness.yamlfile import Mistakes

        try:
            scenarios = scenarios_of(self.config, self.path)
        except Mistakes as mistakes:
            raise pytest.Collector.CollectError(str(mistakes)) from None
        for scenario in scenarios:
            yield ScenarioItem.from_parent(self, name=scenario.name, scenario=scenario)


def scenarios_of(config: pytest.Config, path: Path) -> list[Scenario]:
    """The scenarios of a file: none if --swap is about others; several if it is about each of the project's networks.

    Raises Mistakes: all mistakes in the file.
    """
    from harness.scenario.file import OTHER, UNDER_TEST
    from harness.scenario.reading import read

    here, swap = config.invocation_params.dir, config.option.swap
    shown = str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
    scenario = read(path, shown)
    if swap is None:
        return [] if UNDER_TEST in scenario.networks else [scenario]
    old, new = swap
    if old not in scenario.networks or new in scenario.networks or old != UNDER_TEST in scenario.networks:
        return []
    if OTHER not in scenario.networks:
        return [read(path, shown, swaps={old: new})]
    return [read(path, shown, swaps={old: new, OTHER: other}) for other in _others(new)]


def _others(network: str) -> list[str]:
    """The networks that the project describes itself."""
    from harness import catalog

    return [name for name in catalog.load() if name != network]


#: Plugins that would repeat a scenario or end it behind its back, with the marker that keeps each out.
_KEPT_OUT: dict[str, Callable[[], pytest.MarkDecorator]] = {
    "timeout": lambda: pytest.mark.timeout(0),
    "rerunfailures": lambda: pytest.mark.flaky(reruns=0),
}


class ScenarioFailed(Exception):
    """A scenario failed; its outcome has the reasons."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        super().__init__(outcome.failures[0][1] if outcome.failures else outcome.reason or outcome.verdict)


class ScenarioItem(pytest.Item):
    """A scenario as a test."""

    def __init__(self, *, scenario: Scenario, **rest: Any) -> None:
        super().__init__(**rest)
        self.scenario = scenario
        self.outcome: Outcome | None = None
        for word in (*scenario.networks, *scenario.spec.labels):
            self.config.addinivalue_line("markers", f"{word}: a label or network of scenarios")
            self.add_marker(word)
        for plugin, marker in _KEPT_OUT.items():
            if self.config.pluginmanager.hasplugin(plugin):
                self.add_marker(marker())

    def runtest(self) -> None:
        """Run it on the session's cluster."""
        self.outcome = self.config.stash[SUITE].run(self.scenario)
        self.user_properties += [("networks", ",".join(self.scenario.networks)), ("title", self.scenario.title)]
        if self.outcome.verdict == "skipped":
            raise pytest.skip.Exception(self.outcome.reason, _use_item_location=True)
        if self.outcome.verdict != "passed":
            raise ScenarioFailed(self.outcome)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the wrong values, and not the code that compared them."""
        if isinstance(excinfo.value, ScenarioFailed):
            from harness.report.words import failure

            return failure(excinfo.value.outcome, self.config.stash[SUITE].report)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Its file, name and title."""
        return self.path, 0, f"{self.name}: {self.scenario.title}"


def known(config: pytest.Config) -> dict[str, Entry]:
    """The entries of --known-failures by scenario.

    Raises UsageError: the file has mistakes.
    """
    from harness.report.known import read
    from harness.yamlfile import Mistakes

    path = config.option.known_failures
    if _KNOWN not in config.stash:
        try:
            config.stash[_KNOWN] = read(config.invocation_params.dir / path) if path else {}
        except Mistakes as mistakes:
            raise pytest.UsageError(f"--known-failures:\n{mistakes}") from None
    return config.stash[_KNOWN]


def complete(item: ScenarioItem, report: Any) -> None:
    """Put the outcome into pytest's report, for all reports to agree.

    A scenario that did not end by itself is broken. A failure of pytest is one of the plugin; anything else that did
    not pass is an error of pytest.
    """
    from harness.report.known import judged, today
    from harness.run.ending import without_run

    if item.outcome is None:
        text = report.longrepr[2] if report.skipped else str(report.longrepr)
        last = (text.strip() or "it did not end").splitlines()[-1]
        item.outcome = without_run(item.scenario, "skipped" if report.skipped else "broken", last)
    item.outcome = judged(item.outcome, known(item.config).get(item.name), today())
    if item.outcome.verdict not in ("passed", "skipped", "failed"):
        report.when = "setup"
    if item.outcome.known:  # as pytest reports what is expected to fail
        report.outcome, report.wasxfail = "skipped", item.outcome.known
    elif item.outcome.overdue:
        report.outcome, report.longrepr = "failed", f"{report.longrepr or ''}\n{item.outcome.overdue}".strip()
    report.genie = item.outcome.to_json()


def order(items: list[pytest.Item]) -> None:
    """Sort slow scenarios first, so that no worker has one of them at the end."""
    items.sort(key=lambda item: -item.scenario.pods_made if isinstance(item, ScenarioItem) else 0)


def leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """--networks: deselect scenarios that need other networks."""
    if allowed := set(names(config)):
        deselect(config, items, lambda item: not set(item.scenario.networks) <= allowed)


def deselect(config: pytest.Config, items: list[pytest.Item], is_out: Callable[[ScenarioItem], bool]) -> None:
    """Deselect some scenarios; other tests stay."""
    out = [item for item in items if isinstance(item, ScenarioItem) and is_out(item)]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


def names(config: pytest.Config) -> tuple[str, ...]:
    """The networks of --networks."""
    from harness.values import listed

    return listed(config.option.networks)


def argv(config: pytest.Config) -> list[str]:
    """The command that starts the same pytest again."""
    return [sys.executable, "-m", "pytest", *map(str, config.invocation_params.args)]
