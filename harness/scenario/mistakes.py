"""Mistakes in a scenario file: pydantic's errors in helpful words, and mistakes that pydantic cannot find."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.checks import CHECKS
from harness.checks.routing import ExpectedRoute
from harness.contract import ABILITIES
from harness.model import PLACE, Model, NetworkName, PodName, references
from harness.pods import Pod, Port
from harness.scenario.file import Scenario, ScenarioSpec
from harness.steps import STEPS
from harness.steps.base import Around, Step
from harness.steps.pods import Create, Delete
from harness.yamlfile import Loc, Mistake, YamlFile, hint, nearest

_MODELS: Mapping[str, type[Model]] = {
    **CHECKS,
    **STEPS,
    "ports": Port,
    "has": ExpectedRoute,
    "lacks": ExpectedRoute,
}


def worded(source: YamlFile, error: Mapping[str, Any]) -> Mistake:
    """A pydantic error in plain words."""
    loc = tuple(part for part in error["loc"] if part not in ("[key]", "str", "Expected"))
    at_key = error["type"] == "unknown_name" or (error["type"] == "string_pattern_mismatch" and "[key]" in error["loc"])
    return source.worded({**error, "loc": loc}, _keys_at(loc), at_key=at_key)


def _keys_at(loc: tuple[str | int, ...]) -> list[str]:
    """The valid keys in place of an unknown one."""
    model: type[Model] = ScenarioSpec
    for part in loc[:-1]:
        model = Pod if model is ScenarioSpec and part == "pods" else _MODELS.get(str(part), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def wrong_names(source: YamlFile, scenario: Scenario) -> Iterator[Mistake]:
    """References to names that the file does not define."""
    known = {PodName: list(scenario.pods), NetworkName: [*scenario.networks, *scenario.spec.own_networks]}
    found = list(references(scenario.spec))
    asked = " ".join(text for pod in scenario.pods.values() for text in pod.annotations.values())
    used = {str(reference) for _, reference in found} | set(re.split(r"[^-.\w]+", asked))
    blamed = set[str]()
    for index, network in enumerate(scenario.networks):
        meant = nearest(
            network, {str(name) for _, name in found if isinstance(name, NetworkName)} - {*known[NetworkName]}
        )
        if network not in used and meant:
            blamed.add(meant)
            yield source.mistake(("networks", index), f"no pod and no check names {network!r}; did you mean {meant!r}?")
    for loc, reference in found:
        if reference not in known[type(reference)] and str(reference) not in blamed:
            what = "pod" if isinstance(reference, PodName) else "network"
            yield source.mistake(loc, f"unknown {what} {str(reference)!r}{hint(reference, known[type(reference)])}")
    for name, pod in scenario.pods.items():
        if pod.beside and (pod.beside not in scenario.pods or pod.beside == name):
            others = [other for other in scenario.pods if other != name]
            yield source.mistake(("pods", name, "node"), f"unknown pod {pod.beside!r}{hint(pod.beside, others)}")
    for index, feature in enumerate(scenario.spec.needs):
        if feature not in ABILITIES:
            yield source.mistake(("needs", index), f"unknown feature {feature!r}{hint(feature, ABILITIES)}")
    allowed = {"namespace", "scenario", *(f"subnet.{network}" for network in scenario.networks)}
    for where, text in _texts(scenario):
        for place in PLACE.findall(text):
            if place not in allowed:
                yield source.mistake(where, f"unknown value {{{{ {place} }}}}{hint(place, allowed)}")


def wrong_order(source: YamlFile, scenario: Scenario) -> Iterator[Mistake]:
    """Impossible steps: a pod is used or deleted before it is created, or there is `expect` together with `steps`."""
    if scenario.spec.steps and scenario.spec.expect:
        yield source.mistake(("expect",), "with steps, expect must be a step", at_key=True)
    there: set[str] = set()
    for loc, step in _walk_located(scenario.spec.steps, ("steps",)):
        names = {str(reference): at for at, reference in references(step, loc) if isinstance(reference, PodName)}
        if isinstance(step, Create):
            for name in names.keys() & there:
                yield source.mistake(names[name], f"pod {name!r} exists already: delete it first, or recreate it")
            there |= names.keys()
        elif not isinstance(step, Around):
            for name in (names.keys() & scenario.pods.keys()) - there:
                yield source.mistake(names[name], f"pod {name!r} does not exist at this step: create it first")
            if isinstance(step, Delete):
                there -= names.keys()


def _walk_located(steps: tuple[Step, ...], loc: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Step]]:
    for index, step in enumerate(steps):
        yield (*loc, index), step
        if isinstance(step, Around):
            yield from _walk_located(step.steps, (*loc, index, step.key, "steps"))


def _texts(scenario: Scenario) -> Iterator[tuple[Loc, str]]:
    """Every text with places to fill in, with its path."""
    for name, pod in scenario.pods.items():
        for key, value in (*pod.annotations.items(), *pod.labels.items()):
            yield ("pods", name, "annotations" if key in pod.annotations else "labels", key), value
    for index, thing in enumerate(scenario.spec.objects):
        yield ("objects", index), str(thing)
