"""What every check is: a small frozen model of its parameters, and an attempt that returns what is wrong.

An attempt looks at the cluster once and returns None or the text of a failure. `run` repeats it until nothing is wrong
or the check's time is over, so a check waits for a condition and never for a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from harness.contract import Ability
from harness.model import Named

if TYPE_CHECKING:
    from harness.checks.view import View


class Check(Named):
    """Something that must hold."""

    needs: ClassVar[frozenset[Ability[Any]]] = frozenset()  # what the cluster must be able to do
    patience: ClassVar[float] = 10.0

    within: float | None = Field(default=None, gt=0, description="Seconds to wait for it, instead of the usual.")

    def attempt(self, view: View) -> str | None:
        """Look once; what is wrong, or None."""
        raise NotImplementedError

    def run(self, view: View) -> str | None:
        """Wait until it holds; what is wrong at the end, or None."""
        return view.until(lambda: self.attempt(view), self.within or self.patience)

    def __str__(self) -> str:
        given = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        if self.shorthand and set(given) == {self.shorthand.replace("_", "-")}:
            [given] = given.values()
        return f"{self.key} {_flow(given)}".strip()


def _flow(value: object) -> str:
    """A value on one line, as YAML would have it."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_nested(item)}" for key, item in value.items())
    return _nested(value)


def _nested(value: object) -> str:
    if isinstance(value, dict):
        return "{" + _flow(value) + "}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_nested, value)) if len(value) == 1 else f"[{', '.join(map(_nested, value))}]"
    return str(value)


def join(*parts: str) -> str:
    """The parts of a failure's text, without the empty ones."""
    return "\n".join(part for part in parts if part)
