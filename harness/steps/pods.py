"""Steps that create, change and delete pods through the API server."""

from __future__ import annotations

from pydantic import Field

from harness.model import PodName, fill
from harness.steps.base import OfPods, Step
from harness.steps.scene import Scene


class Create(OfPods):
    """Create these pods at the same time, and wait until they run (except those that a `pod-fails` names)."""

    key = "create"
    verb = "create"
    example = "create: [one, two]"

    def act(self, scene: Scene) -> None:
        scene.create(self.pods)


class Delete(OfPods):
    """Delete these pods and wait until they are gone."""

    key = "delete"
    verb = "delete"
    example = "delete: [one]"

    def act(self, scene: Scene) -> None:
        scene.delete(self.pods)


class Recreate(OfPods):
    """Delete these pods, and create pods of the same names as soon as the names are free."""

    key = "recreate"
    verb = "recreate"
    example = "recreate: [one]"

    force: bool = Field(default=False, description="Free the names before the node has stopped the old pods.")

    def act(self, scene: Scene) -> None:
        scene.delete(self.pods, force=self.force)
        scene.create(self.pods)


class Churn(Step):
    """Make and delete many pods like one of the scenario's, some at once, each with an address of its own."""

    key = "churn"
    example = "churn: {like: one, count: 200, at-once: 20}"

    like: PodName
    count: int = Field(gt=0, description="How many in all; --churn changes it.")
    at_once: int = Field(default=20, gt=0, description="How many are there at one time.")

    def __str__(self) -> str:
        return f"make and delete up to {self.count} pods like {self.like}, {self.at_once} at once"

    def act(self, scene: Scene) -> None:
        scene.churn(self.like, self.count, self.at_once)


class Annotate(Step):
    """Change annotations of an existing pod; null removes one."""

    key = "annotate"
    example = "annotate: {pod: one, annotations: {cni: weave}}"

    pod: PodName
    annotations: dict[str, str | None]

    def __str__(self) -> str:
        return f"annotate {self.pod}"

    def act(self, scene: Scene) -> None:
        changes = fill(self.annotations, scene.view.values)
        scene.objects.patch(scene.view.path(self.pod), {"metadata": {"annotations": changes}})
