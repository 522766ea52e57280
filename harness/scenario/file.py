"""A scenario: what pods to make, and what must then hold. One YAML file is one scenario; this is its model.

A file goes YAML → `Scenario` (pydantic: strict, no unknown keys) → names checked against each other → an ordered list
of steps. The short form (`pods`, `expect`, `after-delete`) is a straight line and becomes steps, so the runner knows
only steps. Whatever is wrong is told with file, line, column and field, and with what would have been right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, StringConstraints, ValidationError
from pydantic_core import PydanticCustomError

from harness.checks import CHECKS
from harness.checks.base import Check, Many, OneOrMany
from harness.checks.status import PodFails
from harness.model import Model, Named, NetworkName, OneKey, PodName, hint, nearest, references
from harness.yamlfile import Loc, Mistake, Mistakes, YamlFile

FEATURES: Mapping[str, str] = {
    "api-outage": "nodes can be cut off from the API server",
    "cni-calls": "the node's plugin can be called as the runtime does: CHECK, STATUS",
    "definitions-away": "custom resource definitions can be taken away for a while",
    "garbage-collection": "CNI GC can be called, and a sandbox be lost without CNI DEL",
    "ipv6": "networks have IPv6 subnets beside IPv4",
    "agent-restart": "genie's agent can be restarted",
    "agent-update": "genie's agents can be replaced by newer ones, node by node",
    "containerd-restart": "a node's containerd can be restarted",
    "end-sandbox": "a pod's sandbox can be ended by the runtime",
    "kubelet-restart": "a node's kubelet can be restarted",
    "net-d": "configurations can be put into the nodes' net.d",
    "services": "a Service's cluster IP leads to its pods",
    "settings": "genie.conf can be changed for a scenario",
    "static-pods": "pods can be made from the kubelet's manifest directory",
    "tampering": "something of a pod's network can be taken away behind genie's back",
    # What genie itself can, wherever its custom resource definitions are; to be said for the reader's sake.
    "attachment-definitions": "NetworkAttachmentDefinition objects",
    "logical-networks": "Logicalnetwork and Physicalnetwork objects",
    "smart-selection": "genie picks a network by load when the annotation is empty",
    "status-annotations": "genie writes network-status back to the pod",
}
FIRST = "first-of-node"  # the name that stands for the network which the nodes have first
OF_GENIE = frozenset({"attachment-definitions", "logical-networks", "smart-selection", "status-annotations"})

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")]
NetDFile = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9][-a-z0-9]*/)?[1-9][0-9]-[a-z0-9][-a-z0-9]*\.(conf|conflist|json)$")
]
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][-a-z0-9_.]*$")]


def _annotation(value: object) -> object:
    """An annotation is a string; a mapping or list is a convenience for JSON in one."""
    if isinstance(value, dict | list):
        import json

        return json.dumps(value)
    if isinstance(value, bool | int | float) or value is None:
        shown = str(value).lower() if isinstance(value, bool) else "null" if value is None else value
        raise PydanticCustomError(
            "no_string", "expected a string, YAML reads {shown} as something else: put it in quotes", {"shown": shown}
        )
    return value


AnnotationValue = Annotated[str, BeforeValidator(_annotation, json_schema_input_type=str | dict[str, Any] | list[Any])]

_NODE = re.compile(r"any|first|second|other|(same-as|other-than) (?P<pod>[a-z0-9]([-a-z0-9]*[a-z0-9])?)")


def _node(value: str) -> str:
    if not _NODE.fullmatch(value):
        raise PydanticCustomError(
            "node",
            "expected any, first, second, other, `same-as POD` or `other-than POD`, got {value}{meant}",
            {"value": repr(value), "meant": _meant(value)},
        )
    return value


def _meant(value: str) -> str:
    word = nearest(value.partition(" ")[0], ("any", "first", "second", "other", "same-as", "other-than"))
    return f"; did you mean {word!r}?" if word else ""


class Port(Model):
    """A port of the pod that is forwarded from its node."""

    port: int = Field(default=8472, ge=1, le=65535, description="The pod's port; 8472 is the probe's.")
    host_port: int = Field(ge=1, le=65535)
    protocol: Literal["tcp", "udp"] = "tcp"


class Pod(Model):
    """A pod with a probe in it."""

    annotations: dict[str, AnnotationValue] = Field(
        default_factory=dict,
        description="What it asks for. A mapping or list becomes JSON; {{ namespace }} and the like are filled in.",
    )
    labels: dict[str, str] = Field(default_factory=dict)
    node: Annotated[str, AfterValidator(_node)] = Field(
        default="any",
        description="any, first, second, other (than the first pod's), `same-as POD` or `other-than POD`.",
    )
    ports: Many[Port] = ()
    restart: Literal["always", "never"] = Field(
        default="always", description="never: a sandbox that ended is not made anew."
    )
    static: bool = Field(default=False, description="A static pod: from a file in its node's manifest directory.")

    @property
    def beside(self) -> str | None:
        """The pod that its node depends on."""
        found = _NODE.fullmatch(self.node)
        return found["pod"] if found else None


# --- steps


class Step(Named):
    """Something that happens, in its turn."""


STEPS: dict[str, type[Step]] = {}
AnyStep = Annotated[Any, OneKey("step", STEPS)]
AnyCheck = Annotated[Any, OneKey("check", CHECKS)]


class OfPods(Step):
    """Something that happens to pods."""

    shorthand = "pods"

    pods: OneOrMany[PodName]


class Create(OfPods):
    """Make these pods, all at once, and wait until they run (but not for those that some pod-fails names)."""

    key = "create"
    example = "create: [one, two]"


class Delete(OfPods):
    """Delete these pods and wait until they are gone."""

    key = "delete"
    example = "delete: [one]"


class Recreate(OfPods):
    """Delete these pods, and make pods of the same names the moment that the names are free."""

    key = "recreate"
    example = "recreate: [one]"

    force: bool = Field(default=False, description="Free the names before the node has taken the old pods down.")


class EndSandbox(OfPods):
    """Have the node's runtime end the sandboxes of these pods (CNI DEL), without the API server's doing."""

    key = "end-sandbox"
    example = "end-sandbox: [one]"


class LoseSandbox(OfPods):
    """Have the node's runtime make one more sandbox for each of these pods, and lose it: its namespace goes, and
    nobody calls CNI DEL.
    """

    key = "lose-sandbox"
    example = "lose-sandbox: [one]"


class CollectGarbage(Step):
    """Have CNI GC called on every node, with the attachments that the runtime knows of."""

    key = "collect-garbage"
    example = "collect-garbage"


class Tamper(Step):
    """Take something of a pod's network away, behind genie's back."""

    key = "tamper"
    example = "tamper: {pod: one, interface: eth1, remove: addresses}"

    pod: PodName
    interface: str
    remove: Literal["addresses", "routes", "rules", "interface"] = Field(
        description="The interface's addresses, the routes by it in every table, the rules for packets from its "
        "addresses, or the interface itself."
    )


class Annotate(Step):
    """Change annotations of a pod that is there already; null removes one."""

    key = "annotate"
    example = "annotate: {pod: one, annotations: {cni: weave}}"

    pod: PodName
    annotations: dict[str, str | None]


class Apply(Step):
    """Create these Kubernetes objects."""

    key = "apply"
    shorthand = "objects"
    example = "apply: [{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}]"

    objects: Many[ObjectSpec]


class Remove(Step):
    """Delete these Kubernetes objects (kind and name will do)."""

    key = "remove"
    shorthand = "objects"
    example = "remove: [{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}]"

    objects: Many[ObjectSpec]


class Expect(Step):
    """Check these, in this order."""

    key = "expect"
    shorthand = "checks"
    example = "expect: [{interfaces: {pod: one, eth0: calico}}]"

    checks: Many[AnyCheck]


class Around(Step):
    """A state that other steps are taken in."""

    steps: Many[AnyStep] = ()


class WithApiServerAway(Around):
    """Do these steps while no node can reach the API server (the scenario needs api-outage)."""

    key = "with-api-server-away"
    shorthand = "steps"
    example = "with-api-server-away: [{end-sandbox: one}]"


class WithSettings(Around):
    """Do these steps with these keys in genie.conf (the scenario needs settings)."""

    key = "with-settings"
    example = "with-settings: {genie: {default_plugin: weave}, steps: [{create: one}]}"

    genie: dict[str, JsonValue]


class WithRestart(Around):
    """Restart the kubelet, containerd or genie's agent of every node, do these steps meanwhile, then wait for ready
    nodes.
    """

    key = "with-restart"
    example = "with-restart: {of: agent, steps: [{create: one}]}"

    of: Literal["kubelet", "containerd", "agent"]


class WithRollingUpdate(Around):
    """Do these steps while genie's agents are replaced by newer ones, node by node, then wait for the end of that."""

    key = "with-rolling-update"
    shorthand = "steps"
    example = "with-rolling-update: [{create: one}]"


