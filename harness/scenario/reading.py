"""Reads a scenario file: YAML, its model (pydantic: strict, no unknown keys), and names checked against each other.

Each mistake is reported with file, line, column and field, and with the expected value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from harness.scenario.file import Scenario, ScenarioSpec
from harness.scenario.mistakes import worded, wrong_names, wrong_order
from harness.yamlfile import Mistakes, YamlFile


def read(path: Path, shown: str = "", *, swaps: Mapping[str, str] | None = None) -> Scenario:
    """Read a scenario file, as if it had been written for other networks: `swaps` has the new name of each old one.

    Raises Mistakes: all mistakes; also if it has no checks, because it could not fail.
    """
    if not swaps:
        return _expecting(YamlFile.read(path, shown), path.stem)
    # The network's name, but neither a key nor a value of some plugin's configuration: `"type": "bridge"`.
    names = "|".join(map(re.escape, swaps))
    old = re.compile(rf"""(?<!type: )(?<!": ")\b({names})\b(?!"?:)""")

    def swapped(text: str) -> str:
        return old.sub(lambda found: swaps[found[0]], text)

    return _expecting(YamlFile.read(path, shown, swapped), swapped(path.stem))


def _expecting(source: YamlFile, name: str) -> Scenario:
    scenario = _understand(source, name)
    if len(scenario.checks) == len(scenario.spec.after_delete):
        what = "a step `expect`" if scenario.spec.steps else "expect"
        at = ("steps",) if scenario.spec.steps else ("expect",)
        raise Mistakes([source.mistake(at, f"expected {what} with at least one check, found none", at_key=True)])
    return scenario


def parse(text: str, file: str = "scenario.yaml") -> Scenario:
    """The same for a text, which may be without checks."""
    return _understand(YamlFile.parse(text, file), Path(file).stem)


def _understand(source: YamlFile, name: str) -> Scenario:
    if not isinstance(source.values, dict):
        raise Mistakes([source.mistake((), "expected a mapping: scenario, networks, pods, expect")])
    try:
        spec = ScenarioSpec.model_validate(source.values)
    except ValidationError as error:
        raise Mistakes([worded(source, dict(one)) for one in error.errors(include_url=False)]) from error
    scenario = Scenario.of(spec, file=source.file, name=name)
    if wrong := [*wrong_names(source, scenario), *wrong_order(source, scenario)]:
        raise Mistakes(wrong)
    return scenario
