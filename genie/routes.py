"""A pod with two networks must work on both: who gets the default route, and how replies find their way back.

Two delegates that each set a default route fail on each other ("file exists"), and a pod whose replies leave
by another interface than the request came in on is not reachable at its second address. So between two
delegates `hold_defaults` takes the first's default routes away, and after the last one `settle` arranges all:

- In the main table one default route per family: of the attachment that asked for it, else the first that set
one. - For every other attachment a routing table of its own (`TABLE` + its position), chosen by a rule "from
<its address>". It has the routes of its interface and a default by its gateway, so a reply leaves by the
interface whose address it bears. The attachment with the default route needs none, unless its subnet overlaps
with another's (a network attached twice), where the main table would confuse the two.

`plan` decides, and is pure: it compares what is with what should be and returns the changes. That makes
`settle` idempotent, and able to undo itself.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from genie.cni.result import Result
from genie.netlink import FAMILIES, INET, INET6, MAIN, UNICAST, Change, Netlink, Route, Rule

TABLE = 2000
"""Tables 2000 to 2255 are genie's. Not from 100 on: there the reference plugin `sbr` counts up its own."""

TABLES = range(TABLE, TABLE + 256)

_LOOKED_AT = frozenset({MAIN, *TABLES})

PRIORITY = 2000
"""Of genie's rules: before the main table (32766), and before rules that were given no priority."""

PROTOCOL = 71
"""Marks the rules and routes that genie made up, `proto 71` to `ip`; no number that <linux/rtnetlink.h> names.

A route that a delegate had set keeps its own mark wherever it is moved, so that it is known again.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attached:
    """One attachment, in the order of the selection.

    ifname: its interface in the pod. result: what its network answered. defaults: the default routes that it
    had set, as `hold_defaults` returned them. wants_default: the pod asked for its default route here.
    gateways: by which to leave, if the pod said so ("default-route" of a network selection element), instead
    of the network's.
    """

    ifname: str
    result: Result
    defaults: tuple[Route, ...] = ()
    wants_default: bool = False
    gateways: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What a namespace has. links: names to indices. routes: of the main table and genie's. rules: any."""

    links: Mapping[str, int]
    routes: Sequence[Route]
    rules: Sequence[Rule] = ()


def hold_defaults(netns: str) -> tuple[Route, ...]:
    """Take away the default routes in the main table of a namespace, both families', and return them.

    netns: a path. All or none: raises OSError with the routes as they were.
    """
    with Netlink(netns) as kernel:
        held = [route for family in FAMILIES for route in kernel.routes(family) if route.is_default]
        kernel.apply([Change(route, add=False) for route in held])
    return tuple(held)


def settle(netns: str, attached: Sequence[Attached]) -> list[Change]:
    """Arrange the routes of a pod's attachments; see above. Returns the changes made, none the second time.

    netns: a path. attached: in the order of the selection. Default routes that are still in the main table
    count as their interface's, so the last delegate's need not be held. All or none: raises OSError with all
    as it was when settle began (routes held before stay held); the message names the route or rule that the
    kernel refused.
    """
    with Netlink(netns) as kernel:
        changes = plan(attached, _state(kernel))
        kernel.apply(changes)
    return changes


def drift(netns: str, attached: Sequence[Attached]) -> list[Change]:
    """What settle would have to change now, that is, what somebody has changed since. Changes nothing.

    netns: a path. attached: as for settle, without `defaults`: whatever a delegate set is found where settle put
    it. Raises OSError.
    """
    with Netlink(netns) as kernel:
        return plan(attached, _state(kernel))


def plan(attached: Sequence[Attached], state: State) -> list[Change]:
    """The changes from what is to what should be, in an order in which the kernel takes them."""
    paths = [path for family in FAMILIES for path in _paths(attached, state, family)]
    wanted = _defaults(paths)
    tables, rules = [], []
    for path in paths:
        if _needs_table(path, paths, wanted):
            tables += _table(path, state)
            rules += _rules(path)
    names = _indices(attached, state)
    ours = [route for route in state.routes if route.table in TABLES]
    there = [route for route in state.routes if route.table == MAIN and route.is_default and names & {*route.oifs}]
    return [
        *_diff([rule for rule in state.rules if rule.table in TABLES], rules),
        *_diff(ours, tables),
        *_diff(there, [route for route in wanted.values() if route is not None]),
    ]