class WithDefinitionAway(Around):
    """Do these steps while the cluster lacks a custom resource definition, and with it all objects of that kind."""

    key = "with-definition-away"
    example = "with-definition-away: {name: network-attachment-definitions.k8s.cni.cncf.io, steps: [{create: one}]}"

    name: str


def _object(value: dict[str, Any]) -> dict[str, Any]:
    name = (value.get("metadata") or {}).get("name") if isinstance(value.get("metadata"), dict) else None
    gaps = [key for key in ("apiVersion", "kind") if not isinstance(value.get(key), str)] + (
        [] if name else ["metadata.name"]
    )
    if gaps:
        raise PydanticCustomError("object", "expected a Kubernetes object; it has no {gaps}", {"gaps": ", ".join(gaps)})
    return value


ObjectSpec = Annotated[dict[str, Any], AfterValidator(_object)]

_ALL: tuple[type[Step], ...] = (
    *(Create, Delete, Recreate, EndSandbox, LoseSandbox, CollectGarbage, Tamper, Annotate, Apply, Remove, Expect),
    *(WithApiServerAway, WithSettings, WithRestart, WithRollingUpdate, WithDefinitionAway),
)
STEPS.update({step.key: step for step in _ALL})
for _step in _ALL:  # steps hold steps, so that each can be built only now that all are known
    _step.model_rebuild(force=True)


