"""Checks of pods' nodes: a scenario about two nodes must not pass on one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from harness.checks.base import Check
from harness.model import OneOrMany, PodName

if TYPE_CHECKING:
    from harness.checks.view import View

Several = Annotated[OneOrMany[PodName], Field(min_length=2)]


class SameNode(Check):
    """These pods are on one node."""

    key = "same-node"
    shorthand = "pods"
    example = "same-node: [one, two]"

    pods: Several

    def attempt(self, view: View) -> str | None:
        nodes = _nodes(view, self.pods)
        return None if len(set(nodes.values())) == 1 else f"expected these on one node: {_listed(nodes)}"


class OtherNode(Check):
    """Each of these pods is on a different node."""

    key = "other-node"
    shorthand = "pods"
    example = "other-node: [one, two]"

    pods: Several

    def attempt(self, view: View) -> str | None:
        nodes = _nodes(view, self.pods)
        return None if len(set(nodes.values())) == len(nodes) else f"expected each on another node: {_listed(nodes)}"


def _nodes(view: View, pods: tuple[PodName, ...]) -> dict[str, str]:
    return {pod: ((view.pod(pod) or {}).get("spec") or {}).get("nodeName") or "no node" for pod in pods}


def _listed(nodes: dict[str, str]) -> str:
    return ", ".join(f"{pod} is on {node}" for pod, node in nodes.items())
