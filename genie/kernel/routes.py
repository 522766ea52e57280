"""Routes of a pod with several networks: it must work on all of them, and replies must leave by the right interface.

Delegates do not know each other. If two of them set a default route, the second fails ("file exists"). A plugin
attached twice fails on any route that it sets. And if replies leave by another interface than the requests came in on,
the pod is not reachable at its second address. So between two delegates `take_away` removes all routes that the first
one set in the main table. After the last one `arrange` sets all routes:

- The main table has one default route per family: of the attachment that asked for it, otherwise of the first that
  set one.
- The main table also has every other route of every attachment. If several have a route with the same destination,
  prefix and metric, the attachment with the default route wins, then selection order.
- Every other attachment has a routing table of its own (`TABLE` + its position), chosen by a rule "from <its
  address>". It has all of the attachment's routes and a default route by its gateway, so a reply leaves by the
  interface of its source address. The attachment with the default route needs no table, unless its subnet overlaps
  another's (a network attached twice): then the main table would confuse the two.

Routes that the kernel makes for an address stay where they are: the kernel distinguishes them by interface. Routes that
it learns from routers stay, too, and are ignored: they come and go at any time.

`plan` decides, and is pure: it compares the current routes with the intended ones, and returns the changes and the
routes for each attachment's result. Only `plan` decides a pod's default route. `arrange` can be repeated, and undoes
its changes if it fails. It returns the arranged routes and rules as text, one line each; the caller keeps them for
`drift`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from genie.cni.fields import packed
from genie.cni.result import Result, Route
from genie.kernel.netlink import FAMILIES, INET, INET6, MAIN, UNICAST, Address, Change, KernelRoute, Netlink, Rule
from genie.kernel.netns import Link

TABLE = 2000
"""Tables 2000 to 2255 are genie's. Tables from 100 on are used by the reference plugin `sbr`."""

TABLES = range(TABLE, TABLE + 256)

_LOOKED_AT = frozenset({MAIN, *TABLES})

PRIORITY = 32765
"""The priority of genie's rules: before the main table (32766), after all others, so that plugins' own rules win (`sbr`
has a gateway for each address, a mesh's plugin a table for its marks). The kernel gives rules without a priority this
number or a lower one, and matches an older rule of the same priority first.
"""

PROTOCOL = 71
"""Marks the rules and routes that genie itself made, `proto 71` in `ip`; <linux/rtnetlink.h> does not use this number.

A delegate's route keeps its own mark when it is moved, so that it can be recognized.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """One attachment, in the order of the selection.

    ifname: its interface in the pod. result: its network's. taken: the routes that `take_away` removed after it.
    wants_default: the pod asked for its default route here ("default-route" of a network selection element).
    gateways: replace the network's gateway; if there are any, the request is only for the families of these.
    """

    ifname: str
    result: Result
    taken: tuple[KernelRoute, ...] = ()
    wants_default: bool = False
    gateways: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """The state of a namespace. links: names to indices. routes: of the main table and genie's. rules: all.

    addresses: of the interfaces that are up and not in a VRF (a VRF has its own table for them). None if they were not
    read; then the results' addresses are used.
    """

    links: Mapping[str, int]
    routes: Sequence[KernelRoute]
    rules: Sequence[Rule] = ()
    addresses: Sequence[Address] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The intended routes of a pod.

    changes: from the current state to the intended one, in an order that the kernel accepts. arranged: all of genie's
    routes and rules, with those that existed before, for `drift`. reported: for each attachment the routes for its
    result, as the main table has them.
    """

    changes: list[Change]
    arranged: tuple[str, ...]
    reported: tuple[tuple[Route, ...], ...]


def take_away(kernel: Netlink) -> tuple[KernelRoute, ...]:
    """Remove both families' routes from a namespace's main table, except the kernel's own, and return them.

    All or none: raises OSError with the routes as they were.
    """
    there = [route for family in FAMILIES for route in kernel.routes(family)]
    taken = [route for route in there if not (route.is_kernels or route.is_learned)]
    kernel.apply([Change(route, add=False) for route in sorted(taken, key=lambda route: route.on_link)])
    return tuple(taken)


def arrange(kernel: Netlink, placed: Sequence[Placed], links: Mapping[str, Link] | None = None) -> Plan:
    """Arrange the routes of a pod's attachments; see above. A second call changes nothing.

    placed: in the order of the selection. Routes that are still in the main table belong to their interface's
    attachment, so the last delegate's need not be taken away. links: the value of `kernel.links()`, if it was called
    already. All or none: if it raises OSError, the state is as before (routes that were taken away stay away), and the
    message names the route or rule that the kernel refused.
    """
    planned = plan(placed, look(kernel, links))
    kernel.apply(planned.changes)
    return planned


