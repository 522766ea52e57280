"""Steps that act on nodes without the API server: on a node's runtime, or on the network of a pod."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.contract import END_SANDBOX, GARBAGE_COLLECTION, REBOOT, TAMPERING, has
from harness.model import PodName
from harness.steps.base import OfPods, Step
from harness.steps.scene import Scene


class EndSandbox(OfPods):
    """The node's runtime ends the sandboxes of these pods (CNI DEL), without the API server."""

    key = "end-sandbox"
    verb = "end the sandbox of"
    example = "end-sandbox: [one]"
    needs = frozenset({END_SANDBOX})

    def act(self, scene: Scene) -> None:
        for name in self.pods:
            has(scene.cluster, END_SANDBOX).end_sandbox(scene.namespace, scene.view.name(name))


class LoseSandbox(OfPods):
    """The node's runtime makes one more sandbox for each of these pods, and loses it: its namespace ends without CNI
    DEL.
    """

    key = "lose-sandbox"
    verb = "lose a sandbox of"
    example = "lose-sandbox: [one]"
    needs = frozenset({GARBAGE_COLLECTION})

    def act(self, scene: Scene) -> None:
        for name in self.pods:
            has(scene.cluster, GARBAGE_COLLECTION).lose_sandbox(scene.namespace, scene.view.name(name))


class CollectGarbage(Step):
    """Call CNI GC on every node, with the attachments that the runtime knows."""

    key = "collect-garbage"
    example = "collect-garbage"
    needs = frozenset({GARBAGE_COLLECTION})

    def __str__(self) -> str:
        return "collect garbage"

    def act(self, scene: Scene) -> None:
        for node in scene.cluster.facts.nodes:
            has(scene.cluster, GARBAGE_COLLECTION).collect_garbage(node)


class Reboot(OfPods):
    """Reboot the nodes of these pods: all but their files is lost, and their pods start again."""

    key = "reboot"
    verb = "reboot the nodes of"
    example = "reboot: [one]"
    needs = frozenset({REBOOT})

    def act(self, scene: Scene) -> None:
        for node in dict.fromkeys(scene.nodes[pod] for pod in self.pods):
            has(scene.cluster, REBOOT).reboot(node)


class Tamper(Step):
    """Remove a part of a pod's network without genie."""

    key = "tamper"
    example = "tamper: {pod: one, interface: eth1, remove: addresses}"
    needs = frozenset({TAMPERING})

    pod: PodName
    interface: str
    remove: Literal["addresses", "routes", "rules", "interface"] = Field(
        description="The interface's addresses, the routes by it in every table, the rules for packets from its "
        "addresses, or the interface itself."
    )

    def __str__(self) -> str:
        return f"remove {self.remove} of {self.pod}'s {self.interface}"

    def act(self, scene: Scene) -> None:
        pod = scene.view.name(self.pod)
        has(scene.cluster, TAMPERING).tamper(scene.namespace, pod, self.interface, self.remove)
