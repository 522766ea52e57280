"""What a plugin does, seen in one ADD and DEL on a machine of its own: what its author need not be asked."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.conformance.call import Call, Outcome, run
from harness.conformance.checks.base import Check
from harness.conformance.results import parse
from harness.conformance.run import Job, Pool
from harness.conformance.scene import Scene
from harness.conformance.spec import ADD
from harness.conformance.subject import Subject, Unusable

_SECONDS = 10.0  # that VERSION may take; a plugin answers in milliseconds


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What came of the ADD."""

    failure: str = ""  # why nothing was seen
    default_route: bool = False
    addresses: tuple[str, ...] = ()
    stays: tuple[str, ...] = ()  # interfaces of the host that are there after DEL, too


def versions(plugin: Path) -> tuple[str, ...]:
    """The versions of the specification that a plugin supports; none if it is older than the verb VERSION.

    Raises Unusable: it is no plugin.
    """
    if not plugin.is_file():
        raise Unusable(f"{plugin}: expected a plugin's executable")
    env = {"CNI_COMMAND": "VERSION", "CNI_PATH": str(plugin.parent)}
    try:
        outcome = run(Call(binary=str(plugin.absolute()), env=env, stdin=b'{"cniVersion": "1.0.0"}'), _SECONDS)
    except PermissionError:
        raise Unusable(f"{plugin}: expected an executable: chmod +x {plugin}") from None
    listed = outcome.object.get("supportedVersions")
    if isinstance(listed, list) and listed and all(isinstance(each, str) for each in listed):
        return tuple(listed)
    if outcome.code is not None and isinstance(outcome.object.get("msg"), str):
        return ()
    raise Unusable(f"{plugin}: expected a CNI plugin, but it does not answer VERSION: {_answer(outcome)}")


def _answer(outcome: Outcome) -> str:
    if outcome.late:
        return f"nothing within {_SECONDS:g} s"
    return outcome.message[:200]


def look(subject: Subject) -> Seen:
    """Attach a container and detach it again, with the newest version."""
    if not subject.versions:
        return Seen(failure="it supports no version that is known here")
    with ExitStack() as stack:
        pool = Pool(1, stack)
        check = Check(name="look", sentence="", section=ADD, run=_tried)
        pool.start(Job((check,), subject.versions[-1]), subject)
        while (ended := pool.wait()) is None:
            pass
        [trial] = ended[1]
    if not trial.notes:
        return Seen(failure=trial.reason.strip().splitlines()[-1] if trial.reason else "it cannot be run here")
    found: dict[str, Any] = json.loads(trial.notes[0])
    return Seen(default_route=found["default_route"], addresses=tuple(found["addresses"]), stays=tuple(found["stays"]))


def _tried(scene: Scene) -> None:
    before = {link.name for link in scene.snapshot().kernel.links}
    attachment = scene.added(scene.container())
    inside = scene.inside(attachment)
    addresses = [ip.cidr for ip in parse(attachment.result or {}).ips if ip.cidr]
    scene.delete(attachment)
    left = sorted({link.name for link in scene.snapshot().kernel.links} - before)
    routed = any(route.dst.endswith("/0") for route in inside.routes)
    scene.notes.append(json.dumps({"default_route": routed, "addresses": addresses, "stays": left}))
