"""The results of a pod's networks made into the one that the runtime gets. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from genie.cni import result as cni_result
from genie.cni.result import Interface, Result, Route

if TYPE_CHECKING:
    from genie.netns import Link  # an ADD that lacks nothing does not pay for its import


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
    """Whether a result leaves out of the pod's interface what the kernel knows: that it is the pod's, its hardware
    address, its MTU.
    """
    at = _inside(result, ifname)
    return at is None or not (result.interfaces[at].mac and result.interfaces[at].mtu)


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


def merged(results: Sequence[Result], asked: Sequence[Sequence[str]], *, first_elsewhere: bool) -> Result:
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


def in_place(asked: Sequence[Sequence[str]], results: Sequence[Result]) -> list[Result]:
    """The results with the routes that the pod's main table has, as routes.settle arranges it.

    In each family one default route: that of the network that was asked for it, by the gateway that was asked for, else
    of the first network that has one. Of several routes that have one place, that of the same network, else of the
    first one. A route of a table of its own collides with none.

    Args:
        asked: of each network, the gateways that the pod asked its default route to go by.
    """
    if len(results) == 1 and not any(asked):
        return list(results)
    told: list[list[Route]] = [[] for _ in results]
    for v6, default in ((False, "0.0.0.0/0"), (True, "::/0")):
        asking = [(i, g) for i, gateways in enumerate(asked) for g in gateways if (":" in g) == v6]
        having = [(i, r) for i, result in enumerate(results) for r in result.routes if _is_default(r) and r.is_v6 == v6]
        chosen = (asking or having or [(0, None)])[0][0]
        taken: dict[object, int] = {}
        for position in (chosen, *(i for i in range(len(results)) if i != chosen)):
            for route in results[position].routes:
                if route.is_v6 != v6 or _is_default(route):
                    continue
                if route.table or taken.setdefault((route.dst, route.priority), position) == position:
                    told[position].append(route)
        if asking:
            position, gateway = asking[0]
            told[position].append(Route(dst=default, gw=gateway))
        elif having:
            told[chosen] += [route for position, route in having if position == chosen]
    return [replace(result, routes=tuple(routes)) for result, routes in zip(results, told, strict=True)]


def _is_default(route: Route) -> bool:
    return not route.table and route.dst in ("0.0.0.0/0", "::/0")
