"""Routes, rules, links and addresses of a network namespace, spoken with the kernel directly.

An ADD in direct mode cannot afford to import a netlink library, and needs little of one: five dumps and a
batch of changes. In flow dataclasses that keep a route's attributes as the kernel wrote them, so that a route
that was taken away can be put back exactly; out come the same, or an OSError that says which change the
kernel refused, and why.

A netlink socket belongs for life to the namespace it was made in. So `Netlink(path)` makes it in a thread of
its own that enters the namespace and ends; the calling thread never leaves its own.
"""

from __future__ import annotations

import _thread
import errno
import os
import socket
import struct
import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

INET, INET6 = int(socket.AF_INET), int(socket.AF_INET6)
FAMILIES = (INET, INET6)

MAIN = 254
"""The routing table that everything without a rule of its own uses (rtnetlink(7), RT_TABLE_MAIN)."""

SCOPE_GLOBAL, SCOPE_LINK = 0, 253
UNICAST = 1
RTPROT_KERNEL, RTPROT_STATIC = 2, 4

# Of <linux/rtnetlink.h>, <linux/netlink.h>, <linux/fib_rules.h>, under their names there.
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTM_GETLINK, RTM_GETADDR = 18, 22
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 4, 5, 6, 7
RTA_MULTIPATH, RTA_CACHEINFO, RTA_TABLE, RTA_VIA, RTA_NH_ID = 9, 12, 15, 18, 30
RTNH_F_ONLINK = 4
RT_TABLE_COMPAT = 252
RTM_F_CLONED = 0x200
FRA_SRC, FRA_PRIORITY, FRA_TABLE, FRA_PROTOCOL = 2, 6, 15, 21
FR_ACT_TO_TBL = 1
IFLA_IFNAME, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS = 3, 29, 8
IFA_ADDRESS, IFA_LOCAL = 1, 2
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_DUMP = 1, 4, 0x10, 0x300
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_CAPPED, NLM_F_ACK_TLVS, NLMSGERR_ATTR_MSG = 0x100, 0x200, 1
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
CLONE_NEWNET = 0x40000000

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
_RULE = _ROUTE  # fib_rule_hdr: family, dst_len, src_len, tos, table, -, -, action, flags
_LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBi")  # ifaddrmsg: family, prefix length, flags, scope, index
_ATTRIBUTE = struct.Struct("=HH")
_TYPE = 0x3FFF  # an attribute's type without NLA_F_NESTED and NLA_F_NET_BYTEORDER

_NOTHING_THERE = (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)

Attributes = tuple[tuple[int, bytes], ...]

# The kernel's default metric for an IPv6 route that gives none (IP6_RT_PRIO_USER); IPv4's is 0.
_DEFAULT_METRIC = {INET: 0, INET6: 1024}


