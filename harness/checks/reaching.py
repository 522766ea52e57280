"""Checks of connections: made inside one pod, and answered by the probe of another.

An answer proves three things: the way there, the way back, and the identity of the pod that answers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harness.checks.base import Check, join
from harness.model import Many, NetworkName, OneOrMany, PodName
from harness.probe import TCP_ANSWER

if TYPE_CHECKING:
    from harness.checks.view import Address, Look, View

Protocol = Literal["icmp", "tcp", "udp"]
ALL: tuple[Protocol, ...] = ("icmp", "tcp", "udp")


class Reach(Check):
    """One pod reaches another at each of its addresses in a network (or at its pod IPs), and the right pod answers."""

    key = "reach"
    example = "reach: {from: one, to: two, over: weave, protocols: [icmp, tcp, udp]}"
    patience = 15.0

    from_: PodName
    to: PodName
    over: NetworkName | None = Field(default=None, description="Connect to the addresses in this network.")
    protocols: Many[Protocol] = ALL
    both_ways: bool = Field(default=False, description="Also in the other direction.")
    from_network: NetworkName | None = Field(
        default=None, description="Connect from the pod's address in this network."
    )
    interface: str | None = Field(default=None, description="Leave by this interface.")
    seen_as: NetworkName | None = Field(
        default=None, description="The other pod sees an address of the pod in this network."
    )
    family: int | None = Field(default=None, description="4 or 6: connect only to these.")

    def wants_families(self) -> list[tuple[str, int]]:
        return [(self.over, self.family)] if self.over and self.family else []

    def attempt(self, view: View) -> str | None:
        looks = {pod: view.look(pod) for pod in (self.from_, self.to)}
        ways = [(self.from_, self.to)] + ([(self.to, self.from_)] if self.both_ways else [])
        wrong = [text for one, other in ways for text in self._wrong(view, looks[one], looks[other])]
        networks = [name for name in (self.over, self.from_network) if name]
        return join(*wrong, view.describe(*looks.values(), networks=networks)) if wrong else None

    def _wrong(self, view: View, one: Look, other: Look) -> Iterator[str]:
        targets = targets_of(view, other, self.over, self.family)
        if not targets:
            yield f"{other.pod} has no address {f'of {self.over}' if self.over else 'in its status'} to reach"
        for address in targets:
            source = self._source(view, one, address)
            if self.from_network and source is None:
                yield f"{one.pod} has no address of {self.from_network} to dial {address} from"
                continue
            for protocol in self.protocols:
                answer = view.dial(
                    one.pod, protocol=protocol, address=str(address), source=source, device=self.interface, timeout=2.0
                )
                if text := self._unlike(view, answer, other.pod, one):
                    by = f" from {source}" if source else ""
                    yield f"{protocol} from {one.pod}{by} to {other.pod} at {address}: {text}"

    def _source(self, view: View, one: Look, to: Any) -> str | None:
        if not self.from_network:
            return None
        return next((str(own.ip) for own in view.addresses(one, self.from_network, to.version)), None)

    def _unlike(self, view: View, answer: dict[str, Any], other: str, one: Look) -> str:
        """The difference between an answer and the expected one; empty if there is none."""
        if not answer["ok"]:
            return str(answer["error"] or "no answer")
        if answer["name"] and answer["name"].rpartition("/")[2] != other:
            return f"{answer['name']} answered, expected {other}: two pods have one address"
        if self.seen_as and answer["seen_as"]:
            own = [str(address.ip) for address in view.addresses(one, self.seen_as)]
            if answer["seen_as"] not in own:
                return f"seen as {answer['seen_as']}, expected {' or '.join(own) or 'nothing'} ({self.seen_as})"
        return ""


class Isolated(Check):
    """One pod does not reach another at its addresses in a network, although that pod can reach itself there."""

    key = "isolated"
    example = "isolated: {from: blue, to: green, over: macvlan}"

    from_: PodName
    to: PodName
    over: NetworkName
    protocols: Many[Protocol] = ALL
    from_network: NetworkName | None = Field(
        default=None, description="Connect from the pod's address in this network."
    )

    def run(self, view: View) -> str | None:
        return view.until(lambda: self._alive(view), self.within or self.patience) or view.until(
            lambda: self.attempt(view), 0
        )

    def _alive(self, view: View) -> str | None:
        look = view.look(self.to)
        for address in targets_of(view, look, self.over):
            answer = view.dial(self.to, protocol="tcp", address=str(address), timeout=2.0)
            if not answer["ok"]:
                silent = f"{self.to} does not answer itself at {address}, so being isolated means nothing"
                return join(f"{silent}: {answer['error']}", view.describe(look, networks=[self.over]))
        return None if targets_of(view, look, self.over) else f"{self.to} has no address of {self.over}"

    def attempt(self, view: View) -> str | None:
        look, own = view.look(self.to), view.look(self.from_)
        dials = [
            (
                protocol,
                str(address),
                partial(view.dial, self.from_, protocol=protocol, address=str(address), timeout=1.0),
            )
            for address in targets_of(view, look, self.over)
            for protocol in self.protocols
        ]
        if self.from_network:
            sources = view.addresses(own, self.from_network)
            dials = [(p, a, partial(ask, source=str(source.ip))) for p, a, ask in dials for source in sources]
        answers = view.all_at_once(ask for *_, ask in dials)
        wrong = [
            f"{protocol} from {self.from_} gets to {self.to} at {address}, expected it not to"
            for (protocol, address, _), answer in zip(dials, answers, strict=True)
            if answer["ok"] and answer["name"].rpartition("/")[2] in ("", self.to)
        ]
        return join(*wrong, view.describe(own, look, networks=[self.over])) if wrong else None


class Service(Check):
    """A pod reaches a Service at its cluster IP, and one of these pods answers."""

    key = "service"
    example = "service: {from: client, name: web, answered-by: [one, two]}"
    patience = 30.0

    from_: PodName
    name: str
    answered_by: OneOrMany[PodName]
    protocols: Many[Literal["tcp", "udp"]] = ("tcp",)

    def attempt(self, view: View) -> str | None:
        service = view.objects.find(f"/api/v1/namespaces/{view.namespace}/services/{self.name}")
        if service is None:
            return f"there is no Service {self.name}"
        port = (service["spec"].get("ports") or [{}])[0].get("port")
        wrong = []
        for address in service["spec"].get("clusterIPs") or []:
            for protocol in self.protocols:
                answer = view.dial(self.from_, protocol=protocol, address=address, port=port, timeout=2.0)
                if not answer["ok"]:
                    wrong.append(f"{protocol} from {self.from_} to Service {self.name} at {address}: {answer['error']}")
                elif answer["name"].rpartition("/")[2] not in self.answered_by:
                    wrong.append(f"Service {self.name} was answered by {answer['name']}, expected {self.answered_by}")
        looks = (view.look(pod) for pod in dict.fromkeys((self.from_, *self.answered_by)))
        return join(*wrong, view.describe(*looks)) if wrong else None


class HostPort(Check):
    """A pod answers at a port of its node, to a pod on any node."""

    key = "host-port"
    example = "host-port: {from: client, to: web, port: 18473}"
    patience = 15.0

    from_: PodName
    to: PodName
    port: int = Field(ge=1, le=65535, description="The node's port.")
    protocol: Literal["tcp", "udp"] = "tcp"

    def attempt(self, view: View) -> str | None:
        node = ((view.pod(self.to) or {}).get("status") or {}).get("hostIP")
        if not node:
            return f"the status of {self.to} has no hostIP"
        answer = view.dial(self.from_, protocol=self.protocol, address=node, port=self.port, timeout=2.0)
        if answer["ok"] and answer["name"].rpartition("/")[2] == self.to:
            return None
        wrong = f"{answer['name']} answered, expected {self.to}" if answer["ok"] else str(answer["error"])
        return join(
            f"{self.protocol} from {self.from_} to {node} port {self.port}, which is {self.to}'s: {wrong}",
            view.describe(view.look(self.from_), view.look(self.to)),
        )


class Bandwidth(Check):
    """The answers of one pod to another over a network are no faster than this: measured for half a second, after the
    burst.
    """

    key = "bandwidth"
    example = "bandwidth: {from: client, to: web, over: shaped, at-most: 400000}"
    patience = 3.0

    from_: PodName
    to: PodName
    over: NetworkName
    at_most: int = Field(gt=0, description="Bits of payload per second.")
    tolerance: ClassVar[float] = 1.25

    def attempt(self, view: View) -> str | None:
        looks = view.look(self.from_), view.look(self.to)
        addresses = targets_of(view, looks[1], self.over)
        if not addresses:
            return join(f"{self.to} has no address of {self.over} to dial", view.describe(*looks, networks=[self.over]))
        ask = partial(view.dial, self.from_, protocol="tcp", address=str(addresses[0]), timeout=5.0)
        answers = [ask() for _ in range(3)]
        begin = time.monotonic()
        while (seconds := time.monotonic() - begin) < 0.5:
            answers.append(ask())
        if failed := [answer["error"] for answer in answers if not answer["ok"]]:
            return join(f"tcp from {self.from_} to {self.to} at {addresses[0]}: {failed[0]}", view.describe(*looks))
        rate = (len(answers) - 3) * TCP_ANSWER * 8 / seconds
        if rate <= self.at_most * self.tolerance:
            return None
        return f"{self.to} answers {self.from_} over {self.over} at {rate:.0f} bit/s, expected at most {self.at_most}"


class MtuPath(Check):
    """A packet as large as the pod's interface allows gets to another pod in one piece; one of a byte more does not."""

    key = "mtu-path"
    example = "mtu-path: {from: one, to: two, over: weave}"
    patience = 15.0

    from_: PodName
    to: PodName
    over: NetworkName

    def attempt(self, view: View) -> str | None:
        own, other = view.look(self.from_), view.look(self.to)
        mtus = mtus_of(view, own, self.over)
        targets = targets_of(view, other, self.over)
        if not mtus or not targets:
            wrong = [f"{self.from_ if not mtus else self.to} has no address of {self.over}"]
        else:
            wrong = [text for target in targets for text in self._wrong(view, str(target), mtus[0])]
        return join(*wrong, view.describe(own, other, networks=[self.over])) if wrong else None

    def _wrong(self, view: View, target: str, mtu: int) -> Iterator[str]:
        ask = partial(view.dial, self.from_, protocol="udp", address=target, timeout=2.0)
        way = f"from {self.from_} to {self.to} at {target}"
        if not (answer := ask(size=mtu))["ok"]:
            yield f"a packet of {mtu} bytes, the interface's MTU, {way}: {answer['error']}"
        if ask(size=mtu + 1)["ok"]:
            yield f"a packet of {mtu + 1} bytes {way} is answered, expected none: the interface's MTU is {mtu}"


def targets_of(view: View, look: Look, over: NetworkName | None, family: int | None = None) -> list[Any]:
    """The addresses at which to connect to a pod: those in a network, or those in its status."""
    from ipaddress import ip_address

    if over is not None:
        found: list[Address] = view.addresses(look, over, family)
        return [address.ip for address in found]
    status = (view.pod(look.pod) or {}).get("status") or {}
    ips = [ip_address(each["ip"]) for each in status.get("podIPs") or []]
    return [ip for ip in ips if family in (None, ip.version)]


def mtus_of(view: View, look: Look, network: str) -> list[int]:
    """The MTUs of a pod's interfaces with an address of a network."""
    return [each.mtu for each in look.attached.values() if any(view.belongs(ip, network) for ip in each.addresses)]
