"""What somebody took out of a pod, put back: the routes and rules that `routes.arrange` made.

What is missing is known by its text alone, as the record keeps it. So a rule, and a route that follows from the pod's
addresses and gateways, is made as the first time; any other is read back from its text, without what that does not
show (an MTU, a source address). Only what is in the place of a missing route goes; what somebody added besides stays.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace

from genie.kernel.netlink import INET, INET6, RTNH_F_ONLINK, Change, KernelRoute, Netlink, Rule
from genie.kernel.routes import Placed, drift, look, plan

_ROUTE = re.compile(r"route (?P<to>\S+)( via (?P<via>\S+))? dev (?P<oif>\d+) table (?P<table>\d+)( metric (?P<m>\d+))?")


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """restored: what was missing and is there again. left: what is still not as it was arranged, in words."""

    restored: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def repair(kernel: Netlink, placed: Sequence[Placed], arranged: Sequence[str]) -> Repaired:
    """Put back what is missing, as far as the kernel lets it be.

    Args:
        placed, arranged: as for `routes.drift`.

    Raises:
        OSError: the namespace cannot be looked at.
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
    return Repaired(restored=tuple(restored), left=tuple(drift(placed, look(kernel), arranged)))


def route_of(text: str, placed: Sequence[Placed]) -> KernelRoute | None:
    """A route as its text shows it; None for a rule, and where the text does not show of which family it is, or several
    ways.
    """
    match = _ROUTE.fullmatch(text)
    if match is None:
        return None
    to, via = match["to"], match["via"] or ""
    if to == "default" and not via:
        return None
    family = INET6 if ":" in (via if to == "default" else to) else INET
    if family == INET6 and not any(ip.is_v6 for one in placed for ip in one.result.ips):
        return None  # an IPv4 route by an IPv6 gateway looks alike
    if via and (":" in via) != (family == INET6):
        return None
    address, _, length = to.partition("/")
    prefix = int(length or 0)
    return KernelRoute.to(
        family,
        socket.inet_pton(family, address) if prefix else b"",
        prefix,
        oif=int(match["oif"]),
        gateway=socket.inet_pton(family, via) if via else b"",
        table=int(match["table"]),
        metric=int(match["m"] or 0),
    )


def _put(kernel: Netlink, what: KernelRoute | Rule, in_place: Sequence[KernelRoute]) -> bool:
    """Put it back in the place of these; whether the kernel took it."""
    ways = [what]
    if isinstance(what, KernelRoute) and what.gateway:
        ways.append(replace(what, flags=what.flags | RTNH_F_ONLINK))  # a gateway in none of the subnets
    for way in ways:
        try:
            kernel.apply([*(Change(route, add=False) for route in in_place), Change(way)])
        except OSError:
            continue
        return True
    return False
