"""One run of scenarios: the backend that it chose, its cluster from first to last, and what came of each scenario.

Without pytest-xdist one process does it all. With it, the controller starts the cluster, tells the workers where its
state is, and gathers the outcomes that come back with their reports; the workers connect and run. So reports are
always written by the process that started the cluster.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.backends.registry import Door, Wanted, choose
from harness.report.outcome import Outcome

if TYPE_CHECKING:
    from harness.backends import Cluster, Facts
    from harness.report.terminal import Lines
    from harness.run.leaks import Sweep
    from harness.run.life import Options
    from harness.scenario.file import Scenario

_CHOSEN = pytest.StashKey[tuple[Door, str]]()


def begin(config: pytest.Config) -> int | None:
    """Choose the backend and say so; run pytest where the backend needs it, if that is not here.

    Returns:
        The exit status of the run, where it was elsewhere; None: it is to go on here.
    """
    from harness.backends import Unavailable
    from harness.catalog import ProfileError

    try:
        if config.option.report and not config.option.xmlpath:
            config.option.xmlpath = str(_report(config) / "junit.xml")
        door, why = choose(config.option.backend, os.environ)
        config.stash[_CHOSEN] = door, why
        if door.enter is None or door.inside():
            if "GENIE_WHY" not in os.environ:
                _say(config, f"backend: {door.name} ({why})")
            return None
        _say(config, f"backend: {door.name} ({why})")
        os.environ["GENIE_WHY"] = why
        _release(config)
        from harness.plugin import argv

        return door.enter(_wanted(config, why, _asked(config)), argv(config))
    except (Unavailable, ProfileError) as error:
        raise pytest.UsageError(str(error)) from error


def _say(config: pytest.Config, line: str) -> None:
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(line)
        return
    manager: Any = config.pluginmanager.getplugin("capturemanager")
    with manager.global_and_fixture_disabled():
        print(line, flush=True)


def _release(config: pytest.Config) -> None:
    """Give standard output and error back: what follows is another process, or talks to a person."""
    manager: Any = config.pluginmanager.getplugin("capturemanager")
    if manager is not None:
        manager.suspend_global_capture(in_=True)


def _asked(config: pytest.Config) -> tuple[str, ...]:
    return tuple(name.strip() for name in config.option.networks.split(",") if name.strip())


def _wanted(config: pytest.Config, why: str, networks: Iterable[str]) -> Wanted:
    from rich.console import Console

    return Wanted(
        networks=tuple(networks),
        profiles=tuple(Path(each).resolve() for each in config.option.profile),
        why=why,
        keep=config.option.keep,
        console=Console(stderr=True, highlight=False),
    )


@dataclass(eq=False)
class Suite:
    """The run, as a pytest plugin."""

    config: pytest.Config
    report: Path
    door: Door
    why: str
    state: Path
    outcomes: list[Outcome] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    start_seconds: float = 0.0
    cluster: Cluster | None = None
    sweep: Sweep | None = None
    written: Path | None = None  # the page
    lines: Lines | None = None
    _facts: Facts | None = None
    _session: pytest.Session | None = None

    @classmethod
    def of(cls, config: pytest.Config) -> Suite:
        """The suite of this process: the controller's, or a worker's."""
        told: dict[str, Any] = getattr(config, "workerinput", {})
        if told:
            door, why = choose(told["genie_backend"], {"GENIE_WHY": told["genie_why"]})
            return cls(config, Path(told["genie_report"]), door, why, Path(told["genie_state"]))
        door, why = config.stash[_CHOSEN]
        suite = cls(config, _report(config), door, why, Path(tempfile.mkdtemp(prefix="genie-run-")))
        from harness.report.terminal import install

        suite.lines = install(config, suite)
        return suite

    # --- the cluster

    @property
    def is_worker(self) -> bool:
        return hasattr(self.config, "workerinput")

    @property
    def is_shared(self) -> bool:
        """Whether several workers share the cluster."""
        if self.is_worker:
            return int(self.config.workerinput["workercount"]) > 1  # type: ignore[attr-defined]
        return bool(getattr(self.config.option, "dist", "no") != "no")

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Know the session."""
        self._session = session

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self) -> None:
        """With pytest-xdist the cluster must be there before the workers are."""
        assert self._session is not None
        self._start_for(self._found(self._session))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where things are."""
        node.workerinput |= {
            "genie_backend": self.door.name,
            "genie_why": self.why,
            "genie_state": str(self.state),
            "genie_report": str(self.report),
        }

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Now it is known which scenarios are wanted."""
        if not self.is_worker and not self.is_shared and self.cluster is None:
            self._start_for(session.items)

    def _found(self, session: pytest.Session) -> list[pytest.Item]:
        """The scenarios that the workers will find and select, by -k, --networks and whatever else pytest knows."""
        from harness.plugin import ScenarioFile, files

        items: list[pytest.Item] = []
        for path in files(self.config):
            with suppress(pytest.Collector.CollectError):  # the workers will say so
                items += ScenarioFile.from_parent(session, path=path).collect()
        self.config.hook.pytest_collection_modifyitems(session=session, config=self.config, items=items)
        return items

    def _start_for(self, items: Iterable[pytest.Item]) -> None:
        """Start the cluster with the networks of these scenarios; nothing is started for nothing."""
        from harness.plugin import ScenarioItem
        from harness.scenario.file import FIRST

        chosen = [item.scenario for item in items if isinstance(item, ScenarioItem)]
        if chosen:
            self._start(dict.fromkeys(name for each in chosen for name in each.networks if name != FIRST))

    def _start(self, networks: Iterable[str]) -> None:
        from harness.backends import Unavailable
        from harness.catalog import ProfileError

        begin = time.monotonic()
        capture: Any = self.config.pluginmanager.getplugin("capturemanager")
        try:
            with capture.global_and_fixture_disabled():
                self.cluster = self.door.start(_wanted(self.config, self.why, networks))
        except (Unavailable, ProfileError) as error:
            pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
        self._facts = self.cluster.facts
        self.start_seconds = time.monotonic() - begin
        if self.lines is not None:
            self.lines.say_cluster()
        if self.is_shared:
            from harness.run.leaks import Sweep

            self.sweep = Sweep(self.cluster)
            self.sweep.open()

    @property
    def facts(self) -> Facts:
        """What the cluster is."""
        assert self._facts is not None, "the cluster was not started"
        return self._facts

    @property
    def seconds(self) -> float:
        """How long the run has taken so far."""
        return time.monotonic() - self.begun

    def run(self, scenario: Scenario) -> Outcome:
        """Run one scenario."""
        from harness.run.life import run

        if self.cluster is None:
            self.cluster = self.door.connect(_wanted(self.config, self.why, ()))
        return run(scenario, self.cluster, self._options())

    def _options(self) -> Options:
        from harness.run.life import Options

        worker = self.config.workerinput["workerid"] if self.is_worker else ""  # type: ignore[attr-defined]
        return Options(
            report=self.report, locks=self.state, shared=self.is_shared, keep=self.config.option.keep, worker=worker
        )

    # --- the end

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Gather what came of each scenario."""
        if not self.is_worker and hasattr(report, "genie"):
            self.outcomes.append(Outcome.from_json(report.genie))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Look for what is left on the nodes, write the reports, end the cluster."""
        if self.is_worker or self.cluster is None:
            return
        if self.sweep is not None and not self.config.option.keep:
            self.leaked = self.sweep.left({each.name: each.unclaimed for each in self.outcomes})
            if self.leaked and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self.config.option.report:
            from harness.report import write

            self.written = write(self)

    def pytest_unconfigure(self) -> None:
        """Whatever happened, the cluster ends with the run."""
        if self.cluster is not None:
            cluster, self.cluster = self.cluster, None
            if not self.is_worker:
                cluster.close(keep=self.config.option.keep)
        if not self.is_worker:
            import shutil

            shutil.rmtree(self.state, ignore_errors=True)


def _report(config: pytest.Config) -> Path:
    """Where evidence goes: the report's directory, or `report/` of where pytest was started."""
    return (config.invocation_params.dir / (config.option.report or "report")).resolve()
