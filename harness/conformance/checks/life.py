"""The life of an attachment that the checks of a batch share: it is made, inspected and deleted once."""

from __future__ import annotations

from collections.abc import Callable

from harness.conformance.call import Outcome
from harness.conformance.kernel import Kernel, Link
from harness.conformance.results import Result, parse
from harness.conformance.scene import Blocked, Scene
from harness.waiting import until_nothing

BATCH = "life"
_PATIENCE = 2.0  # seconds
_LASTING = ("the file ", "the firewall rule ", "/")


class Made:
    """A new attachment, with its result and the kernel's state."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.attachment = scene, scene.container()
        self.host_before = scene.snapshot().kernel
        self.before = scene.inside(self.attachment)
        self.outcome = scene.add(self.attachment)
        self.result: Result = parse(self.attachment.result or {})
        self.kernel: Kernel = scene.inside(self.attachment)
        self.host: Kernel = scene.snapshot().kernel

    @property
    def link(self) -> Link:
        """The requested interface."""
        if (found := self.kernel.link(self.attachment.ifname)) is None:
            raise Blocked(f"there is no {self.attachment.ifname} in the container")
        return found

    def expect(self, condition: object, headline: str, demand: str, *, should: bool | None = None) -> None:
        name = self.attachment.sandbox.name if self.attachment.sandbox else ""
        look = f"ip -n {name} addr; ip -n {name} route; ip link"
        self.scene.expect(condition, headline, demand, self.outcome, look=look, should=should)


def tried(scene: Scene) -> Made:
    """The attachment, even if its ADD failed."""
    if "made" not in scene.cache:
        scene.cache["made"] = Made(scene)
    found: Made = scene.cache["made"]
    return found


def made(scene: Scene) -> Made:
    """The attachment.

    Raises Blocked: its ADD failed.
    """
    found = tried(scene)
    if not found.outcome.ok or found.attachment.result is None:
        raise Blocked(f"ADD failed: {found.outcome.message}")
    return found


def ended(scene: Scene) -> Outcome:
    """Its DEL."""
    if "ended" not in scene.cache:
        attachment = made(scene).attachment
        scene.cache["ended"] = scene.delete(attachment)
    found: Outcome = scene.cache["ended"]
    return found


def refused(scene: Scene) -> Outcome:
    """An ADD of another container, with a namespace that does not exist; an ipam plugin gets no CNI_CONTAINERID."""
    if "refused" not in scene.cache:
        attachment = scene.container()
        scene.prepare(attachment)
        without = ("CNI_CONTAINERID",) if scene.subject.assigns else ()
        attachment.netns = "/run/netns/missing"
        conf = scene.conf(attachment, attachment.before)
        scene.cache["refused"] = scene.call("ADD", attachment, conf, without=without)
    found: Outcome = scene.cache["refused"]
    return found


def settled(left: Callable[[], list[str]]) -> list[str]:
    """Leftovers after some time: the kernel removes a namespace's interfaces with a delay.

    Files and rules do not disappear by themselves, so there is no wait if only these are left.
    """
    return until_nothing(left, _PATIENCE, hopeless=lambda found: all(each.startswith(_LASTING) for each in found))
