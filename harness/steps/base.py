"""The base classes of steps: a small frozen model of parameters, with needed abilities and an action.

Most steps `act` once. An `Around` step surrounds other steps with a state, which begins before them and ends after
them. (`Expect` is the third kind: the runner runs and times its checks.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from harness.contract import Ability
from harness.model import Many, Named, OneKey, OneOrMany, PodName

if TYPE_CHECKING:
    from harness.steps.scene import Scene

STEPS: dict[str, type[Step]] = {}  # filled by harness.steps, because steps contain steps
AnyStep = Annotated[Any, OneKey("step", STEPS)]


class Step(Named):
    """One action of a scenario. Its `str` is its name in reports."""

    needs: ClassVar[frozenset[Ability[Any]]] = frozenset()  # abilities that the cluster must have

    def needed(self) -> frozenset[Ability[Any]]:
        """The abilities that this instance needs, if its fields decide."""
        return self.needs

    def act(self, scene: Scene) -> None:
        """Act, and wait until the action is complete."""
        raise NotImplementedError(self.key)


class OfPods(Step):
    """An action on pods."""

    shorthand = "pods"
    verb: ClassVar[str]

    pods: OneOrMany[PodName]

    def __str__(self) -> str:
        return f"{self.verb} {', '.join(self.pods)}"


class Around(Step):
    """A state during other steps."""

    steps: Many[AnyStep] = ()

    def state(self, scene: Scene) -> AbstractContextManager[None]:
        """Hold the state during the context."""
        raise NotImplementedError(self.key)


def walk(steps: Iterable[Step]) -> Iterator[Step]:
    """All steps, including those inside others."""
    for step in steps:
        yield step
        if isinstance(step, Around):
            yield from walk(step.steps)
