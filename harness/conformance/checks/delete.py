"""DEL."""

from __future__ import annotations

from collections.abc import Sequence

from harness.conformance import leftovers
from harness.conformance.call import Outcome
from harness.conformance.checks.base import check
from harness.conformance.checks.life import BATCH, ended, made, settled
from harness.conformance.findings import Fault
from harness.conformance.machine import Snapshot
from harness.conformance.scene import Attachment, Blocked, Scene
from harness.conformance.spec import DEL, LIFECYCLE

CLEAN = "DEL undoes whatever ADD did."


@check("del-succeeds", "DEL of an attachment succeeds.", DEL, each=True, batch=BATCH)
def succeeds(scene: Scene) -> None:
    outcome = ended(scene)
    scene.expect(outcome.ok, f"DEL fails: {outcome.message}", "DEL completes without an error.", outcome)


@check(
    "del-prints-nothing",
    "DEL that succeeds prints nothing on standard output.",
    DEL,
    after=("del-succeeds",),
    batch=BATCH,
    should=True,
)
def prints_nothing(scene: Scene) -> None:
    outcome = ended(scene)
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
    batch=BATCH,
)
def removes(scene: Scene) -> None:
    it = made(scene)
    before = {link.name for link in it.before.links}
    if not ended(scene).ok:
        raise Blocked(f"DEL failed: {ended(scene).message}")
    for link in scene.inside(it.attachment).links:
        scene.expect(link.name in before, f"{link.name} is in the container after DEL", CLEAN, look="ip -n c1 link")
    for what in leftovers.of_namespace(it.before, scene.inside(it.attachment)):
        headline = f"{what} is in the container after DEL"
        scene.expect(False, headline, CLEAN, look="ip -n c1 rule; ip -n c1 route", should=True)


def used(scene: Scene) -> Snapshot:
    """The machine after a first ADD and DEL, with everything that stays by design."""
    if "used" not in scene.cache:
        scene.deleted(scene.added(scene.container()))
        scene.cache["used"] = True
    return scene.snapshot()


def expect_nothing_left(
    scene: Scene, before: Snapshot, *attachments: Attachment, when: str, should: bool | None = None
) -> None:
    """Report leftovers of attachments on the machine."""

    def now() -> list[str]:
        return list(leftovers.left(before, scene.snapshot(), [each.container for each in attachments]))

    def left() -> list[str]:
        own = _by_steps(attachments)
        return now() if own is None else own

    found = settled(left)
    stored = scene.left_by_ipam(found, [("DEL", each, scene.conf(each)) for each in attachments], now)
    for fault, some in ((Fault.PLUGIN, [what for what in found if what not in stored]), (Fault.IPAM, sorted(stored))):
        if some:
            more = f", with {len(some) - 1} more," if len(some) > 1 else ""
            show = "\n".join(["ip link; ip route; ls -R /var/lib/cni; ps ax", *(f"# left: {what}" for what in some)])
            scene.expect(False, f"{some[0]}{more} is left {when}", CLEAN, fault=fault, look=show, should=should)


def _by_steps(attachments: Sequence[Attachment]) -> list[str] | None:
    """What a plugin behind others has left, from before its own ADD to after its own DEL; None if it is the first."""
    steps = [(each.around, each.undone) for each in attachments if each.around is not None and each.undone is not None]
    return [what for one, other in steps for what in leftovers.left(one, other, ())] if steps else None


@check(
    "del-leaves-nothing",
    "After DEL, nothing of the attachment is left on the machine.",
    DEL,
    each=True,
    after=("del-succeeds",),
    batch=BATCH,
)
def leaves_nothing(scene: Scene) -> None:
    if not ended(scene).ok:
        raise Blocked(f"DEL failed: {ended(scene).message}")
    scene.cache["used"] = True
    before = used(scene)
    attachment = scene.added(scene.container())
    scene.deleted(attachment)
    expect_nothing_left(scene, before, attachment, when="after DEL")


@check(
    "del-leaves-machine-clean",
    "After the last DEL, no interface or process stays but those that the configuration names.",
    DEL,
    after=("del-leaves-nothing",),
    should=True,
)
def machine_clean(scene: Scene) -> None:
    before = scene.snapshot()
    used(scene)

    def left() -> list[str]:
        after = scene.snapshot()
        return [*leftovers.interfaces(before, after, scene.subject.shared), *leftovers.processes(before, after)]

    for what in settled(left):
        demand = (
            f"{CLEAN} What stands for all containers is named in the configuration, or in the profile under `stays`."
        )
        scene.expect(False, f"{what} is left after the last DEL", demand, look="ip link; ps ax")


