"""The reference of checks and steps, from their models: one text for `python -m harness checks` and for
docs/scenarios.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.checks import CHECKS
from harness.exits import Ended, Exit
from harness.model import Named, first_line
from harness.steps import STEPS
from harness.yamlfile import hint


def reference(names: Iterable[str] = ()) -> str:
    """All checks and steps, or only these.

    Raises Ended: there is none of that name.
    """
    known: dict[str, type[Named]] = {**CHECKS, **STEPS}
    chosen = list(names) or list(known)
    for name in chosen:
        if name not in known:
            raise Ended(Exit.USAGE, f"unknown check or step {name!r}{hint(name, known)}")
    parts = []
    for title, group in (("checks", CHECKS), ("steps", STEPS)):
        entries = ["\n".join(_entry(model)) for key, model in group.items() if key in chosen]
        if entries:
            parts.append("\n\n".join([title.upper(), *entries]))
    return "\n\n".join(parts)


def _entry(model: type[Named]) -> Iterator[str]:
    yield model.key
    yield f"  {first_line(model)}"
    yield f"    - {model.example}"
    for name, field in model.model_fields.items():
        if field.description and name != "within":
            yield f"      {field.alias or name}: {field.description}"