def look(kernel: Netlink, links: Mapping[str, Link] | None = None) -> State:
    """The state of a namespace. Raises OSError."""
    # One dump for the main and genie's tables: a dump for each would take longer.
    routes = [route for family in FAMILIES for route in kernel.routes(family, _LOOKED_AT)]
    rules = [rule for family in FAMILIES for rule in kernel.rules(family)]
    there = kernel.links() if links is None else links
    domains = kernel.of_kind("vrf") if any(link.master for link in there.values()) else ()
    usable = {link.ifindex for link in there.values() if link.up and link.master not in domains}
    addresses = [address for address in kernel.addresses() if address.ifindex in usable]
    indices = {name: link.ifindex for name, link in there.items()}
    return State(links=indices, routes=routes, rules=rules, addresses=addresses)


def drift(placed: Sequence[Placed], state: State, arranged: Iterable[str]) -> list[str]:
    """The changes since `arrange`, as sentences: missing routes and rules, and additional default routes or routes in
    genie's tables.

    placed: as for `arrange`, without `taken`. arranged: the return value of `arrange`.
    """
    owners = _owners(placed, state)
    found: list[KernelRoute | Rule] = [*state.rules, *state.routes]
    there = {str(one): one for one in found}
    known = set(arranged)
    missing = [f"missing: {text}" for text in arranged if text not in there]
    return missing + [
        f"unexpected: {text}"
        for text, one in there.items()
        if text not in known
        and (
            one.table in TABLES
            or (
                isinstance(one, KernelRoute)
                and one.is_default
                and not (one.is_kernels or one.is_learned)
                and not owners.keys().isdisjoint(one.oifs)
            )
        )
    ]


def plan(placed: Sequence[Placed], state: State) -> Plan:
    """The intended routes, and the changes to get there."""
    owners = _owners(placed, state)
    own = _own(placed, owners, state)
    there = _Addresses.read(owners, state)
    paths = [path for family in FAMILIES for path in _paths(placed, own, state, there, family)]
    main: list[tuple[int, KernelRoute]] = []
    served: dict[int, _Path | None] = {}
    for family in FAMILIES:
        served[family], default = _default([path for path in paths if path.family == family])
        main += _main(own, family, served[family], default, state)
    in_main = [route for _, route in main]
    tables, rules = [], []
    for path in paths:
        if _needs_table(path, paths, served[path.family], in_main):
            tables += _table(path)
            rules += _rules(path)
    known = {key for each in own for key in each}
    main_now = [
        route
        for route in state.routes
        if route.table == MAIN
        and not (route.is_kernels or route.is_learned)
        and (route.key in known or not owners.keys().isdisjoint(route.oifs))
    ]
    changed = _diff(main_now, in_main)
    return Plan(
        changes=[
            *_diff([rule for rule in state.rules if rule.table in TABLES], rules),
            *_diff([route for route in state.routes if route.table in TABLES], tables),
            *_displaced(state, changed),
            *changed,
        ],
        arranged=tuple(str(one) for one in (*rules, *tables, *in_main)),
        reported=_reported(placed, main, state),
    )


# Deciding


