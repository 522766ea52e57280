"""Checks of routes in a pod. A common fault is two networks that each set a default route, so this has a separate
check.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from harness.checks.base import Check, join
from harness.checks.view import MAIN_TABLE
from harness.model import Many, Model, NetworkName, PodName

if TYPE_CHECKING:
    from harness.checks.view import Look, Route, View


class DefaultRoute(Check):
    """The pod has exactly one default route for each family of the network's addresses, through this network or
    interface.
    """

    key = "default-route"
    example = "default-route: {pod: both, network: calico}"

    pod: PodName
    network: NetworkName | None = Field(default=None, description="The route leaves by the interface of this network.")
    interface: str | None = Field(default=None, description="The route leaves by this interface.")
    gateway: str | None = Field(default=None, description="The very gateway.")
    none: bool = Field(default=False, description="The pod has no default route at all.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum((self.network is not None, self.interface is not None, self.none)) != 1:
            raise PydanticCustomError("one_way", "expected one of network, interface and none: true")
        return self

    def attempt(self, view: View) -> str | None:
        look = view.look(self.pod)
        wrong = [text for family in (4, 6) for text in self._wrong(view, look, family)]
        if not self.none and not any(self._devices(view, look, family) for family in (4, 6)):
            wrong.append(f"{self.pod} has no address on {self.network or self.interface}")
        return join(*wrong, view.describe(look, networks=[self.network] if self.network else [])) if wrong else None

    def _wrong(self, view: View, look: Look, family: int) -> list[str]:
        routes = look.default_routes(family)
        if self.none:
            return [f"{self.pod} has a default route: {route}" for route in routes]
        devices = self._devices(view, look, family)
        if not devices:
            return []
        by = f"by {' or '.join(sorted(devices))}" + (f" ({self.network})" if self.network else "")
        if len(routes) != 1:
            had = "; ".join(map(str, routes)) or "none"
            return [f"{self.pod} has {len(routes)} IPv{family} default routes, expected one {by}: {had}"]
        [route] = routes
        if route.dev not in devices:
            return [f"{self.pod}'s IPv{family} default route leaves by {route.dev}, expected {by}: {route}"]
        if self.gateway and (":" in self.gateway) == (family == 6) and route.gw != self.gateway:
            return [f"{self.pod}'s IPv{family} default route is via {route.gw}, expected {self.gateway}"]
        return []

    def _devices(self, view: View, look: Look, family: int) -> set[str]:
        """The interfaces that the route may leave by, if the pod has addresses of this family there."""
        return {
            interface.name
            for interface in look.attached.values()
            for address in interface.addresses
            if address.version == family
            and (view.belongs(address, self.network) if self.network else interface.name == self.interface)
        }


class ExpectedRoute(Model):
    """The relevant fields of a route."""

    to: str = Field(description="A subnet, or default.")
    via: str | None = Field(default=None, description="The gateway.")
    interface: str | None = None
    table: int | None = Field(default=None, description="By default, the main table.")

    def matches(self, route: Route) -> bool:
        return (
            _same_destination(route.dst, self.to)
            and self.via in (None, route.gw)
            and self.interface in (None, route.dev)
            and (self.table or MAIN_TABLE) == route.table
        )

    def __str__(self) -> str:
        parts = (f"via {self.via}" if self.via else "", f"dev {self.interface}" if self.interface else "")
        return " ".join(part for part in (self.to, *parts, f"table {self.table}" if self.table else "") if part)


class Routes(Check):
    """The pod has the routes under `has`, and does not have those under `lacks`."""

    key = "routes"
    example = "routes: {pod: both, has: [{to: 10.32.0.0/12, interface: eth1}]}"

    pod: PodName
    has: Many[ExpectedRoute] = ()
    lacks: Many[ExpectedRoute] = ()

    def attempt(self, view: View) -> str | None:
        look = view.look(self.pod)
        wrong = [
            f"{self.pod} has no route {each}"
            for each in self.has
            if not any(each.matches(route) for route in look.routes)
        ]
        wrong += [
            f"{self.pod} has a route that it should not have: {route}"
            for each in self.lacks
            for route in look.routes
            if each.matches(route)
        ]
        return join(*wrong, view.describe(look)) if wrong else None


def _same_destination(one: str, other: str) -> bool:
    if "default" in (one, other):
        return one == other
    return ip_network(one, strict=False) == ip_network(other, strict=False)
