"""Restores routes and rules of `routes.arrange` that somebody removed from a pod.

The record has them only as text. Rules, and routes that follow from the pod's addresses and gateways, are planned again
as at the first time. Other routes are parsed from their text, without attributes that the text does not show (an MTU, a
source address). A route in the place of a missing one is removed; other additions stay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from genie.cni.fields import packed
from genie.kernel.netlink import INET, INET6, RTNH_F_ONLINK, Change, KernelRoute, Netlink, Rule
from genie.kernel.routes import Placed, look, plan

_ROUTE = re.compile(r"route (?P<to>\S+)( via (?P<via>\S+))? dev (?P<oif>\d+) table (?P<table>\d+)( metric (?P<m>\d+))?")


def repair(kernel: Netlink, placed: Sequence[Placed], arranged: Sequence[str]) -> list[str]:
    """Restore missing routes and rules, as far as the kernel allows it. Returns those that exist again.

    placed, arranged: as for `routes.drift`.

    Raises OSError: the namespace cannot be read.
    """
    state = look(kernel)
    there = {str(one) for one in (*state.routes, *state.rules)}
    missing = [text for text in arranged if text not in there]
    made = {str(change.what): change.what for change in plan(placed, state).changes if change.add}
    found = [(text, made.get(text) or route_of(text, placed)) for text in missing]
    restored = []
    for text, what in sorted(found, key=lambda each: not (isinstance(each[1], KernelRoute) and each[1].on_link)):
        in_place = [
            route
            for route in state.routes
            if isinstance(what, KernelRoute)
            and route.place == what.place
            and not (route.is_kernels or route.is_learned)
        ]
        if what is not None and _put(kernel, what, in_place):
            restored.append(text)
    return restored


def route_of(text: str, placed: Sequence[Placed]) -> KernelRoute | None:
    """Parse a route's text; None for a rule, for a multipath route, and if the text does not show the family."""
    match = _ROUTE.fullmatch(text)
    if match is None:
        return None
    to, via = match["to"], match["via"] or ""
    if to == "default" and not via:
        return None
    family = INET6 if ":" in (via if to == "default" else to) else INET
    if family == INET6 and not any(ip.is_v6 for one in placed for ip in one.result.ips):
        return None  # an IPv4 route by an IPv6 gateway looks the same
    if via and (":" in via) != (family == INET6):
        return None
    address, _, length = to.partition("/")
    prefix = int(length or 0)
    return KernelRoute.to(
        family,
        packed(address) if prefix else b"",
        prefix,
        oif=int(match["oif"]),
        gateway=packed(via) if via else b"",
        table=int(match["table"]),
        metric=int(match["m"] or 0),
    )


def _put(kernel: Netlink, what: KernelRoute | Rule, in_place: Sequence[KernelRoute]) -> bool:
    """Restore a route in the place of these. Returns whether the kernel accepted it."""
    ways = [what]
    if isinstance(what, KernelRoute) and what.gateway:
        ways.append(replace(what, flags=what.flags | RTNH_F_ONLINK))  # the gateway is in none of the subnets
    for way in ways:
        try:
            kernel.apply([*(Change(route, add=False) for route in in_place), Change(way)])
        except OSError:
            continue
        return True
    return False
