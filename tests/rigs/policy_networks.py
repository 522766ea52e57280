"""Nine pods as network namespaces on two bridges, to try every connection between them.

For each pod, a thread lives in its namespace: sockets belong to the namespace in which they are made. TCP and UDP use
the kernel's sockets; SCTP is written by hand (a kernel often lacks it): an INIT, answered by an INIT ACK.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from genie.kernel.netns import setns
from tests.rigs.background import Background
from tests.rigs.netns import Namespace
from tests.rigs.policies import BLUE, PODS, PORTS, Cell, Pod

T = TypeVar("T")
SCTP = 132
PATIENCE = 10.0
"""Seconds on a busy machine until the next allowed connection comes through."""
GRACE = 0.03
"""Seconds for which forbidden ones are tried after the allowed ones have come through."""


class Place:
    """A pod's namespace, with a thread in it."""

    def __init__(self, pod: Pod, hub: Namespace) -> None:
        self.pod, self.namespace = pod, Namespace()
        self.path = self.namespace.path
        for ifname, bridge, network in (
            ("net1", "br1", BLUE),
            ("net2", "br2", next(n for n in pod.addresses if n != BLUE)),
        ):
            outside = f"{pod.name}-{ifname}"
            hub.ip(
                f"link add {outside} type veth peer name {ifname} netns {self.path}",
                f"link set {outside} master {bridge} up",
            )
            self.namespace.ip(
                *(
                    f"addr add {one}/{64 if ':' in one else 24} dev {ifname} {'nodad' if ':' in one else ''}"
                    for one in pod.addresses[network]
                ),
                f"link set {ifname} up",
            )
        self._thread = ThreadPoolExecutor(1, initializer=self._enter)
        self.servers = self.inside(self._serve)

    def _enter(self) -> None:
        file = os.open(self.path, os.O_RDONLY)
        setns(file)
        os.close(file)

    def inside(self, work: Callable[[], T]) -> T:
        return self.begin(work).result()

    def begin(self, work: Callable[[], T]) -> Future[T]:
        return self._thread.submit(work)

    def _serve(self) -> list[socket.socket]:
        made = []
        for port in PORTS:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                one = socket.socket(socket.AF_INET6, kind)
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.bind(("::", port))
                made.append(one)
                if kind == socket.SOCK_STREAM:
                    one.listen(128)
        made += [socket.socket(family, socket.SOCK_RAW, SCTP) for family in (socket.AF_INET, socket.AF_INET6)]
        for one in made:
            one.setblocking(False)
        return made

    def close(self) -> None:
        for one in self.servers:
            one.close()
        self._thread.shutdown()
        self.namespace.close()


class Networks:
    """The two bridges with all pods, and a thread that answers for all of them."""

    def __init__(self) -> None:
        self.hub = Namespace()
        for bridge in ("br1", "br2"):
            self.hub.ip(f"link add {bridge} type bridge", f"link set {bridge} up")
        self.places = {pod.name: Place(pod, self.hub) for pod in PODS}
        self._answering = Background(self._answer)

    def close(self) -> None:
        self._answering.stop()
        for place in self.places.values():
            place.close()
        self.hub.close()

    def _answer(self, ending: threading.Event) -> None:
        servers = [one for place in self.places.values() for one in place.servers]
        accepted: list[socket.socket] = []
        poll = select.poll()
        by_number = {one.fileno(): one for one in servers}
        for one in servers:
            poll.register(one, select.POLLIN)
        while not ending.is_set():
            for number, _ in poll.poll(50):
                try:
                    _answer_one(by_number[number], accepted)
                except OSError:  # its rules forbid the answer, too
                    continue
            for each in accepted[:-500]:
                each.close()
            del accepted[:-500]
        for each in accepted:
            each.close()

    def try_all(self, cells: Sequence[Cell], expected: Callable[[Cell], bool]) -> list[Cell]:
        """Try every connection at once. Returns those with another outcome than expected."""
        wanted = {cell for cell in cells if expected(cell)}
        by_source: dict[str, list[Cell]] = {}
        for cell in cells:
            by_source.setdefault(cell.source.name, []).append(cell)
        begun = [self.places[name].begin(partial(_dial, mine, wanted)) for name, mine in by_source.items()]
        reached = {cell for each in begun for cell in each.result()}
        return [cell for cell in cells if (cell in reached) != (cell in wanted)]


def _answer_one(server: socket.socket, accepted: list[socket.socket]) -> None:
    if server.type == socket.SOCK_STREAM:
        accepted.append(server.accept()[0])
    elif server.type == socket.SOCK_DGRAM:
        data, peer = server.recvfrom(64)
        server.sendto(data, peer)
    else:
        packet, peer = server.recvfrom(2048)
        data = packet[(packet[0] & 15) * 4 :] if server.family == socket.AF_INET else packet
        source, target, tag, chunk = data[:2], data[2:4], data[4:8], data[12]
        if chunk == 1 and struct.unpack("!H", target)[0] in PORTS and tag == bytes(4):
            server.sendto(_sctp(target + source, data[16:20], 2), (peer[0], 0))


