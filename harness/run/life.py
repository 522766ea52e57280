"""A scenario's life on a cluster: a namespace, its objects, its pods, what must hold, and then all of it gone again.

Skipped before anything is made, where the cluster lacks what it takes. Steps are taken in order until one fails; of a
step's checks all are tried, but once one has failed the others no longer wait. Then evidence is collected while the
pods are still there, the pods are deleted, what must hold after that is checked, and the namespace goes, whatever
happened. How long each part took is part of the outcome.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from harness.checks.base import Check
from harness.checks.status import fill
from harness.checks.view import View, subnets
from harness.libcni import CniFailure
from harness.model import nearest
from harness.objects import ApiError, Objects
from harness.pods import NotAsWanted, Pods, manifest, mirrored, place, wait_until
from harness.report.outcome import Finding, Outcome, Stage
from harness.run import diagnose, leaks
from harness.run.locks import turn
from harness.scenario.file import (
    FIRST,
    OF_GENIE,
    Annotate,
    Apply,
    Around,
    CollectGarbage,
    Create,
    Delete,
    EndSandbox,
    Expect,
    LoseSandbox,
    Recreate,
    Remove,
    Scenario,
    Step,
    Tamper,
    WithApiServerAway,
    WithDefinitionAway,
    WithRestart,
    WithRollingUpdate,
    WithSettings,
)

if TYPE_CHECKING:
    from harness.backends import Cluster, Facts


@dataclass(frozen=True, kw_only=True)
class Options:
    """How scenarios are run."""

    report: Path  # where evidence goes
    locks: Path  # a directory that all workers of one cluster share
    shared: bool = False  # others use the cluster meanwhile
    keep: bool = False  # leave pods and namespace
    hurry: float = 1.0  # every deadline is multiplied by this
    worker: str = ""


class CanRestart(Protocol):
    """A cluster with one of the features kubelet-restart, containerd-restart and agent-restart."""

    def restart(self, what: str, node: str) -> None:
        """Restart it on a node, without waiting for it to be back."""

    def settle(self, timeout: float = 90.0) -> None:
        """Wait until every node is ready again."""


class Updates(Protocol):
    """A cluster with the feature agent-update."""

    def rolling_update(self) -> AbstractContextManager[None]:
        """Genie's agents are being replaced, node by node; the end waits until all are."""


class LosesSandboxes(Protocol):
    """A cluster with the feature garbage-collection."""

    def lose_sandbox(self, namespace: str, pod: str) -> None:
        """Have the node's runtime make one more sandbox for a pod, and lose it: its namespace goes without CNI DEL."""

    def collect_garbage(self, node: str) -> None:
        """Call CNI GC on a node with every attachment that its runtime knows of.

        Raises:
            CniFailure: it failed.
        """


class Tampers(Protocol):
    """A cluster with the feature tampering."""

    def tamper(self, namespace: str, pod: str, interface: str, remove: str) -> None:
        """Take the addresses or the routes of a pod's interface away, or the interface itself."""


class TakesFiles(Protocol):
    """A cluster with one of the features net-d and static-pods."""

    def net_d(self, files: Mapping[str, Mapping[str, Any]]) -> AbstractContextManager[None]:
        """These configurations in every node's net.d, for the time of the context."""

    def static_pod(self, node: str, name: str, manifest: Mapping[str, Any] | None) -> None:
        """Put a pod into a node's manifest directory, in a file of this name; None takes the file away again."""


class CannotRun(Exception):
    """A scenario asks for a network that no cluster has, by the look of it a slip of the pen."""


def why_not(scenario: Scenario, facts: Facts) -> str:
    """Why a scenario cannot run on this cluster; empty: it can.

    Raises:
        CannotRun: a network's name is misspelt.
    """
    for network in networks_of(scenario, facts):
        if reason := _why_not_on(network, scenario, facts):
            return reason
    if lacking := sorted(scenario.needs - facts.features - OF_GENIE):
        return f"the {facts.backend} backend cannot do this here: {', '.join(lacking)}"
    apart = {"second", "other"} | {pod.node for pod in scenario.pods.values() if pod.node.startswith("other-than")}
    if len(facts.nodes) < 2 and any(pod.node in apart for pod in scenario.pods.values()):
        return "it takes two nodes, this cluster has one"
    return ""


