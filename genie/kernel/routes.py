"""A pod with two networks must work on both: whose routes the pod has, and how replies find their way back.

Delegates know nothing of each other. Two that each set a default route fail on it ("file exists"); a plugin attached
twice fails on any route of its own; and a pod whose replies leave by another interface than the request came in on is
not reachable at its second address. So between two delegates `hold` takes away all that the first one set in the main
table, and after the last one `settle` arranges everything:

- In the main table one default route per family: of the attachment that asked for it, else the first that set one.
- In the main table, too, every other route of every attachment. Of those that have one place (destination, prefix and
  metric) it can have only one: that of the attachment with the default route, else of the first in the selection.
- For every other attachment a routing table of its own (`TABLE` + its position), chosen by a rule "from <its
  address>". It has all of the attachment's routes and a default by its gateway, so a reply leaves by the interface
  whose address it bears. The attachment with the default route needs none, unless its subnet overlaps with another's
  (a network attached twice), where the main table would confuse the two.

The routes that the kernel makes for an address stay where they are: the kernel keeps those of several interfaces apart.

`plan` decides, and is pure: it compares what is with what should be and returns the changes. That makes `settle`
idempotent, and able to undo itself. What it arranged is told as text, one line for each route and rule, which the
caller keeps for `drift`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from genie.cni.result import Result
from genie.kernel.netlink import FAMILIES, INET, INET6, MAIN, UNICAST, Change, Netlink, Route, Rule
from genie.kernel.netns import Link

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

    ifname: its interface in the pod. result: what its network answered. held: the routes that `hold` took away after
    it. wants_default: the pod asked for its default route here. gateways: by which to leave, if the pod said so
    ("default-route" of a network selection element), instead of the network's.
    """

    ifname: str
    result: Result
    held: tuple[Route, ...] = ()
    wants_default: bool = False
    gateways: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What a namespace has. links: names to indices. routes: of the main table and genie's. rules: any."""

    links: Mapping[str, int]
    routes: Sequence[Route]
    rules: Sequence[Rule] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """changes: from what is to what should be, in an order in which the kernel takes them. arranged: all that should
    be, for `drift`; what was so before is among it.
    """

    changes: list[Change]
    arranged: tuple[str, ...]


def hold(kernel: Netlink) -> tuple[Route, ...]:
    """Take away what is in a namespace's main table but for the kernel's own, both families', and return it.

    All or none: raises OSError with the routes as they were.
    """
    held = [route for family in FAMILIES for route in kernel.routes(family) if not route.is_kernels]
    kernel.apply([Change(route, add=False) for route in sorted(held, key=lambda route: route.on_link)])
    return tuple(held)


def settle(kernel: Netlink, attached: Sequence[Attached], links: Mapping[str, Link] | None = None) -> Plan:
    """Arrange the routes of a pod's attachments; see above. The second time, there is nothing to change.

    attached: in the order of the selection. Routes that are still in the main table count as their interface's, so
    the last delegate's need not be held. links: what `kernel.links()` says, if it has been asked already. All or none:
    raises OSError with all as it was when settle began (routes held before stay held); the message names the route or
    rule that the kernel refused.
    """
    planned = plan(attached, _state(kernel, links))
    kernel.apply(planned.changes)
    return planned


def drift(kernel: Netlink, attached: Sequence[Attached], arranged: Iterable[str]) -> list[str]:
    """What somebody has changed since settle, in words: of its routes and rules those that are missing, and what is in
    the place of its own: in its tables, and default routes. Changes nothing.

    attached: as for settle, without `held`. arranged: what settle told. Raises OSError.
    """
    state = _state(kernel)
    ours = _owners(attached, state)
    all_there: list[Route | Rule] = [*state.rules, *state.routes]
    there = {str(one): one for one in all_there}
    known = set(arranged)
    missing = [f"missing: {text}" for text in arranged if text not in there]
    return missing + [
        f"unexpected: {text}"
        for text, one in there.items()
        if text not in known
        and (
            one.table in TABLES or (isinstance(one, Route) and one.is_default and not ours.keys().isdisjoint(one.oifs))
        )
    ]


