"""Routes and rules of a network namespace, by netlink.

Importing a netlink library takes too long for an ADD in direct mode, which needs only five dumps and a batch of
changes. Routes are dataclasses that keep the attributes as the kernel wrote them, so that a removed route can be
restored exactly. If the kernel refuses a change, an OSError names the change and the reason.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from genie.kernel.netns import (
    HEADER,
    LINK,
    NLM_F_ACK,
    NLMSG_ERROR,
    RTM_GETLINK,
    TYPE,
    Conversation,
    join,
    message,
    split,
)

INET, INET6 = int(socket.AF_INET), int(socket.AF_INET6)
FAMILIES = (INET, INET6)

MAIN = 254
"""The routing table for all packets that no other rule matches (rtnetlink(7), RT_TABLE_MAIN)."""

SCOPE_GLOBAL, SCOPE_LINK = 0, 253
UNICAST = 1
RTPROT_REDIRECT, RTPROT_KERNEL, RTPROT_STATIC, RTPROT_RA = 1, 2, 4, 9

# From <linux/rtnetlink.h>, <linux/netlink.h>, <linux/fib_rules.h>, with the same names.
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 4, 5, 6, 7
RTA_MULTIPATH, RTA_CACHEINFO, RTA_TABLE, RTA_VIA, RTA_NH_ID = 9, 12, 15, 18, 30
RTNH_F_ONLINK = 4
RT_TABLE_COMPAT = 252
RTM_F_CLONED = 0x200
FRA_SRC, FRA_PRIORITY, FRA_TABLE, FRA_PROTOCOL = 2, 6, 15, 21
FR_ACT_TO_TBL = 1
RTM_GETADDR = 22
IFLA_LINKINFO, IFLA_INFO_KIND = 18, 1
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS, IFA_F_NOPREFIXROUTE = 1, 2, 8, 0x200
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
NLM_F_CAPPED, NLM_F_ACK_TLVS, NLMSGERR_ATTR_MSG = 0x100, 0x200, 1

_ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
_ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefixlen, flags, scope, index
_RULE = _ROUTE  # fib_rule_hdr: family, dst_len, src_len, tos, table, -, -, action, flags

Attributes = tuple[tuple[int, bytes], ...]

# The kernel's default metric for an IPv6 route (IP6_RT_PRIO_USER); IPv4's is 0.
_DEFAULT_METRIC = {INET: 0, INET6: 1024}


@dataclass(frozen=True, kw_only=True)
class KernelRoute:
    """A route with all the kernel's attributes (rtnetlink(7), struct rtmsg).

    family: INET or INET6. prefix: length of the destination in bits, 0 for a default route. attributes:
    (RTA_*, value) without RTA_TABLE, which is in `table`.
    """

    family: int
    prefix: int = 0
    table: int = MAIN
    protocol: int = RTPROT_STATIC
    scope: int = SCOPE_GLOBAL
    kind: int = UNICAST
    tos: int = 0
    flags: int = 0
    attributes: Attributes = ()

    @classmethod
    def to(
        cls,
        family: int,
        destination: bytes = b"",
        prefix: int = 0,
        *,
        oif: int,
        gateway: bytes = b"",
        source: bytes = b"",
        table: int = MAIN,
        protocol: int = RTPROT_STATIC,
        metric: int = 0,
        onlink: bool = False,
    ) -> KernelRoute:
        """A unicast route out of interface `oif`, its addresses packed as by `socket.inet_pton`."""
        number = struct.pack("=I", metric) if metric else b""
        given = ((RTA_DST, destination), (RTA_GATEWAY, gateway), (RTA_PREFSRC, source), (RTA_PRIORITY, number))
        return cls(
            family=family,
            prefix=prefix,
            table=table,
            protocol=protocol,
            scope=SCOPE_GLOBAL if gateway or family == INET6 else SCOPE_LINK,
            flags=RTNH_F_ONLINK if onlink else 0,
            attributes=(
                *((kind, value) for kind, value in given if value),
                (RTA_OIF, struct.pack("=I", oif)),
            ),
        )

    def get(self, kind: int) -> bytes:
        """An attribute's value, b"" if it has none."""
        return self._values.get(kind, b"")

    @cached_property
    def _values(self) -> dict[int, bytes]:
        return dict(self.attributes)

    @property
    def destination(self) -> bytes:
        """Packed, b"" for a default route."""
        return self.get(RTA_DST)

    @property
    def gateway(self) -> bytes:
        """Packed; b"" on the link, and if the gateway is of the other family (RTA_VIA)."""
        return self.get(RTA_GATEWAY)

    @property
    def via(self) -> str:
        """The gateway's address as text, of either family; "" on the link."""
        if other := self.get(RTA_VIA):  # struct rtvia: family, address
            return _shown(_number(other[:2]), other[2:])
        return _shown(self.family, self.gateway) if self.gateway else ""

    @cached_property
    def metric(self) -> int:
        """The metric, lower wins; the kernel's default if it gives none."""
        return _number(self.get(RTA_PRIORITY)) or _DEFAULT_METRIC.get(self.family, 0)

    @cached_property
    def oifs(self) -> tuple[int, ...]:
        """Indices of its output interfaces, several for a multipath route."""
        single = self.get(RTA_OIF)
        if single:
            return (_number(single),)
        hops, found = self.get(RTA_MULTIPATH), []
        while len(hops) >= 8:  # struct rtnexthop: length, flags, hops, interface
            length, _, _, index = struct.unpack_from("=HBBi", hops)
            found.append(index)
            hops = hops[max(8, (length + 3) & ~3) :]
        return tuple(found)

    @property
    def is_default(self) -> bool:
        """Whether it is a route for every destination that delivers packets (not a blackhole)."""
        return self.prefix == 0 and self.kind == UNICAST

    @property
    def on_link(self) -> bool:
        """Whether it needs no gateway; gateways are reached by such routes."""
        return self._values.keys().isdisjoint((RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH))

    @property
    def is_kernels(self) -> bool:
        """Whether the kernel made it for an address. Several such routes may have the same destination."""
        return self.protocol == RTPROT_KERNEL

    @property
    def is_learned(self) -> bool:
        """Whether the kernel learned it from a router, and may change or expire it: from a router's advertisement
        (RFC 4861), a redirect, or for the subnet of an address that it chose itself (RFC 4862).

        Such a route cannot be restored: the kernel marks it with a flag that programs cannot set. And another route in
        its place stops the kernel from reading further advertisements, so that the pod's addresses expire.
        """
        return self.protocol in (RTPROT_RA, RTPROT_REDIRECT) or (self.is_kernels and self.expires != 0)

    @property
    def expires(self) -> int:
        """The ticks (USER_HZ) until it expires, 0 if never (struct rta_cacheinfo)."""
        return _number(self.get(RTA_CACHEINFO)[8:12])

    @cached_property
    def key(self) -> tuple[object, ...]:
        """The identity of a route, ignoring attributes that the kernel adds in dumps."""
        where = self.get(RTA_VIA) or self.gateway
        return (self.family, self.table, self.prefix, self.destination, self.oifs, where, self.metric)

    @cached_property
    def place(self) -> tuple[object, ...]:
        """Two routes with the same value collide ("file exists"), even with different gateways."""
        return (self.family, self.table, self.prefix, self.destination, self.tos, self.metric)

    def moved(self, table: int) -> KernelRoute:
        """The same route in another table."""
        return replace(self, table=table)

    def encode(self) -> bytes:
        """struct rtmsg and attributes, for adding as well as for deleting.

        Of the flags in a dump only `onlink` may be sent back, the others are states. The dump of a route through a
        nexthop object also has the object's gateway and interface, which must not be sent beside the object.
        """
        dropped = {RTA_TABLE, RTA_CACHEINFO}
        if self.get(RTA_NH_ID):
            dropped |= {RTA_OIF, RTA_GATEWAY, RTA_MULTIPATH, RTA_VIA}
        head = _ROUTE.pack(
            self.family,
            self.prefix,
            0,
            self.tos,
            self.table if self.table < 256 else 0,
            self.protocol,
            self.scope,
            self.kind,
            self.flags & RTNH_F_ONLINK,
        )
        kept = [(kind, value) for kind, value in self.attributes if kind & TYPE not in dropped]
        return head + join([*kept, (RTA_TABLE, struct.pack("=I", self.table))])

    def __str__(self) -> str:
        target = f"{_shown(self.family, self.destination)}/{self.prefix}" if self.prefix else "default"
        via = f" via {self.via}" if self.via else ""
        metric = "" if self.metric == _DEFAULT_METRIC.get(self.family, 0) else f" metric {self.metric}"
        return f"route {target}{via} dev {'+'.join(map(str, self.oifs)) or '?'} table {self.table}{metric}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A rule "from this address use that table" (ip-rule(8)). source: packed. priority: lower is first."""

    family: int
    source: bytes
    table: int
    priority: int
    protocol: int = 0

    def encode(self) -> bytes:
        """struct fib_rule_hdr and attributes."""
        head = _RULE.pack(self.family, 0, len(self.source) * 8, 0, 0, 0, 0, FR_ACT_TO_TBL, 0)
        return head + join(
            [
                (FRA_SRC, self.source),
                (FRA_PRIORITY, struct.pack("=I", self.priority)),
                (FRA_TABLE, struct.pack("=I", self.table)),
                (FRA_PROTOCOL, struct.pack("=B", self.protocol)),
            ]
        )

    def __str__(self) -> str:
        return f"rule from {_shown(self.family, self.source)} lookup {self.table}"


