"""A scenario's life on a cluster: creates its namespace, objects and pods, runs its checks, and deletes everything.

If the cluster lacks a network or an ability, the scenario is skipped before anything is created. Steps run in order
until one fails. All checks of a step are tried, but after one failed, the others do not wait. After a failure, evidence
is collected while the pods exist. Then, in every case, the pods are deleted, the checks after deletion run, and the
namespace is deleted. The outcome has the time of each part.
"""

from __future__ import annotations

import secrets
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.checks.base import Check
from harness.checks.view import View, subnets
from harness.contract import NET_D, SETTINGS, Cluster, ProbeError, Unavailable, has, must_be_alone
from harness.libcni import CniFailure
from harness.model import fill
from harness.objects import OF_SCENARIOS, ApiError, Objects
from harness.pods import mirrored, place
from harness.report.outcome import Figure, Finding, Outcome, Stage, Verdict
from harness.run import diagnose
from harness.run.ending import without_run
from harness.run.health import ailing
from harness.run.leaks import Ledger
from harness.run.locks import turn
from harness.run.skips import UnknownNetwork, networks_of, why_not
from harness.run.stopping import Stop, Stopped
from harness.run.timing import plugin_seconds
from harness.scenario.file import Scenario
from harness.steps.base import Around, Step
from harness.steps.expect import Expect
from harness.steps.scene import Scene
from harness.waiting import NotReady
from harness.waiting import limit as stretched


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings for running scenarios."""

    report: Path  # the directory for evidence
    locks: Path  # a directory that all workers of one cluster share
    shared: bool = False  # other scenarios run on the cluster at the same time
    keep: bool = False  # leave pods and namespace
    hurry: float = 1.0  # factor for every deadline of a check
    worker: str = ""
    churn: int = 0  # the most pods that a churn makes; 0: as many as the scenario has
    pause: Callable[[Scene, str], None] | None = None  # called before each step, with its name
    limit: float = 0.0  # seconds for a scenario that has no limit itself, on an idle machine; 0: none
    stop: Stop = field(default_factory=Stop)


def run(scenario: Scenario, cluster: Cluster, options: Options) -> Outcome:
    """Run one scenario, and delete everything; with `keep`, not what failed. It always returns an outcome."""
    networks = networks_of(scenario, cluster.facts)
    try:
        reason = why_not(scenario, cluster.facts)
    except UnknownNetwork as error:
        stage = Stage(name="networks", seconds=0.0, failure=str(error))
        return replace(without_run(scenario, "failed", "", networks), stages=(stage,), worker=options.worker)
    if reason:
        return replace(without_run(scenario, "skipped", reason, networks), worker=options.worker)
    alone = not options.shared or must_be_alone(scenario.needs, cluster.facts)
    stop, arrived = options.stop, time.monotonic()
    with ExitStack() as waiting:
        try:
            with stop.within(stop.left(), f"the run's deadline of {stop.seconds:g} s was over"):
                waiting.enter_context(turn(options.locks, alone=alone))
        except Stopped as stopped:
            return replace(without_run(scenario, "not run", str(stopped), networks), worker=options.worker)
        begin, began = time.monotonic(), time.time()
        life = Life(scenario=scenario, cluster=cluster, options=options, alone=alone)
        life.live()
        verdict = life.verdict()
    return replace(
        without_run(scenario, verdict, life.broken or life.interrupted, networks),
        seconds=time.monotonic() - begin,
        stages=tuple(life.stages),
        namespace=life.namespace,
        evidence=tuple(str(path.relative_to(options.report)) for path in life.evidence),
        unclaimed=tuple(life.unclaimed),
        notes=tuple(life.notes),
        worker=options.worker,
        began=began,
        waited=begin - arrived,
        calls=life.calls,
    )


@dataclass
class Life:
    """One run of one scenario."""

    scenario: Scenario
    cluster: Cluster
    options: Options
    alone: bool
    stages: list[Stage] = field(default_factory=list)
    evidence: list[Path] = field(default_factory=list)
    unclaimed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    calls: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    broken: str = ""  # why the scenario says nothing about the plugin
    interrupted: str = ""  # when
    kept: bool = False
    _now: str = ""  # the name of the stage that runs

    def __post_init__(self) -> None:
        self.namespace = f"genie-{self.scenario.name[:40].rstrip('-')}-{secrets.token_hex(3)}"
        self.ledger = Ledger(cluster=self.cluster, namespace=self.namespace, alone=self.alone)
        self.scene = self._scene()

    def _scene(self) -> Scene:
        scenario, facts = self.scenario, self.cluster.facts
        here = dict(zip(scenario.networks, networks_of(scenario, facts), strict=True))
        networks = {name: subnets(facts.offers[network].subnets) for name, network in here.items()}
        values = {"namespace": self.namespace, "scenario": scenario.name}
        values |= {f"subnet.{name}": str(found[0]) for name, found in networks.items() if found}
        nodes = place(scenario.pods, facts.nodes, seed=scenario.name)
        view = View(
            cluster=self.cluster,
            objects=Objects(self.cluster.api()),
            namespace=self.namespace,
            networks=networks | {name: subnets(texts) for name, texts in scenario.spec.own_networks.items()},
            leftovers=self.ledger,
            values=values,
            hurry=self.options.hurry,
            names=mirrored(scenario.pods, nodes),
        )
        return Scene(view=view, pods=scenario.pods, nodes=nodes, failing=scenario.failing, most=self.options.churn)

    @property
    def failed(self) -> bool:
        return any(stage.failures for stage in self.stages)

    def verdict(self) -> Verdict:
        """The verdict at the end; looks at the cluster if the scenario failed."""
        if self.interrupted:
            return "not run"
        if self.failed and not self.broken:
            try:
                with self.options.stop.closing():
                    self.broken = ailing(self.cluster, self.options.report)
            except Stopped:
                self.broken = "the cluster does not answer"
        return "broken" if self.broken else "failed" if self.failed else "passed"

    # --- from birth to death

    def live(self) -> None:
        """All of it, in the time that it has."""
        limit = self.scenario.spec.timeout or stretched(self.options.limit)
        try:
            try:
                with self.options.stop.within(limit, f"the scenario's limit of {round(limit, 1):g} s is over"):
                    self._live()
            except Stopped as stopped:
                self._cut_off(str(stopped))
        finally:
            with suppress(Stopped), self.options.stop.closing():
                self._close()

    def _live(self) -> None:
        with ExitStack() as around:
            if self._stage("prepare", lambda: self._prepare(around)):
                self._steps(self.scenario.steps)
            if self.failed:
                self._stage("collect evidence", self._collect)
            self.kept = self.options.keep and self.failed
            if not self.kept:
                there = self._there()
                self._pause(f"delete {', '.join(there)}")
                self._delete()
                if self.failed and not self.evidence:  # of pods that are gone, their calls remain
                    self._stage("collect evidence", lambda: self._collect(there))

    def _cut_off(self, why: str) -> None:
        """Note that it did not end by itself; after an interrupt, that is no failure, and there is no time to look."""
        when = f"{why}, during: {self._now}"
        self.kept = self.options.keep
        if self.options.stop.interrupted:
            self.interrupted = when
            return
        self.stages.append(Stage(name="limit", seconds=0.0, failure=when))
        with suppress(Stopped), self.options.stop.closing():
            self._stage("collect evidence", self._collect)

    def _close(self) -> None:
        with suppress(Exception):  # times are no part of the verdict
            self.calls = plugin_seconds(self.cluster.calls(self.namespace))
        if self.kept:
            self.notes.append(f"kept: namespace {self.namespace} with {', '.join(self._there()) or 'no pod'}")
        else:
            self._stage("remove the namespace", self._bury)

    def _prepare(self, around: ExitStack) -> None:
        spec, objects = self.scenario.spec, self.scene.objects
        self.ledger.open()
        if spec.genie:
            around.enter_context(has(self.cluster, SETTINGS).settings(spec.genie, self.namespace))
        if spec.net_d:
            around.enter_context(has(self.cluster, NET_D).net_d(fill(spec.net_d, self.scene.view.values)))
        notes = fill(spec.namespace_annotations, self.scene.view.values)
        metadata = {"name": self.namespace, "labels": OF_SCENARIOS, "annotations": notes}
        objects.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        for thing in self._objects():
            objects.create(thing, self.namespace)

    def _delete(self) -> None:
        """Delete the pods, and run the checks after deletion."""
        there = self._there()
        if there and not self._stage(f"delete {', '.join(there)}", lambda: self.scene.delete(there)):
            return
        if self.scenario.spec.after_delete:
            self._check("after delete", self.scenario.spec.after_delete)
        self.unclaimed = self.ledger.unclaimed()

    def _bury(self) -> None:
        """Delete the namespace, and first its objects, because an API server without controllers would keep them."""
        objects = self.scene.objects
        for thing in self._objects():
            objects.delete(objects.path(thing, self.namespace))
        self.scene.clear()
        objects.delete(f"/api/v1/namespaces/{self.namespace}")

    def _objects(self) -> list[dict[str, Any]]:
        return [fill(thing, self.scene.view.values) for thing in self.scenario.spec.objects]

    def _collect(self, pods: Sequence[str] = ()) -> None:
        into = self.options.report / "evidence" / self.scenario.name
        self.evidence = diagnose.collect(self.scene.view, pods or self._there(), into)

    def _there(self) -> list[str]:
        return list(dict.fromkeys(self.scene.there))

    # --- steps

    def _steps(self, steps: tuple[Step, ...]) -> bool:
        """Run steps until one fails; returns whether all succeeded."""
        return all(self._step(step) for step in steps)

    def _pause(self, step: str) -> None:
        if self.options.pause is not None:
            self.options.pause(self.scene, step)

    def _step(self, step: Step) -> bool:
        self._pause(str(step))
        match step:
            case Expect():
                return self._check("expect", step.checks)
            case Around():
                return self._within(step)
        return self._stage(str(step), lambda: step.act(self.scene))

    def _within(self, step: Around) -> bool:
        """Run steps inside a state, which begins before them and ends after them."""
        with ExitStack() as around:
            if not self._stage(str(step), lambda: around.enter_context(step.state(self.scene))):
                return False
            went_well = self._steps(step.steps)
            return self._stage(f"end: {step}", around.close) and went_well

    # --- bookkeeping

    def _stage(self, name: str, action: Callable[[], object]) -> bool:
        """Run an action, and record its time and error; returns whether it succeeded."""
        begin, failure, self._now = time.monotonic(), "", name
        try:
            action()
        except Exception as error:  # an error of the backend fails this scenario, but does not end the run
            failure = self._worded(error)
        finally:
            took, figures = time.monotonic() - begin, self._figures()
            self.stages.append(Stage(name=name, seconds=took, failure=failure, figures=figures))
        return not failure

    def _figures(self) -> tuple[Figure, ...]:
        """What was measured since the last call."""
        measured = self.scene.view.figures
        figures = tuple(Figure(name=name, value=value, unit=unit) for name, (value, unit) in measured.items())
        measured.clear()
        return figures

    def _check(self, name: str, checks: tuple[Check, ...]) -> bool:
        begin, findings, view = time.monotonic(), list[Finding](), self.scene.view
        try:
            for check in checks:
                self._now = str(check)
                findings.append(self._find(check, view))
                if findings[-1].failure:
                    view = replace(view, hurry=0.0)
        finally:
            self.stages.append(Stage(name=name, seconds=time.monotonic() - begin, findings=tuple(findings)))
        return not any(finding.failure for finding in findings)

    def _find(self, check: Check, view: View) -> Finding:
        """Run a check."""
        began = time.monotonic()
        try:
            failure = check.run(view) or ""
        except Exception as error:
            failure = self._worded(error)
        took, figures = time.monotonic() - began, self._figures()
        return Finding(check=str(check), seconds=took, failure=failure, figures=figures)

    def _worded(self, error: Exception) -> str:
        """The message of an error about the cluster. Any other is no failure of the plugin, and has its traceback."""
        if isinstance(error, NotReady | ApiError | ProbeError | CniFailure | Unavailable):
            return str(error)
        self.broken = self.broken or f"the harness or its backend failed: {type(error).__name__}: {error}".rstrip(": ")
        return "the harness or its backend failed:\n" + "".join(traceback.format_exception(error)).rstrip()
