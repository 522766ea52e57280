"""The model of a scenario: pods to create, and checks of them. One YAML file is one scenario.

The short form (`pods`, `expect`, `after-delete`) is converted to steps, so the runner knows only steps.
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

FIRST = "first-of-node"  # the name for the nodes' first network
UNDER_TEST = "network-under-test"  # in scenarios/conformance: the network that --swap puts there
OTHER = "other-network"  # another network: each of the project's networks in turn

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")]
NetDFile = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9][-a-z0-9]*/)?[1-9][0-9]-[a-z0-9][-a-z0-9]*\.(conf|conflist|json)$")
]
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][-a-z0-9_.]*$")]


class ScenarioSpec(Model):
    """One scenario, as in its file."""

    scenario: str = Field(min_length=1, description="One sentence that is true if the scenario passes.")
    networks: Many[Name] = Field(
        description="The networks that it needs. If one is missing, the scenario is skipped, with the reason. "
        f"{FIRST}: the network with the first configuration in the nodes' net.d."
    )
    own_networks: dict[Name, Many[str]] = Field(
        default_factory=dict,
        description="Networks that the scenario's objects define: name to subnets, for checks.",
    )
    needs: Many[str] = Field(default=(), description="Abilities that the cluster must have: " + ", ".join(ABILITIES))
    labels: Many[Label] = Field(default=(), description="Words for -m LABEL.")
    timeout: float = Field(
        default=0.0,
        ge=0,
        description="The longest time of this scenario, in seconds; it fails after that. 0: the backend's usual limit.",
    )
    genie: dict[str, JsonValue] = Field(default_factory=dict, description="Keys of genie.conf during this scenario.")
    namespace_annotations: dict[str, str] = Field(
        default_factory=dict, description="Annotations of the scenario's namespace."
    )
    objects: Many[ObjectSpec] = Field(
        default=(), description="Kubernetes objects, created before the pods in the scenario's namespace."
    )
    net_d: dict[NetDFile, dict[str, JsonValue]] = Field(
        default_factory=dict,
        description="Files in the nodes' net.d during this scenario: a file name, or a path in a "
        "network's folder (chained/10-tuning.conf), to its content.",
    )
    pods: dict[Name, Pod | None] = Field(min_length=1, description="The pods by name.")
    expect: Many[AnyCheck] = Field(default=(), description="Checks after the pods run.")
    steps: Many[AnyStep] = Field(default=(), description="Used instead of expect if things happen in order.")
    after_delete: Many[AnyCheck] = Field(
        default=(CHECKS["nothing-left"](),), description="Checks after the pods are gone."
    )


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A scenario that is ready to run."""

    file: str
    name: str  # the file's stem, for -k
    spec: ScenarioSpec
    pods: Mapping[str, Pod]
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, spec: ScenarioSpec, *, file: str, name: str) -> Scenario:
        """The scenario from a file's contents."""
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
        """The abilities that it needs: those that the file names, and those that its contents imply."""
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
        """All checks, in the order in which they run."""
        inside = [check for step in walk(self.steps) if isinstance(step, Expect) for check in step.checks]
        return [*inside, *self.spec.after_delete]

    def later(self, network: str) -> str:
        """The first pod that has a network as a later one; empty if there is none."""
        return next((name for name, pod in self.pods.items() if _later(pod.annotations, network)), "")

    @property
    def failing(self) -> frozenset[str]:
        """The pods that must fail; the harness does not wait for them."""
        return frozenset(check.pod for check in self.checks if isinstance(check, PodFails))

    @property
    def pods_made(self) -> int:
        """The number of pods that it creates; this determines its time."""
        return sum(len(step.pods) for step in walk(self.steps) if isinstance(step, Create | Recreate))

    @property
    def group(self) -> str:
        """Its group in reports: the first label."""
        return self.spec.labels[0] if self.spec.labels else "other"


def _later(annotations: Mapping[str, str], network: str) -> bool:
    """Whether a pod asks for a network after another one, or in addition to the default network."""
    primary = [ask.partition("@")[0].strip() for ask in annotations.get("cni", "").split(",")]
    named = re.search(rf"(?<![-.\w]){re.escape(network)}(?![-.\w])", annotations.get("k8s.v1.cni.cncf.io/networks", ""))
    return network in primary[1:] or named is not None
