"""One run of scenarios: its backend, its cluster from start to end, and the outcomes of scenarios.

Without pytest-xdist, one process does everything. With it, the controller starts the cluster, passes the place of its
state to the workers, and collects the outcomes from their reports; the workers connect and run scenarios. So the
process that started the cluster always writes the reports.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import pytest
from _pytest.junitxml import xml_key

from harness.backends.registry import choose
from harness.catalog import ProfileError
from harness.contract import Backend, Cluster, Facts, Unavailable
from harness.embedded.isolation import inside
from harness.exits import ORDER, Ended, Exit
from harness.report import write
from harness.report.outcome import Outcome, Run, Verdict
from harness.report.terminal import Terminal
from harness.run import collect, ending, gate, shard
from harness.run.blocking import Blocking
from harness.run.ending import without_run
from harness.run.enter import CHOSEN, DEADLINE, report_dir, run_options
from harness.run.evidence import REPORTS
from harness.run.health import ailing
from harness.run.leaks import Sweep
from harness.run.life import Options, run
from harness.run.locks import turn
from harness.run.repeating import repeated
from harness.run.stepping import Stepper
from harness.run.stopping import HASTY, TOLD, Stop, Stopped
from harness.run.watch import follow
from harness.scenario.file import FIRST, Scenario
from harness.waiting import until_nothing


@dataclass(eq=False)
class Suite:
    """The run, as a pytest plugin."""

    config: pytest.Config
    report: Path
    backend: Backend
    chosen: str  # why this backend
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
    stepper: Stepper | None = None
    asked: dict[str, str] = field(default_factory=dict)  # networks that options name
    limit: tuple[str, ...] = ()  # networks of --networks
    stop: Stop = field(default_factory=Stop)
    code: Exit = Exit.PASSED
    why: str = ""  # the reason for the code, if no scenario's failure is
    _selected: dict[str, collect.ScenarioItem] = field(default_factory=dict)  # by node ID
    _patience: float = 30.0  # seconds to wait for a broken environment, in all
    _session: pytest.Session | None = None
    _workers: set[int] = field(default_factory=set)  # process IDs
    _mistaken: bool = False  # a file could not be read; this is reported separately
    _ended: bool = False  # before its first scenario; pytest prints why
    _reported: set[str] = field(default_factory=set)  # node IDs of scenarios
    _others: set[str] = field(default_factory=set)  # the results of tests that are no scenarios

    @classmethod
    def of(cls, config: pytest.Config) -> Suite:
        """The suite of this process, a controller or a worker."""
        given: dict[str, Any] = getattr(config, "workerinput", {})
        if given:
            backend, why = choose(given["genie_backend"], {"GENIE_WHY": given["genie_why"]})
            suite = cls(config, Path(given["genie_report"]), backend, why, Path(given["genie_state"]))
            suite._listen(given["genie_deadline"])
            return suite
        backend, why = config.stash[CHOSEN]
        state = Path(tempfile.mkdtemp(prefix="genie-run-", dir=inside()))  # there, it ends with a run that is killed
        suite = cls(config, report_dir(config), backend, why, state)
        suite._listen(float(os.environ.pop(DEADLINE, "0")))
        if reporter := config.pluginmanager.getplugin("terminalreporter"):
            suite.terminal = Terminal(reporter)
        suite.stepper = Stepper(config) if config.option.step else None
        return suite

    # --- the process

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

    # --- interrupts and deadlines

    def _listen(self, deadline: float) -> None:
        self.stop = Stop(deadline=deadline, seconds=self.config.option.deadline, first=self._stop, second=self._kill)
        option = self.config.option
        if not (option.watch or option.step or option.usepdb):  # a person's Ctrl-C has another meaning there
            self.stop.listen(worker=self.is_worker)

    def _stop(self) -> None:
        """After an interrupt between two scenarios: begin no other."""
        if self._session is not None:
            self._session.shouldstop = "interrupted"
        if self.is_worker:
            return
        if not self._workers:
            raise KeyboardInterrupt
        self._signal(TOLD)
        signal.signal(signal.SIGALRM, self._give_up)
        signal.setitimer(signal.ITIMER_REAL, 2 * HASTY)
        # pytest-xdist waits for an event of a worker; a thread, because its queue may be locked by this one.
        scheduling: Any = self.config.pluginmanager.getplugin("dsession")
        scheduling._max_worker_restart = 0
        scheduling.worker_interrupted = lambda: setattr(scheduling, "shouldstop", "interrupted")
        threading.Thread(target=scheduling.queue.put, args=(("interrupted", {}),), daemon=True).start()

    def _give_up(self, *_: Any) -> None:
        """Workers did not end in time."""
        self._kill()
        raise KeyboardInterrupt

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        for worker in self._workers:
            with suppress(ProcessLookupError):
                os.kill(worker, number)

    def _know(self, node: Any) -> None:
        """Know a worker's process; a signal ends it even if it has only begun to start."""
        self._workers.add(node.gateway._io.popen.pid)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Know an interrupt that this did not handle; pytest's own reasons to stop are of classes below."""
        self.stop.interrupted |= excinfo.type is KeyboardInterrupt

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker has ended."""
        self._workers.discard(node.gateway._io.popen.pid)

    # --- the cluster

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self) -> None:
        """Start the cluster before pytest-xdist starts the workers."""
        assert self._session is not None
        self._start_for(self._found(self._session))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Pass the connection data to a worker."""
        self._know(node)
        node.workerinput |= {
            "genie_backend": self.backend.name,
            "genie_why": self.chosen,
            "genie_state": str(self.state),
            "genie_deadline": self.stop.deadline,
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

    @property
    def _whole(self) -> shard.Selection:
        """The selected scenarios, those of other shards too."""
        return self.config.stash.get(shard.SELECTION, shard.Selection())

    def _start_for(self, items: Iterable[pytest.Item]) -> None:
        """Start the cluster with the networks of these scenarios; without scenarios, start none."""
        self._selected = {item.nodeid: item for item in items if isinstance(item, collect.ScenarioItem)}
        chosen = [item.scenario for item in self._selected.values()]
        networks = dict.fromkeys(name for each in chosen for name in each.networks if name != FIRST)
        option = self.config.option
        try:
            self.limit, self.asked = collect.names(self.config), gate.asked(option.profile, option.swap)
            self._refuse(Exit.USAGE, gate.unknown(self.asked, self.limit, option.profile))
            if not self._mistaken:
                self._refuse(Exit.NOTHING, gate.unselected(self.asked, self._whole.networks, option.swap, self.limit))
            if chosen and not self._mistaken:
                self._start(networks)
        except Ended as ended:
            self._end_early(ended)
        except ProfileError as error:
            self._end_early(Ended(Exit.USAGE, str(error)))
        except Unavailable as error:
            self._end_early(Ended(Exit.BROKEN, str(error)))
        except Stopped as stopped:
            self._end_early(Ended(Exit.INTERRUPTED if self.stop.interrupted else Exit.BROKEN, str(stopped)))

    def _refuse(self, code: Exit, why: str) -> None:
        """End the run for a reason, if there is one; --allow-skips permits that nothing is tested."""
        if why and not (code is Exit.NOTHING and self.config.option.allow_skips):
            raise Ended(code, why)

    def _end_early(self, ended: Ended) -> NoReturn:
        """End a run before its first scenario, with all reports."""
        self.code, self.why, self._ended = ended.code, ended.why, True
        if self.is_shared:  # the session has not begun, so pytest would not end it
            self.config.hook.pytest_sessionfinish(session=self._session, exitstatus=ended.code)
        pytest.exit(ended.why, returncode=ended.code)

    def _start(self, networks: Iterable[str]) -> None:
        begin = time.monotonic()
        capture: Any = self.config.pluginmanager.getplugin("capturemanager")
        over = f"the run's deadline of {self.stop.seconds:g} s was over before the cluster was ready"
        with capture.global_and_fixture_disabled(), self.stop.within(self.stop.left(), over):
            self.cluster = self.backend.start(run_options(self.config, self.chosen, networks))
        self._refuse(Exit.NOTHING, gate.impossible(self.asked, self.cluster.facts.offers))
        self.start_seconds = time.monotonic() - begin
        if self.terminal is not None:
            self.terminal.show_cluster(self.cluster.facts, self.start_seconds)
        if self.is_shared or self.cluster.facts.tidies:
            self.sweep = Sweep(self.cluster)
            with turn(self._locks, alone=True):  # the pods of another run's scenarios are no leftovers
                self.sweep.open()

    @property
    def _locks(self) -> Path:
        """The directory of the locks for scenarios; several runs on a cluster share it."""
        shared = self.cluster.facts.turns if self.cluster else ""
        return Path(shared or self.state)

    def run(self, scenario: Scenario) -> Outcome:
        """Run one scenario, unless the run ends."""
        if why := self.stop.reason():
            return without_run(scenario, "not run", why)
        if not self.config.option.watch and (why := self._blocking.reason(scenario.networks)):
            return without_run(scenario, "blocked", why)
        option = self.config.option
        outcome = repeated(
            lambda: self._run_one(scenario),
            retry_broken=option.retry_broken,
            rerun=option.rerun,
            ended=self.stop.reason,
            recover=self._recover,
        )
        self._blocking.note(outcome, may_fail=bool(scenario.failing))
        if self.stop.interrupted and self._session is not None:
            self._session.shouldstop = "interrupted"
        return outcome

    def _recover(self) -> None:
        """Wait until the environment works again, as long as the patience of the whole run allows."""
        cluster, begin = self.cluster, time.monotonic()
        if cluster is not None and self._patience:
            with suppress(Stopped), self.stop.within(self._patience, "the environment stays broken"):
                until_nothing(lambda: ailing(cluster, self.report), self._patience)
            self._patience = max(0.0, self._patience - (time.monotonic() - begin))

    @property
    def _blocking(self) -> Blocking:
        return Blocking(self.state / "networks")

    def _run_one(self, scenario: Scenario) -> Outcome:
        if self.cluster is None:
            self.cluster = self.backend.connect(run_options(self.config, self.chosen, ()))
        worker = self.config.workerinput["workerid"] if self.is_worker else ""  # type: ignore[attr-defined]
        options = Options(
            report=self.report,
            locks=self._locks,
            shared=self.is_shared,
            keep=self.config.option.keep,
            worker=worker,
            churn=self.config.option.churn,
            pause=self.stepper.before if self.stepper else None,
            limit=self.backend.scenario_seconds,
            stop=self.stop,
        )
        return run(scenario, self.cluster, options)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """With --watch, run scenarios again when something changes."""
        watching = self.config.option.watch and not self.is_worker
        try:
            done = yield
        except session.Failed:  # -x
            if not watching:
                raise
            done = True
        if watching and self.cluster is not None:
            follow(self, session)
        return done

    def genie_changed(self) -> str:
        """Bring a changed genie to the nodes; returns why this is impossible, empty if it is done."""
        assert self.cluster is not None
        networks = list(self.cluster.facts.offers)
        try:
            self.cluster = self.backend.refresh(run_options(self.config, self.chosen, networks), self.cluster)
        except Unavailable as error:
            return str(error)
        return ""

    # --- reports

    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """Print no letter for a scenario, because it has a separate line."""
        if self.terminal is None or not hasattr(report, "genie"):
            return None
        verdict = report.genie["verdict"]
        listed = "xfailed" if report.genie["known"] else "failed" if report.genie["overdue"] else verdict
        return ("error" if verdict == "broken" else listed, "", verdict.upper())

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Know that a file of scenarios or tests cannot be read."""
        if report.failed and collect.is_scenario_id(report.nodeid):
            self._mistaken = True
        elif report.failed:
            self._others.add("failed")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        """Collect the outcome of each scenario."""
        if self.is_worker:
            return
        item = self._selected.get(report.nodeid)
        if item is not None and report.failed and report.nodeid not in self._reported and not hasattr(report, "genie"):
            collect.complete(item, report)  # of a worker that died
        if hasattr(report, "genie"):
            self._reported.add(report.nodeid)
            self.outcomes.append(Outcome.from_json(report.genie))
        elif item is None or report.failed:
            self._others.add(report.outcome)

    @pytest.hookimpl(trylast=True, specname="pytest_runtest_logreport")
    def pytest_print_line(self, report: Any) -> None:
        """Print a scenario's line, after pytest's own words."""
        if self.terminal is not None and hasattr(report, "genie") and not self._ended:
            self.terminal.show(self.outcomes[-1])

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Look for leftovers on the nodes, decide the exit code, and write the reports."""
        if self.is_worker:
            return
        self.stop.first = lambda: None  # from now on, an interrupt must not stop the reports
        self.why = self.why or self.stop.reason() * self._is_unfinished
        self._report_rest()
        kept = any(each.notes for each in self.outcomes)
        if self.sweep is not None and not kept and not self.stop.interrupted:
            with turn(self._locks, alone=True):
                self.leaked = self.sweep.left({each.name: each.unclaimed for each in self.outcomes})
        if self.leaked:
            self._report("left-on-the-nodes", "call", "\n".join(self.leaked))
        self._decide(int(session.exitstatus))
        if self.config.option.report and self.code is not Exit.USAGE:
            self._write()
        session.exitstatus = self.code

    def _write(self) -> None:
        """Write all reports, or none: one alone could contradict the exit code."""
        xml = self.config.stash.get(xml_key, None)
        try:
            self.page = write(replace(self._run(), binaries=self._binaries()), self.report)
            if xml is not None:
                xml.pytest_sessionfinish()  # pytest would do it too late for this
        except OSError as error:
            for name in REPORTS:
                (self.report / name).unlink(missing_ok=True)
            if xml is not None:
                xml.logfile = os.devnull
                self.config.pluginmanager.unregister(xml)
                del self.config.stash[xml_key]  # pytest would unregister it again
            self.page, self.code = None, min(self.code, Exit.BROKEN, key=ORDER.index)
            why = f"no report can be written into {self.report}: {error.strerror or error}"
            self.why = f"{self.why}; {why}" if self.why else why

    @property
    def _is_unfinished(self) -> bool:
        """Whether a selected scenario was not run."""
        return any(each.verdict == "not run" for each in self.outcomes) or not set(self._selected) <= self._reported

    def _report_rest(self) -> None:
        """Report the selected scenarios without an outcome, in every report."""
        if self.code is Exit.USAGE or self._mistaken:
            return
        verdict: Verdict = "skipped" if self.code is Exit.NOTHING else "not run"
        for nodeid, item in self._selected.items():
            if nodeid not in self._reported:
                outcome = without_run(item.scenario, verdict, self.why or "the run ended before it")
                self._report(nodeid, "setup", f"{verdict}: {outcome.reason}", outcome)

    def _report(self, nodeid: str, when: Literal["setup", "call"], text: str, outcome: Outcome | None = None) -> None:
        """Report something that pytest did not run to all of pytest's reporters."""
        skipped = outcome is not None and outcome.verdict == "skipped"
        report: Any = pytest.TestReport(
            nodeid=nodeid,
            location=(nodeid.partition("::")[0], 0, nodeid),
            keywords={},
            outcome="skipped" if skipped else "failed",
            longrepr=(nodeid, 0, text) if skipped else text,
            when=when,
        )
        if outcome is not None:
            report.genie = outcome.to_json()
        self.config.hook.pytest_runtest_logreport(report=report)

    def _decide(self, status: int) -> None:
        """The exit code, and its reason."""
        is_part = self.config.option.shard and self._whole.names  # the merge of all shards knows what they tested
        allowed = self.config.option.allow_skips or is_part or (self._others and not (self.asked or self.limit))
        untested = "" if allowed else gate.untested(self.asked, self.limit, self.outcomes)
        facts = ending.Facts(
            status=0 if allowed and status == pytest.ExitCode.NO_TESTS_COLLECTED else status,
            others_failed="failed" in self._others,
            mistaken=self._mistaken,
            interrupted=self.stop.interrupted,
            leaked=bool(self.leaked),
            untested=untested,
            ended=self.code,
            outcomes=self.outcomes,
        )
        self.code = ending.code(facts)
        if self.code is Exit.NOTHING and not self.why:
            self.why = untested

    def pytest_terminal_summary(self) -> None:
        """Print the summary of each network."""
        if self.terminal is None or self._ended:
            return
        if self.outcomes:
            self.terminal.show_summary(self._run(), self.page, notes=self.config.option.keep)
        if self.why:
            self.terminal.show_error(self.why)

    def _run(self) -> Run:
        return Run(
            facts=self.cluster.facts if self.cluster else _no_facts(self.backend.name, self.chosen),
            outcomes=tuple(self.outcomes),
            leaked=tuple(self.leaked),
            seconds=time.monotonic() - self.begun,
            start_seconds=self.start_seconds,
            began=self.began_at,
            command=("pytest", *map(str, self.config.invocation_params.args)),
            shard="/".join(map(str, self.config.option.shard or ())),
            selected=self._whole.names,
            scenarios_sha256=self._whole.sha256,
            code=self.code,
            why=self.why,
        )

    def _binaries(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """The plugins of all nodes; of a node that does not answer, none."""
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        cluster = self.cluster
        if cluster is None:
            return found
        for node in cluster.facts.nodes:
            with suppress(Exception):
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


def _no_facts(backend: str, why: str) -> Facts:
    """The facts about a cluster that did not start."""
    return Facts(backend=backend, why=why, api_server="not started", genie="not started", nodes=(), image="", offers={})