# --- the file


class ScenarioFile(Model):
    """One scenario, as its file says it."""

    scenario: str = Field(min_length=1, description="One sentence: what is true when this passes.")
    networks: Many[Name] = Field(
        description="The networks that it takes. Where one is missing, it is skipped, with the reason. "
        f"{FIRST}: the one whose configuration is the first in the nodes' net.d, whichever that is."
    )
    own_networks: dict[Name, Many[str]] = Field(
        default_factory=dict,
        description="Networks that the scenario's own objects make: name to subnets, for checks to know.",
    )
    needs: Many[str] = Field(default=(), description="What the cluster must be able to do: " + ", ".join(FEATURES))
    labels: Many[Label] = Field(default=(), description="Words to select it by: -m LABEL.")
    genie: dict[str, JsonValue] = Field(
        default_factory=dict, description="Keys of genie.conf, for the time of this scenario."
    )
    objects: Many[ObjectSpec] = Field(
        default=(), description="Kubernetes objects, made before the pods, in its namespace."
    )
    net_d: dict[NetDFile, dict[str, JsonValue]] = Field(
        default_factory=dict,
        description="Files in the nodes' net.d, for the time of this scenario: a configuration's name, or one in a "
        "network's folder (chained/10-tuning.conf), to its content.",
    )
    pods: dict[Name, Pod | None] = Field(min_length=1, description="The pods, by name.")
    expect: Many[AnyCheck] = Field(default=(), description="What must hold once the pods run.")
    steps: Many[AnyStep] = Field(default=(), description="Instead of expect, where things happen in turn.")
    after_delete: Many[AnyCheck] = Field(
        default=(CHECKS["nothing-left"](),), description="What must hold once the pods are gone."
    )


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A scenario, ready to be run."""

    file: str
    name: str  # the file's stem: what one types into -k
    spec: ScenarioFile
    pods: Mapping[str, Pod]
    steps: tuple[Step, ...]
    after_delete: tuple[Check, ...]

    @property
    def title(self) -> str:
        return self.spec.scenario

    @property
    def networks(self) -> tuple[str, ...]:
        return self.spec.networks

    @property
    def needs(self) -> frozenset[str]:
        """Features: those that it says and those that its steps imply."""
        implied = {"settings"} if self.spec.genie else set()
        if self.spec.net_d:
            implied.add("net-d")
        if any(pod.static for pod in self.pods.values()):
            implied.add("static-pods")
        for step in walk(self.steps):
            match step:
                case WithApiServerAway():
                    implied.add("api-outage")
                case WithSettings():
                    implied.add("settings")
                case EndSandbox():
                    implied.add("end-sandbox")
                case WithRestart(of=what):
                    implied.add(f"{what}-restart")
                case WithRollingUpdate():
                    implied.add("agent-update")
                case LoseSandbox() | CollectGarbage():
                    implied.add("garbage-collection")
                case Tamper():
                    implied.add("tampering")
                case WithDefinitionAway():
                    implied.add("definitions-away")
        if any(check.key in ("check-passes", "status-passes") for check in self.checks):
            implied.add("cni-calls")
        return frozenset(self.spec.needs) | implied

    @property
    def checks(self) -> list[Check]:
        """Every check, in the order in which they are made."""
        inside = [check for step in walk(self.steps) if isinstance(step, Expect) for check in step.checks]
        return [*inside, *self.after_delete]

    def later(self, network: str) -> str:
        """The first pod that asks for a network but not as its first one; empty: none does."""
        return next((name for name, pod in self.pods.items() if _later(pod.annotations, network)), "")

    @property
    def failing(self) -> frozenset[str]:
        """The pods that are not waited for, because they are to fail."""
        return frozenset(check.pod for check in self.checks if isinstance(check, PodFails))

    @property
    def pods_made(self) -> int:
        """How many pods it makes in all, which says how long it takes."""
        return sum(len(step.pods) for step in walk(self.steps) if isinstance(step, Create | Recreate))

    @property
    def group(self) -> str:
        """The group that it belongs to in reports: its first label."""
        return self.spec.labels[0] if self.spec.labels else "other"


def _later(annotations: Mapping[str, str], network: str) -> bool:
    """Whether a network is asked for after another one, or beside the default network."""
    primary = [ask.partition("@")[0].strip() for ask in annotations.get("cni", "").split(",")]
    named = re.search(rf"(?<![-.\w]){re.escape(network)}(?![-.\w])", annotations.get("k8s.v1.cni.cncf.io/networks", ""))
    return network in primary[1:] or named is not None


def walk(steps: tuple[Step, ...]) -> Iterator[Step]:
    """Every step, also those inside others."""
    for step in steps:
        yield step
        if isinstance(step, Around):
            yield from walk(step.steps)


# --- reading


def read(path: Path, shown: str = "", *, swap: tuple[str, str] | None = None) -> Scenario:
    """Read a scenario file; with `swap`, as if it had been written for the second network in place of the first.

    Raises:
        Mistakes: everything that is wrong with it.
    """
    if swap is None:
        return _understand(YamlFile.read(path, shown), path.stem)
    # The network's name, but neither a key nor a value of some plugin's configuration: `"type": "bridge"`.
    old = re.compile(rf"""(?<!type: )(?<!": ")\b{re.escape(swap[0])}\b(?!"?:)""")
    return _understand(YamlFile.read(path, shown, lambda text: old.sub(swap[1], text)), old.sub(swap[1], path.stem))