def plan(attached: Sequence[Attached], state: State) -> Plan:
    """The changes from what is to what should be, and that."""
    owners = _owners(attached, state)
    own = _own(attached, owners, state)
    paths = [path for family in FAMILIES for path in _paths(attached, own, state, family)]
    main, first = [], {}
    for family in FAMILIES:
        chosen, default = _default([path for path in paths if path.family == family])
        first[family] = chosen
        main += _main(own, family, chosen, default, state)
    tables, rules = [], []
    for path in paths:
        if _needs_table(path, paths, first[path.family], main):
            tables += _table(path)
            rules += _rules(path)
    ours = [route for route in state.routes if route.table in TABLES]
    known = {key for each in own for key in each}
    there = [
        route
        for route in state.routes
        if route.table == MAIN
        and not route.is_kernels
        and (route.key in known or not owners.keys().isdisjoint(route.oifs))
    ]
    return Plan(
        changes=[
            *_diff([rule for rule in state.rules if rule.table in TABLES], rules),
            *_diff(ours, tables),
            *_diff(there, main),
        ],
        arranged=tuple(str(one) for one in (*rules, *tables, *main)),
    )


# Deciding


@dataclass(frozen=True, kw_only=True, slots=True)
class _Path:
    """One attachment in one family. addresses: (packed, prefix length). index: of its interface.

    own: its interface's routes but default routes, the kernel's among them, as in the main table. default: the default
    route that it had set. gateway: packed, b"" if it has none.
    """

    family: int
    position: int
    index: int
    addresses: tuple[tuple[bytes, int], ...]
    own: tuple[Route, ...]
    default: Route | None
    gateway: bytes
    wants_default: bool

    @property
    def table(self) -> int:
        return TABLE + self.position

    @property
    def subnets(self) -> list[tuple[bytes, int]]:
        """(destination, prefix length) of its addresses' subnets for which it has no route."""
        present = {(route.destination, route.prefix) for route in self.own}
        there = dict.fromkeys((_masked(address, prefix), prefix) for address, prefix in self.addresses)
        return [(net, prefix) for net, prefix in there if prefix < len(net) * 8 and (net, prefix) not in present]

    def own_default(self, table: int) -> Route | None:
        """Its default route, in that table: the one it had set, else one by its gateway."""
        if self.default is not None:
            return self.default.moved(table)
        if not self.gateway:
            return None
        near = [(route.destination, route.prefix) for route in self.own if route.on_link]
        near += [] if table == MAIN else self.subnets
        return Route.to(
            self.family,
            oif=self.index,
            gateway=self.gateway,
            table=table,
            protocol=PROTOCOL,
            onlink=not any(_inside(self.gateway, net, prefix) for net, prefix in near),
        )


def _owners(attached: Sequence[Attached], state: State) -> dict[int, int]:
    """Whose an interface is: its index to the attachment's position."""
    named = [(one.ifname, at) for at, one in enumerate(attached)]
    named += [(each.name, at) for at, one in enumerate(attached) for each in one.result.interfaces if each.sandbox]
    found: dict[int, int] = {}
    for name, position in named:
        if name in state.links:
            found.setdefault(state.links[name], position)
    return found


def _own(attached: Sequence[Attached], owners: Mapping[int, int], state: State) -> list[dict[object, Route]]:
    """Each attachment's routes, by their keys, as if all of them were in the main table: those held, those still
    there, and those in genie's tables since an earlier settle. What leaves by no attachment's interface (a blackhole)
    is of the one after which it was held.
    """
    told: list[tuple[int | None, Route]] = [(at, route) for at, one in enumerate(attached) for route in one.held]
    told += [(None, route) for route in state.routes if route.table == MAIN]
    told += [(None, route.moved(MAIN)) for route in state.routes if route.table in TABLES and not route.is_kernels]
    own: list[dict[object, Route]] = [{} for _ in attached]
    for holder, route in told:
        position = next((owners[index] for index in route.oifs if index in owners), holder)
        if position is not None and route.protocol != PROTOCOL:
            own[position].setdefault(route.key, route)
    return own


