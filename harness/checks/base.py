"""The base class of checks: a small frozen model of parameters, with an attempt that returns the text of a failure.

An attempt looks at the cluster once and returns None or the text of a failure. `run` repeats it until it returns None
or the check's time is over. So a check waits for a condition, and never for a fixed time.
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

    needs: ClassVar[frozenset[Ability[Any]]] = frozenset()  # abilities that the cluster must have
    patience: ClassVar[float] = 10.0

    within: float | None = Field(default=None, gt=0, description="Seconds to wait for it, instead of the default.")

    def wants_families(self) -> list[tuple[str, int]]:
        """Networks with the address families that they must have for this to be asked."""
        return []

    def attempt(self, view: View) -> str | None:
        """Look once; the text of a failure, or None."""
        raise NotImplementedError

    def run(self, view: View) -> str | None:
        """Wait until the check passes; the text of the last failure, or None."""
        return view.until(lambda: self.attempt(view), self.within or self.patience)

    def __str__(self) -> str:
        given = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        if self.shorthand and set(given) == {self.shorthand.replace("_", "-")}:
            [given] = given.values()
        return f"{self.key} {_flow(given)}".strip()


def _flow(value: object) -> str:
    """A value as one line of YAML."""
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