@dataclass(frozen=True, kw_only=True)
class Route:
    """A route, with every attribute as the kernel has it (rtnetlink(7), struct rtmsg).

    family: INET or INET6. prefix: length of the destination in bits, 0 for a default route. attributes:
    (RTA_*, value) without RTA_TABLE, which `table` holds.
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
        onlink: bool = False,
    ) -> Route:
        """A unicast route out of interface `oif`, its addresses packed as by `socket.inet_pton`."""
        given = ((RTA_DST, destination), (RTA_GATEWAY, gateway), (RTA_PREFSRC, source))
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
        """Packed; b"" on the link, and where the gateway is of the other family (RTA_VIA)."""
        return self.get(RTA_GATEWAY)

    @cached_property
    def metric(self) -> int:
        """The metric, lower wins; the kernel's default if it gives none."""
        return _number(self.get(RTA_PRIORITY)) or _DEFAULT_METRIC.get(self.family, 0)

    @cached_property
    def oifs(self) -> tuple[int, ...]:
        """Indices of the interfaces it leaves by, several if it is multipath."""
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
        """Whether it is for every destination, and leads somewhere."""
        return self.prefix == 0 and self.kind == UNICAST

    @property
    def on_link(self) -> bool:
        """Whether it needs no gateway; a gateway is reached by such a route."""
        return self._values.keys().isdisjoint((RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH))

    @property
    def is_kernels(self) -> bool:
        """Whether the kernel made it for an address. Of these there may be several of one destination."""
        return self.protocol == RTPROT_KERNEL

    @cached_property
    def key(self) -> tuple[object, ...]:
        """What makes two routes the same one, whatever the kernel adds in telling of it."""
        where = self.get(RTA_VIA) or self.gateway
        return (self.family, self.table, self.prefix, self.destination, self.oifs, where, self.metric)

    @cached_property
    def place(self) -> tuple[object, ...]:
        """What two routes collide by ("file exists"), wherever they lead."""
        return (self.family, self.table, self.prefix, self.destination, self.tos, self.metric)

    def moved(self, table: int) -> Route:
        """The same route in another table."""
        return replace(self, table=table)

    def encode(self) -> bytes:
        """struct rtmsg and attributes, fit for adding as well as for deleting.

        Of the flags in a dump only `onlink` may be given back, the others tell of a state. A route through a
        nexthop object is told with what that object resolves to, which must not be given beside it.
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
        kept = [(kind, value) for kind, value in self.attributes if kind & _TYPE not in dropped]
        return head + _attributes([*kept, (RTA_TABLE, struct.pack("=I", self.table))])

    def __str__(self) -> str:
        target = f"{_shown(self.family, self.destination)}/{self.prefix}" if self.prefix else "default"
        via = f" via {_shown(self.family, self.gateway)}" if self.gateway else ""
        if other := self.get(RTA_VIA):  # struct rtvia: family, address
            via = f" via {_shown(_number(other[:2]), other[2:])}"
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
        return head + _attributes(
            [
                (FRA_SRC, self.source),
                (FRA_PRIORITY, struct.pack("=I", self.priority)),
                (FRA_TABLE, struct.pack("=I", self.table)),
                (FRA_PROTOCOL, struct.pack("=B", self.protocol)),
            ]
        )

    def __str__(self) -> str:
        return f"rule from {_shown(self.family, self.source)} lookup {self.table}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """An interface's address. address: packed. prefix: its subnet's bits. index: the interface's."""

    family: int
    address: bytes
    prefix: int
    index: int


@dataclass(frozen=True, slots=True)
class Change:
    """Something to add, or to take away."""

    what: Route | Rule
    add: bool = True

    @property
    def undone(self) -> Change:
        """The change that takes this one back."""
        return Change(self.what, not self.add)

    def encode(self, sequence: int) -> bytes:
        """The whole message."""
        is_route = isinstance(self.what, Route)
        if self.add:
            kind, flags = RTM_NEWROUTE if is_route else RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL
        else:
            kind, flags = RTM_DELROUTE if is_route else RTM_DELRULE, 0
        return _message(kind, flags | NLM_F_ACK, sequence, self.what.encode())

    def __str__(self) -> str:
        return f"{'add' if self.add else 'delete'} {self.what}"


