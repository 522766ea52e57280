"""The JSON Schema of a scenario file, for editors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from harness.checks import CHECKS
from harness.model import ONE_KEY, Model, Named, first_line, needs_nothing
from harness.scenario.file import ScenarioSpec
from harness.steps import STEPS

_ANYTHING: dict[str, Any] = {"type": ["array", "string"]}


def schema() -> dict[str, Any]:
    """The schema; `python -m harness schema` prints it, scenarios/schema.json is a copy.

    A check or step is one object with one property, not one of many objects: otherwise an editor cannot complete an
    empty object. All checks and all steps are described once, in `$defs`, because steps contain steps.
    """
    named: dict[str, type[Named]] = {**CHECKS, **STEPS}
    models: list[type[Model]] = [ScenarioSpec, *named.values()]
    made, shared = models_json_schema([(model, "validation") for model in models], by_alias=True)
    inside = {key: made[model, "validation"] for key, model in named.items()}
    definitions = shared["$defs"] | {"Check": _one_key(CHECKS, inside), "Step": _one_key(STEPS, inside)}
    spec = definitions.pop("ScenarioSpec")
    whole: dict[str, Any] = _linked({**spec, "title": "A genie scenario", "$defs": definitions})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}


def _one_key(models: Mapping[str, type[Named]], inside: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """An object with one property, a key of `models`, or the key alone if it needs no value."""
    properties = {}
    for key, model in models.items():
        ways = [inside[key]]
        ways += [_ANYTHING] if model.shorthand else []
        ways += [{"type": "null"}] if needs_nothing(model) else []
        properties[key] = {"description": first_line(model), **(ways[0] if len(ways) == 1 else {"anyOf": ways})}
    one = {"type": "object", "properties": properties, "additionalProperties": False}
    alone = [key for key, model in models.items() if needs_nothing(model)]
    whole = {**one, "minProperties": 1, "maxProperties": 1}
    return {"anyOf": [whole, {"enum": alone}]} if alone else whole


def _linked(part: Any) -> Any:
    """The same schema with references in place of checks and steps."""
    if isinstance(part, list):
        return [_linked(item) for item in part]
    if not isinstance(part, dict):
        return part
    if ONE_KEY in part:
        return {"$ref": f"#/$defs/{part[ONE_KEY].capitalize()}"}
    return {key: _linked(value) for key, value in part.items()}