class Address(NamedTuple):
    """An address of an interface. packed: as by `socket.inet_pton`.

    prefix: of its directly connected subnet, in bits. It is the address's full length if there is no such subnet,
    because of a peer address (ip-address(8), `peer`) or no route to the subnet (`noprefixroute`).
    """

    ifindex: int
    packed: bytes
    prefix: int


@dataclass(frozen=True, slots=True)
class Change:
    """A route or rule to add or to delete."""

    what: KernelRoute | Rule
    add: bool = True

    @property
    def undone(self) -> Change:
        return Change(self.what, not self.add)

    def encode(self, sequence: int) -> bytes:
        """The whole message."""
        is_route = isinstance(self.what, KernelRoute)
        if self.add:
            kind, flags = RTM_NEWROUTE if is_route else RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL
        else:
            kind, flags = RTM_DELROUTE if is_route else RTM_DELRULE, 0
        return message(kind, flags | NLM_F_ACK, sequence, self.what.encode())

    def __str__(self) -> str:
        return f"{'add' if self.add else 'delete'} {self.what}"


class Netlink(Conversation):
    """A connection for one network namespace, with routes and rules, too."""

    def routes(self, family: int, tables: Container[int] = (MAIN,)) -> list[KernelRoute]:
        """Routes of a family in these tables, without the cache's clones; empty if the family is disabled."""
        # A kernel that filters (from 4.20 on) dumps only the one table, and answers ENOENT if it does not exist.
        only = MAIN if tables == (MAIN,) else 0
        bodies = self._dump(RTM_GETROUTE, _ROUTE.pack(family, 0, 0, 0, only, 0, 0, 0, 0), "routes")
        # The header has only tables below 256, enough to skip most routes without parsing them.
        found = (_route(body) for body in bodies if body[4] in tables or body[4] == RT_TABLE_COMPAT)
        return [
            route
            for route in found
            if route.family == family and route.table in tables and not route.flags & RTM_F_CLONED
        ]

    def of_kind(self, kind: str) -> frozenset[int]:
        """The indices of the interfaces of a kind, such as "veth" (ip-link(8), TYPE). Raises OSError."""
        found = set()
        for body in self._dump(RTM_GETLINK, LINK.pack(0, 0, 0, 0, 0), "links"):
            of = dict(split(body, LINK.size))
            if dict(split(of.get(IFLA_LINKINFO, b""), 0)).get(IFLA_INFO_KIND, b"").rstrip(b"\0") == kind.encode():
                found.add(LINK.unpack_from(body)[2])
        return frozenset(found)

    def addresses(self) -> list[Address]:
        """The addresses of all interfaces, of both families. Raises OSError."""
        found = []
        for body in self._dump(RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0), "addresses"):
            family, prefix, _, _, index = _ADDRESS.unpack_from(body)
            if family not in FAMILIES:
                continue
            of = dict(split(body, _ADDRESS.size))
            address = of.get(IFA_ADDRESS, b"")
            own = of.get(IFA_LOCAL) or address
            alone = own != address or _number(of.get(IFA_FLAGS, b"")) & IFA_F_NOPREFIXROUTE
            found.append(Address(ifindex=index, packed=own, prefix=len(own) * 8 if alone else prefix))
        return found

    def rules(self, family: int) -> list[Rule]:
        """The rules that choose a table by one source address; others are left out."""
        found = []
        for body in self._dump(RTM_GETRULE, _RULE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0), "rules"):
            of, _, source_prefix, _, table, _, _, action, _ = _RULE.unpack_from(body)
            attributes = dict(split(body, _RULE.size))
            source = attributes.get(FRA_SRC, b"")
            if of == family and action == FR_ACT_TO_TBL and source and source_prefix == len(source) * 8:
                found.append(
                    Rule(
                        family=family,
                        source=source,
                        table=_number(attributes.get(FRA_TABLE, b"")) or table,
                        priority=_number(attributes.get(FRA_PRIORITY, b"")),
                        protocol=_number(attributes.get(FRA_PROTOCOL, b"")),
                    )
                )
        return found

    def apply(self, changes: Sequence[Change]) -> None:
        """Make the changes in order, as one batch. If one is refused, the others are undone.

        Raises OSError for the first refused change, with the change in the message; the others were then undone,
        as far as the kernel allowed it.
        """
        refused = self._submit(changes)
        if not refused:
            return
        made = [change for at, change in enumerate(changes) if at not in refused]
        self._submit([change.undone for change in reversed(made)])
        first = min(refused)
        code, words = refused[first]
        name = errno.errorcode.get(code, str(code))
        raise OSError(code, f"{changes[first]}: {name}, {os.strerror(code)}{words and f' ({words})'}")

    def _submit(self, changes: Sequence[Change]) -> dict[int, tuple[int, str]]:
        """Send all and read the acknowledgements. Returns (errno, the kernel's message) of refused changes, by
        position.

        In portions, because a batch and its acknowledgements must fit into the socket's buffers.
        """
        refused = {}
        for begin in range(0, len(changes), 64):
            first = self._sequence + 1
            part = changes[begin : begin + 64]
            self._socket.send(b"".join(change.encode(first + at) for at, change in enumerate(part)))
            self._sequence += len(part)
            waiting = set(range(first, first + len(part)))
            while waiting:
                for kind, flags, sequence, body in self._receive():
                    if kind == NLMSG_ERROR and sequence in waiting:
                        waiting.discard(sequence)
                        code = -struct.unpack_from("=i", body)[0]
                        if code:
                            refused[begin + sequence - first] = (code, _words(flags, body))
        return refused


def _route(body: bytes) -> KernelRoute:
    family, prefix, _, tos, table, protocol, scope, kind, flags = _ROUTE.unpack_from(body)
    attributes = []
    for key, value in split(body, _ROUTE.size):
        if key == RTA_TABLE:
            table = _number(value)
        else:
            attributes.append((key, value))
    return KernelRoute(
        family=family,
        prefix=prefix,
        table=table,
        protocol=protocol,
        scope=scope,
        kind=kind,
        tos=tos,
        flags=flags,
        attributes=tuple(attributes),
    )


def _words(flags: int, body: bytes) -> str:
    """The message that the kernel may add to an error (NLMSGERR_ATTR_MSG)."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    echoed = HEADER.size if flags & NLM_F_CAPPED else (struct.unpack_from("=I", body, 4)[0] + 3) & ~3
    return dict(split(body, 4 + echoed)).get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode("utf-8", "replace")


def _number(value: bytes) -> int:
    return int.from_bytes(value[:4], sys.byteorder)


def _shown(family: int, address: bytes) -> str:
    return socket.inet_ntop(family, address) if address else "?"