def _why_not_on(network: str, scenario: Scenario, facts: Facts) -> str:
    """Why a scenario cannot have one of its networks here; see `why_not`."""
    offer = facts.offers.get(network)
    if network == FIRST:
        return "the network that the nodes have first is none that the harness knows"
    if offer is None:
        meant = nearest(network, facts.offers)
        if meant and meant not in scenario.networks and _close(network, meant):
            raise CannotRun(f"unknown network {network!r}; did you mean {meant!r}?")
        return f"no network {network} here (known: {', '.join(sorted(facts.offers)) or 'none'})"
    if offer.missing:
        return f"{network} is missing: {offer.missing}"
    if offer.first_only and (pod := scenario.later(network)):
        return f"{network} works as a pod's first network only, and {pod} has it later: {offer.first_only}"
    return ""


def networks_of(scenario: Scenario, facts: Facts) -> tuple[str, ...]:
    """A scenario's networks as this cluster calls them: what is first there has a name of its own."""
    return tuple(facts.first or FIRST if network == FIRST else network for network in scenario.networks)


def _close(word: str, known: str) -> bool:
    import difflib

    return difflib.SequenceMatcher(None, word, known).ratio() > 0.75


# The label of scenarios' namespaces: what one run was told to keep, the next one removes.
OF_SCENARIOS = {"app.kubernetes.io/managed-by": "genie-harness"}
APART = "apart"  # the feature of a cluster that keeps settings and outages to one namespace


class KeepsApart(Protocol):
    """A cluster with the feature "apart"."""

    def settings(self, genie_conf: Mapping[str, Any], namespace: str) -> AbstractContextManager[None]:
        """genie.conf with these keys for pods of a namespace."""

    def api_server_away(self, namespace: str) -> AbstractContextManager[None]:
        """The API server is away for genie's calls for pods of a namespace."""


def exclusive(scenario: Scenario, facts: Facts) -> bool:
    """Whether a scenario disturbs others on this cluster, so that it must have it for itself."""
    needs = scenario.needs
    disturbs = bool(needs & {"settings", "api-outage"}) and APART not in facts.features
    for_all = {"definitions-away", "garbage-collection"}
    return disturbs or bool(needs & for_all) or any(need.endswith("-restart") for need in needs)


def run(scenario: Scenario, cluster: Cluster, options: Options) -> Outcome:
    """Run one scenario; never raises but for an interrupt, and leaves nothing unless it is told to keep."""
    begin = time.monotonic()
    described: dict[str, Any] = {
        "name": scenario.name,
        "title": scenario.title,
        "file": scenario.file,
        "networks": networks_of(scenario, cluster.facts),
        "group": scenario.group,
        "worker": options.worker,
    }
    try:
        reason = why_not(scenario, cluster.facts)
    except CannotRun as error:
        stage = Stage(name="networks", seconds=0.0, failure=str(error))
        return Outcome(**described, verdict="failed", seconds=0.0, stages=(stage,))
    if reason:
        return Outcome(**described, verdict="skipped", seconds=0.0, reason=reason)
    alone = not options.shared or exclusive(scenario, cluster.facts)
    with turn(options.locks, alone=alone and options.shared):
        begin = time.monotonic()
        life = Life(scenario=scenario, cluster=cluster, options=options, alone=alone)
        life.live()
    failed = any(stage.failures for stage in life.stages)
    return Outcome(
        **described,
        verdict="failed" if failed else "passed",
        seconds=time.monotonic() - begin,
        stages=tuple(life.stages),
        namespace=life.namespace,
        evidence=tuple(str(path.relative_to(options.report)) for path in life.evidence),
        unclaimed=tuple(life.unclaimed),
        notes=tuple(life.notes),
    )