class Netlink:
    """A conversation with the kernel about one network namespace.

    netns: a path (/run/netns/x, /proc/PID/ns/net), or None for the calling thread's own. Where it cannot be entered,
    the first question raises OSError. A context manager; not to be shared between threads.
    """

    def __init__(self, netns: str | None = None) -> None:
        self._netns = netns
        self._entering: _Entering | None = None
        self._made: socket.socket | None = None
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        if self._made or self._entering:
            with suppress(OSError):  # it could not be entered
                self._socket.close()

    def enter(self) -> None:
        """Begin to enter the namespace, while the caller goes on: the first question then need not wait for it."""
        if self._netns is not None and self._entering is None:
            self._entering = _Entering(self._netns)

    @property
    def _socket(self) -> socket.socket:
        if self._made is None:
            self.enter()
            self._made = self._entering.wait() if self._entering else _socket()
        return self._made

    def links(self) -> dict[str, int]:
        """Interfaces: names to indices."""
        mask = _attributes([(IFLA_EXT_MASK, struct.pack("=I", RTEXT_FILTER_SKIP_STATS))])
        found = {}
        for body in self._dump(RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0) + mask, "links"):
            # The name comes first: the other attributes, of which there are dozens, need not be read.
            name = next((value for kind, value in _split(body, _LINK.size) if kind == IFLA_IFNAME), b"")
            found[os.fsdecode(name.rstrip(b"\0"))] = _LINK.unpack_from(body)[2]
        return found

    def addresses(self) -> list[Address]:
        """All addresses, of both families."""
        found = []
        for body in self._dump(RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0), "addresses"):
            family, prefix, _, _, index = _ADDRESS.unpack_from(body)
            attributes = dict(_split(body, _ADDRESS.size))
            address = attributes.get(IFA_LOCAL) or attributes.get(IFA_ADDRESS, b"")
            if family in FAMILIES:
                found.append(Address(family=family, address=address, prefix=prefix, index=index))
        return found

    def routes(self, family: int, tables: Container[int] = (MAIN,)) -> list[Route]:
        """Routes of a family in these tables, without the cache's clones; none where there is no such family."""
        # A kernel that filters (from 4.20 on) tells of one table alone, and says ENOENT where that is not there.
        only = MAIN if tables == (MAIN,) else 0
        bodies = self._dump(RTM_GETROUTE, _ROUTE.pack(family, 0, 0, 0, only, 0, 0, 0, 0), "routes")
        # The header shows tables below 256 alone, so that most routes need not be read to be passed over.
        told = (_route(body) for body in bodies if body[4] in tables or body[4] == RT_TABLE_COMPAT)
        return [
            route
            for route in told
            if route.family == family and route.table in tables and not route.flags & RTM_F_CLONED
        ]

    def rules(self, family: int) -> list[Rule]:
        """The rules that choose a table by one source address; others are not told of."""
        found = []
        for body in self._dump(RTM_GETRULE, _RULE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0), "rules"):
            told, _, source_prefix, _, table, _, _, action, _ = _RULE.unpack_from(body)
            attributes = dict(_split(body, _RULE.size))
            source = attributes.get(FRA_SRC, b"")
            if told == family and action == FR_ACT_TO_TBL and source and source_prefix == len(source) * 8:
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
        """Make the changes, in order, as one batch; all of them or, when one is refused, none.

        Raises OSError for the first that the kernel refused, naming it; the others were then taken back, as
        far as the kernel lets them be.
        """
        refused = self._submit(changes)
        if not refused:
            return
        made = [change for at, change in enumerate(changes) if at not in refused]
        self._submit([change.undone for change in reversed(made)])
        first = min(refused)
        code, said = refused[first]
        name = errno.errorcode.get(code, str(code))
        raise OSError(code, f"{changes[first]}: {name}, {os.strerror(code)}{said and f' ({said})'}")

    def _submit(self, changes: Sequence[Change]) -> dict[int, tuple[int, str]]:
        """Send all, read each acknowledgement. Returns position: (errno, the kernel's words) of those refused.

        In portions, since a batch and its acknowledgements must fit into the socket's buffers.
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

    def _dump(self, kind: int, request: bytes, what: str) -> list[bytes]:
        """The bodies of all answers; asked again if what was told changed meanwhile (NLM_F_DUMP_INTR).

        None where the kernel has no such table, or no such family (IPv6 may be switched off). Raises OSError.
        """
        for _ in range(5):
            self._sequence += 1
            self._socket.send(_message(kind, NLM_F_DUMP, self._sequence, request))
            bodies, consistent = self._collect(what)
            if consistent:
                break
        return bodies

    def _collect(self, what: str) -> tuple[list[bytes], bool]:
        bodies: list[bytes] = []
        consistent = True
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != self._sequence:
                    continue
                consistent = consistent and not flags & NLM_F_DUMP_INTR
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                    if code > 0 and code not in _NOTHING_THERE:
                        name = errno.errorcode.get(code, str(code))
                        raise OSError(code, f"list {what}: {name}, {os.strerror(code)}")
                    return bodies, consistent
                bodies.append(body)

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        """The messages of one datagram: (type, flags, sequence, body)."""
        data = self._socket.recv(1 << 17)
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
            if length < _HEADER.size:
                return
            yield kind, flags, sequence, data[at + _HEADER.size : at + length]
            at += (length + 3) & ~3


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)  # 0: NETLINK_ROUTE
    for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
        try:
            made.setsockopt(SOL_NETLINK, option, 1)
        except OSError:  # an older kernel: it tells more than was asked for, and fewer words about errors
            continue
    made.bind((0, 0))
    return made


class _Entering:
    """Makes a socket in a thread that enters the namespace and ends there, so that nobody has to come back.

    `_thread` rather than `threading`: the latter costs an import that direct mode has no other use for.
    """

    def __init__(self, netns: str) -> None:
        self._netns = netns
        self._outcome: socket.socket | BaseException | None = None
        self._done = _thread.allocate_lock()
        self._done.acquire()
        _thread.start_new_thread(self._enter, ())

    def wait(self) -> socket.socket:
        """The socket. Raises OSError."""
        with self._done:
            outcome = self._outcome
        assert outcome is not None
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _enter(self) -> None:
        try:
            namespace = os.open(self._netns, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _setns(namespace)
            except OSError as error:
                code = error.errno or 0
                raise OSError(code, f"enter network namespace: {os.strerror(code)}", self._netns) from error
            finally:
                os.close(namespace)
            self._outcome = _socket()
        except BaseException as error:
            self._outcome = error
        finally:
            self._done.release()


def _setns(namespace: int) -> None:
    """Move the calling thread into a network namespace. Raises OSError."""
    if hasattr(os, "setns"):  # from Python 3.12 on
        os.setns(namespace, CLONE_NEWNET)
        return
    import ctypes

    if _libc().setns(namespace, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@cache
def _libc() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    length = _HEADER.size + len(body)
    head = _HEADER.pack(length, kind, flags | NLM_F_REQUEST, sequence, 0)
    return head + body + b"\0" * (-length % 4)


def _attributes(attributes: Iterable[tuple[int, bytes]]) -> bytes:
    return b"".join(
        _ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) % 4) for kind, value in attributes
    )


def _split(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """The attributes from there to the end."""
    unpack, end = _ATTRIBUTE.unpack_from, len(data) - 4
    while at <= end:
        length, kind = unpack(data, at)
        if length < 4:
            return
        yield kind & _TYPE, data[at + 4 : at + length]
        at += (length + 3) & ~3


def _route(body: bytes) -> Route:
    family, prefix, _, tos, table, protocol, scope, kind, flags = _ROUTE.unpack_from(body)
    attributes = []
    for key, value in _split(body, _ROUTE.size):
        if key == RTA_TABLE:
            table = _number(value)
        else:
            attributes.append((key, value))
    return Route(
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
    """The sentence that the kernel may add to an error (NLMSGERR_ATTR_MSG)."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    echoed = _HEADER.size if flags & NLM_F_CAPPED else (struct.unpack_from("=I", body, 4)[0] + 3) & ~3
    return dict(_split(body, 4 + echoed)).get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode("utf-8", "replace")


def _number(value: bytes) -> int:
    return int.from_bytes(value[:4], sys.byteorder)


def _shown(family: int, address: bytes) -> str:
    return socket.inet_ntop(family, address) if address else "?"