_AFTER = ("del-succeeds", "del-leaves-nothing")


def _expect_gone(scene: Scene, before: Snapshot, attachment: Attachment, outcome: Outcome, how: str) -> None:
    """Check that DEL succeeded and left nothing."""
    # The specification requires ("must") that DEL succeeds, but not how much it can clean up with missing input.
    demand = "DEL completes without an error, even if resources are missing, and releases what it can."
    if scene.expect(outcome.ok, f"DEL {how} fails: {outcome.message}", demand, outcome):
        if attachment.sandbox is not None and not scene.subject.adjusts:
            there = scene.inside(attachment).link(attachment.ifname)
            scene.expect(
                not there or "CNI_NETNS" not in outcome.call.env or not outcome.call.env["CNI_NETNS"],
                f"eth0 is in the container after DEL {how}",
                CLEAN,
                outcome,
            )
        scene.reboot(attachment)
        expect_nothing_left(scene, before, attachment, when=f"after DEL {how}", should=True)


@check("del-twice", "DEL of what is deleted already succeeds.", DEL, after=("del-succeeds",), batch="gone")
def twice(scene: Scene) -> None:
    attachment = scene.added(scene.container())
    scene.deleted(attachment)
    outcome = scene.delete(attachment)
    scene.expect(
        outcome.ok,
        f"a second DEL fails: {outcome.message}",
        "A plugin accepts several DELs for the same container and interface.",
        outcome,
    )


@check("del-before-add", "DEL of what was never added succeeds.", DEL, after=("del-succeeds",), batch="gone")
def before_add(scene: Scene) -> None:
    attachment = scene.container()
    outcome = scene.delete(attachment)
    scene.expect(
        outcome.ok,
        f"DEL before any ADD fails: {outcome.message}",
        "DEL succeeds if the interface, or what was changed, is missing.",
        outcome,
    )


@check(
    "del-interface-missing",
    "DEL succeeds and leaves nothing when the interface is gone already.",
    DEL,
    first=True,
    after=_AFTER,
    batch="gone",
)
def interface_missing(scene: Scene) -> None:
    before = used(scene)
    attachment = scene.added(scene.container())
    scene.netlink(attachment, "link del eth0", lambda netlink: netlink.link("del", ifname="eth0"))
    _expect_gone(scene, before, attachment, scene.delete(attachment), "with the interface gone")


@check(
    "del-interface-renamed",
    "DEL succeeds when the interface has another name by now, and leaves nothing on the host.",
    DEL,
    first=True,
    after=("del-interface-missing",),
    batch="gone",
)
def interface_renamed(scene: Scene) -> None:
    before = used(scene)
    attachment = scene.added(scene.container())
    if (link := scene.inside(attachment).link(attachment.ifname)) is None:
        raise Blocked("there is no eth0 in the container")
    scene.netlink(attachment, "link set eth0 down", lambda it: it.link("set", index=link.index, state="down"))
    scene.netlink(attachment, "link set eth0 name old0", lambda it: it.link("set", index=link.index, ifname="old0"))
    _expect_gone(scene, before, attachment, scene.delete(attachment), "with the interface renamed")


@check(
    "del-without-netns",
    "DEL without CNI_NETNS succeeds and releases what it can.",
    DEL,
    ends=True,
    since="0.4.0",
    after=_AFTER,
    batch="gone",
    should=True,
)
def without_netns(scene: Scene) -> None:
    before = used(scene)
    attachment = scene.added(scene.container())
    _expect_gone(scene, before, attachment, scene.delete(attachment, without=("CNI_NETNS",)), "without CNI_NETNS")


@check(
    "del-netns-empty",
    "DEL with an empty CNI_NETNS succeeds and releases what it can.",
    DEL,
    since="0.4.0",
    after=("del-without-netns",),
    batch="gone",
    should=True,
)
def netns_empty(scene: Scene) -> None:
    before = used(scene)
    attachment = scene.added(scene.container())
    scene.reboot(attachment)
    attachment.netns = ""
    _expect_gone(scene, before, attachment, scene.delete(attachment), "with an empty CNI_NETNS")


@check(
    "del-after-reboot",
    "DEL of an attachment without its namespace, as after a reboot, succeeds and leaves nothing.",
    DEL,
    since="0.3.0",
    ends=True,
    after=_AFTER,
    batch="gone",
    should=True,
)
def after_reboot(scene: Scene) -> None:
    before = used(scene)
    attachment = scene.added(scene.container())
    scene.reboot(attachment)
    _expect_gone(scene, before, attachment, scene.delete(attachment), "of a namespace that is gone")


