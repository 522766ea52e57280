"""Messages of an IPv6 router to a pod on its link: advertisements, and "packet too big".

The kernel makes routes and addresses from them by itself, at any time.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

PREFIX = "2001:db8:7::"
ROUTER = "fe80::1"
_ICMPV6, _IPV6, _IF, _HOPS = 58, 41, socket.IPV6_MULTICAST_IF, socket.IPV6_MULTICAST_HOPS


def _said(router: Any, ifname: str, message: bytes, to: str) -> None:
    def send() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, _ICMPV6) as sender:
            index = socket.if_nametoindex(ifname)
            sender.setsockopt(_IPV6, _HOPS, 255)
            sender.setsockopt(_IPV6, _IF, index)
            sender.bind((ROUTER, 0, 0, index))
            sender.sendto(message, (to, 0, 0, index))

    router.run(send)


def link(router: Any, ifname: str) -> None:
    """Give the router its address on a link."""
    router.ip(f"link set {ifname} up", f"addr add {ROUTER}/64 dev {ifname} nodad")


def advertise(router: Any, ifname: str, *, router_lifetime: int = 1800, lifetime: int = 86400) -> None:
    """Send one advertisement of a default route and a prefix to all nodes of the link; lifetimes in seconds."""
    head = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, router_lifetime, 0, 0)
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, lifetime, 14400, 0) + socket.inet_pton(socket.AF_INET6, PREFIX)
    _said(router, ifname, head + prefix, "ff02::1")


def too_big(router: Any, ifname: str, *, sent_from: tuple[str, int], sent_to: tuple[str, int], mtu: int = 1280) -> None:
    """Send "packet too big" for a UDP packet from the pod."""
    addresses = [socket.inet_pton(socket.AF_INET6, each[0]) for each in (sent_from, sent_to)]
    packet = struct.pack("!IHBB", 6 << 28, 1452, 17, 64) + b"".join(addresses)
    packet += struct.pack("!HHHH", sent_from[1], sent_to[1], 1452, 0)
    _said(router, ifname, struct.pack("!BBHI", 2, 0, 0, mtu) + packet, sent_from[0])


def until(pod: Any, command: str, words: str, *, gone: bool = False) -> str:
    """The output of `ip` after these words appear in it (or disappear)."""
    end = time.monotonic() + 20
    while (words in (shown := pod.ip(command))) == gone:
        assert time.monotonic() < end, f"ip {command}: {shown}"
        time.sleep(0.05)
    return str(shown)
