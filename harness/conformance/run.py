"""Runs each check with each of its versions, in a separate process on a separate machine."""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from harness.conformance import machine
from harness.conformance.checks import CHECKS, interrupted, load
from harness.conformance.checks.base import Check
from harness.conformance.findings import Verdict
from harness.conformance.scene import Blocked, Broken, Scene, Skipped
from harness.conformance.spec import is_in
from harness.conformance.subject import Subject

LIMIT = 180.0  # seconds for a check with one version


@dataclass(kw_only=True)
class Trial:
    """A check with one version."""

    version: str
    verdict: Verdict
    reason: str = ""
    findings: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    calls: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Checked:
    """A check with all its versions."""

    check: Check
    trials: list[Trial]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the versions."""
        order = (Verdict.FAILED, Verdict.BROKEN, Verdict.FLAKY, Verdict.WARNED, Verdict.BLOCKED, Verdict.PASSED)
        found = {trial.verdict for trial in self.trials}
        return next((verdict for verdict in order if verdict in found), Verdict.SKIPPED)


def run(
    subject: Subject,
    only: Sequence[str] = (),
    rounds: int = 200,
    done: Callable[[Checked], None] = lambda _: None,
    *,
    again: int = 1,
    alone: bool = False,
    jobs: int = 0,
    kills: int = 40,
) -> list[Checked]:
    """Run all checks, several at once, each after the checks that it depends on.

    only: names, or prefixes of names; checks that they depend on run, too, but are not reported.
    rounds: rounds of ADD and DEL, to find occasional failures.
    done: called with each check, in the order of a report.
    again: how often to run a failed check again, to see whether it always fails.
    alone: without the checks that they depend on, which then block nothing.
    kills: at how many of its system calls a call is killed, at most.
    jobs: how many at once; 0: as many as there are processors.
    """
    load.ROUNDS, interrupted.MOMENTS = rounds, kills
    wanted = {check.name for check in CHECKS if not only or check.name.startswith(tuple(only))}
    plan = Plan(subject, _with_needed(wanted, alone=alone), again)
    return _carried_out(plan, subject, wanted, jobs, done)


def _carried_out(
    plan: Plan, subject: Subject, wanted: set[str], jobs: int, done: Callable[[Checked], None] = lambda _: None
) -> list[Checked]:
    """The wanted checks of a plan, in the order of a report."""
    reported = [check for check in CHECKS if check.name in wanted]
    results: list[Checked] = []
    gc.freeze()  # share existing objects with every check's process, without copies
    with ExitStack() as running:
        pool = Pool(jobs or len(os.sched_getaffinity(0)), running)
        while True:
            while len(results) < len(reported) and (result := plan.result(reported[len(results)])):
                results.append(result)
                done(result)
            if len(results) == len(reported):
                return results
            for job in plan.ready():
                if not pool.is_full:
                    plan.started(job)
                    pool.start(job, subject)
            if (finished := pool.wait()) is not None:
                plan.finished(*finished)


class Series:
    """Checks that are asked for one at a time; what they build on is made once."""

    def __init__(self, subject: Subject, rounds: int = 200) -> None:
        load.ROUNDS = rounds
        self._subject = subject
        self._known: dict[Key, Trial] = {}

    def check(self, name: str) -> Checked:
        """A check by its name, after what it builds on; those of its batch are made with it."""
        batch = next(check.batch for check in CHECKS if check.name == name)
        wanted = {check.name for check in CHECKS if check.name == name or (batch and check.batch == batch)}
        plan = Plan(self._subject, _with_needed(wanted, alone=False), 1, self._known)
        results = _carried_out(plan, self._subject, wanted, jobs=0)
        self._known = plan.decided
        return next(result for result in results if result.check.name == name)


def _with_needed(wanted: set[str], *, alone: bool) -> list[Check]:
    by_name = {check.name: check for check in CHECKS}
    todo, found = list(wanted), set[str]()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += () if alone else by_name[name].after
    return [check for check in CHECKS if check.name in found]


@dataclass(frozen=True)
class Job:
    """Checks to run on one machine, with one version."""

    checks: tuple[Check, ...]
    version: str
    warned: frozenset[str] = frozenset()  # earlier checks with warnings, which need not be repeated


Key = tuple[str, str]  # a check's name, a version


class Plan:
    """The waiting jobs, the running jobs, and the results."""

    def __init__(
        self, subject: Subject, checks: Sequence[Check], again: int, known: Mapping[Key, Trial] | None = None
    ) -> None:
        self._subject, self._again = subject, again
        self._versions: dict[str, list[str]] = {check.name: versions_of(check, subject) for check in checks}
        self._checks = checks
        self._begun: set[Key] = set()
        self._found: dict[Key, list[Trial]] = {}  # every run of a check
        self.decided: dict[Key, Trial] = dict(known or {})
        self._by_warning: set[Key] = set()  # blocked by a warning alone
        self._decide()

    def ready(self) -> list[Job]:
        """The jobs that can start now, the longest first."""
        found: dict[tuple[str, str], Job] = {}
        warned = [key for key, trial in self.decided.items() if trial.verdict == Verdict.WARNED]
        for check, version in self._open():
            key = (check.name, version)
            if key not in self._begun and self._blocked(check, version) == "":
                alone = key in self._found or not check.batch or self._subject.is_exclusive
                together = (check,) if alone else self._batch(check.batch, version)
                job = Job(together, version, frozenset(name for name, at in warned if at == version))
                found.setdefault((check.name if alone else check.batch, version), job)
        return sorted(found.values(), key=lambda job: all(check.repeat for check in job.checks))

    def started(self, job: Job) -> None:
        self._begun |= {(check.name, job.version) for check in job.checks}

    def finished(self, job: Job, trials: Sequence[Trial]) -> None:
        for check, trial in zip(job.checks, trials, strict=True):
            key = (check.name, job.version)
            tries = self._found.setdefault(key, [])
            tries.append(trial)
            if check.repeat and len(tries) <= self._again and _failed(trial):
                self._begun.discard(key)  # once more
        self._decide()

    def result(self, check: Check) -> Checked | None:
        """A check with all its versions, as soon as all are decided."""
        if reason := _not_for(check, self._subject):
            return Checked(check=check, trials=[Trial(version="", verdict=Verdict.SKIPPED, reason=reason)])
        if not (versions := self._versions[check.name]):
            reason = f"the plugin claims no version from {check.since} to {check.until}"
            return Checked(check=check, trials=[Trial(version="", verdict=Verdict.SKIPPED, reason=reason)])
        trials = [self.decided.get((check.name, version)) for version in versions]
        return Checked(check=check, trials=[each for each in trials if each]) if all(trials) else None

    def _open(self) -> Iterator[tuple[Check, str]]:
        for check in self._checks:
            for version in self._versions[check.name]:
                if (check.name, version) not in self.decided:
                    yield check, version

    def _batch(self, name: str, version: str) -> tuple[Check, ...]:
        return tuple(each for each in self._checks if each.batch == name and version in self._versions[each.name])

    def _blocked(self, check: Check, version: str) -> str | None:
        """Why a check cannot run; empty if it can, None while this is unknown.

        A warning blocks only what is a recommendation, too: it never hides a violation of a demand.
        """
        needed = [(name, version) for name in check.after if version in self._versions.get(name, ())]
        known = [key for key in needed if key in self.decided]
        mild = [key for key in known if self._is_mild(key)]
        if hard := [key for key in known if key not in mild and self.decided[key].verdict in _IN_THE_WAY]:
            return f"{hard[0][0]} {self.decided[hard[0]].verdict}"
        if len(known) < len(needed):
            return None
        if mild and check.should:
            self._by_warning.add((check.name, version))
            return f"{mild[0][0]} {self.decided[mild[0]].verdict}"
        return ""

    def _is_mild(self, key: Key) -> bool:
        """Whether a check has nothing worse than a warning, or is blocked by one."""
        return key in self._by_warning or self.decided[key].verdict == Verdict.WARNED

    def _decide(self) -> None:
        """Decide verdicts as long as all their dependencies are known."""
        more = True
        while more:
            more = False
            for check, version in list(self._open()):
                key = (check.name, version)
                if (reason := self._blocked(check, version)) is None:
                    continue
                if reason:
                    self.decided[key] = Trial(version=version, verdict=Verdict.BLOCKED, reason=reason)
                elif key in self._found and key in self._begun:
                    self.decided[key] = _verdict(self._found[key])
                more = more or key in self.decided


_IN_THE_WAY = (Verdict.FAILED, Verdict.BLOCKED, Verdict.BROKEN)


def _failed(trial: Trial) -> bool:
    return trial.verdict in (Verdict.FAILED, Verdict.WARNED, Verdict.BLOCKED)


def _verdict(tries: Sequence[Trial]) -> Trial:
    """The verdict of a check that ran several times because it failed."""
    first = tries[0]
    if len(tries) == 1 or all(_failed(trial) for trial in tries):
        return tries[-1]  # the run without other checks, which has the shorter script
    reason = f"failed once, passed when run again: {_headline(first)}"
    return Trial(version=first.version, verdict=Verdict.FLAKY, reason=reason, seconds=first.seconds)


def versions_of(check: Check, subject: Subject) -> list[str]:
    """The versions for a check; empty if it does not apply."""
    if _not_for(check, subject):
        return []
    versions = [version for version in subject.versions if is_in(version, check.since, check.until)]
    return (
        versions
        if check.each
        else list(dict.fromkeys([*versions[:1], *versions[-1:]]))
        if check.ends
        else versions[-1:]
    )


#: Keys of a configuration that turn a verb off, with the prefix of its checks.
_OFF = {"disableCheck": "check-", "disableGC": "gc-"}


def _not_for(check: Check, subject: Subject) -> str:
    """Why a check does not apply."""
    if check.feature and check.feature not in subject.features:
        return f"not claimed: {check.feature}"
    for key, prefix in _OFF.items():
        if check.name.startswith(prefix) and subject.network.get(key) is True:
            return f"{key} in the configuration: no runtime calls {prefix.rstrip('-').upper()}"
    if subject.assigns and not (check.ipam if check.ipam is not None else not check.first):
        return "an ipam plugin makes no interface"
    if check.several and subject.is_exclusive:
        return f"only one container at a time can have the device of {subject.type}"
    if check.first and subject.adjusts and not subject.assigns:
        return "the plugin adjusts an interface that is there already"
    return ""


def _headline(trial: Trial) -> str:
    return str(trial.findings[0]["headline"]) if trial.findings else trial.reason


class Pool:
    """A pool of processes that run checks."""

    def __init__(self, size: int, stack: ExitStack) -> None:
        self._size, self._running = size, dict[int, _Running]()
        self._poll = select.poll()
        stack.callback(self._end)

    @property
    def is_full(self) -> bool:
        return len(self._running) >= self._size

    def start(self, job: Job, subject: Subject) -> None:
        """Run checks in a separate process."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            _in_child(job, subject, write)
        os.close(write)
        self._running[read] = _Running(job=job, process=child, began=time.monotonic())
        self._poll.register(read, select.POLLIN | select.POLLHUP)

    def wait(self) -> tuple[Job, list[Trial]] | None:
        """The findings of one of them; None if only a part has arrived."""
        first = min(each.began for each in self._running.values()) + LIMIT
        ready = self._poll.poll(max(0.0, first - time.monotonic()) * 1000)
        if not ready:
            late = min(self._running, key=lambda fd: self._running[fd].began)
            return self._ended(late, f"not done within {LIMIT:g} s")
        if chunk := os.read(ready[0][0], 1 << 16):
            self._running[ready[0][0]].content += chunk
            return None
        return self._ended(ready[0][0], "")

    def _ended(self, fd: int, late: str) -> tuple[Job, list[Trial]]:
        each = self._running.pop(fd)
        self._poll.unregister(fd)
        os.close(fd)
        if late:
            os.kill(each.process, signal.SIGKILL)
        os.waitpid(each.process, 0)
        return each.job, _trials(each, late)

    def _end(self) -> None:
        """Kill the processes of an interrupted run."""
        for fd in list(self._running):
            self._ended(fd, "broken off")


