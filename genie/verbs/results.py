"""Combines the results of a pod's networks into one for the runtime. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from genie.cni import result as cni_result
from genie.cni.errors import CniError, Code
from genie.cni.result import Interface, Result, Route

if TYPE_CHECKING:
    from genie.kernel.netns import Link  # imported only if a result lacks something
    from genie.kernel.routes import Plan


ADDRESSES_MAX, ROUTES_MAX = 256, 512
"""The limits for addresses and routes of all of a pod's networks: for 32 networks, 8 and 16 each."""


def check_total(results: Sequence[Result]) -> None:
    """Refuse more addresses or routes than the limits. Raises CniError (INVALID_CONFIG)."""
    totals = {
        "addresses": (sum(len(result.ips) for result in results), ADDRESSES_MAX),
        "routes": (sum(len(result.routes) for result in results), ROUTES_MAX),
    }
    for what, (total, most) in totals.items():
        if total > most:
            raise CniError(Code.INVALID_CONFIG, f"the pod's networks report {total} {what}, of at most {most}")


def results_size(results: Sequence[Result], plan: Plan | None = None) -> int:
    """About how much JSON the results are, with the record of genie's routes (see `execute.compute`)."""
    entries = sum(len(one.interfaces) + len(one.ips) + len(one.routes) + len(one.dns.search) for one in results)
    return 200 * entries + (100 * len(plan.arranged) if plan else 0)


def attributed(result: Result, ifname: str, netns: str) -> Result:
    """A delegate's result with each address on an interface of the pod.

    Plugins of old versions, and calico and weave today, report addresses without an interface index, which a merge
    would attribute to another network.
    """
    if all(ip.interface is not None for ip in result.ips):
        return result
    at = _inside(result, ifname)
    interfaces = (*result.interfaces, Interface(name=ifname, sandbox=netns)) if at is None else result.interfaces
    index = len(result.interfaces) if at is None else at
    ips = tuple(ip if ip.interface is not None else replace(ip, interface=index) for ip in result.ips)
    return replace(result, interfaces=interfaces, ips=ips)


def lacks(result: Result, ifname: str) -> bool:
    """Whether the result lacks the sandbox or the MAC of the pod's interface. Hardly any plugin reports the MTU, and
    asking the kernel only for that would cost too much.
    """
    at = _inside(result, ifname)
    return at is None or not result.interfaces[at].mac


def completed(result: Result, ifname: str, netns: str, links: Mapping[str, Link]) -> Result:
    """The result, with missing fields of the pod's interfaces taken from the kernel.

    Without a `sandbox`, an entry of that name may be an interface of the host. It counts as the pod's if it has an
    address, or if none of its fields contradicts that.

    links: the pod's. A plugin for user space may make no interface there; then there is nothing to add.
    """
    link = links.get(ifname)
    interfaces = list(result.interfaces)
    if link is not None and (at := _inside(result, ifname)) is None:
        addressed = {ip.interface for ip in result.ips}
        named = (i for i, each in enumerate(interfaces) if each.name == ifname and not each.sandbox)
        at = next((i for i in named if i in addressed or interfaces[i].mac.lower() in ("", link.mac)), len(interfaces))
        found = interfaces[at] if at < len(interfaces) else Interface(name=ifname)
        interfaces[at:] = [replace(found, sandbox=netns), *interfaces[at + 1 :]]
    return replace(result, interfaces=tuple(_as_linked(each, links) for each in interfaces))


def _as_linked(interface: Interface, links: Mapping[str, Link]) -> Interface:
    """An interface of the pod with its hardware address and MTU; values from its plugin are kept."""
    link = links.get(interface.name)
    if link is None or not interface.sandbox or (interface.mac and interface.mtu):
        return interface
    return replace(interface, mac=interface.mac or link.mac, mtu=interface.mtu or link.mtu)


def _inside(result: Result, ifname: str) -> int | None:
    """The index of the pod's interface in a result."""
    inside = (i for i, interface in enumerate(result.interfaces) if interface.sandbox and interface.name == ifname)
    return next(inside, None)


def in_place(results: Sequence[Result], reported: Sequence[tuple[Route, ...]]) -> list[Result]:
    """The results with the routes of the pod's main table. reported: from `routes.plan`."""
    return [replace(result, routes=routes) for result, routes in zip(results, reported, strict=True)]


def merged(results: Sequence[Result], *, first_elsewhere: bool) -> Result:
    """Merge the results into one; the first network's addresses come first.

    Runtimes take the pod's address from CNI_IFNAME. If the first network is on another interface, its addresses are
    written without an index, which containerd reads as CNI_IFNAME's.

    results: with the pod's actual routes (see `in_place`).
    first_elsewhere: the first network is not on CNI_IFNAME.
    """
    whole = cni_result.merge(results)
    if not first_elsewhere:
        return whole
    first = len(results[0].ips)
    ips = tuple(replace(ip, interface=None) if i < first else ip for i, ip in enumerate(whole.ips))
    return replace(whole, ips=ips)
