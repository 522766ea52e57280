"""Reads published reports: JSON or YAML, checked against the model of their kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


class BadReport(Exception):
    """A file is not a report; the message names the file, the field and the expected value."""


def report_in(path: Path) -> Path:
    """The report.json of a report's directory; a file is itself."""
    return path / "report.json" if path.is_dir() else path


def load(path: Path) -> Any:
    """The content of a file as plain data.

    Raises BadReport: it is neither JSON nor YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return yaml.safe_load(text) if path.suffix in (".yaml", ".yml") else json.loads(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise BadReport(f"{path}: expected a report in JSON or YAML: {error}") from error


def kind(data: Any) -> str:
    """The kind that a report names; empty if it names none."""
    return str(data.get("kind") or "") if isinstance(data, dict) else ""


def checked(path: Path, data: Any, model: type[Model]) -> Model:
    """Plain data as a report.

    Raises BadReport: it is not one of this kind.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'the whole'}: {item['msg']}" for item in error.errors()[:5]
        )
        raise BadReport(f"{path}: {problems}") from error
    except RecursionError as error:
        raise BadReport(f"{path}: expected a report, and not one value inside another so often") from error


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of reports of one kind."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema(by_alias=True)}
