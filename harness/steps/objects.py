"""Steps that create and delete Kubernetes objects other than the scenario's pods."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from harness.model import Many, fill
from harness.steps.base import Step
from harness.steps.scene import Scene


def _object(value: dict[str, Any]) -> dict[str, Any]:
    name = (value.get("metadata") or {}).get("name") if isinstance(value.get("metadata"), dict) else None
    gaps = [key for key in ("apiVersion", "kind") if not isinstance(value.get(key), str)] + (
        [] if name else ["metadata.name"]
    )
    if gaps:
        raise PydanticCustomError("object", "expected a Kubernetes object; it has no {gaps}", {"gaps": ", ".join(gaps)})
    return value


ObjectSpec = Annotated[dict[str, Any], AfterValidator(_object)]


class _OfObjects(Step):
    shorthand = "objects"

    objects: Many[ObjectSpec]

    def __str__(self) -> str:
        return f"{self.key} " + ", ".join(f"{thing['kind']} {thing['metadata']['name']}" for thing in self.objects)


class Apply(_OfObjects):
    """Create these Kubernetes objects."""

    key = "apply"
    example = "apply: [{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}]"

    def act(self, scene: Scene) -> None:
        for thing in fill(self.objects, scene.view.values):
            scene.objects.create(thing, scene.namespace)


class Remove(_OfObjects):
    """Delete these Kubernetes objects (kind and name are enough)."""

    key = "remove"
    example = "remove: [{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}]"

    def act(self, scene: Scene) -> None:
        for thing in fill(self.objects, scene.view.values):
            scene.objects.delete(scene.objects.path(thing, scene.namespace))
