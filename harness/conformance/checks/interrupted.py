"""ADD and DEL that are killed half-way."""

from __future__ import annotations

from harness.conformance.checks.base import check
from harness.conformance.checks.delete import CLEAN, expect_nothing_left, used
from harness.conformance.checks.life import settled
from harness.conformance.findings import Fault
from harness.conformance.scene import Attachment, Scene, Skipped
from harness.conformance.spec import DEL
from harness.conformance.trace import NoTracing

MOMENTS = 40  # moments per call; others are skipped


def _moments(scene: Scene, verb: str, attachment: Attachment) -> list[int]:
    """The numbers of system calls after which to kill, from a call that ran to its end."""
    try:
        changes = scene.interrupted(verb, attachment, 0).changes
    except NoTracing as error:
        raise Skipped(str(error)) from error
    step = max(1, -(-changes // MOMENTS))
    return list(range(1, changes + 1, step))


@check(
    "add-killed",
    "An ADD that is killed at any of its system calls leaves nothing once DEL was called.",
    DEL,
    after=("del-without-prevresult", "del-before-add", "del-leaves-nothing"),
    repeat=False,
    should=True,
)
def add_killed(scene: Scene) -> None:
    before = used(scene)
    whole = scene.container()
    scene.prepare(whole)
    moments = _moments(scene, "ADD", whole)
    scene.delete(whole)
    killed = 0
    for moment in moments:
        attachment = scene.container()
        scene.prepare(attachment)
        traced = scene.interrupted("ADD", attachment, moment)
        if not traced.killed or scene.is_late:
            break  # this time it made fewer system calls, or the time is over
        _expect_deleted(
            scene, attachment, f"of an ADD that was killed after {traced.killed} ({moment} of {moments[-1]})"
        )
        expect_nothing_left(
            scene, before, attachment, when=f"after an ADD that was killed at {traced.killed}, and its DEL"
        )
        if _is_enough(scene):
            return
        before = scene.snapshot() if scene.findings else before
        killed += 1
    scene.notes.append(f"killed at {killed} of {len(moments)} moments")


@check(
    "del-killed",
    "A DEL that is killed at any of its system calls leaves nothing once it was called again.",
    DEL,
    after=("del-twice", "del-leaves-nothing"),
    repeat=False,
    should=True,
)
def del_killed(scene: Scene) -> None:
    before = used(scene)
    moments = _moments(scene, "DEL", scene.added(scene.container()))
    killed = 0
    for moment in moments:
        attachment = scene.added(scene.container())
        traced = scene.interrupted("DEL", attachment, moment)
        if not traced.killed or scene.is_late:
            scene.finish(attachment)
            break
        _expect_deleted(
            scene, attachment, f"after a DEL that was killed after {traced.killed} ({moment} of {moments[-1]})"
        )
        expect_nothing_left(
            scene, before, attachment, when=f"after a DEL that was killed at {traced.killed}, and another"
        )
        if _is_enough(scene):
            return
        before = scene.snapshot() if scene.findings else before
        killed += 1
    scene.notes.append(f"killed at {killed} of {len(moments)} moments")


def _is_enough(scene: Scene) -> bool:
    """Whether to end the sweep: after a finding about the plugin, but not after one about another component."""
    del scene.findings[2:]
    if len(scene.findings) == 2 and scene.findings[1].fault is scene.findings[0].fault is Fault.IPAM:
        del scene.findings[1]
    return any(finding.fault is Fault.PLUGIN for finding in scene.findings)


def _expect_deleted(scene: Scene, attachment: Attachment, which: str) -> None:
    outcome = scene.delete(attachment)
    demand = "Whatever became of ADD, DEL follows; it succeeds and releases all there is."
    scene.expect(outcome.ok, f"DEL {which} fails: {outcome.message}", demand, outcome)

    def left() -> list[str]:
        link = scene.inside(attachment).link("eth0")
        return ["eth0"] if link and not scene.subject.adjusts else []

    scene.expect(not settled(left), f"eth0 is in the container after DEL {which}", CLEAN, outcome)
