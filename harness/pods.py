"""A pod of a scenario: its model, its node, and its manifest."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from harness.model import Many, Model, fill
from harness.probe import PORT
from harness.yamlfile import nearest

COMMAND = ("python3", "-m", "harness.probe", "serve", "--name")


def _annotation(value: object) -> object:
    """An annotation is a string; a mapping or list is converted to JSON."""
    if isinstance(value, dict | list):
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
        description="The pod's annotations. A mapping or list becomes JSON; {{ namespace }} etc. are filled in.",
    )
    labels: dict[str, str] = Field(default_factory=dict)
    node: Annotated[str, AfterValidator(_node)] = Field(
        default="any",
        description="any, first, second, other (than the first pod's), `same-as POD` or `other-than POD`.",
    )
    ports: Many[Port] = ()
    restart: Literal["always", "never"] = Field(
        default="always", description="never: an ended sandbox is not replaced."
    )
    static: bool = Field(default=False, description="A static pod, from a file in its node's manifest directory.")

    @property
    def beside(self) -> str | None:
        """The pod that determines its node."""
        found = _NODE.fullmatch(self.node)
        return found["pod"] if found else None

    @property
    def needs_second_node(self) -> bool:
        """Whether it needs a cluster of two nodes."""
        return self.node in ("second", "other") or self.node.startswith("other-than")


def place(pods: Mapping[str, Pod], nodes: Sequence[str], seed: str) -> dict[str, str]:
    """Choose a node for each pod.

    `first` and `second` are nodes of the cluster. Pods without a `node` share one, which the seed selects: this spreads
    the load of many scenarios, and is the same in each run.
    """
    home = nodes[zlib.crc32(seed.encode()) % len(nodes)]
    placed: dict[str, str] = {}

    def of(name: str, asked_by: tuple[str, ...] = ()) -> str:
        if name in placed or name in asked_by:
            return placed.get(name, home)
        pod, first = pods[name], next(iter(pods))
        if pod.beside:
            there = of(pod.beside, (*asked_by, name))
            node = there if pod.node.startswith("same-as") else _other(there, nodes)
        elif pod.node == "other" and name != first:
            node = _other(of(first, (*asked_by, name)), nodes)
        else:
            node = {"first": nodes[0], "second": nodes[1 % len(nodes)]}.get(pod.node, home)
        placed[name] = node
        return node

    return {name: of(name) for name in pods}


def _other(node: str, nodes: Sequence[str]) -> str:
    return nodes[(nodes.index(node) + 1) % len(nodes)]


def mirrored(pods: Mapping[str, Pod], nodes: Mapping[str, str]) -> dict[str, str]:
    """The names of static pods on the API server, where the kubelet shows them as NAME-NODE."""
    return {name: f"{name}-{nodes[name]}" for name, pod in pods.items() if pod.static}


def manifest(name: str, pod: Pod, *, node: str, image: str, values: Mapping[str, str]) -> dict[str, Any]:
    """A pod that runs the probe."""
    ports = [
        {"containerPort": each.port, "hostPort": each.host_port, "protocol": each.protocol.upper()}
        for each in pod.ports
    ]
    container = {
        "name": "probe",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [*COMMAND, name],
        "ports": ports or [{"containerPort": PORT}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"genie.harness/pod": name, **fill(pod.labels, values)},
            "annotations": fill(pod.annotations, values),
        },
        "spec": {
            "nodeName": node,
            "containers": [container],
            "restartPolicy": pod.restart.capitalize(),
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists"}],
        },
    }


def as_static(manifest: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    """A manifest for a file in its node's manifest directory."""
    spec = {key: value for key, value in manifest["spec"].items() if key != "nodeName"}
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}, "spec": spec}
