"""What every step is: a small frozen model of its parameters, what it needs of the cluster, and what it does.

Most steps `act` once. A step that is `Around` others is a state that they happen in: it begins before them and ends
after them. (`Expect` is the third kind; its checks are the runner's, which times each of them.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from harness.contract import Ability
from harness.model import Many, Named, OneKey, OneOrMany, PodName

if TYPE_CHECKING:
    from harness.steps.scene import Scene

STEPS: dict[str, type[Step]] = {}  # filled by harness.steps, for steps hold steps
AnyStep = Annotated[Any, OneKey("step", STEPS)]


class Step(Named):
    """Something that happens, in its turn. Its `str` is its name in reports."""

    needs: ClassVar[frozenset[Ability[Any]]] = frozenset()  # what the cluster must be able to do

    def needed(self) -> frozenset[Ability[Any]]:
        """What this very step needs, where its fields decide."""
        return self.needs

    def act(self, scene: Scene) -> None:
        """Do it, and wait until it is done."""
        raise NotImplementedError(self.key)


class OfPods(Step):
    """Something that happens to pods."""

    shorthand = "pods"
    verb: ClassVar[str]

    pods: OneOrMany[PodName]

    def __str__(self) -> str:
        return f"{self.verb} {', '.join(self.pods)}"


class Around(Step):
    """A state that other steps are taken in."""

    steps: Many[AnyStep] = ()

    def state(self, scene: Scene) -> AbstractContextManager[None]:
        """The state, from the beginning of the context to its end."""
        raise NotImplementedError(self.key)


def walk(steps: Iterable[Step]) -> Iterator[Step]:
    """Every step, also those inside others."""
    for step in steps:
        yield step
        if isinstance(step, Around):
            yield from walk(step.steps)