def _dial(cells: Sequence[Cell], wanted: set[Cell]) -> set[Cell]:
    """In the source's thread: begin all, then wait until the wanted ones are there, and a little longer. Only what is
    missing is sent again: the one thread that answers would never come to an end with all of them.
    """
    left = wanted.intersection(cells)
    reached: set[Cell] = set()
    with _begun(cells) as (waiting, send):
        poll = select.poll()
        for number, (one, _) in waiting.items():
            poll.register(number, select.POLLOUT if one.type == socket.SOCK_STREAM else select.POLLIN)
        repeated = time.monotonic()
        end, all_there = repeated + PATIENCE, False
        while (now := time.monotonic()) < end:
            before = len(reached)
            for number, _ in poll.poll(10):
                one, of = waiting[number]
                reached |= set(of(one))
                if one.type == socket.SOCK_STREAM:
                    poll.unregister(number)
            if all_there:
                continue
            if all_there := left <= reached:
                send(set(cells) - wanted)  # once more, now that the neighbours are known
                end = time.monotonic() + GRACE
            elif len(reached) > before:
                end = time.monotonic() + PATIENCE
            elif now > repeated + 0.3:
                repeated = now
                send(left - reached)
    return reached


_Waiting = dict[int, tuple[socket.socket, Callable[[socket.socket], list[Cell]]]]


@contextmanager
def _begun(cells: Sequence[Cell]) -> Iterator[tuple[_Waiting, Callable[[Iterable[Cell]], None]]]:
    """Sockets with what each shows as reached, and what sends the datagrams of some cells again."""
    waiting: _Waiting = {}
    sends: dict[Cell, Callable[[], object]] = {}
    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, SCTP), socket.socket(socket.AF_INET6, socket.SOCK_RAW, SCTP)
    of_udp = {f"{number}".encode(): cell for number, cell in enumerate(cells) if cell.protocol == "UDP"}
    of_sctp: dict[tuple[str, int, int], Cell] = {}
    for number, cell in enumerate(cells):
        v6 = ":" in cell.address
        if cell.protocol == "TCP":
            one = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM)
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if one.connect_ex((cell.address, cell.port)) in (0, errno.EINPROGRESS):
                waiting[one.fileno()] = (one, partial(_connected, cell))
            else:  # its SO_ERROR would be 0, as if it were connected
                one.close()
        elif cell.protocol == "UDP":
            sends[cell] = partial(plain[v6].sendto, f"{number}".encode(), (cell.address, cell.port))
        else:
            own = 20000 + int(time.monotonic() * 1000) % 20000 + number
            of_sctp[cell.address, cell.port, own] = cell
            packet = _sctp(struct.pack("!HH", own, cell.port), bytes(4), 1)
            sends[cell] = partial(raw[v6].sendto, packet, (cell.address, 0))
    for one in (*plain, *raw):
        one.setblocking(False)
    waiting |= {one.fileno(): (one, lambda it: [of_udp[it.recv(64)]]) for one in plain}
    waiting |= {one.fileno(): (one, partial(_acknowledged, of_sctp)) for one in raw}

    def send(some: Iterable[Cell]) -> None:
        for each in sends.keys() & some:
            try:
                sends[each]()
            except OSError:  # forbidden by its own rules
                continue

    send(cells)
    try:
        yield waiting, send
    finally:
        for one, _ in waiting.values():
            one.close()


def _connected(cell: Cell, one: socket.socket) -> list[Cell]:
    return [] if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) else [cell]


def _acknowledged(of: dict[tuple[str, int, int], Cell], one: socket.socket) -> list[Cell]:
    packet, peer = one.recvfrom(2048)
    data = packet[(packet[0] & 15) * 4 :] if one.family == socket.AF_INET else packet
    source, target = struct.unpack("!HH", data[:4])
    cell = of.get((peer[0], source, target))
    return [cell] if cell and data[12] == 2 else []


def _sctp(ports: bytes, tag: bytes, chunk: int) -> bytes:
    """A packet with an INIT (1) or an INIT ACK (2); RFC 9260, sections 3.1, 3.3.2 and 3.3.3."""
    cookie = struct.pack("!HH4s", 7, 8, b"cook") if chunk == 2 else b""
    body = struct.pack("!BBH4sIHHI", chunk, 0, 20 + len(cookie), b"\x00\x00\x12\x34", 65536, 1, 1, 1) + cookie
    whole = ports + tag + bytes(4) + body
    return ports + tag + struct.pack("<I", _crc32c(whole)) + body


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _entry(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value


_TABLE = tuple(_entry(value) for value in range(256))
