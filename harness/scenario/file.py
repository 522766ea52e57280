"""A scenario: what pods to create, and what must then hold. One YAML file is one scenario; this is its model.

The short form (`pods`, `expect`, `after-delete`) is a straight line and becomes steps, so the runner knows only steps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, JsonValue, StringConstraints

from harness.checks import CHECKS
from harness.checks.base import Check
from harness.checks.status import PodFails
from harness.contract import ABILITIES, NET_D, SETTINGS, STATIC_PODS, Ability
from harness.model import Many, Model, PodName
from harness.pods import Pod
from harness.steps.base import AnyStep, Step, walk
from harness.steps.expect import AnyCheck, Expect
from harness.steps.objects import ObjectSpec
from harness.steps.pods import Create, Recreate

FIRST = "first-of-node"  # the name that stands for the network that the nodes have first
UNDER_TEST = "network-under-test"  # in scenarios/conformance: the network that --swap puts there
OTHER = "other-network"  # beside it: each of the project's own networks in turn

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")]
NetDFile = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9][-a-z0-9]*/)?[1-9][0-9]-[a-z0-9][-a-z0-9]*\.(conf|conflist|json)$")
]
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][-a-z0-9_.]*$")]


class ScenarioSpec(Model):
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
    needs: Many[str] = Field(default=(), description="What the cluster must be able to do: " + ", ".join(ABILITIES))
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
    spec: ScenarioSpec
    pods: Mapping[str, Pod]
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, spec: ScenarioSpec, *, file: str, name: str) -> Scenario:
        """The scenario of a file's content."""
        straight: list[Step] = [Create(pods=tuple(map(PodName, spec.pods)))]
        if spec.expect:
            straight.append(Expect(checks=spec.expect))
        pods = {pod: described or Pod() for pod, described in spec.pods.items()}
        return cls(file=file, name=name, spec=spec, pods=pods, steps=spec.steps or tuple(straight))

    @property
    def title(self) -> str:
        return self.spec.scenario

    @property
    def networks(self) -> tuple[str, ...]:
        return self.spec.networks

    @property
    def needs(self) -> frozenset[Ability[Any]]:
        """What the cluster must be able to do: what the file names, and what its content implies."""
        needs = {ABILITIES[name] for name in self.spec.needs}
        if self.spec.genie:
            needs.add(SETTINGS)
        if self.spec.net_d:
            needs.add(NET_D)
        if any(pod.static for pod in self.pods.values()):
            needs.add(STATIC_PODS)
        steps, checks = (step.needed() for step in walk(self.steps)), (check.needs for check in self.checks)
        return frozenset(needs).union(*steps, *checks)

    @property
    def checks(self) -> list[Check]:
        """Every check, in the order in which they are made."""
        inside = [check for step in walk(self.steps) if isinstance(step, Expect) for check in step.checks]
        return [*inside, *self.spec.after_delete]

    def later(self, network: str) -> str:
        """The first pod that asks for a network but not as its first one; empty: none does."""
        return next((name for name, pod in self.pods.items() if _later(pod.annotations, network)), "")

    @property
    def failing(self) -> frozenset[str]:
        """The pods that are expected to fail, so they are not waited for."""
        return frozenset(check.pod for check in self.checks if isinstance(check, PodFails))

    @property
    def pods_made(self) -> int:
        """How many pods it creates in all, which determines how long it takes."""
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