@dataclass(frozen=True, kw_only=True, slots=True)
class _Path:
    """One attachment in one family. addresses: (packed, prefix length), as in the pod. index: of its interface.

    own: its interface's routes as for the main table, with the kernel's, without default routes. default: the default
    route that its plugins set. gateway: packed, b"" if it has none.
    """

    family: int
    position: int
    index: int
    addresses: tuple[tuple[bytes, int], ...]
    own: tuple[KernelRoute, ...]
    default: KernelRoute | None
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

    def own_default(self, table: int) -> KernelRoute | None:
        """Its default route, for that table: the one that its plugins set, otherwise one by its gateway."""
        if self.default is not None:
            return self.default.moved(table)
        if not self.gateway:
            return None
        near = [(route.destination, route.prefix) for route in self.own if route.on_link]
        near += [] if table == MAIN else self.subnets
        return KernelRoute.to(
            self.family,
            oif=self.index,
            gateway=self.gateway,
            table=table,
            protocol=PROTOCOL,
            onlink=not any(_inside(self.gateway, net, prefix) for net, prefix in near),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Addresses:
    """The pod's addresses, each looked at once: a pod may have thousands. of: each one's prefix length, by the position
    of its interface's attachment; None for other interfaces. unfit: those that cannot be a gateway, the pod's own and
    the broadcast addresses of its subnets.
    """

    of: Mapping[int | None, Mapping[bytes, int]]
    unfit: frozenset[bytes]

    @classmethod
    def read(cls, owners: Mapping[int, int], state: State) -> _Addresses | None:
        """None if the addresses were not read."""
        if state.addresses is None:
            return None
        of: dict[int | None, dict[bytes, int]] = {None: {}}
        for one in state.addresses:
            of.setdefault(owners.get(one.ifindex), {}).setdefault(one.packed, one.prefix)
        unfit = {packed for one in state.addresses for packed in (one.packed, _broadcast(one))}
        return cls(of=of, unfit=frozenset(unfit))

    def present(self, reported: Iterable[tuple[bytes, int]], position: int) -> tuple[tuple[bytes, int], ...]:
        """The addresses that the pod has, with their prefix length there, without those on another attachment's
        interface.

        A plugin may report an address without setting it in the pod, as OVN-Kubernetes' does for virtual machines. The
        kernel refuses a route with such a source, and nothing in the pod sends from it.
        """
        own, others = self.of.get(position, {}), self.of[None]
        lengths = ((packed, own.get(packed, others.get(packed))) for packed, _ in reported)
        return tuple((packed, length) for packed, length in lengths if length is not None)


def _owners(placed: Sequence[Placed], state: State) -> dict[int, int]:
    """Interface index → the position of its attachment."""
    named = [(one.ifname, at) for at, one in enumerate(placed)]
    named += [(each.name, at) for at, one in enumerate(placed) for each in one.result.interfaces if each.sandbox]
    found: dict[int, int] = {}
    for name, position in named:
        if name in state.links:
            found.setdefault(state.links[name], position)
    return found


def _own(placed: Sequence[Placed], owners: Mapping[int, int], state: State) -> list[dict[object, KernelRoute]]:
    """Each attachment's routes by their keys, as if all were in the main table: routes that were taken away, routes
    that are still there, and routes in genie's tables from an earlier `arrange`. A route without an attachment's
    interface (a blackhole) belongs to the attachment after which it was taken away.
    """
    found: list[tuple[int | None, KernelRoute]] = [(at, route) for at, one in enumerate(placed) for route in one.taken]
    found += [(None, route) for route in state.routes if route.table == MAIN]
    found += [(None, route.moved(MAIN)) for route in state.routes if route.table in TABLES and not route.is_kernels]
    own: list[dict[object, KernelRoute]] = [{} for _ in placed]
    indices = set(state.links.values())
    for holder, route in found:
        position = next((owners[index] for index in route.oifs if index in owners), holder)
        gone = route.oifs and indices.isdisjoint(route.oifs)  # its interface was removed after the route was taken away
        if position is not None and route.protocol != PROTOCOL and not route.is_learned and not gone:
            own[position].setdefault(route.key, route)
    return own


def _paths(
    placed: Sequence[Placed],
    own: Sequence[Mapping[object, KernelRoute]],
    state: State,
    there: _Addresses | None,
    family: int,
) -> Iterator[_Path]:
    """The attachments with an address or a default route of this family."""
    for position, one in enumerate(placed):
        index = state.links.get(one.ifname)
        if index is None:
            continue
        reported = _addresses(one, family)
        routes = [route for route in own[position].values() if route.family == family and route.kind == UNICAST]
        had = [] if _named_gateway(one, family) else [route for route in routes if route.is_default]
        default = min(had, key=lambda route: route.metric, default=None)
        if reported or default is not None:
            yield _Path(
                family=family,
                position=position,
                index=index,
                addresses=reported if there is None else there.present(reported, position),
                own=tuple(route for route in routes if route.oifs == (index,) and not route.is_default),
                default=default,
                gateway=_gateway(one, family, there),
                wants_default=one.wants_default and (not one.gateways or bool(_named_gateway(one, family))),
            )


def _addresses(one: Placed, family: int) -> tuple[tuple[bytes, int], ...]:
    """(packed, prefix length) of its addresses on its interface, without those of other interfaces.

    An address without an interface counts as on it: 0.1.0 and 0.2.0 have no interfaces, and some plugins never report
    them.
    """
    interfaces = one.result.interfaces
    found = []
    for ip in one.result.ips:
        on = None if ip.interface is None else interfaces[ip.interface]
        if ip.is_v6 == (family == INET6) and (on is None or (on.name == one.ifname and on.sandbox)):
            address, _, prefix = ip.address.partition("/")
            found.append((packed(address), int(prefix)))
    return tuple(dict.fromkeys(found))


def _named_gateway(one: Placed, family: int) -> bytes:
    named = next((gateway for gateway in one.gateways if (":" in gateway) == (family == INET6)), "")
    return packed(named) if named else b""


def _gateway(one: Placed, family: int, there: _Addresses | None) -> bytes:
    """Its gateway: the one that the pod named, otherwise the result's default route, otherwise the gateway of its first
    address. Gateways in the result that no packet can be sent to are skipped.

    Specification, section 5: `gateway` in `ips` is "the default gateway for this subnet, if one exists".
    """
    named = _named_gateway(one, family)
    if named:
        return named
    is_v6 = family == INET6
    reported = [route.gw for route in one.result.routes if route.is_v6 == is_v6 and route.dst.endswith("/0")]
    reported += [ip.gateway for ip in one.result.ips if ip.is_v6 == is_v6]
    given = (packed(gateway) for gateway in reported if gateway and (":" in gateway) == is_v6)
    unfit = there.unfit if there else frozenset()
    return next((gateway for gateway in given if _leads_out(gateway) and gateway not in unfit), b"")


def _leads_out(gateway: bytes) -> bool:
    """Whether the kernel accepts it as a gateway, if it is not the pod's own: a host's address, not 0.0.0.0 or ::."""
    return any(gateway) and gateway[0] in (range(1, 224) if len(gateway) == 4 else range(255))


def _default(paths: Sequence[_Path]) -> tuple[_Path | None, KernelRoute | None]:
    """The default route for the main table, and its attachment: the first one with `wants_default` that can provide a
    route, otherwise the first with a route from its plugin. Without any, the main table serves the first attachment.
    """
    asked = [path for path in paths if path.wants_default]
    had = [path for path in paths if path.default is not None]
    for path in (*asked, *had):
        if default := path.own_default(MAIN):
            return path, default
    return next(iter(paths), None), None


def _main(
    own: Sequence[Mapping[object, KernelRoute]],
    family: int,
    served: _Path | None,
    default: KernelRoute | None,
    state: State,
) -> list[tuple[int, KernelRoute]]:
    """A family's routes for the main table, each with its attachment. When several attachments have a route to the same
    destination, the owner of the default route wins, because that route may need it, then selection order. On-link
    routes come first, for the same reason.
    """
    keys = {key for each in own for key in each}
    taken = {
        route.place
        for route in state.routes
        if route.table == MAIN and (route.is_kernels or not (route.is_learned or route.key in keys))
    }
    taken |= {default.place} if default else set()
    found = []
    for position in sorted(range(len(own)), key=lambda position: served is None or position != served.position):
        for route in own[position].values():
            if route.family != family or route.is_default or route.is_kernels or route.place in taken:
                continue
            taken.add(route.place)
            found.append((position, route))
    found.sort(key=lambda each: not each[1].on_link)
    return [*found, *([(served.position, default)] if served and default else [])]


def _reported(
    placed: Sequence[Placed], main: Sequence[tuple[int, KernelRoute]], state: State
) -> tuple[tuple[Route, ...], ...]:
    """Each result's routes as in the main table: without routes that lost to another attachment's, and with the pod's
    default routes, even if a plugin set one and did not report it. A route with a table of its own collides with none.
    An attachment without an interface in this namespace (plugins for user space make none) keeps a reported route if
    it does not collide.
    """
    owners = {_place(route): position for position, route in main}
    defaults = [(position, route) for position, route in main if route.is_default]
    found = []
    for position, one in enumerate(placed):
        routes = []
        for route in one.result.routes:
            if not route.table and not (route.is_default and one.ifname in state.links):
                owners.setdefault(_place(route), position)
            if route.table or owners.get(_place(route)) == position:
                routes.append(route)
        for owner, default in defaults:
            if owner == position:
                routes = _with_default(routes, default)
        found.append(tuple(routes))
    return tuple(found)


def _with_default(reported: Sequence[Route], default: KernelRoute) -> list[Route]:
    """A result's routes with the pod's default route, in the plugin's own form if the plugin reported it."""
    found, is_v6 = [], default.family == INET6
    missing = [Route("::/0" if is_v6 else "0.0.0.0/0", default.via)]
    for route in reported:
        if route.is_default and route.is_v6 == is_v6:
            if _canonical(route.gw) != default.via and (route.gw or default.protocol == PROTOCOL):
                continue
            missing = []
        found.append(route)
    return found + missing


def _place(route: KernelRoute | Route) -> object:
    """Two routes of the main table with the same value collide; for default routes only the family counts."""
    if isinstance(route, KernelRoute):
        return route.place if route.prefix else route.family
    family = INET6 if route.is_v6 else INET
    if route.is_default:
        return family
    address, _, length = route.dst.partition("/")
    destination = _masked(packed(address), int(length))
    return KernelRoute.to(family, destination, int(length), oif=0, metric=route.priority or 0).place


def _canonical(address: str) -> str:
    return socket.inet_ntop(INET6 if ":" in address else INET, packed(address)) if address else ""


def _needs_table(path: _Path, paths: Sequence[_Path], served: _Path | None, main: Sequence[KernelRoute]) -> bool:
    """Whether an attachment needs its own table: all except the one that the main table serves. That one needs it, too,
    if its subnet overlaps another's or it lost a route to another.
    """
    others = [other for other in paths if other.family == path.family and other is not path]
    if not others or not path.addresses:
        return False
    if path is not served:
        return True
    there = {route.key for route in main}
    return any(route.key not in there and not route.is_kernels for route in path.own) or _overlap(
        path.addresses, [address for other in others for address in other.addresses]
    )


def _table(path: _Path) -> list[KernelRoute]:
    """The routes of its table: its interface's routes, its subnets, its default route.

    The interface's routes include ones like `169.254.1.1 dev eth1 scope link`, which a plugin sets to a gateway that is
    in no subnet. On-link routes come first, because the others need them.
    """
    moved: dict[object, KernelRoute] = {}
    for route in path.own:
        moved.setdefault(route.place, route.moved(path.table))
    sources: dict[bytes, bytes] = {}
    if path.family == INET:  # IPv6 refuses a source address that is still tentative
        for address, bits in path.addresses:
            sources.setdefault(_masked(address, bits), address)
    for net, prefix in path.subnets:
        source = sources.get(net, b"")
        made = KernelRoute.to(
            path.family, net, prefix, oif=path.index, source=source, table=path.table, protocol=PROTOCOL
        )
        moved.setdefault(made.place, made)
    default = path.own_default(path.table)
    return sorted(moved.values(), key=lambda route: not route.on_link) + ([] if default is None else [default])


def _rules(path: _Path) -> list[Rule]:
    return [
        Rule(family=path.family, source=address, table=path.table, priority=PRIORITY, protocol=PROTOCOL)
        for address in dict.fromkeys(address for address, _ in path.addresses)
    ]


def _diff(have: Iterable[KernelRoute | Rule], want: Iterable[KernelRoute | Rule]) -> list[Change]:
    """Delete unwanted routes and rules, then add missing ones."""
    there = {_key(one): one for one in have}
    wanted = {_key(one): one for one in want}
    return [
        *(Change(one, add=False) for key, one in there.items() if key not in wanted),
        *(Change(one) for key, one in wanted.items() if key not in there),
    ]


def _displaced(state: State, changed: Iterable[Change]) -> list[Change]:
    """The removal of routes that the kernel learned, in the place of a route to add. It learns them again, and then
    both may stay.
    """
    wanted = {one.what.place for one in changed if one.add and isinstance(one.what, KernelRoute)}
    return [
        Change(route, add=False)
        for route in state.routes
        if route.table == MAIN and route.is_learned and not route.is_kernels and route.place in wanted
    ]


def _key(one: KernelRoute | Rule) -> object:
    return one.key if isinstance(one, KernelRoute) else (one.family, one.source, one.table, one.priority)


def _masked(address: bytes, prefix: int) -> bytes:
    bits = len(address) * 8 - prefix
    return (int.from_bytes(address, "big") >> bits << bits).to_bytes(len(address), "big")


def _broadcast(one: Address) -> bytes:
    """The broadcast address of its subnet; b"" in IPv6, and in a /31, which has none (RFC 3021)."""
    bits = 32 - one.prefix
    if len(one.packed) != 4 or bits < 2:
        return b""
    return (int.from_bytes(one.packed, "big") | ((1 << bits) - 1)).to_bytes(4, "big")


def _inside(one: bytes, address: bytes, prefix: int) -> bool:
    return _masked(one, prefix) == _masked(address, prefix)


def _overlap(ours: Iterable[tuple[bytes, int]], theirs: Iterable[tuple[bytes, int]]) -> bool:
    """Whether one of our subnets shares an address with one of theirs."""
    spans = sorted((*_span(*one), side) for side, subnets in enumerate((ours, theirs)) for one in subnets)
    ends = [b"", b""]  # the highest address so far of ours, and of theirs
    for first, last, side in spans:
        if first <= ends[1 - side]:
            return True
        ends[side] = max(ends[side], last)
    return False


def _span(address: bytes, prefix: int) -> tuple[bytes, bytes]:
    """The first and the last address of a subnet."""
    first = _masked(address, prefix)
    last = int.from_bytes(first, "big") | ((1 << len(address) * 8 - prefix) - 1)
    return first, last.to_bytes(len(address), "big")