def _paths(
    attached: Sequence[Attached], own: Sequence[Mapping[object, Route]], state: State, family: int
) -> Iterator[_Path]:
    """Who is there in this family: attachments with an address or a default route of it."""
    for position, one in enumerate(attached):
        index = state.links.get(one.ifname)
        if index is None:
            continue
        addresses = _addresses(one, family)
        routes = [route for route in own[position].values() if route.family == family and route.kind == UNICAST]
        had = [] if _named_gateway(one, family) else [route for route in routes if route.is_default]
        default = min(had, key=lambda route: route.metric, default=None)
        if addresses or default is not None:
            yield _Path(
                family=family,
                position=position,
                index=index,
                addresses=addresses,
                own=tuple(route for route in routes if route.oifs == (index,) and not route.is_default),
                default=default,
                gateway=_gateway(one, family),
                wants_default=one.wants_default,
            )


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


def _default(paths: Sequence[_Path]) -> tuple[_Path | None, Route | None]:
    """The default route for the main table, and whose it is: of those that the pod asked for the first that can; else
    of those that had set one the first. Without any, the first attachment is the one that the main table serves.
    """
    asked = [path for path in paths if path.wants_default]
    had = [path for path in paths if path.default is not None]
    for path in (*asked, *had):
        if default := path.own_default(MAIN):
            return path, default
    return next(iter(paths), None), None


def _main(
    own: Sequence[Mapping[object, Route]], family: int, chosen: _Path | None, default: Route | None, state: State
) -> list[Route]:
    """A family's routes for the main table: each place is the first one's who has a route for it, beginning with the
    attachment that the default route is of, for that route may need the others. On-link ones come first, for the same
    reason.
    """
    keys = {key for each in own for key in each}
    taken = {
        route.place for route in state.routes if route.table == MAIN and (route.is_kernels or route.key not in keys)
    }
    taken |= {default.place} if default else set()
    found = []
    for position in sorted(range(len(own)), key=lambda position: chosen is None or position != chosen.position):
        for route in own[position].values():
            if route.family != family or route.is_default or route.is_kernels or route.place in taken:
                continue
            taken.add(route.place)
            found.append(route)
    return [*sorted(found, key=lambda route: not route.on_link), *([default] if default else [])]


def _needs_table(path: _Path, paths: Sequence[_Path], served: _Path | None, main: Sequence[Route]) -> bool:
    """All but the one that the main table serves need one; and that one, too, where the main table might take its
    neighbours for another's, or has a route of another in the place of its own.
    """
    others = [other for other in paths if other.family == path.family and other is not path]
    if not others or not path.addresses:
        return False
    if path is not served:
        return True
    there = {route.key for route in main}
    return any(route.key not in there and not route.is_kernels for route in path.own) or any(
        _overlap(one, two) for other in others for one in path.addresses for two in other.addresses
    )


def _table(path: _Path) -> list[Route]:
    """What its table has: its interface's routes, its subnets, its default route.

    The former bring what a plugin set besides, such as `169.254.1.1 dev eth1 scope link` to a gateway that is in no
    subnet. Those on the link come first, for the others need them.
    """
    moved: dict[object, Route] = {}
    for route in path.own:
        moved.setdefault(route.place, route.moved(path.table))
    for net, prefix in path.subnets:
        # IPv6 refuses a source address that is still tentative
        source = next(one for one, bits in path.addresses if _masked(one, bits) == net) if path.family == INET else b""
        made = Route.to(path.family, net, prefix, oif=path.index, source=source, table=path.table, protocol=PROTOCOL)
        moved.setdefault(made.place, made)
    default = path.own_default(path.table)
    return sorted(moved.values(), key=lambda route: not route.on_link) + ([] if default is None else [default])


def _rules(path: _Path) -> list[Rule]:
    return [
        Rule(family=path.family, source=address, table=path.table, priority=PRIORITY, protocol=PROTOCOL)
        for address in dict.fromkeys(address for address, _ in path.addresses)
    ]


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


def _state(kernel: Netlink, links: Mapping[str, Link] | None = None) -> State:
    """Main and genie's tables by one dump: a dump for each would cost more than it spares."""
    routes = [route for family in FAMILIES for route in kernel.routes(family, _LOOKED_AT)]
    rules = [rule for family in FAMILIES for rule in kernel.rules(family)]
    there = kernel.links() if links is None else links
    return State(links={name: link.ifindex for name, link in there.items()}, routes=routes, rules=rules)
