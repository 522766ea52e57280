"""The JSON Schema, the reference and the examples: the committed files match the models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from harness.checks import CHECKS
from harness.model import Named
from harness.scenario.lint import mistakes
from harness.scenario.reading import parse
from harness.scenario.reference import reference
from harness.scenario.schema import schema
from harness.steps import STEPS
from harness.steps.base import AnyStep
from harness.steps.expect import AnyCheck
from tests.rigs.schemas import schema_errors

ROOT = Path(__file__).parents[3]
NAMED: list[tuple[str, type[Named], Any]] = [
    *((key, model, AnyCheck) for key, model in CHECKS.items()),
    *((key, model, AnyStep) for key, model in STEPS.items()),
]


def test_the_committed_schema_is_current() -> None:
    committed = json.loads((ROOT / "scenarios/schema.json").read_text())
    assert committed == schema(), "make it anew: python -m harness schema > scenarios/schema.json"


def test_the_schema_is_a_json_schema_and_every_scenario_is_valid_by_it() -> None:
    committed = ROOT / "scenarios/schema.json"
    assert schema_errors("--check-metaschema", committed) == ""
    assert schema_errors("--schemafile", committed, *sorted((ROOT / "scenarios").rglob("*.yaml"))) == ""


BAD = {
    "an unknown check": "expect: [{interfacez: {pod: a}}]",
    "two checks in one": "expect: [{interfaces: {pod: a, eth0: b}, mtu: {pod: a}}]",
    "none in one": "expect: [{}]",
    "an unknown key": "expect: [{reach: {from: a, to: a, under: b}}]",
    "a name alone that needs more": "expect: [reach]",
    "an unknown step": "steps: [{creat: a}]",
    "in a step in a step": "steps: [{with-api-server-away: {steps: [{with-api-server-away: {steps: [{creat: a}]}}]}}]",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_the_schema_refuses_what_the_models_refuse(bad: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"scenario: x\nnetworks: [b]\npods: {{a: {{annotations: {{cni: b}}}}}}\n{bad}\n")
    assert mistakes(path, ["b"])
    assert "bad.yaml" in schema_errors("--schemafile", ROOT / "scenarios/schema.json", path)


def test_an_editor_is_offered_every_check_and_every_step() -> None:
    """One object with a property for each; the schema has no empty choice."""
    definitions = schema()["$defs"]
    for name, known in (("Check", CHECKS), ("Step", STEPS)):
        [offered] = [way for way in definitions[name].get("anyOf", [definitions[name]]) if "properties" in way]
        assert list(offered["properties"]) == list(known)
        assert (offered["minProperties"], offered["maxProperties"]) == (1, 1)
    assert "oneOf" not in json.dumps(schema())


def test_the_reference_in_docs_is_current() -> None:
    text = (ROOT / "docs/scenarios.md").read_text()
    assert f"```text\n{reference()}\n```" in text, "python -m harness checks prints it"


def test_the_example_in_docs_has_no_mistakes() -> None:
    text = (ROOT / "docs/scenarios.md").read_text()
    parse(text.partition("```yaml\n")[2].partition("```")[0])


@pytest.mark.parametrize(("key", "model", "form"), NAMED, ids=[key for key, *_ in NAMED])
def test_every_example_of_a_check_or_step_is_one(key: str, model: type[Named], form: Any) -> None:
    assert model.key == key
    example: Any = TypeAdapter(form).validate_python(yaml.safe_load(model.example))
    assert isinstance(example, model)
    assert "object at" not in str(example)
    assert model.__doc__


def test_every_scenario_has_no_mistakes_and_names_the_schema_for_editors() -> None:
    for path in sorted((ROOT / "scenarios").glob("*.yaml")):
        assert not mistakes(path)
        assert path.read_text().startswith("# yaml-language-server: $schema=schema.json\n"), path