@check(
    "del-without-prevresult",
    "DEL without prevResult succeeds and leaves nothing.",
    DEL,
    since="0.4.0",
    ends=True,
    after=_AFTER,
    batch="gone",
    should=True,
)
def without_prevresult(scene: Scene) -> None:
    before = used(scene)
    attachment = scene.added(scene.container())
    attachment.result = None
    _expect_gone(scene, before, attachment, scene.delete(attachment), "without prevResult")


@check(
    "del-other-prevresult",
    "DEL with a prevResult that lacks what ADD made, as a later plugin may have it, leaves nothing.",
    DEL,
    since="0.4.0",
    after=("del-without-prevresult",),
    batch="gone",
    should=True,
)
def other_prevresult(scene: Scene) -> None:
    before = used(scene)
    attachment = scene.added(scene.container())
    attachment.result = {"cniVersion": scene.version, "interfaces": [], "ips": [], "routes": [], "dns": {}}
    _expect_gone(scene, before, attachment, scene.delete(attachment), "with a prevResult that is empty")


@check(
    "del-keeps-others",
    "DEL of one container, or of one of its interfaces, leaves the others as they are.",
    DEL,
    first=True,
    after=_AFTER,
    ipam=True,
    several=True,
)
def keeps_others(scene: Scene) -> None:
    other = scene.added(scene.container())
    there = scene.snapshot()
    gone = scene.added(scene.container())
    files = scene.about(other)
    inside = scene.inside(other)
    scene.deleted(gone)
    now = scene.inside(other)
    same = (inside.addresses, inside.routes, [link.name for link in inside.links]) == (
        now.addresses,
        now.routes,
        [link.name for link in now.links],
    )
    scene.expect(
        same,
        "DEL of one container changed another",
        "DEL is about one container and interface.",
        look="ip -n c1 addr; ip -n c1 route",
    )
    scene.expect(
        files <= scene.about(other),
        "DEL of one container released what another has",
        "DEL is about one container and interface.",
        look="ls -R /var/lib/cni",
    )
    after = scene.snapshot()
    lost = [*leftovers.of_kernel(after, there), *leftovers.processes(after, there)]
    lost += [f"the firewall rule {rule!r}" for rule in sorted(there.firewall - after.firewall)]
    for what in lost:
        scene.expect(
            False,
            f"DEL of one container took {what}, which another has",
            "DEL is about one container and interface.",
            look="ip link; ip route; ip rule; nft list ruleset; ps ax",
        )


@check(
    "two-interfaces",
    "A container can be added twice with two interface names, and DEL of one keeps the other.",
    LIFECYCLE,
    first=True,
    should=True,
    after=_AFTER,
    ipam=True,
    several=True,
)
def two_interfaces(scene: Scene) -> None:
    first = scene.added(scene.container())
    files = scene.about(first)
    second = Attachment(sandbox=first.sandbox, container=first.container, ifname="net1", netns=first.netns)
    outcome = scene.add(second)
    demand = "A container may be added to a network more than once, each time with another interface name."
    if not scene.expect(outcome.ok, f"ADD of a second interface fails: {outcome.message}", demand, outcome):
        return
    before = scene.inside(first)
    outcome = scene.delete(second)
    scene.expect(outcome.ok, f"DEL of a second interface fails: {outcome.message}", demand, outcome)
    now, old = scene.inside(first), before.link("eth0")
    kept = now.link("eth0")
    if old:
        scene.expect(
            kept and now.of(kept) == before.of(old),
            "DEL of net1 took eth0's address, or eth0",
            demand,
            outcome,
            look="ip -n c1 addr",
        )
    scene.expect(not now.link("net1"), "net1 is there after its DEL", CLEAN, outcome, look="ip -n c1 addr")
    for what in sorted(files - scene.about(first)):
        scene.expect(False, f"DEL of net1 took {what}, which is eth0's", demand, outcome, look="ls -R /run /var/lib")


@check(
    "del-repeated-at-once",
    "Several DELs at once, then one more: it succeeds and nothing is left.",
    DEL,
    after=("del-twice", "del-leaves-nothing"),
    should=True,
)
def at_once(scene: Scene) -> None:
    before = used(scene)
    attachment = scene.added(scene.container())
    scene.at_once(scene.delete, [attachment] * 4)
    _expect_gone(scene, before, attachment, scene.delete(attachment), "after four DELs at once")
