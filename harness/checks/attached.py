"""Checks of a pod's interfaces and addresses: the first result of a selection of networks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pydantic import ConfigDict, Field

from harness.checks.base import Check, join
from harness.model import NetworkName, OneOrMany, PodName

if TYPE_CHECKING:
    from harness.checks.view import Interface, View


class Interfaces(Check):
    """Apart from lo, the pod has exactly these interfaces, each up and with an address of its network."""

    key = "interfaces"
    example = "interfaces: {pod: both, eth0: calico, eth1: weave}"
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, NetworkName] = Field(init=False)

    pod: PodName

    def attempt(self, view: View) -> str | None:
        look = view.look(self.pod)
        wanted: dict[str, NetworkName] = self.model_extra or {}
        wrong = [
            f"{name} is missing: expected it on {network}"
            for name, network in wanted.items()
            if name not in look.attached
        ]
        for name, interface in look.attached.items():
            if name in wanted:
                wrong += _wrong_with(view, interface, wanted[name])
            else:
                wrong.append(f"{name} is there and nothing asked for it")
        return join(*wrong, view.describe(look, networks=wanted.values())) if wrong else None


def _wrong_with(view: View, interface: Interface, network: NetworkName) -> list[str]:
    wrong = [] if interface.up else [f"{interface.name} is down"]
    if not view.networks[network]:
        return wrong  # a network without IPAM has no addresses to compare
    if not any(view.belongs(address, network) for address in interface.addresses):
        had = ", ".join(map(str, interface.addresses)) or "none"
        wrong.append(f"{interface.name} has no address of {network}: expected one, it has {had}")
    strangers = [str(address) for address in interface.addresses if not view.belongs(address, network)]
    if strangers and len(strangers) < len(interface.addresses):
        wrong.append(f"{interface.name} has addresses that are not of {network}: {', '.join(strangers)}")
    return wrong


class Addresses(Check):
    """Each pod has addresses in a network, and no address that another of these pods has."""

    key = "addresses"
    example = "addresses: {pods: [one, two], network: weave, count: 1}"

    pods: OneOrMany[PodName]
    network: NetworkName
    count: int | None = Field(
        default=None, ge=0, description="The number of addresses of each pod and family; by default, at least one."
    )
    family: int | None = Field(default=None, description="4 or 6: count only these.")
    equal: str | None = Field(default=None, description="Exactly this address, with or without its prefix length.")

    def wants_families(self) -> list[tuple[str, int]]:
        return [(self.network, self.family)] if self.family and self.count != 0 else []

    def attempt(self, view: View) -> str | None:
        looks = {pod: view.look(pod) for pod in self.pods}
        wrong, holders = [], dict[str, list[str]]()
        for pod, look in looks.items():
            found = view.addresses(look, self.network, self.family)
            for address in found:
                holders.setdefault(str(address.ip), []).append(pod)
            if self.count is None and not found:
                wrong.append(f"{pod} has no address of {self.network}")
            by_family = Counter(address.version for address in found) or {self.family or 4: 0}
            if self.count is not None and (other := {has for has in by_family.values() if has != self.count}):
                had = ", ".join(map(str, found)) or "none"
                wrong.append(f"{pod} has {min(other)} addresses of {self.network}, expected {self.count}: {had}")
            if self.equal and not any(self.equal in (str(address), str(address.ip)) for address in found):
                wrong.append(f"{pod} does not have {self.equal} on {self.network}")
        wrong += [
            f"{address} is there more than once: {', '.join(pods)}"
            for address, pods in holders.items()
            if len(pods) > 1
        ]
        return join(*wrong, view.describe(*looks.values(), networks=[self.network])) if wrong else None


class Mtu(Check):
    """Interfaces of the pod have these MTUs; this shows the settings of plugins."""

    key = "mtu"
    example = "mtu: {pod: one, net1: 1300}"
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, int] = Field(init=False)

    pod: PodName

    def attempt(self, view: View) -> str | None:
        look = view.look(self.pod)
        found = {name: look.attached[name].mtu if name in look.attached else None for name in self.model_extra or {}}
        wrong = [
            f"{name} has the MTU {found[name]}, expected {wanted}"
            for name, wanted in (self.model_extra or {}).items()
            if found[name] != wanted
        ]
        return join(*wrong, view.describe(look)) if wrong else None