# Deciding


@dataclass(frozen=True, kw_only=True, slots=True)
class _Path:
    """One attachment in one family. addresses: (packed, prefix length). index: of its interface.

    default: the default route that it had set. gateway: packed, b"" if it has none.
    """

    family: int
    position: int
    index: int
    addresses: tuple[tuple[bytes, int], ...]
    default: Route | None
    gateway: bytes
    wants_default: bool

    @property
    def table(self) -> int:
        return TABLE + self.position

    def own_default(self, table: int) -> Route | None:
        """Its default route, in that table: the one it had set, else one by its gateway."""
        if self.default is not None:
            return self.default.moved(table)
        if not self.gateway:
            return None
        near = any(_inside(self.gateway, address, prefix) for address, prefix in self.addresses)
        return Route.to(
            self.family,
            oif=self.index,
            gateway=self.gateway,
            table=table,
            protocol=PROTOCOL,
            onlink=not near,
        )


def _paths(attached: Sequence[Attached], state: State, family: int) -> list[_Path]:
    """Who is there in this family: attachments with an address or a default route of it."""
    found = []
    for position, one in enumerate(attached):
        index = state.links.get(one.ifname)
        if index is None:
            continue
        addresses = _addresses(one, family)
        default = _own_default(one, index, state, family)
        if addresses or default is not None:
            found.append(
                _Path(
                    family=family,
                    position=position,
                    index=index,
                    addresses=addresses,
                    default=default,
                    gateway=_gateway(one, family),
                    wants_default=one.wants_default,
                )
            )
    return found


def _addresses(one: Attached, family: int) -> tuple[tuple[bytes, int], ...]:
    """(packed, prefix length) of its addresses on its interface; those of other interfaces are not its own.

    An address without an interface is taken to be on it: 0.1.0 and 0.2.0 tell none, and some plugins never
    do.
    """
    interfaces = one.result.interfaces
    found = []
    for ip in one.result.ips:
        on = None if ip.interface is None else interfaces[ip.interface]
        if ip.is_v6 == (family == INET6) and (on is None or (on.name == one.ifname and on.sandbox)):
            address, _, prefix = ip.address.partition("/")
            found.append((socket.inet_pton(family, address), int(prefix)))
    return tuple(dict.fromkeys(found))


def _own_default(one: Attached, index: int, state: State, family: int) -> Route | None:
    """The default route that it had set; of several the best by metric. None if the pod named a gateway instead.

    It may be held, or in the main table still, or in genie's since an earlier settle.
    """
    if _named_gateway(one, family):
        return None
    there = [route for route in state.routes if index in route.oifs]
    had = [
        route
        for route in (*one.defaults, *there)
        if route.family == family and route.is_default and route.protocol != PROTOCOL
    ]
    return min(had, key=lambda route: route.metric, default=None)


def _named_gateway(one: Attached, family: int) -> bytes:
    named = next((gateway for gateway in one.gateways if (":" in gateway) == (family == INET6)), "")
    return socket.inet_pton(family, named) if named else b""


def _gateway(one: Attached, family: int) -> bytes:
    """By which to leave: the pod's word, else the result's default route, else its first address's gateway.

    Specification, section 5: `gateway` in `ips` is "the default gateway for this subnet, if one exists".
    """
    named = _named_gateway(one, family)
    if named:
        return named
    is_v6 = family == INET6
    told = [route.gw for route in one.result.routes if route.is_v6 == is_v6 and route.dst.endswith("/0")]
    told += [ip.gateway for ip in one.result.ips if ip.is_v6 == is_v6]
    first = next((gateway for gateway in told if gateway and (":" in gateway) == is_v6), "")
    return socket.inet_pton(family, first) if first else b""


def _defaults(paths: Sequence[_Path]) -> dict[int, Route | None]:
    """Per family the one default route for the main table, or None."""
    return {family: _default([path for path in paths if path.family == family]) for family in FAMILIES}


