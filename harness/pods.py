"""Pods of a scenario on the API server: their manifests, the nodes that they go to, and waiting for what becomes of
them.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.checks.view import Event, events_about
from harness.objects import Objects
from harness.probe import PORT
from harness.scenario.file import Pod, Scenario

START, GONE = 60.0, 60.0  # seconds that pods may take
GIVE_UP = 40.0  # seconds that a pod may go on failing to get its network; a kubelet tries again after 10 to 15

COMMAND = ("python3", "-m", "harness.probe", "serve", "--name")


class NotAsWanted(Exception):
    """Pods did not become what was waited for; the message says what they are."""


def place(scenario: Scenario, nodes: Sequence[str]) -> dict[str, str]:
    """A node for each pod.

    `first` and `second` are the cluster's; pods that do not care share one, another for each scenario so that the load
    is spread, and the same in every run.
    """
    home = zlib.crc32(scenario.name.encode()) % len(nodes)
    placed: dict[str, str] = {}

    def of(name: str, asked_by: tuple[str, ...] = ()) -> str:
        if name in placed or name in asked_by:
            return placed.get(name, nodes[home])
        pod = scenario.pods[name]
        first = next(iter(scenario.pods))
        if pod.beside:
            there = of(pod.beside, (*asked_by, name))
            node = there if pod.node.startswith("same-as") else _other(there, nodes)
        elif pod.node == "other" and name != first:
            node = _other(of(first, (*asked_by, name)), nodes)
        else:
            node = {"first": nodes[0], "second": nodes[-1 % len(nodes)] if len(nodes) < 2 else nodes[1]}.get(
                pod.node, nodes[home]
            )
        placed[name] = node
        return node

    return {name: of(name) for name in scenario.pods}


def _other(node: str, nodes: Sequence[str]) -> str:
    return nodes[(nodes.index(node) + 1) % len(nodes)]


def mirrored(scenario: Scenario, nodes: Sequence[str]) -> dict[str, str]:
    """What the API server calls static pods: by the node's name after their own, as the kubelet shows them there."""
    placed = place(scenario, nodes)
    return {name: f"{name}-{placed[name]}" for name, pod in scenario.pods.items() if pod.static}


def manifest(name: str, pod: Pod, *, node: str, image: str, fill: Callable[[str], str]) -> dict[str, Any]:
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
            "labels": {"genie.harness/pod": name, **{key: fill(value) for key, value in pod.labels.items()}},
            "annotations": {key: fill(value) for key, value in pod.annotations.items()},
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


@dataclass(frozen=True, kw_only=True)
class Pods:
    """The pods of one namespace."""

    objects: Objects
    namespace: str
    names: Mapping[str, str] = field(default_factory=dict)  # of pods that the API server has under another name

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods"

    def create(self, manifests: Iterable[Mapping[str, Any]]) -> None:
        """Create pods, without waiting for any."""
        for each in manifests:
            self.objects.create(each, self.namespace)

    def delete(self, names: Iterable[str], *, force: bool = False) -> None:
        """Delete pods, without waiting; with `force`, the names are free at once and the nodes are told later."""
        for name in names:
            self.objects.delete(self._path(name), grace=0 if force else None)

    def _path(self, name: str) -> str:
        return f"{self.path}/{self.names.get(name, name)}"

    def listed(self) -> dict[str, dict[str, Any]]:
        """All pods, by the scenario's names."""
        own = {shown: name for name, shown in self.names.items()}
        found = {each["metadata"]["name"]: each for each in self.objects.get(self.path).get("items") or []}
        return {own.get(name, name): pod for name, pod in found.items()}

    def wait_running(self, names: Iterable[str], within: float = START) -> None:
        """Wait until pods run and are ready.

        Raises:
            NotAsWanted: some do not; each with its phase and the warnings about it.
        """
        names = list(names)
        begin = time.monotonic()
        failing: dict[str, float] = {}

        def lacking() -> list[str]:
            pods = self.listed()
            return [name for name in names if not _runs(pods.get(name))]

        def hopeless(left: list[str]) -> bool:
            if time.monotonic() - begin < GIVE_UP / 2:
                return False
            warned = {name for name in left if self.warnings(name)}
            now = time.monotonic()
            for name in warned:
                failing.setdefault(name, now)
            return any(now - failing[name] > GIVE_UP / 2 for name in warned)

        if left := _wait(lacking, within, hopeless):
            raise NotAsWanted("\n".join(self.told(name) for name in left))

    def wait_gone(self, names: Iterable[str], within: float = GONE) -> None:
        """Wait until pods are gone.

        Raises:
            NotAsWanted: some are still there.
        """
        names = list(names)

        def there() -> list[str]:
            pods = self.listed()
            return [name for name in names if name in pods]

        if left := _wait(there, within):
            raise NotAsWanted("\n".join(f"not gone after {within:g} s: {self.told(name)}" for name in left))

    def warnings(self, name: str) -> list[Event]:
        """The warnings about a pod."""
        return [
            event
            for event in events_about(self.objects, self.namespace, self.names.get(name, name))
            if event.type == "Warning"
        ]

    def told(self, name: str) -> str:
        """A pod's phase, the state of its container, and the warnings about it."""
        pod = self.objects.find(self._path(name))
        if pod is None:
            return f"{name} is not on the API server"
        status = pod.get("status") or {}
        states = [
            f"{kind} {detail.get('reason') or ''} {detail.get('message') or ''}".strip()
            for each in status.get("containerStatuses") or []
            for kind, detail in (each.get("state") or {}).items()
        ]
        lines = [f"{name} is {status.get('phase') or 'Pending'} on {pod['spec'].get('nodeName') or 'no node'}"]
        lines += [f"  container: {state}" for state in states]
        lines += [f"  {warning}" for warning in self.warnings(name)] or ["  no warnings about it"]
        return "\n".join(lines)


def _runs(pod: Mapping[str, Any] | None) -> bool:
    status = (pod or {}).get("status") or {}
    ready = [each for each in status.get("conditions") or [] if each.get("type") == "Ready"]
    deleted = ((pod or {}).get("metadata") or {}).get("deletionTimestamp")
    return status.get("phase") == "Running" and all(each.get("status") == "True" for each in ready) and not deleted


def _wait(
    lacking: Callable[[], list[str]], within: float, hopeless: Callable[[list[str]], bool] = lambda _: False
) -> list[str]:
    """Wait until nothing is lacking; what is lacking at the end."""
    deadline, pause = time.monotonic() + within, 0.02
    while (left := lacking()) and time.monotonic() < deadline and not hopeless(left):
        time.sleep(pause)
        pause = min(pause * 1.4, 0.4)
    return left


def wait_until(done: Callable[[], bool], what: str, within: float = START) -> None:
    """Wait until something is so.

    Raises:
        NotAsWanted: it is not, after that time.
    """
    if _wait(lambda: [] if done() else [what], within):
        raise NotAsWanted(f"waited {within:g} s for {what}")
