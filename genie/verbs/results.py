"""The results of a pod's networks made into the one that the runtime gets. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from genie.cni import result as cni_result
from genie.cni.result import Interface, Result, Route

if TYPE_CHECKING:
    from genie.kernel.netns import Link  # an ADD that lacks nothing does not pay for its import


def attributed(result: Result, ifname: str, netns: str) -> Result:
    """A delegate's result with each address on an interface of the pod.

    Plugins of old versions, and calico and weave today, tell addresses without interfaces; merged with another
    network's they would count as that one's.
    """
    if all(ip.interface is not None for ip in result.ips):
        return result
    at = _inside(result, ifname)
    interfaces = (*result.interfaces, Interface(name=ifname, sandbox=netns)) if at is None else result.interfaces
    index = len(result.interfaces) if at is None else at
    ips = tuple(ip if ip.interface is not None else replace(ip, interface=index) for ip in result.ips)
    return replace(result, interfaces=interfaces, ips=ips)


def lacks(result: Result, ifname: str) -> bool:
    """Whether a result leaves out of the pod's interface what its status must have: that it is the pod's, its hardware
    address. (Its MTU, which hardly any plugin tells, is not worth asking for.)
    """
    at = _inside(result, ifname)
    return at is None or not result.interfaces[at].mac


def completed(result: Result, ifname: str, netns: str, link: Link | None) -> Result:
    """The result with what it lacks of the pod's interface, as the kernel has it.

    Without a `sandbox` an entry of that name may be an interface of the host: it is the pod's if an address is on it,
    or if nothing in it speaks against that.

    Args:
        link: None where there is no such interface in the pod, as plugins for user space make none: nothing to add.
    """
    if link is None:
        return result
    at = _inside(result, ifname)
    if at is None:
        addressed = {ip.interface for ip in result.ips}
        named = (i for i, each in enumerate(result.interfaces) if each.name == ifname and not each.sandbox)
        at = next((i for i in named if i in addressed or result.interfaces[i].mac.lower() in ("", link.mac)), None)
    interfaces = list(result.interfaces) if at is not None else [*result.interfaces, Interface(name=ifname)]
    at = len(interfaces) - 1 if at is None else at
    told = interfaces[at]
    interfaces[at] = replace(told, sandbox=told.sandbox or netns, mac=told.mac or link.mac, mtu=told.mtu or link.mtu)
    return replace(result, interfaces=tuple(interfaces))


def _inside(result: Result, ifname: str) -> int | None:
    """Where the pod's interface is among a result's."""
    inside = (i for i, interface in enumerate(result.interfaces) if interface.sandbox and interface.name == ifname)
    return next(inside, None)


def merged(results: Sequence[Result], asked: Sequence[Sequence[str] | None], *, first_elsewhere: bool) -> Result:
    """One result; its only default route is the one that the pod has, and the first network's addresses come first.

    Runtimes take the pod's address from CNI_IFNAME. When the first network is on another interface, its addresses go
    without an index, which containerd reads as that interface.

    Args:
        asked: as for `in_place`.
        first_elsewhere: the first network is not on CNI_IFNAME.
    """
    whole = cni_result.merge(in_place(asked, results))
    if not first_elsewhere:
        return whole
    first = len(results[0].ips)
    ips = tuple(replace(ip, interface=None) if i < first else ip for i, ip in enumerate(whole.ips))
    return replace(whole, ips=ips)


def in_place(asked: Sequence[Sequence[str] | None], results: Sequence[Result]) -> list[Result]:
    """The results with the routes that the pod's main table has, as routes.settle arranges it.

    In each family one default route: that of the network that was asked for it, else of the first network that has one.
    Of several routes that have one place, that of the same network, else of the first one. A route of a table of its
    own collides with none.

    Args:
        asked: of each network, the gateways that the pod asked its default route to go by (none: by the network's own);
            None where it did not ask.
    """
    if len(results) == 1 and asked[0] is None:
        return list(results)
    told: list[list[Route]] = [[] for _ in results]
    for v6 in (False, True):
        chosen, default = _default_route(asked, results, v6)
        taken: dict[object, int] = {}
        for position in (chosen, *(i for i in range(len(results)) if i != chosen)):
            for route in results[position].routes:
                if route.is_v6 != v6 or _is_default(route):
                    continue
                if route.table or taken.setdefault((route.dst, route.priority), position) == position:
                    told[position].append(route)
        told[chosen] += default
    return [replace(result, routes=tuple(routes)) for result, routes in zip(results, told, strict=True)]


def _default_route(
    asked: Sequence[Sequence[str] | None], results: Sequence[Result], v6: bool
) -> tuple[int, list[Route]]:
    """Whose a family's default route is, and that: none where nobody has one."""
    own = [[route for route in result.routes if _is_default(route) and route.is_v6 == v6] for result in results]
    for position, gateways in enumerate(asked):
        if gateways is None:
            continue
        near = [] if gateways else [ip.gateway for ip in results[position].ips if ip.gateway and ip.is_v6 == v6]
        if not gateways and own[position]:
            return position, own[position]
        if by := [gateway for gateway in gateways or near if (":" in gateway) == v6]:
            return position, [Route(dst="::/0" if v6 else "0.0.0.0/0", gw=by[0])]
    return next(((position, routes) for position, routes in enumerate(own) if routes), (0, []))


def _is_default(route: Route) -> bool:
    return not route.table and route.dst in ("0.0.0.0/0", "::/0")