def _default(paths: Sequence[_Path]) -> Route | None:
    """Of those that the pod asked for the first that can; else of those that had set one the first."""
    asked = (path.own_default(MAIN) for path in paths if path.wants_default)
    had = (path.own_default(MAIN) for path in paths if path.default is not None)
    return next((route for route in (*asked, *had) if route is not None), None)


def _needs_table(path: _Path, paths: Sequence[_Path], wanted: Mapping[int, Route | None]) -> bool:
    """All but the one that the main table serves: that with the default route, or the first if there is none."""
    family = [other for other in paths if other.family == path.family]
    others = [other for other in family if other is not path]
    if not others or not path.addresses:
        return False
    default = wanted[path.family]
    served = path is family[0] if default is None else path.index in default.oifs
    if not served:
        return True
    return any(_overlap(one, two) for other in others for one in path.addresses for two in other.addresses)


def _table(path: _Path, state: State) -> list[Route]:
    """What its table has: its interface's routes as in the main table, its subnets, its default route.

    The copied ones bring what a plugin set besides, such as `169.254.1.1 dev eth1 scope link` to a gateway
    that is in no subnet. Those on the link come first, for the others need them.
    """
    copied = [
        route.moved(path.table)
        for route in state.routes
        if route.table == MAIN
        and route.family == path.family
        and route.oifs == (path.index,)
        and route.kind == UNICAST
        and not route.is_default
    ]
    present = {(route.destination, route.prefix) for route in copied}
    for address, prefix in path.addresses:
        destination = _masked(address, prefix)
        if prefix < len(address) * 8 and (destination, prefix) not in present:
            present.add((destination, prefix))
            source = address if path.family == INET else b""  # IPv6 refuses one that is still tentative
            copied.append(
                Route.to(
                    path.family, destination, prefix, oif=path.index, source=source, table=path.table, protocol=PROTOCOL
                )
            )
    default = path.own_default(path.table)
    return sorted(copied, key=lambda route: bool(route.gateway)) + ([] if default is None else [default])


def _rules(path: _Path) -> list[Rule]:
    return [
        Rule(family=path.family, source=address, table=path.table, priority=PRIORITY, protocol=PROTOCOL)
        for address in dict.fromkeys(address for address, _ in path.addresses)
    ]


def _indices(attached: Sequence[Attached], state: State) -> set[int]:
    """The interfaces that are the attachments', whose default routes are ours to arrange."""
    names = {one.ifname for one in attached}
    names |= {interface.name for one in attached for interface in one.result.interfaces if interface.sandbox}
    return {state.links[name] for name in names if name in state.links}


def _diff(have: Iterable[Route | Rule], want: Iterable[Route | Rule]) -> list[Change]:
    """Delete what is not wanted, then add what is not there."""
    there = {_key(one): one for one in have}
    wanted = {_key(one): one for one in want}
    return [
        *(Change(one, add=False) for key, one in there.items() if key not in wanted),
        *(Change(one) for key, one in wanted.items() if key not in there),
    ]


def _key(one: Route | Rule) -> object:
    return one.key if isinstance(one, Route) else (one.family, one.source, one.table, one.priority)


def _masked(address: bytes, prefix: int) -> bytes:
    bits = len(address) * 8 - prefix
    return (int.from_bytes(address, "big") >> bits << bits).to_bytes(len(address), "big")


def _inside(one: bytes, address: bytes, prefix: int) -> bool:
    return _masked(one, prefix) == _masked(address, prefix)


def _overlap(one: tuple[bytes, int], two: tuple[bytes, int]) -> bool:
    """Whether two subnets share an address."""
    return _inside(one[0], two[0], min(one[1], two[1]))


# Looking


def _state(kernel: Netlink) -> State:
    """Main and genie's tables by one dump: a dump for each would cost more than it spares."""
    routes = [route for family in FAMILIES for route in kernel.routes(family, _LOOKED_AT)]
    rules = [rule for family in FAMILIES for rule in kernel.rules(family)]
    return State(links=kernel.links(), routes=routes, rules=rules)
