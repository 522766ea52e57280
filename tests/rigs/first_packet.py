"""Ends of a network that answer, and try to reach each other, from before their interfaces exist."""

from __future__ import annotations

import errno
import select
import socket
import struct
import threading
import time
from contextlib import suppress

from tests.rigs.background import Background
from tests.rigs.netns import Namespace

PORT = 7001
PAUSE = 0.0005
"""Seconds between two attempts."""


class End:
    """A namespace that answers at `PORT`, by TCP and UDP."""

    def __init__(self) -> None:
        self.namespace = Namespace()
        self._tcp, self._udp = self.namespace.run(_servers)
        self._answering = Background(self._answer)

    def close(self) -> None:
        self._answering.stop()
        self._tcp.close()
        self._udp.close()
        self.namespace.close()

    def _answer(self, ending: threading.Event) -> None:
        while not ending.is_set():
            for one in select.select([self._tcp, self._udp], [], [], 0.05)[0]:
                with suppress(OSError):
                    if one is self._tcp:
                        one.accept()[0].close()
                    else:
                        one.sendto(*one.recvfrom(64))


def _servers() -> tuple[socket.socket, socket.socket]:
    tcp, udp = socket.socket(socket.AF_INET, socket.SOCK_STREAM), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for one in (tcp, udp):
        one.bind(("0.0.0.0", PORT))
    tcp.listen(1000)
    return tcp, udp


class Caller:
    """Tries to reach an address from an end, by TCP and UDP in turns, until it is stopped."""

    def __init__(self, end: End, address: str) -> None:
        self.tries = self.answers = 0
        self._target = (address, PORT)
        self._trying = Background(lambda ending: end.namespace.run(lambda: self._run(ending)))

    def stop(self) -> None:
        self._trying.stop()

    def _run(self, ending: threading.Event) -> None:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.setblocking(False)
        begun: dict[int, socket.socket] = {}
        poll = select.poll()
        poll.register(udp, select.POLLIN)
        try:
            while not ending.is_set():
                with suppress(OSError):  # its interface does not exist yet, or its rules forbid it
                    udp.sendto(b"x", self._target)
                one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                one.setblocking(False)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if one.connect_ex(self._target) in (0, errno.EINPROGRESS):
                    begun[one.fileno()] = one
                    poll.register(one, select.POLLOUT)
                else:
                    one.close()
                self.tries += 2
                for number, _ in poll.poll(0):
                    self._see(udp if number == udp.fileno() else begun.pop(number), poll)
                time.sleep(PAUSE)
        finally:
            for one in (udp, *begun.values()):
                one.close()

    def _see(self, one: socket.socket, poll: select.poll) -> None:
        if one.type == socket.SOCK_DGRAM:
            with suppress(OSError):
                self.answers += bool(one.recv(64))
            return
        self.answers += not one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        poll.unregister(one)
        one.close()
