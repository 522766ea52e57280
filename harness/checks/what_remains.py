"""Checks of nodes: no leftovers after the pods are deleted; CHECK and STATUS pass while they run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import Field, JsonValue

from harness.checks.base import Check, join
from harness.contract import CNI_CALLS, has
from harness.model import OneOrMany, Pattern, PodName
from harness.waiting import unchanged

if TYPE_CHECKING:
    from harness.checks.view import View


class NothingLeft(Check):
    """No node has leftovers of this scenario's pods: interface, IPAM address, netfilter rule, namespace, record."""

    key = "nothing-left"
    example = "nothing-left"
    patience = 20.0

    def run(self, view: View) -> str | None:
        """Wait until nothing is left, or, unless the scenario says how long, until nothing changes any more."""
        if self.within:
            return super().run(view)
        stays = unchanged(view.cluster.facts.settles * view.hurry)
        return view.until(lambda: self.attempt(view), self.patience, hopeless=stays)

    def attempt(self, view: View) -> str | None:
        left = view.leftovers.left()
        return join("left on the nodes:", *(f"  {line}" for line in left)) if left else None


class CheckPasses(Check):
    """CNI CHECK of these pods passes, or fails with a matching message. (The scenario needs cni-calls.)"""

    key = "check-passes"
    shorthand = "pods"
    example = "check-passes: [one, two]"
    needs = frozenset({CNI_CALLS})

    pods: OneOrMany[PodName]
    fails: Pattern | None = Field(default=None, description="It fails with a matching message.")

    def attempt(self, view: View) -> str | None:
        cluster = has(view.cluster, CNI_CALLS)
        errors = {pod: cluster.cni_check(view.namespace, view.name(pod)) for pod in self.pods}
        return join(*(_unlike(f"CNI CHECK of {pod}", error, self.fails) for pod, error in errors.items())) or None


class StatusPasses(Check):
    """CNI STATUS passes on every node, or fails with a matching message. (The scenario needs cni-calls.)"""

    key = "status-passes"
    example = 'status-passes: {genie: {default_plugin: nowhere}, fails: "no network .nowhere"}'
    needs = frozenset({CNI_CALLS})

    genie: dict[str, JsonValue] = Field(default_factory=dict, description="Keys of genie.conf for this call.")
    env: dict[str, str] = Field(default_factory=dict, description="Environment variables for this call.")
    fails: Pattern | None = Field(default=None, description="It fails with a matching message.")

    def attempt(self, view: View) -> str | None:
        cluster = has(view.cluster, CNI_CALLS)
        errors = {node: cluster.cni_status(node, self.genie, self.env) for node in view.cluster.facts.nodes}
        return join(*(_unlike(f"CNI STATUS on {node}", error, self.fails) for node, error in errors.items())) or None


def _unlike(call: str, error: str, wanted: str | None) -> str:
    """The difference between a call's error and the expected one; empty if there is none."""
    if wanted is None:
        return f"{call} fails: {error}" if error else ""
    if re.search(wanted, error, re.IGNORECASE | re.DOTALL):
        return ""
    return f"{call} {f'fails with {error!r}' if error else 'passes'}, expected {wanted!r}"
