"""The step with checks: the runner runs them one by one, and times each."""

from __future__ import annotations

from typing import Annotated, Any

from harness.checks import CHECKS
from harness.model import Many, OneKey
from harness.steps.base import Step

AnyCheck = Annotated[Any, OneKey("check", CHECKS)]


class Expect(Step):
    """Run these checks in this order."""

    key = "expect"
    shorthand = "checks"
    example = "expect: [{interfaces: {pod: one, eth0: calico}}]"

    checks: Many[AnyCheck]

    def __str__(self) -> str:
        return "".join(f"\n  expect {check}" for check in self.checks).lstrip()
