"""DEL."""

from __future__ import annotations

from harness.conformance import leftovers
from harness.conformance.checks.base import check
from harness.conformance.findings import Fault
from harness.conformance.machine import Snapshot
from harness.conformance.scene import Attachment, Scene
from harness.conformance.spec import DEL

CLEAN = "DEL undoes whatever ADD did."


@check("del-succeeds", "DEL of an attachment succeeds.", DEL, each=True)
def succeeds(scene: Scene) -> None:
    attachment = scene.added(scene.container())
    outcome = scene.delete(attachment)
    scene.expect(outcome.ok, f"DEL fails: {outcome.message}", "DEL completes without an error.", outcome)


@check("del-prints-nothing", "DEL that succeeds prints nothing on standard output.", DEL, after=("del-succeeds",))
def prints_nothing(scene: Scene) -> None:
    attachment = scene.added(scene.container())
    outcome = scene.delete(attachment)
    text = outcome.stdout.decode(errors="replace").strip()
    if outcome.ok:
        scene.expect(not text, f"DEL prints {text[:80]!r}", "Only ADD and VERSION have output on success.", outcome)


@check(
    "del-removes-interface",
    "DEL removes the container's interface.",
    DEL,
    first=True,
    each=True,
    after=("del-succeeds", "add-makes-interface"),
)
def removes(scene: Scene) -> None:
    attachment = scene.added(scene.container())
    before = {link.name for link in scene.inside(scene.container()).links}
    scene.deleted(attachment)
    for link in scene.inside(attachment).links:
        scene.expect(link.name in before, f"{link.name} is in the container after DEL", CLEAN, look="ip -n c1 link")


def used(scene: Scene) -> Snapshot:
    """The machine after a first attachment has come and gone: what stays by design is there."""
    scene.deleted(scene.added(scene.container()))
    return scene.snapshot()


def words(attachment: Attachment) -> list[str]:
    """What a file says that is about an attachment."""
    return [attachment.container]


def expect_nothing_left(scene: Scene, before: Snapshot, attachment: Attachment, when: str, look: str = "") -> None:
    """Note what an attachment left on the machine."""
    for what in leftovers.left(before, scene.snapshot(), words(attachment)):
        in_store = what.startswith("the file /var/lib/cni/networks/")
        fault = Fault.IPAM if in_store and scene.subject.ipam == "host-local" else Fault.PLUGIN
        show = look or "ip link; ip route; ls -R /var/lib/cni; ps ax"
        scene.expect(False, f"{what} is left {when}", CLEAN, fault=fault, look=show)


@check(
    "del-leaves-nothing",
    "After DEL, nothing of the attachment is left on the machine.",
    DEL,
    each=True,
    after=("del-succeeds",),
)
def leaves_nothing(scene: Scene) -> None:
    before = used(scene)
    attachment = scene.added(scene.container())
    scene.deleted(attachment)
    expect_nothing_left(scene, before, attachment, "after DEL")


@check(
    "del-leaves-machine-clean",
    "After the last DEL, no interface or process stays but those that the configuration names.",
    DEL,
    after=("del-leaves-nothing",),
)
def machine_clean(scene: Scene) -> None:
    before = scene.snapshot()
    after = used(scene)
    for what in (*leftovers.interfaces(before, after, scene.subject.shared), *leftovers.processes(before, after)):
        demand = (
            f"{CLEAN} What stands for all containers is named in the configuration, or in the profile under `stays`."
        )
        scene.expect(False, f"{what} is left after the last DEL", demand, look="ip link; ps ax")
