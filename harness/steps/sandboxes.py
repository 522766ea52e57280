"""Steps that go past the API server: to a node's runtime, or to the network of a pod."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.contract import END_SANDBOX, GARBAGE_COLLECTION, TAMPERING, has
from harness.model import PodName
from harness.steps.base import OfPods, Step
from harness.steps.scene import Scene


class EndSandbox(OfPods):
    """Have the node's runtime end the sandboxes of these pods (CNI DEL), without the API server's doing."""

    key = "end-sandbox"
    verb = "end the sandbox of"
    example = "end-sandbox: [one]"
    needs = frozenset({END_SANDBOX})

    def act(self, scene: Scene) -> None:
        for name in self.pods:
            has(scene.cluster, END_SANDBOX).end_sandbox(scene.namespace, scene.view.name(name))


class LoseSandbox(OfPods):
    """Have the node's runtime make one more sandbox for each of these pods, and lose it: its namespace goes, and
    nobody calls CNI DEL.
    """

    key = "lose-sandbox"
    verb = "lose a sandbox of"
    example = "lose-sandbox: [one]"
    needs = frozenset({GARBAGE_COLLECTION})

    def act(self, scene: Scene) -> None:
        for name in self.pods:
            has(scene.cluster, GARBAGE_COLLECTION).lose_sandbox(scene.namespace, scene.view.name(name))


class CollectGarbage(Step):
    """Have CNI GC called on every node, with the attachments that the runtime knows of."""

    key = "collect-garbage"
    example = "collect-garbage"
    needs = frozenset({GARBAGE_COLLECTION})

    def __str__(self) -> str:
        return "collect garbage"

    def act(self, scene: Scene) -> None:
        for node in scene.cluster.facts.nodes:
            has(scene.cluster, GARBAGE_COLLECTION).collect_garbage(node)


class Tamper(Step):
    """Take something of a pod's network away, behind genie's back."""

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