def parse(text: str, file: str = "scenario.yaml") -> Scenario:
    """The same for text that is already here."""
    return _understand(YamlFile.parse(text, file), Path(file).stem)


def _understand(source: YamlFile, name: str) -> Scenario:
    if not isinstance(source.values, dict):
        raise Mistakes([source.mistake((), "expected a mapping: scenario, networks, pods, expect")])
    try:
        spec = ScenarioFile.model_validate(source.values)
    except ValidationError as error:
        raise Mistakes([_mistake(source, dict(one)) for one in error.errors(include_url=False)]) from error
    scenario = Scenario(
        file=source.file,
        name=name,
        spec=spec,
        pods={pod: made or Pod() for pod, made in spec.pods.items()},
        steps=spec.steps or _straight_line(spec),
        after_delete=spec.after_delete,
    )
    if wrong := [*_wrong_names(source, scenario), *_wrong_order(source, scenario)]:
        raise Mistakes(wrong)
    return scenario


def _straight_line(spec: ScenarioFile) -> tuple[Step, ...]:
    steps: list[Step] = [Create(pods=tuple(map(PodName, spec.pods)))]
    return (*steps, Expect(checks=spec.expect)) if spec.expect else tuple(steps)


def _wrong_names(source: YamlFile, scenario: Scenario) -> Iterator[Mistake]:
    """References to what the file does not have."""
    known = {PodName: list(scenario.pods), NetworkName: [*scenario.networks, *scenario.spec.own_networks]}
    for loc, reference in references(scenario.spec):
        if reference not in known[type(reference)]:
            what = "pod" if isinstance(reference, PodName) else "network"
            yield source.mistake(loc, f"unknown {what} {str(reference)!r}{hint(reference, known[type(reference)])}")
    for name, pod in scenario.pods.items():
        if pod.beside and (pod.beside not in scenario.pods or pod.beside == name):
            others = [other for other in scenario.pods if other != name]
            yield source.mistake(("pods", name, "node"), f"unknown pod {pod.beside!r}{hint(pod.beside, others)}")
    for index, feature in enumerate(scenario.spec.needs):
        if feature not in FEATURES:
            yield source.mistake(("needs", index), f"unknown feature {feature!r}{hint(feature, FEATURES)}")
    allowed = {"namespace", "scenario", *(f"subnet.{network}" for network in scenario.networks)}
    for where, text in _texts(scenario):
        for place in PLACE.findall(text):
            if place not in allowed:
                yield source.mistake(where, f"unknown value {{{{ {place} }}}}{hint(place, allowed)}")


