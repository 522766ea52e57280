"""What remains: after its pods are gone a node must be as it was, and while they run, CNI CHECK must find
them sound, and STATUS say whether more can come.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from pydantic import Field, JsonValue

from harness.checks.base import Check, OneOrMany, Pattern, join
from harness.model import PodName

if TYPE_CHECKING:
    from harness.checks.view import View


class NothingLeft(Check):
    """Nothing that this scenario's pods brought is on any node: interface, IPAM address, netfilter rule,
    namespace, record.
    """

    key = "nothing-left"
    example = "nothing-left"
    patience = 20.0

    def attempt(self, view: View) -> str | None:
        left = view.leftovers.left()
        return join("left on the nodes:", *(f"  {line}" for line in left)) if left else None


class CallsPlugins(Protocol):
    """A cluster whose nodes' first plugin can be called as the runtime does: it has the feature "cni-calls"."""

    def cni_check(self, namespace: str, pod: str) -> str:
        """Call CNI CHECK for a pod; the error's message, empty when all is well."""

    def cni_status(self, node: str, genie_conf: Mapping[str, Any], env: Mapping[str, str]) -> str:
        """Call CNI STATUS on a node, with these keys in genie.conf and these variables for the one call; the error's
        message, empty when all is well."""


class CheckPasses(Check):
    """CNI CHECK of these pods succeeds; or fails, with a message that matches. (The scenario needs
    cni-calls.)
    """

    key = "check-passes"
    shorthand = "pods"
    example = "check-passes: [one, two]"

    pods: OneOrMany[PodName]
    fails: Pattern | None = Field(default=None, description="It fails with a message that matches.")

    def attempt(self, view: View) -> str | None:
        cluster = cast("CallsPlugins", view.cluster)
        said = {pod: cluster.cni_check(view.namespace, view.name(pod)) for pod in self.pods}
        return join(*(_unlike(f"CNI CHECK of {pod}", error, self.fails) for pod, error in said.items())) or None


class StatusPasses(Check):
    """CNI STATUS on every node says that pods can be attached; or why not, with a message that matches. (The scenario
    needs cni-calls.)
    """

    key = "status-passes"
    example = 'status-passes: {genie: {default_plugin: nowhere}, fails: "no network .nowhere"}'

    genie: dict[str, JsonValue] = Field(default_factory=dict, description="Keys of genie.conf, for this one call.")
    env: dict[str, str] = Field(default_factory=dict, description="Variables of the environment, for this one call.")
    fails: Pattern | None = Field(default=None, description="It fails with a message that matches.")

    def attempt(self, view: View) -> str | None:
        cluster = cast("CallsPlugins", view.cluster)
        said = {node: cluster.cni_status(node, self.genie, self.env) for node in view.cluster.facts.nodes}
        return join(*(_unlike(f"CNI STATUS on {node}", error, self.fails) for node, error in said.items())) or None


def _unlike(call: str, error: str, wanted: str | None) -> str:
    """How a call's error is not what is expected; empty: it is."""
    if wanted is None:
        return f"{call} fails: {error}" if error else ""
    if re.search(wanted, error, re.IGNORECASE | re.DOTALL):
        return ""
    return f"{call} {f'fails with {error!r}' if error else 'passes'}, expected {wanted!r}"
