"""What remains: after its pods are gone a node must be as it was, and while they run, CNI CHECK must find
them sound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from pydantic import Field

from harness.checks.base import Check, OneOrMany, join
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


class CanCheck(Protocol):
    """A cluster that can have CNI CHECK called, as a runtime would: it has the feature "cni-check"."""

    def cni_check(self, namespace: str, pod: str) -> str:
        """Call CNI CHECK for a pod; the error's message, empty when all is well."""


class CheckPasses(Check):
    """CNI CHECK of these pods succeeds; or fails, with a message that matches. (The scenario needs
    cni-check.)
    """

    key = "check-passes"
    shorthand = "pods"
    example = "check-passes: [one, two]"

    pods: OneOrMany[PodName]
    fails: str | None = Field(default=None, description="A regular expression: it fails with a message that matches.")

    def attempt(self, view: View) -> str | None:
        import re

        cluster = cast("CanCheck", view.cluster)
        wrong = []
        for pod in self.pods:
            said = cluster.cni_check(view.namespace, pod)
            if self.fails is None and said:
                wrong.append(f"CNI CHECK of {pod} fails: {said}")
            elif self.fails is not None and not re.search(self.fails, said, re.IGNORECASE | re.DOTALL):
                wrong.append(
                    f"CNI CHECK of {pod} {f'fails with {said!r}' if said else 'passes'}, expected {self.fails!r}"
                )
        return join(*wrong) if wrong else None