@dataclass(kw_only=True)
class _Running:
    """A process that runs checks."""

    job: Job
    process: int
    began: float
    content: bytes = b""


def _trials(each: _Running, late: str) -> list[Trial]:
    seconds = round((time.monotonic() - each.began) / len(each.job.checks), 3)
    version = each.job.version
    reason = late or "the check's process died"
    with suppress(ValueError):
        return [
            Trial(**{**found, "version": version, "verdict": Verdict(found["verdict"]), "seconds": seconds})
            for found in json.loads(b"" if late else each.content)
        ]
    return [Trial(version=version, verdict=Verdict.BROKEN, reason=reason, seconds=seconds) for _ in each.job.checks]


def _in_child(job: Job, subject: Subject, pipe: int) -> None:
    """Run the checks in the new process, write their findings into the pipe, and exit."""
    checks = job.checks
    try:
        needed = sorted({binary.parent for binary in subject.binaries.values()})
        machine.begin(subject.masters, needed)
        for path, text in subject.files.items():
            machine.provide(path, text)
        for daemon in subject.daemons:
            machine.start(daemon)
        scene = Scene(subject, job.version, job.warned)
        found = [_found(check, scene) for check in checks]
    except machine.NoMachine as error:
        found = [{"verdict": Verdict.BROKEN, "reason": str(error)}] * len(checks)
    except BaseException:
        found = [_mistaken()] * len(checks)
    with os.fdopen(pipe, "wb") as file:
        file.write(json.dumps(found).encode())
    os._exit(0)


def _mistaken() -> dict[str, Any]:
    return {"verdict": Verdict.BROKEN, "reason": f"the check itself failed: {traceback.format_exc()}"}


def _found(check: Check, scene: Scene) -> dict[str, Any]:
    """The findings of one check; the scene may be shared with other checks."""
    scene.section, scene.findings, scene.notes, scene.seconds, scene.changes = check.section, [], [], {}, {}
    scene.should = check.should
    verdict, reason = Verdict.PASSED, ""
    try:
        check.run(scene)
    except Blocked as error:
        verdict, reason = Verdict.BLOCKED, str(error)
    except Skipped as error:
        verdict, reason = Verdict.SKIPPED, str(error)
    except Broken as error:
        verdict, reason = Verdict.BROKEN, str(error)
    except Exception:
        return _mistaken()
    if scene.findings:
        verdict = Verdict.WARNED if all(finding.should for finding in scene.findings) else Verdict.FAILED
    findings = [finding.as_json() for finding in scene.findings]
    return {"verdict": verdict, "reason": reason, "findings": findings, "calls": scene.seconds, "notes": scene.notes}
