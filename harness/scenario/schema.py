"""The JSON Schema of a scenario file: what editors check a file against."""

from __future__ import annotations

from typing import Any

from harness.scenario.file import ScenarioSpec


def schema() -> dict[str, Any]:
    """The schema; `python -m harness schema` prints it, scenarios/schema.json is a copy."""
    shared: dict[str, Any] = {}
    made: dict[str, Any] = _hoisted(ScenarioSpec.model_json_schema(by_alias=True, mode="validation"), shared)
    made |= {"title": "A genie scenario", "$defs": made["$defs"] | shared}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _hoisted(part: Any, shared: dict[str, Any]) -> Any:
    """The same schema with the lists of all checks and all steps written once, in `$defs`."""
    if isinstance(part, list):
        return [_hoisted(item, shared) for item in part]
    if not isinstance(part, dict):
        return part
    ways = part.get("oneOf")
    if isinstance(ways, list) and len(ways) > 5:
        name = "Check" if any("nothing-left" in way.get("properties", {}) for way in ways) else "Step"
        shared.setdefault(name, {"oneOf": [_hoisted(way, shared) for way in ways]})
        return {"$ref": f"#/$defs/{name}"}
    return {key: _hoisted(value, shared) for key, value in part.items()}
