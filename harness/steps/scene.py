"""A running scenario on a cluster: steps act on it, and checks see its `view`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from harness.checks.view import Event, View
from harness.contract import STATIC_PODS, Cluster, has
from harness.objects import ApiError, Objects
from harness.pods import Pod, as_static, manifest
from harness.values import in_general
from harness.waiting import NotReady, limit, retry, until_nothing

START, GONE = 60.0, 60.0  # seconds that pods may take
SERVICE_ACCOUNT = 30.0  # seconds that a controller may take to give a new namespace its service account
GIVE_UP = 40.0  # seconds for which a pod's network may keep failing; a kubelet retries after 10 to 15
FIRST_LOOK = 3.0  # seconds before the first look at events
ALIKE = 4  # attempts at a pod's network that fail in the same words; another would, too


@dataclass(kw_only=True)
class Scene:
    """A scenario's pods and objects on a cluster."""

    view: View
    pods: Mapping[str, Pod]  # the models of the scenario's pods
    nodes: Mapping[str, str]  # the node of each
    failing: frozenset[str]  # pods that must fail; the harness does not wait for them
    there: list[str] = field(default_factory=list)  # existing pods
    most: int = 0  # pods that a churn makes; 0: as many as the scenario has

    @property
    def cluster(self) -> Cluster:
        return self.view.cluster

    @property
    def objects(self) -> Objects:
        return self.view.objects

    @property
    def namespace(self) -> str:
        return self.view.namespace

    def create(self, names: Iterable[str]) -> None:
        """Create pods at the same time, and wait until they run.

        Raises NotReady: some do not run; the message has the phase and warnings of each.
        """
        names = tuple(names)
        self.there += names
        for name in names:
            pod = manifest(
                name,
                self.pods[name],
                node=self.nodes[name],
                image=self.cluster.facts.image,
                values=self.view.values,
            )
            if self.pods[name].static:
                self._write_static(name, as_static(pod, self.namespace))
            else:
                retry(partial(self.objects.create, pod, self.namespace), SERVICE_ACCOUNT, _is_early)
        self._wait_running([name for name in names if name not in self.failing])
        statuses = [pod["status"] for pod in self.listed().values()]
        self.view.leftovers.note(each["ip"] for status in statuses for each in status.get("podIPs") or [])

    def delete(self, names: Iterable[str], *, force: bool = False) -> None:
        """Delete pods and wait until they are gone; with `force`, their names are free before the nodes are done.

        Raises NotReady: some still exist.
        """
        names = tuple(names)
        for name in names:
            if self.pods[name].static:
                self._write_static(name, None)
            else:
                self.objects.delete(self.view.path(name), grace=0 if force else None)
        self._wait_gone(names)

    def _wait_gone(self, names: Collection[str]) -> None:
        def left() -> list[str]:
            pods = self.listed()
            return [name for name in names if name in pods]

        if remain := until_nothing(left, GONE):
            raise NotReady("\n".join(f"not gone after {limit(GONE):.0f} s: {self.state(name)}" for name in remain))
        self.there = [name for name in self.there if name not in names]

    def churn(self, like: str, count: int, at_once: int) -> None:
        """Create and delete many pods like one, in waves over all nodes.

        Raises NotReady: some do not run or do not go, or two have the same address.
        """
        count, nodes = min(count, self.most or count), self.cluster.facts.nodes
        for begin in range(0, count, at_once):
            numbers = range(begin, min(begin + at_once, count))
            names = [f"churn-{number}" for number in numbers]
            self.there += names
            for number, name in zip(numbers, names, strict=True):
                pod = manifest(
                    name, self.pods[like], node=nodes[number % len(nodes)], image=self.cluster.facts.image,
                    values=self.view.values,
                )  # fmt: skip
                self.objects.create(pod, self.namespace)
            self._wait_running(names)
            self._refuse_twins(names)
            for name in names:
                self.objects.delete(self.view.path(name))
            self._wait_gone(names)

    def _refuse_twins(self, names: Iterable[str]) -> None:
        """Raise NotReady if two of these pods have the same address, or one has none."""
        listed, holders = self.listed(), dict[str, str]()
        for name in names:
            ips = [each["ip"] for each in listed[name]["status"].get("podIPs") or []]
            twins = [f"{name} and {holders[ip]} both have {ip}" for ip in ips if ip in holders]
            if twins or not ips:
                raise NotReady(", ".join(twins) or f"{name} has no address in its status")
            holders |= dict.fromkeys(ips, name)

    def clear(self) -> None:
        """Delete all remaining pods, without waiting."""
        for name, pod in self.pods.items():
            if pod.static:
                self._write_static(name, None)
        for name in self.listed():
            self.objects.delete(self.view.path(name), grace=0)

    def listed(self) -> dict[str, dict[str, Any]]:
        """All pods in the namespace, by their names in the scenario."""
        own = {shown: name for name, shown in self.view.names.items()}
        found = {each["metadata"]["name"]: each for each in self.objects.get(self.view.path("")).get("items") or []}
        return {own.get(name, name): pod for name, pod in found.items()}

    def state(self, name: str) -> str:
        """A pod's phase, the state of its container, and its warnings, as text."""
        pod = self.view.pod(name)
        if pod is None:
            return f"{name} is not on the API server"
        status = pod.get("status") or {}
        states = [
            f"{kind} {detail.get('reason') or ''} {detail.get('message') or ''}".strip()
            for each in status.get("containerStatuses") or []
            for kind, detail in (each.get("state") or {}).items()
        ]
        lines = [f"{name} is {status.get('phase') or 'Pending'} on {pod['spec'].get('nodeName') or 'no node'}:"]
        lines += [f"  container: {state}" for state in states]
        lines += [f"  {warning}" for warning in self._warnings(name)] or ["  no warnings about it"]
        return "\n".join(lines)

    def _write_static(self, name: str, pod: Mapping[str, Any] | None) -> None:
        has(self.cluster, STATIC_PODS).static_pod(self.nodes[name], f"{self.namespace}-{name}", pod)

    def _wait_running(self, names: list[str]) -> None:
        begin = time.monotonic()
        failing: dict[str, float] = {}

        def waiting() -> list[str]:
            pods = self.listed()
            return [name for name in names if not _runs(pods.get(name))]

        def hopeless(left: list[str]) -> bool:
            now = time.monotonic()
            if now - begin < min(FIRST_LOOK, limit(GIVE_UP / 2)):
                return False
            warnings = {name: self._warnings(name) for name in left}
            if any(_fails_alike(of_pod) for of_pod in warnings.values()):
                return True
            if now - begin < limit(GIVE_UP / 2):
                return False
            warned = {name for name, of_pod in warnings.items() if of_pod}
            for name in warned:
                failing.setdefault(name, now)
            return any(now - failing[name] > limit(GIVE_UP / 2) for name in warned)

        if left := until_nothing(waiting, START, hopeless=hopeless):
            raise NotReady("\n".join(self.state(name) for name in left))

    def _warnings(self, name: str) -> list[Event]:
        return [event for event in self.view.events(name) if event.type == "Warning"]


def _runs(pod: Mapping[str, Any] | None) -> bool:
    status = (pod or {}).get("status") or {}
    ready = [each for each in status.get("conditions") or [] if each.get("type") == "Ready"]
    deleted = ((pod or {}).get("metadata") or {}).get("deletionTimestamp")
    return status.get("phase") == "Running" and all(each.get("status") == "True" for each in ready) and not deleted


def _fails_alike(warnings: Iterable[Event]) -> bool:
    """Whether enough attempts at a pod's network failed, all in the same words."""
    tries = Counter[str]()
    for event in warnings:
        if event.reason == "FailedCreatePodSandBox":
            tries[in_general(event.message)] += event.count
    return len(tries) == 1 and tries.total() >= ALIKE


def _is_early(error: Exception) -> bool:
    """Whether the API server refuses a pod only because its namespace has no service account yet."""
    return isinstance(error, ApiError) and error.status == 403 and "serviceaccount" in str(error)
