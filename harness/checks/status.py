"""Checks of a pod's status, annotations and events in Kubernetes: they must match the pod's real network."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, JsonValue

from harness.checks.base import Check, join
from harness.model import Many, Model, NetworkName, OneOrMany, Pattern, PodName, fill

if TYPE_CHECKING:
    from harness.checks.view import Event, Look, View

NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"


class StatusIp(Check):
    """status.podIP is an address of the pod in this network; podIPs has each family once, podIP first."""

    key = "status-ip"
    example = "status-ip: {pod: both, network: calico}"

    pod: PodName
    network: NetworkName
    families: Many[Literal[4, 6]] = Field(
        default=(), description="podIPs has an address of the network for each of these families; the first is podIP."
    )

    def attempt(self, view: View) -> str | None:
        status = (view.pod(self.pod) or {}).get("status") or {}
        look = view.look(self.pod)
        ip = status.get("podIP") or ""
        ips = [each.get("ip") for each in status.get("podIPs") or []]
        wrong = []
        if not ip:
            wrong.append(f"{self.pod} has no status.podIP, expected one of {self.network}")
        elif not view.belongs(ip, self.network):
            wrong.append(f"status.podIP of {self.pod} is {ip}, expected one of {self.network}")
        if ip and ips[:1] != [ip]:
            wrong.append(f"status.podIPs of {self.pod} is {ips}, expected it to begin with podIP {ip}")
        if len({ip_address(each).version for each in ips if each}) != len(ips):
            wrong.append(f"status.podIPs of {self.pod} is {ips}, expected at most one of each family")
        families = [ip_address(each).version for each in ips if each and view.belongs(each, self.network)]
        if self.families and families != list(self.families):
            wrong.append(f"status.podIPs of {self.pod} is {ips}, expected {_worded(self.families)} of {self.network}")
        had = {str(address.ip) for interface in look.attached.values() for address in interface.addresses}
        wrong += [
            f"{each} is in the status of {self.pod}, but on none of its interfaces" for each in ips if each not in had
        ]
        return join(*wrong, view.describe(look, networks=[self.network])) if wrong else None


def _worded(families: tuple[int, ...]) -> str:
    return " and ".join(f"IPv{family}" for family in families)


class Expected(Model):
    """The expected value of an annotation."""

    matches: Pattern | None = None
    json_: JsonValue = Field(
        default=None, description="As JSON, it has at least this: mappings by key, lists by place."
    )
    absent: bool = False

    def wrong(self, value: str | None) -> str:
        """The difference between a value and the expected one; empty if there is none."""
        if self.absent:
            return "" if value is None else f"is {value!r}, expected none"
        if value is None:
            return "is not there"
        if self.matches is not None and not re.search(self.matches, value):
            return f"is {value!r}, expected a match of {self.matches!r}"
        if self.json_ is not None:
            try:
                return _lacking(json.loads(value), self.json_, "")
            except ValueError as error:
                return f"is not JSON ({error}): {value!r}"
        return ""


def _lacking(has: Any, wanted: Any, where: str) -> str:
    """The part that a JSON value lacks of the expected one; empty if it lacks nothing."""
    if isinstance(wanted, dict) and isinstance(has, dict):
        gaps = (_lacking(has.get(key), value, f"{where}.{key}") for key, value in wanted.items())
    elif isinstance(wanted, list) and isinstance(has, list) and len(has) == len(wanted):
        gaps = (
            _lacking(one, other, f"{where}[{place}]")
            for place, (one, other) in enumerate(zip(has, wanted, strict=True))
        )
    else:
        return "" if has == wanted else f"has {json.dumps(has)} at {where or 'its top'}, expected {json.dumps(wanted)}"
    return next((gap for gap in gaps if gap), "")


class Annotations(Check):
    """The pod has these annotations: equal to a string, matching a regular expression, with at least this JSON, or
    absent.
    """

    key = "annotations"
    example = 'annotations: {pod: any, has: {cni: calico, multi-ip-preferences: {matches: "eth0"}}}'

    pod: PodName
    has: dict[str, str | Expected]

    def attempt(self, view: View) -> str | None:
        found = view.annotations(self.pod)
        wrong = []
        for name, wanted in self.has.items():
            if isinstance(wanted, str):
                filled = fill(wanted, view.values)
                mistake = "" if found.get(name) == filled else f"is {found.get(name)!r}, expected {filled!r}"
            else:
                mistake = wanted.wrong(found.get(name))
            if mistake:
                wrong.append(f"annotation {name} of {self.pod} {mistake}")
        listed = [f"  {name}: {value}" for name, value in sorted(found.items())]
        return join(*wrong, f"{self.pod} has the annotations:", *(listed or ["  none"])) if wrong else None


class NetworkStatus(Check):
    """The network-status annotation has an entry for each of these interfaces, with its real addresses and MAC."""

    key = "network-status"
    example = "network-status: {pod: both, eth0: calico, eth1: weave}"
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, NetworkName] = Field(init=False)

    pod: PodName
    default: str = Field(default="eth0", description="The entry of this interface is the default one.")

    def attempt(self, view: View) -> str | None:
        text = view.annotations(self.pod).get(NETWORK_STATUS)
        if text is None:
            return f"{self.pod} has no annotation {NETWORK_STATUS}"
        try:
            entries = {entry["interface"]: entry for entry in json.loads(text)}
        except (ValueError, TypeError, KeyError) as error:
            return (
                f"annotation {NETWORK_STATUS} of {self.pod} is no list of entries with an interface ({error!r}): {text}"
            )
        look = view.look(self.pod)
        wrong = [text for name in self.model_extra or {} for text in self._wrong_entry(name, entries.get(name), look)]
        wrong += [
            f"{name} has an entry and nothing asked for it" for name in entries if name not in (self.model_extra or {})
        ]
        defaults = [name for name, entry in entries.items() if entry.get("default")]
        if defaults != [self.default]:
            wrong.append(f"the default entries are {defaults}, expected [{self.default!r}]")
        return join(*wrong, f"{NETWORK_STATUS}: {text}", view.describe(look)) if wrong else None

    def _wrong_entry(self, name: str, entry: dict[str, Any] | None, look: Look) -> list[str]:
        if entry is None:
            return [f"{name} has no entry"]
        interface = look.attached.get(name)
        if interface is None:
            return [f"{name} has an entry, but {self.pod} has no such interface"]
        wrong = []
        has, listed = sorted(str(each.ip) for each in interface.addresses), sorted(entry.get("ips") or [])
        if has != listed:
            wrong.append(f"{name}: the entry's ips are {listed}, the interface has {has}")
        if str(entry.get("mac") or "").lower() != interface.mac.lower():
            wrong.append(f"{name}: the entry's mac is {entry.get('mac')!r}, the interface has {interface.mac}")
        if not entry.get("name"):
            wrong.append(f"{name}: the entry names no network")
        return wrong


class PodFails(Check):
    """The pod never runs, and an event has a matching message. (`create` does not wait for this pod.)"""

    key = "pod-fails"
    example = 'pod-fails: {pod: lost, message: "network .?nowhere.? .*(unknown|not found)"}'
    patience = 60.0

    pod: PodName
    message: Pattern
    lacks: Pattern | None = Field(
        default=None, description="No event of the pod may match this, such as a token or a traceback."
    )

    def attempt(self, view: View) -> str | None:
        warnings = [event for event in view.events(self.pod) if event.type == "Warning"]
        if not any(re.search(self.message, event.message, re.IGNORECASE | re.DOTALL) for event in warnings):
            return join(f"no event of {self.pod} matches {self.message!r}", *_listed(self.pod, warnings))
        return None

    def run(self, view: View) -> str | None:
        wrong = view.until(
            lambda: self._running(view) or self.attempt(view), self.within or self.patience, lambda _: self._tried(view)
        )
        if wrong is None and self.lacks:
            bad = [event for event in view.events(self.pod) if re.search(self.lacks, event.message, re.DOTALL)]
            wrong = join(f"an event of {self.pod} matches {self.lacks!r}", *map(str, bad)) if bad else None
        return self._running(view) or wrong

    def _tried(self, view: View) -> bool:
        """Whether the node has tried so often that no other message will come."""
        return sum(event.count for event in view.events(self.pod) if event.reason == "FailedCreatePodSandBox") >= 4

    def _running(self, view: View) -> str | None:
        phase = ((view.pod(self.pod) or {}).get("status") or {}).get("phase")
        if phase == "Running":
            return join(
                f"{self.pod} runs, expected it to fail with {self.message!r}", view.describe(view.look(self.pod))
            )
        return None


class Events(Check):
    """An event about the pod has this reason and a matching message."""

    key = "events"
    example = 'events: {pod: a, reason: Attached, message: "eth1.*weave"}'

    pod: PodName
    reason: str | None = None
    message: Pattern | None = None

    def attempt(self, view: View) -> str | None:
        events = view.events(self.pod)
        if any(
            self.reason in (None, event.reason) and re.search(self.message or "", event.message, re.DOTALL)
            for event in events
        ):
            return None
        return join(
            f"no event of {self.pod} with reason {self.reason or 'any'} and message {self.message or ''!r}",
            *_listed(self.pod, events),
        )


class NoWarnings(Check):
    """There is no warning event about these pods, or about earlier pods of the same names."""

    key = "no-warnings"
    shorthand = "pods"
    example = "no-warnings: [a, b]"

    pods: OneOrMany[PodName]

    def attempt(self, view: View) -> str | None:
        warnings = {pod: [event for event in view.events(pod) if event.type == "Warning"] for pod in self.pods}
        return join(*(line for pod, events in warnings.items() if events for line in _listed(pod, events))) or None


def _listed(pod: str, events: list[Event]) -> list[str]:
    return [f"events of {pod}:", *([f"  {event}" for event in events] or ["  none"])]