@dataclass
class Life:
    """One run of one scenario, while it lasts."""

    scenario: Scenario
    cluster: Cluster
    options: Options
    alone: bool
    stages: list[Stage] = field(default_factory=list)
    evidence: list[Path] = field(default_factory=list)
    unclaimed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _there: list[str] = field(default_factory=list)  # pods that were made and not deleted since

    def __post_init__(self) -> None:
        facts = self.cluster.facts
        self.namespace = f"genie-{self.scenario.name[:40].rstrip('-')}-{secrets.token_hex(3)}"
        self.objects = Objects(self.cluster.api())
        names = mirrored(self.scenario, facts.nodes)
        self.pods = Pods(objects=self.objects, namespace=self.namespace, names=names)
        self.ledger = leaks.Ledger(cluster=self.cluster, namespace=self.namespace, alone=self.alone)
        named = dict(zip(self.scenario.networks, networks_of(self.scenario, facts), strict=True))
        networks = {name: subnets(facts.offers[here].subnets) for name, here in named.items()}
        own = {name: subnets(texts) for name, texts in self.scenario.spec.own_networks.items()}
        self.values = {"namespace": self.namespace, "scenario": self.scenario.name}
        self.values |= {f"subnet.{name}": str(found[0]) for name, found in networks.items() if found}
        self.view = View(
            cluster=self.cluster,
            objects=self.objects,
            namespace=self.namespace,
            networks={**networks, **own},
            leftovers=self.ledger,
            values=self.values,
            hurry=self.options.hurry,
            names=names,
        )

    # --- from birth to death

    def live(self) -> None:
        """All of it."""
        try:
            with ExitStack() as around:
                if self._stage("prepare", lambda: self._prepare(around)):
                    self._steps(self.scenario.steps)
                if self._failed():
                    self._stage("collect evidence", self._collect)
                if not self.options.keep:
                    self._delete()
        finally:
            if self.options.keep:
                self._say_what_is_kept()
            else:
                self._stage("remove the namespace", self._bury)

    def _prepare(self, around: ExitStack) -> None:
        self.ledger.open()
        if self.scenario.spec.genie:
            around.enter_context(self._settings(self.scenario.spec.genie))
        if self.scenario.spec.net_d:
            files = self._filled(self.scenario.spec.net_d)
            around.enter_context(cast("TakesFiles", self.cluster).net_d(files))
        metadata = {"name": self.namespace, "labels": OF_SCENARIOS}
        self.objects.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        for thing in self.scenario.spec.objects:
            self.objects.create(self._filled(thing), self.namespace)

    def _delete(self) -> None:
        """The pods go, and what must hold then."""
        there = list(dict.fromkeys(self._there))
        if there and not self._stage(f"delete {', '.join(there)}", partial(self._delete_pods, there)):
            return
        if self.scenario.after_delete:
            self._check("after delete", self.scenario.after_delete)
        self.unclaimed = self.ledger.unclaimed()

    def _bury(self) -> None:
        """Remove the namespace, and before it what an API server without controllers would leave in it."""
        for thing in self.scenario.spec.objects:
            self.objects.delete(self.objects.path(self._filled(thing), self.namespace))
        self._remove_static(self.pods.names)
        if there := list(self.pods.listed()):
            self.pods.delete(there, force=True)
        self.objects.delete(f"/api/v1/namespaces/{self.namespace}")

    def _collect(self) -> None:
        into = self.options.report / "evidence" / self.scenario.name
        self.evidence = diagnose.collect(self.view, list(dict.fromkeys(self._there)), into)

    def _say_what_is_kept(self) -> None:
        self.notes.append(f"kept: namespace {self.namespace} with {', '.join(dict.fromkeys(self._there)) or 'no pod'}")

    def _failed(self) -> bool:
        return any(stage.failures for stage in self.stages)

    # --- steps

    def _steps(self, steps: tuple[Step, ...]) -> bool:
        """Take steps until one fails; whether all went well."""
        return all(self._step(step) for step in steps)

    def _step(self, step: Step) -> bool:
        if isinstance(step, Expect):
            return self._check("expect", step.checks)
        if isinstance(step, Around):
            return self._within(step)
        name, action = self._action(step)
        return self._stage(name, action)

    def _action(self, step: Step) -> tuple[str, Callable[[], None]]:
        """What a step is called in reports, and what it does."""
        action: tuple[str, Callable[[], None]]
        match step:
            case Create(pods=names):
                action = f"create {', '.join(names)}", partial(self._create, names)
            case Delete(pods=names):
                action = f"delete {', '.join(names)}", partial(self._delete_pods, names)
            case Recreate(pods=names, force=force):
                action = f"recreate {', '.join(names)}", partial(self._recreate, names, force)
            case EndSandbox(pods=names):
                action = f"end the sandbox of {', '.join(names)}", partial(self._end_sandboxes, names)
            case LoseSandbox(pods=names):
                action = f"lose a sandbox of {', '.join(names)}", partial(self._lose_sandboxes, names)
            case CollectGarbage():
                action = "collect garbage", self._collect_garbage
            case Tamper(pod=name, interface=interface, remove=what):
                action = f"remove {what} of {name}'s {interface}", partial(self._tamper, step)
            case Annotate(pod=name):
                action = f"annotate {name}", partial(self._annotate, step)
            case Apply(objects=things):
                action = f"apply {_named(things)}", partial(self._apply, things)
            case Remove(objects=things):
                action = f"remove {_named(things)}", partial(self._remove, things)
            case _:
                raise NotImplementedError(step.key)
        return action

    def _within(self, step: Around) -> bool:
        """Steps in a state that is entered before and left after them."""
        name, state = self._state(step)
        with ExitStack() as around:
            if not self._stage(name, lambda: around.enter_context(state)):
                return False
            went_well = self._steps(step.steps)
            return self._stage(f"end: {name}", around.close) and went_well

    def _state(self, step: Around) -> tuple[str, Any]:
        match step:
            case WithApiServerAway():
                return "take the API server away", self._api_server_away()
            case WithSettings(genie=keys):
                return f"set {', '.join(keys)} in genie.conf", self._settings(keys)
            case WithRestart(of=what):
                return f"restart {what}", self._restarted(what)
            case WithRollingUpdate():
                return "update genie's agents", cast("Updates", self.cluster).rolling_update()
            case WithDefinitionAway(name=name):
                return f"take {name} away", self._definition_away(name)
        raise NotImplementedError(step.key)

    def _settings(self, keys: Mapping[str, Any]) -> AbstractContextManager[None]:
        if APART in self.cluster.facts.features:
            return cast("KeepsApart", self.cluster).settings(keys, self.namespace)
        return self.cluster.settings(keys)

    def _api_server_away(self) -> AbstractContextManager[None]:
        if APART in self.cluster.facts.features:
            return cast("KeepsApart", self.cluster).api_server_away(self.namespace)
        return self.cluster.api_server_away()

    @contextmanager
    def _restarted(self, what: str) -> Iterator[None]:
        cluster = cast("CanRestart", self.cluster)
        for node in self.cluster.facts.nodes:
            cluster.restart(what, node)
        yield
        cluster.settle()

    @contextmanager
    def _definition_away(self, name: str) -> Iterator[None]:
        """The definition goes, and comes back as it was; the objects of its kind do not."""
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        before = self.objects.get(path)
        metadata, spec = before["metadata"], before["spec"]
        known = {key: metadata[key] for key in ("name", "labels", "annotations") if key in metadata}
        served = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
        self.objects.delete(path)
        wait_until(lambda: self.objects.find(served) is None, f"{name} to be gone")
        try:
            yield
        finally:
            self.objects.create({**before, "metadata": known, "status": {}})
            wait_until(lambda: self.objects.find(served) is not None, f"{name} to be back")

    def _create(self, names: tuple[str, ...]) -> None:
        nodes = place(self.scenario, self.cluster.facts.nodes)
        self._there += names
        for name in names:
            pod = manifest(
                name,
                self.scenario.pods[name],
                node=nodes[name],
                image=self.cluster.facts.image,
                fill=lambda text: fill(text, self.values),
            )
            if self.scenario.pods[name].static:
                cast("TakesFiles", self.cluster).static_pod(nodes[name], *self._static(name, pod))
            else:
                self.pods.create([pod])
        self.pods.wait_running([name for name in names if name not in self.scenario.failing])
        ips = [each["ip"] for name, pod in self.pods.listed().items() for each in pod["status"].get("podIPs") or []]
        self.ledger.note(ips)

    def _static(self, name: str, pod: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The file of a static pod, and what is in it."""
        own = {**pod["metadata"], "namespace": self.namespace}
        spec = {key: value for key, value in pod["spec"].items() if key != "nodeName"}
        return f"{self.namespace}-{name}", {**pod, "metadata": own, "spec": spec}

    def _remove_static(self, names: Iterable[str]) -> None:
        nodes = place(self.scenario, self.cluster.facts.nodes)
        for name in names:
            cast("TakesFiles", self.cluster).static_pod(nodes[name], f"{self.namespace}-{name}", None)

    def _delete_pods(self, names: list[str] | tuple[str, ...], force: bool = False) -> None:
        self._remove_static(name for name in names if self.scenario.pods[name].static)
        self.pods.delete((name for name in names if not self.scenario.pods[name].static), force=force)
        self.pods.wait_gone(names)
        self._there = [name for name in self._there if name not in names]

    def _recreate(self, names: tuple[str, ...], force: bool) -> None:
        self._delete_pods(names, force)
        self._create(names)

    def _end_sandboxes(self, names: tuple[str, ...]) -> None:
        for name in names:
            self.cluster.end_sandbox(self.namespace, self.view.name(name))

    def _lose_sandboxes(self, names: tuple[str, ...]) -> None:
        for name in names:
            cast("LosesSandboxes", self.cluster).lose_sandbox(self.namespace, self.view.name(name))

    def _collect_garbage(self) -> None:
        for node in self.cluster.facts.nodes:
            cast("LosesSandboxes", self.cluster).collect_garbage(node)

    def _tamper(self, step: Tamper) -> None:
        cast("Tampers", self.cluster).tamper(self.namespace, self.view.name(step.pod), step.interface, step.remove)

    def _annotate(self, step: Annotate) -> None:
        changes = {key: value and fill(value, self.values) for key, value in step.annotations.items()}
        self.objects.patch(f"{self.pods.path}/{self.view.name(step.pod)}", {"metadata": {"annotations": changes}})

    def _apply(self, things: tuple[dict[str, Any], ...]) -> None:
        for thing in things:
            self.objects.create(self._filled(thing), self.namespace)

    def _remove(self, things: tuple[dict[str, Any], ...]) -> None:
        for thing in things:
            self.objects.delete(self.objects.path(self._filled(thing), self.namespace))

    def _filled(self, value: Any) -> Any:
        """A value with every `{{ … }}` in its texts filled in."""
        if isinstance(value, str):
            return fill(value, self.values)
        if isinstance(value, Mapping):
            return {key: self._filled(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._filled(item) for item in value]
        return value

    # --- bookkeeping

    def _stage(self, name: str, action: Callable[[], object]) -> bool:
        """Do something that takes time and can fail, and write down how it went; whether it went well."""
        from harness.backends import ProbeError

        begin, failure = time.monotonic(), ""
        try:
            action()
        except (NotAsWanted, ApiError, ProbeError, CniFailure) as error:
            failure = str(error)
        except Exception as error:  # a backend's own trouble is this scenario's failure, not the whole run's end
            failure = _traced(error)
        self.stages.append(Stage(name=name, seconds=time.monotonic() - begin, failure=failure))
        return not failure

    def _check(self, name: str, checks: tuple[Check, ...]) -> bool:
        begin, findings = time.monotonic(), list[Finding]()
        for check in checks:
            began = time.monotonic()
            failed = any(finding.failure for finding in findings)
            view = self.view if not failed else _impatient(self.view)
            try:
                failure = check.run(view) or ""
            except ApiError as error:
                failure = str(error)
            except Exception as error:
                failure = _traced(error)
            findings.append(Finding(check=str(check), seconds=time.monotonic() - began, failure=failure))
        self.stages.append(Stage(name=name, seconds=time.monotonic() - begin, findings=tuple(findings)))
        return not any(finding.failure for finding in findings)


def _impatient(view: View) -> View:
    from dataclasses import replace

    return replace(view, hurry=0.0)


def _traced(error: Exception) -> str:
    import traceback

    return "the harness or its backend failed:\n" + "".join(traceback.format_exception(error)).rstrip()


def _named(things: tuple[dict[str, Any], ...]) -> str:
    return ", ".join(f"{thing['kind']} {thing['metadata']['name']}" for thing in things)
