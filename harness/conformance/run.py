"""A run: each check with each version that it is for, in a process and on a machine of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from harness.conformance import machine
from harness.conformance.checks import CHECKS, load
from harness.conformance.checks.base import Check
from harness.conformance.findings import Verdict
from harness.conformance.scene import Blocked, Broken, Scene, Skipped
from harness.conformance.spec import is_in
from harness.conformance.subject import Subject

LIMIT = 180.0  # seconds that a check may take with one version


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
        """The worst of the versions'."""
        order = (Verdict.FAILED, Verdict.BROKEN, Verdict.FLAKY, Verdict.BLOCKED, Verdict.PASSED)
        found = {trial.verdict for trial in self.trials}
        return next((verdict for verdict in order if verdict in found), Verdict.SKIPPED)


Batches = dict[tuple[str, str], Trial]  # by check and version


def run(
    subject: Subject,
    only: Sequence[str] = (),
    rounds: int = 200,
    done: Callable[[Checked], None] = lambda _: None,
    *,
    again: int = 2,
    alone: bool = False,
) -> list[Checked]:
    """All checks, in an order in which each comes after those that it builds on.

    Args:
        only: names, or beginnings of names; what they build on runs too, and is not reported.
        rounds: of ADD and DEL, to find what fails now and then.
        done: called with each check as it ends.
        again: how often a check that fails is run again, to see whether it does so each time.
        alone: without what they build on, which then blocks nothing either.
    """
    load.ROUNDS = rounds
    results: dict[str, Checked] = {}
    batches: Batches = {}
    wanted = {check.name for check in CHECKS if not only or check.name.startswith(tuple(only))}
    for check in _ordered(_with_needed(wanted, alone=alone)):
        result = Checked(check=check, trials=_trials(check, subject, results, batches, again=again))
        results[check.name] = result
        if check.name in wanted:
            done(result)
    return [results[check.name] for check in CHECKS if check.name in wanted]


def _with_needed(wanted: set[str], *, alone: bool) -> list[Check]:
    by_name = {check.name: check for check in CHECKS}
    todo, found = list(wanted), set[str]()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += () if alone else by_name[name].after
    return [check for check in CHECKS if check.name in found]


def _ordered(checks: Sequence[Check]) -> Iterator[Check]:
    waiting = list(checks)
    while waiting:
        missing = {each.name for each in waiting}
        check = next(each for each in waiting if missing.isdisjoint(each.after))
        waiting.remove(check)
        yield check


def _trials(check: Check, subject: Subject, results: dict[str, Checked], batches: Batches, again: int) -> list[Trial]:
    if reason := _not_for(check, subject):
        return [Trial(version="", verdict=Verdict.SKIPPED, reason=reason)]
    versions = [version for version in subject.versions if is_in(version, check.since, check.until)]
    if not versions:
        reason = f"the plugin claims no version from {check.since} to {check.until}"
        return [Trial(version="", verdict=Verdict.SKIPPED, reason=reason)]
    return [
        _trial(check, version, subject, results, batches, again=again)
        for version in (versions if check.each else versions[-1:])
    ]


def _not_for(check: Check, subject: Subject) -> str:
    """Why a check does not apply."""
    if check.feature and check.feature not in subject.features:
        return f"not claimed: {check.feature}"
    if check.first and subject.position:
        return "the plugin adjusts what others made"
    return ""


def _trial(
    check: Check, version: str, subject: Subject, results: dict[str, Checked], batches: Batches, *, again: int
) -> Trial:
    for name in check.after:
        for earlier in results[name].trials if name in results else ():
            if earlier.verdict in (Verdict.FAILED, Verdict.BLOCKED, Verdict.BROKEN) and earlier.version == version:
                return Trial(version=version, verdict=Verdict.BLOCKED, reason=f"{name} {earlier.verdict}")
    found = _found_in_batch(check, version, subject, batches)
    if check.repeat and found.verdict in (Verdict.FAILED, Verdict.BLOCKED):
        for _ in range(again):
            [another] = _attempt([check], version, subject)
            if another.verdict not in (Verdict.FAILED, Verdict.BLOCKED):
                notes = [f"failed once, passed when run again: {_headline(found)}"]
                return Trial(version=version, verdict=Verdict.FLAKY, reason=notes[0], seconds=found.seconds)
    return found


def _found_in_batch(check: Check, version: str, subject: Subject, batches: Batches) -> Trial:
    """A check's trial; with the first of a batch, all of the batch run."""
    if (check.name, version) not in batches:
        together = [each for each in CHECKS if each.batch == check.batch and _is_for(each, version, subject)]
        together = together if check.batch else [check]
        batches.update(
            {
                (each.name, version): trial
                for each, trial in zip(together, _attempt(together, version, subject), strict=True)
            }
        )
    return batches[check.name, version]


def _is_for(check: Check, version: str, subject: Subject) -> bool:
    if _not_for(check, subject) or not is_in(version, check.since, check.until):
        return False
    return check.each or version == subject.versions[-1]


def _headline(trial: Trial) -> str:
    return str(trial.findings[0]["headline"]) if trial.findings else trial.reason


def _attempt(checks: Sequence[Check], version: str, subject: Subject) -> list[Trial]:
    """Run checks on one machine, in a process of its own."""
    began = time.monotonic()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _in_child(checks, version, subject, write)
    os.close(write)
    content = _read(read, began + LIMIT)
    if content is None:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    seconds = round((time.monotonic() - began) / len(checks), 3)
    if content is None:
        reason = f"not done within {LIMIT:g} s"
    else:
        with suppress(ValueError):
            found = json.loads(content)
            return [
                Trial(**{**each, "version": version, "verdict": Verdict(each["verdict"]), "seconds": seconds})
                for each in found
            ]
        reason = "the check's process died"
    return [Trial(version=version, verdict=Verdict.BROKEN, reason=reason, seconds=seconds) for _ in checks]


def _read(fd: int, until: float) -> bytes | None:
    """All that comes until the other end closes; None if it takes too long."""
    chunks: list[bytes] = []
    with os.fdopen(fd, "rb", buffering=0) as pipe:
        while True:
            ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            if not (chunk := pipe.read(1 << 16)):
                return b"".join(chunks)
            chunks.append(chunk)


def _in_child(checks: Sequence[Check], version: str, subject: Subject, pipe: int) -> None:
    """The rest of a process's life: the checks, and what they found into the pipe."""
    try:
        needed = sorted({binary.parent for binary in subject.binaries.values()})
        machine.begin(subject.masters, needed)
        scene = Scene(subject, version)
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
    """What one check finds; the scene may be one that others have used."""
    scene.section, scene.findings, scene.notes, scene.seconds = check.section, [], [], {}
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
        verdict = Verdict.FAILED
    findings = [finding.as_json() for finding in scene.findings]
    return {"verdict": verdict, "reason": reason, "findings": findings, "calls": scene.seconds, "notes": scene.notes}
