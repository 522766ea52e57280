"""A raw netlink connection to one network namespace: entering it, requests, its links.

A netlink socket always belongs to the namespace in which it was made. So a separate thread enters the namespace, makes
the socket and ends; the calling thread never leaves its own namespace. An ADD of one network may need this module, so
it imports as little as possible; netlink.py adds routes and rules.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple, Self, TypeVar

from genie.cni.execute import Threaded

# From <linux/rtnetlink.h>, <linux/netlink.h>, <linux/if_link.h>, with the same names.
RTM_GETLINK = 18
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER = 1, 3, 4, 10
_OF_LINK = frozenset((IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER))
IFF_UP = 1
IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS = 29, 8
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_DUMP = 1, 4, 0x10, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
CLONE_NEWNET = 0x40000000

T = TypeVar("T")

HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_ATTRIBUTE = struct.Struct("=HH")
TYPE = 0x3FFF  # an attribute's type without NLA_F_NESTED and NLA_F_NET_BYTEORDER

MOST = 16384
"""The limit for one dump, in entries: a pod with NET_ADMIN can make millions of routes, too many for the agent."""

_NOTHING_THERE = (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)


class CrowdedError(Exception):
    """A dump has more entries than the caller wants to read here (`Conversation.most`)."""


class Link(NamedTuple):
    """An interface. mac: "" if it has none. mtu: bytes. up: whether it is set up, with or without a carrier. master:
    the index of its bridge, bond or VRF, 0 if none.
    """

    ifindex: int
    mac: str
    mtu: int
    up: bool = True
    master: int = 0


class Conversation:
    """A connection to one network namespace.

    netns: a path (/run/netns/x, /proc/PID/ns/net), or None for the calling thread's own. If it cannot be entered,
    the first request raises OSError. A context manager; do not use it in two threads at the same time.

    most: the limit for one dump, in entries; above it, CrowdedError is raised, and the next request begins anew.
    """

    def __init__(self, netns: str | None = None) -> None:
        self._netns = netns
        self._entering: Threaded[socket.socket] | None = None
        self._made: socket.socket | None = None
        self._sequence = 0
        self.most = MOST

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._made or self._entering:
            with suppress(OSError):  # it could not be entered
                self._socket.close()
        self._made = self._entering = None

    def enter(self) -> None:
        """Start to enter the namespace in the background, so that the first request need not wait for it."""
        if self._netns is not None and self._entering is None:
            self._entering = _entering(self._netns, _socket)

    @property
    def _socket(self) -> socket.socket:
        if self._made is None:
            self.enter()
            self._made = self._entering.wait() if self._entering else _socket()
        return self._made

    def links(self) -> dict[str, Link]:
        """Interfaces by name. Raises OSError."""
        mask = join([(IFLA_EXT_MASK, struct.pack("=I", RTEXT_FILTER_SKIP_STATS))])
        found = {}
        for body in self._dump(RTM_GETLINK, LINK.pack(0, 0, 0, 0, 0) + mask, "links"):
            of = _until_address(body)
            _, _, index, flags, _ = LINK.unpack_from(body)
            found[os.fsdecode(of[IFLA_IFNAME].rstrip(b"\0"))] = Link(
                ifindex=index,
                mac=of.get(IFLA_ADDRESS, b"").hex(":"),
                mtu=int.from_bytes(of.get(IFLA_MTU, b""), sys.byteorder),
                up=bool(flags & IFF_UP),
                master=int.from_bytes(of.get(IFLA_MASTER, b""), sys.byteorder),
            )
        return found

    def _dump(self, kind: int, request: bytes, what: str) -> list[bytes]:
        """The bodies of all answers. The request is repeated if the table changed meanwhile (NLM_F_DUMP_INTR).

        None if the kernel has no such table, or no such family (IPv6 may be disabled). Raises OSError.
        """
        for _ in range(5):
            self._sequence += 1
            self._socket.send(message(kind, NLM_F_DUMP, self._sequence, request))
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
                if len(bodies) > self.most:
                    self._leave()  # the rest of the dump is in this socket
                    if self.most < MOST:
                        raise CrowdedError
                    raise OSError(errno.E2BIG, f"list {what}: there are more than {MOST}, the most that genie reads")

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        """The messages of one datagram: (type, flags, sequence, body)."""
        data = self._socket.recv(1 << 17)
        at = 0
        while at + HEADER.size <= len(data):
            length, kind, flags, sequence, _ = HEADER.unpack_from(data, at)
            if length < HEADER.size:
                return
            yield kind, flags, sequence, data[at + HEADER.size : at + length]
            at += (length + 3) & ~3


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)  # 0: NETLINK_ROUTE
    for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
        try:
            made.setsockopt(SOL_NETLINK, option, 1)
        except OSError:  # an older kernel: it dumps more than requested, and explains errors less
            continue
    made.bind((0, 0))
    return made


def _entering(netns: str, work: Callable[[], T]) -> Threaded[T]:
    """Do something in a thread that enters the namespace and ends there, so that no thread has to return from it."""

    def enter() -> T:
        namespace = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(namespace)
        except OSError as error:
            code = error.errno or 0
            raise OSError(code, f"enter network namespace: {os.strerror(code)}", netns) from error
        finally:
            os.close(namespace)
        return work()

    return Threaded(enter)


def inside(netns: str, work: Callable[[], T]) -> T:
    """Do something in a network namespace: a socket that is made there belongs to it, a process that is started runs
    there. Raises OSError, or the exception of the work.
    """
    return _entering(netns, work).wait()


def setns(namespace: int) -> None:
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


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    length = HEADER.size + len(body)
    head = HEADER.pack(length, kind, flags | NLM_F_REQUEST, sequence, 0)
    return head + body + b"\0" * (-length % 4)


def join(attributes: Iterable[tuple[int, bytes]]) -> bytes:
    return b"".join(
        _ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) % 4) for kind, value in attributes
    )


def _until_address(body: bytes) -> dict[int, bytes]:
    """The attributes of a link that genie needs. After the address, dozens follow that it does not need. Without a
    generator: this takes most of the time that `links` takes.
    """
    found: dict[int, bytes] = {}
    at, end, unpack = LINK.size, len(body) - 4, _ATTRIBUTE.unpack_from
    while at <= end and IFLA_ADDRESS not in found:
        length, kind = unpack(body, at)
        if length < 4:
            break
        if kind in _OF_LINK:
            found[kind] = body[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def split(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """The attributes from this offset to the end."""
    unpack, end = _ATTRIBUTE.unpack_from, len(data) - 4
    while at <= end:
        length, kind = unpack(data, at)
        if length < 4:
            return
        yield kind & TYPE, data[at + 4 : at + length]
        at += (length + 3) & ~3
