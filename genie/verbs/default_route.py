"""Checks that a network can have the default route that the pod asks for (multi-network specification, 4.1.2.1.9).
Pure.

A request is met or refused. With `onlink` the kernel accepts any gateway, even one that the pod cannot reach. And a
network without an address of a family has no path for it. Both are refused, before and after the routes are planned.
"""

from __future__ import annotations

from collections.abc import Sequence

from genie.cni.fields import packed
from genie.cni.result import Result, Route
from genie.select.annotations import SelectionError

Packed = tuple[int, int]
"""An address as a number, and its length in bits."""


def check_gateways(where: str, gateways: Sequence[str], result: Result, ifname: str) -> None:
    """Refuse gateways that the network cannot reach.

    where: the element of the annotation, for messages. result: with an interface for each address.

    Raises SelectionError: the network has no address of that family on `ifname`, or the gateway is in none of its
    subnets, not link-local, and not announced in the result, or it is no other host's.
    """
    on = (None if ip.interface is None else result.interfaces[ip.interface] for ip in result.ips)
    own = [ip for ip, at in zip(result.ips, on, strict=True) if at is None or at.name == ifname]
    announced = {
        _packed(gateway) for gateway in (*(ip.gateway for ip in own), *(r.gw for r in result.routes)) if gateway
    }
    unfit = {each for ip in own for each in _unfit(ip.address)}
    on_link = [route.dst for route in result.routes if not route.gw and not route.is_default]
    for gateway in gateways:
        is_v6 = ":" in gateway
        subnets = [ip.address for ip in own if ip.is_v6 == is_v6]
        if not subnets:
            raise SelectionError(
                where,
                f"default-route: {gateway} is of {_family(is_v6)}, and the network gave {ifname} no such address",
            )
        if _packed(gateway) in unfit:  # the kernel would take the pod's own address for "on this link"
            raise SelectionError(
                where,
                f"default-route: expected another host's address, found {gateway}, which is {ifname}'s own or its "
                "subnet's broadcast address",
            )
        near = (*subnets, *on_link, "169.254.0.0/16", "fe80::/10")
        if _packed(gateway) not in announced and not any(_inside(gateway, subnet) for subnet in near):
            raise SelectionError(
                where,
                f"default-route: {gateway} is in no subnet of the network ({', '.join(subnets)}), is not link-local, "
                "and is not a gateway in the plugin's result",
            )


def check_granted(where: str, gateways: Sequence[str], reported: Sequence[Route]) -> None:
    """Refuse requests that the plan could not meet. reported: the attachment's routes as the pod has them.

    Raises SelectionError: the pod would have a different default route, or none.
    """
    have = [route for route in reported if route.is_default]
    if not gateways and not have:
        raise SelectionError(where, "default-route: [] means the network's own gateway, and the network has none")
    by = {_packed(route.gw) for route in have if route.gw}
    for gateway in gateways:
        if _packed(gateway) not in by:
            raise SelectionError(
                where, f"default-route: the network cannot have one by {gateway}: it has no path there"
            )


def _family(is_v6: bool) -> str:
    return "IPv6" if is_v6 else "IPv4"


def _packed(address: str) -> Packed:
    data = packed(address)
    return int.from_bytes(data, "big"), len(data) * 8


def _unfit(cidr: str) -> set[Packed]:
    """An address, and the broadcast address of its subnet; IPv6, and a /31 (RFC 3021), have none."""
    address, _, length = cidr.partition("/")
    number, bits = _packed(address)
    rest = bits - int(length)
    return {(number, bits), *([(number | (1 << rest) - 1, bits)] if bits == 32 and rest > 1 else ())}


def _inside(address: str, subnet: str) -> bool:
    """Whether an address is in a subnet. The subnet is any of its addresses with a prefix length."""
    (number, bits), (net, width) = _packed(address), _packed(subnet.partition("/")[0])
    rest = bits - int(subnet.partition("/")[2])
    return bits == width and number >> rest == net >> rest
