"""One run of scenarios: its backend, its cluster from start to end, and the outcomes of scenarios.

Without pytest-xdist, one process does everything. With it, the controller starts the cluster, passes the place of its
state to the workers, and collects the outcomes from their reports; the workers connect and run scenarios. So the
process that started the cluster always writes the reports.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.backends.registry import choose
from harness.catalog import ProfileError
from harness.contract import Backend, Cluster, Unavailable
from harness.report import write
from harness.report.outcome import Outcome, Run
from harness.report.terminal import Terminal
from harness.run import collect, gate, shard
from harness.run.enter import CHOSEN, report_dir, run_options
from harness.run.leaks import Sweep
from harness.run.life import Options, run
from harness.run.locks import turn
from harness.scenario.file import FIRST, Scenario


@dataclass(eq=False)
class Suite:
    """The run, as a pytest plugin."""

    config: pytest.Config
    report: Path
    backend: Backend
    why: str
    state: Path
    outcomes: list[Outcome] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    began_at: float = field(default_factory=time.time)  # for people
    start_seconds: float = 0.0
    cluster: Cluster | None = None
    sweep: Sweep | None = None
    page: Path | None = None
    terminal: Terminal | None = None
    asked: dict[str, str] = field(default_factory=dict)  # networks that options name
    _session: pytest.Session | None = None
    _mistaken: bool = False  # a file could not be read; this is reported separately

    @classmethod
    def of(cls, config: pytest.Config) -> Suite:
        """The suite of this process, a controller or a worker."""
        given: dict[str, Any] = getattr(config, "workerinput", {})
        if given:
            backend, why = choose(given["genie_backend"], {"GENIE_WHY": given["genie_why"]})
            return cls(config, Path(given["genie_report"]), backend, why, Path(given["genie_state"]))
        backend, why = config.stash[CHOSEN]
        suite = cls(config, report_dir(config), backend, why, Path(tempfile.mkdtemp(prefix="genie-run-")))
        if reporter := config.pluginmanager.getplugin("terminalreporter"):
            suite.terminal = Terminal(reporter)
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
        """Start the cluster before pytest-xdist starts the workers."""
        assert self._session is not None
        self._start_for(self._found(self._session))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Pass the connection data to a worker."""
        node.workerinput |= {
            "genie_backend": self.backend.name,
            "genie_why": self.why,
            "genie_state": str(self.state),
            "genie_report": str(self.report),
        }

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Start the cluster when the selected scenarios are known."""
        if not self.is_worker and not self.is_shared and self.cluster is None:
            self._mistaken = session.testsfailed > 0
            self._start_for(session.items)

    def _found(self, session: pytest.Session) -> list[pytest.Item]:
        """The scenarios that the workers will select, by -k, --networks and other options of pytest."""
        items: list[pytest.Item] = []
        for path in collect.files(self.config):
            try:
                items += collect.ScenarioFile.from_parent(session, path=path).collect()
            except pytest.Collector.CollectError:
                self._mistaken = True  # the workers will report it
        self.config.hook.pytest_collection_modifyitems(session=session, config=self.config, items=items)
        return items

    def _start_for(self, items: Iterable[pytest.Item]) -> None:
        """Start the cluster with the networks of these scenarios; without scenarios, start none."""
        chosen = [item.scenario for item in items if isinstance(item, collect.ScenarioItem)]
        networks = dict.fromkeys(name for each in chosen for name in each.networks if name != FIRST)
        option = self.config.option
        try:
            limit, self.asked = collect.names(self.config), gate.asked(option.profile, option.swap)
            _refuse(gate.unknown(self.asked, limit, option.profile))
            if not self._mistaken:
                _refuse(gate.unselected(self.asked, networks, option.swap, limit))
            if chosen:
                self._start(networks)
        except (Unavailable, ProfileError) as error:
            pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)

    def _start(self, networks: Iterable[str]) -> None:
        begin = time.monotonic()
        capture: Any = self.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            self.cluster = self.backend.start(run_options(self.config, self.why, networks))
        _refuse(gate.impossible(self.asked, self.cluster.facts.offers))
        self.start_seconds = time.monotonic() - begin
        if self.terminal is not None:
            self.terminal.show_cluster(self.cluster.facts, self.start_seconds)
        if self.is_shared:
            self.sweep = Sweep(self.cluster)
            with turn(self._locks, alone=True):  # the pods of another run's scenarios are no leftovers
                self.sweep.open()

    @property
    def _locks(self) -> Path:
        """The directory of the locks for scenarios; several runs on a cluster share it."""
        shared = self.cluster.facts.turns if self.cluster else ""
        return Path(shared or self.state)

    def run(self, scenario: Scenario) -> Outcome:
        """Run one scenario."""
        if self.cluster is None:
            self.cluster = self.backend.connect(run_options(self.config, self.why, ()))
        worker = self.config.workerinput["workerid"] if self.is_worker else ""  # type: ignore[attr-defined]
        options = Options(
            report=self.report,
            locks=self._locks,
            shared=self.is_shared,
            keep=self.config.option.keep,
            worker=worker,
            churn=self.config.option.churn,
        )
        return run(scenario, self.cluster, options)

    # --- reports

    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """Print no letter for a scenario, because it has a separate line."""
        shown = self.terminal is not None and hasattr(report, "genie")
        return (report.outcome, "", report.outcome.upper()) if shown else None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        """Collect the outcome of each scenario, and print its line."""
        if not self.is_worker and hasattr(report, "genie"):
            self.outcomes.append(Outcome.from_json(report.genie))
            if self.terminal is not None:
                self.terminal.show(self.outcomes[-1])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Look for leftovers on the nodes, and write the reports."""
        if self.is_worker or self.cluster is None:
            return
        if self.sweep is not None and not self.config.option.keep:
            with turn(self._locks, alone=True):
                self.leaked = self.sweep.left({each.name: each.unclaimed for each in self.outcomes})
            if self.leaked and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._untested and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self.config.option.report:
            self.page = write(self._run(self.cluster), self.report)

    def pytest_terminal_summary(self) -> None:
        """Print the summary of each network."""
        if self.terminal is not None and self.cluster is not None and self.outcomes:
            self.terminal.show_summary(self._run(self.cluster), self.page, notes=self.config.option.keep)
            if self._untested:
                self.terminal.show_error(self._untested)

    @property
    def _untested(self) -> str:
        return gate.untested(self.asked, self.outcomes)

    def _run(self, cluster: Cluster) -> Run:
        selection = self.config.stash.get(shard.SELECTION, shard.Selection())
        return Run(
            facts=cluster.facts,
            outcomes=tuple(self.outcomes),
            leaked=tuple(self.leaked),
            seconds=time.monotonic() - self.begun,
            start_seconds=self.start_seconds,
            began=self.began_at,
            command=("pytest", *map(str, self.config.invocation_params.args)),
            selected=selection.names,
            scenarios_sha256=selection.sha256,
            binaries=self._binaries(cluster),
        )

    def _binaries(self, cluster: Cluster) -> dict[tuple[str, str], tuple[str, ...]]:
        """The plugins of all nodes, if there is a report to name them."""
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        for node in cluster.facts.nodes if self.config.option.report else ():
            for plugin in cluster.binaries(node).items():
                found[plugin] = (*found.get(plugin, ()), node)
        return found

    # --- the end

    def pytest_unconfigure(self) -> None:
        """End the cluster with the run, in every case."""
        if self.cluster is not None:
            cluster, self.cluster = self.cluster, None
            if not self.is_worker:
                cluster.close(keep=self.config.option.keep)
        if not self.is_worker:
            shutil.rmtree(self.state, ignore_errors=True)


def _refuse(reason: str) -> None:
    if reason:
        raise Unavailable(reason)
