"""Steps that hold a state during other steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

from pydantic import JsonValue

from harness import contract
from harness.contract import Ability, Restarts, has
from harness.model import NetworkName
from harness.steps.base import Around
from harness.steps.scene import START, Scene
from harness.waiting import NotReady, limit, until_nothing

_RESTARTS: dict[str, Ability[Restarts]] = {
    "kubelet": contract.KUBELET_RESTART,
    "containerd": contract.CONTAINERD_RESTART,
    "agent": contract.AGENT_RESTART,
}


class WithApiServerAway(Around):
    """Run these steps while no node can reach the API server (the scenario needs api-outage)."""

    key = "with-api-server-away"
    shorthand = "steps"
    example = "with-api-server-away: [{end-sandbox: one}]"
    needs = frozenset({contract.API_OUTAGE})

    def __str__(self) -> str:
        return "take the API server away"

    def state(self, scene: Scene) -> AbstractContextManager[None]:
        return has(scene.cluster, contract.API_OUTAGE).api_server_away(scene.namespace)


class WithSettings(Around):
    """Run these steps with these keys in genie.conf (the scenario needs settings)."""

    key = "with-settings"
    example = "with-settings: {genie: {default_plugin: weave}, steps: [{create: one}]}"
    needs = frozenset({contract.SETTINGS})

    genie: dict[str, JsonValue]

    def __str__(self) -> str:
        return f"set {', '.join(self.genie)} in genie.conf"

    def state(self, scene: Scene) -> AbstractContextManager[None]:
        return has(scene.cluster, contract.SETTINGS).settings(self.genie, scene.namespace)


class WithPolicies(Around):
    """Run these steps while genie's agent serves this scenario's pods and enforces network policies (the scenario needs
    policies). Delete the pods in these steps, too.
    """

    key = "with-policies"
    shorthand = "steps"
    example = "with-policies: [{create: one}]"
    needs = frozenset({contract.POLICIES})

    def __str__(self) -> str:
        return "let genie's agent enforce network policies"

    def state(self, scene: Scene) -> AbstractContextManager[None]:
        return has(scene.cluster, contract.POLICIES).policies(scene.namespace)


class WithRestart(Around):
    """Restart the kubelet, containerd or genie's agent of every node, run these steps meanwhile, then wait for ready
    nodes.
    """

    key = "with-restart"
    example = "with-restart: {of: agent, steps: [{create: one}]}"

    of: Literal["kubelet", "containerd", "agent"]

    def __str__(self) -> str:
        return f"restart {self.of}"

    def needed(self) -> frozenset[Ability[Any]]:
        return frozenset({_RESTARTS[self.of]})

    @contextmanager
    def state(self, scene: Scene) -> Iterator[None]:
        cluster = has(scene.cluster, _RESTARTS[self.of])
        for node in scene.cluster.facts.nodes:
            cluster.restart(self.of, node)
        yield
        cluster.settle()


class WithRollingUpdate(Around):
    """Run these steps while genie's agents are replaced node by node, then wait until all are replaced."""

    key = "with-rolling-update"
    shorthand = "steps"
    example = "with-rolling-update: [{create: one}]"
    needs = frozenset({contract.AGENT_UPDATE})

    def __str__(self) -> str:
        return "update genie's agents"

    def state(self, scene: Scene) -> AbstractContextManager[None]:
        return has(scene.cluster, contract.AGENT_UPDATE).rolling_update()


class WithNetworkRestart(Around):
    """Run these steps while a network's own daemons are replaced, then wait until all are (skipped if it has none)."""

    key = "with-network-restart"
    example = "with-network-restart: {of: flannel, steps: [{create: one}]}"
    needs = frozenset({contract.NETWORK_RESTART})

    of: NetworkName

    def __str__(self) -> str:
        return f"restart {self.of}"

    def state(self, scene: Scene) -> AbstractContextManager[None]:
        return has(scene.cluster, contract.NETWORK_RESTART).network_restart(self.of)


class WithDefinitionAway(Around):
    """Run these steps while a custom resource definition is missing, and with it all objects of that kind."""

    key = "with-definition-away"
    example = "with-definition-away: {name: network-attachment-definitions.k8s.cni.cncf.io, steps: [{create: one}]}"
    needs = frozenset({contract.DEFINITIONS_AWAY})

    name: str

    def __str__(self) -> str:
        return f"take {self.name} away"

    @contextmanager
    def state(self, scene: Scene) -> Iterator[None]:
        """Delete the definition and restore it unchanged; the objects of its kind are lost."""
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{self.name}"
        before = scene.objects.get(path)
        metadata, spec = before["metadata"], before["spec"]
        known = {key: metadata[key] for key in ("name", "labels", "annotations") if key in metadata}
        served = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
        scene.objects.delete(path)
        _wait(f"{self.name} to be gone", lambda: scene.objects.find(served) is None)
        try:
            yield
        finally:
            scene.objects.create({**before, "metadata": known, "status": {}})
            _wait(f"{self.name} to be back", lambda: scene.objects.find(served) is not None)


def _wait(what: str, done: Callable[[], bool]) -> None:
    if until_nothing(lambda: not done(), START):
        raise NotReady(f"waited {limit(START):.0f} s for {what}")