def _wrong_order(source: YamlFile, scenario: Scenario) -> Iterator[Mistake]:
    """Steps that cannot be taken: a pod is looked at or deleted before it is made, or `expect` beside `steps`."""
    if scenario.spec.steps and scenario.spec.expect:
        yield source.mistake(("expect",), "beside steps there is no expect: make it a step", at_key=True)
    there: set[str] = set()
    for loc, step in _walk_located(scenario.spec.steps, ("steps",)):
        names = {str(reference): at for at, reference in references(step, loc) if isinstance(reference, PodName)}
        if isinstance(step, Create):
            for name in names.keys() & there:
                yield source.mistake(names[name], f"pod {name!r} is there already: delete it first, or recreate it")
            there |= names.keys()
        elif not isinstance(step, Around):
            for name in (names.keys() & scenario.pods.keys()) - there:
                yield source.mistake(names[name], f"pod {name!r} is not there at this step: create it first")
            if isinstance(step, Delete):
                there -= names.keys()


def _walk_located(steps: tuple[Step, ...], loc: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Step]]:
    for index, step in enumerate(steps):
        yield (*loc, index), step
        if isinstance(step, Around):
            yield from _walk_located(step.steps, (*loc, index, step.key, "steps"))


PLACE = re.compile(r"\{\{\s*([\w.-]+)\s*\}\}")


def _texts(scenario: Scenario) -> Iterator[tuple[Loc, str]]:
    """Every text that places are filled in, with where it stands."""
    for name, pod in scenario.pods.items():
        for key, value in (*pod.annotations.items(), *pod.labels.items()):
            yield ("pods", name, "annotations" if key in pod.annotations else "labels", key), value
    for index, thing in enumerate(scenario.spec.objects):
        yield ("objects", index), str(thing)


# --- mistakes in words

_WORDS: Mapping[str, str] = {
    "string_type": "expected a string",
    "int_type": "expected a whole number",
    "bool_type": "expected true or false",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "model_attributes_type": "expected a mapping",
}


def _mistake(source: YamlFile, error: Mapping[str, Any]) -> Mistake:
    """A pydantic error, as a person would put it."""
    kind, loc = error["type"], tuple(part for part in error["loc"] if part not in ("[key]", "str", "Expected"))
    if kind == "extra_forbidden":
        return source.mistake(loc, f"unknown key{hint(str(loc[-1]), _keys_at(loc))}", at_key=True)
    if kind == "missing":
        return source.mistake(loc, "is missing", at_key=True)
    if kind == "string_pattern_mismatch":
        return source.mistake(
            loc, f"{error['input']!r} does not fit {error['ctx']['pattern']}", at_key="[key]" in error["loc"]
        )
    if kind in _WORDS:
        return source.mistake(loc, f"{_WORDS[kind]}, got {_shown(error['input'])}")
    if kind == "literal_error":
        meant = nearest(str(error["input"]), re.findall(r"'([^']*)'", error["ctx"]["expected"]))
        hinted = f"; did you mean {meant!r}?" if meant else ""
        return source.mistake(loc, f"expected {error['ctx']['expected']}, got {_shown(error['input'])}{hinted}")
    text = str(error["msg"]).removeprefix("Value error, ")
    return source.mistake(loc, text[:1].lower() + text[1:], at_key=kind in ("unknown_name",))


def _shown(value: object) -> str:
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
    return repr(value)


def _keys_at(loc: tuple[str | int, ...]) -> list[str]:
    """The keys that would have been right beside an unknown one."""
    model: type[Model] = ScenarioFile
    inner: type[Model] | None
    for part in loc[:-1]:
        inner = _models().get(str(part))
        model = inner if inner is not None else Pod if model is ScenarioFile and part == "pods" else model
    return [field.alias or name for name, field in model.model_fields.items()]


@lru_cache
def _models() -> dict[str, type[Model]]:
    from harness.checks.routing import ExpectedRoute

    return {**CHECKS, **STEPS, "ports": Port, "has": ExpectedRoute, "lacks": ExpectedRoute}


class Schema:
    """The JSON Schema of a scenario file."""

    title: ClassVar[str] = "A genie scenario"

    @classmethod
    def of(cls) -> dict[str, Any]:
        """What editors check a file against; `python -m harness schema` prints it."""
        schema = ScenarioFile.model_json_schema(by_alias=True, mode="validation")
        schema["title"] = cls.title
        shared: dict[str, Any] = {}
        schema = _hoisted(schema, shared)
        schema["$defs"] |= shared
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _hoisted(part: Any, shared: dict[str, Any]) -> Any:
    """The same schema with the lists of all checks and all steps said once, in `$defs`."""
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
