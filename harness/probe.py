"""Runs inside a pod: reports the pod's network, connects to other pods, and answers their connections.

A check does not guess a pod's network from outside. It asks the probe, and the probe asks the kernel for interfaces,
routes and rules (`look`), or tests whether a packet reaches an address and comes back (`dial`). The other half
(`serve`) answers over TCP and UDP with its name, its own address, and the address of the peer. So a check can
distinguish the right pod from a wrong one, and a routed packet from a masqueraded one.

The file and `flow.py` need only the standard library and (for `look`) pyroute2, because they run in images without
anything else:

    python -m harness.probe serve --name POD      serves until it is killed
    python -m harness.probe console               reads one JSON request per line, writes one JSON answer per line

All of it works in the network namespace of the calling thread, so one process can serve many pods.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import ipaddress
import json
import os
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness import flow

PORT = 8472
OTHER_PORT = 8474  # for network policies that tell ports apart

_SO_BINDTODEVICE = 25
_IPV6_RECVPKTINFO, _IPV6_PKTINFO = 49, 50
_IP_PKTINFO = 8
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3  # in one piece, whatever is known of the path
_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000
_ARPHRD_LOOPBACK = 772
_TABLE_LOCAL = 255
_RTN_UNICAST = 1
_UDP_RETRY = 0.25  # seconds between two datagrams of one attempt; one may be lost during neighbour discovery
TCP_ANSWER = 4000  # bytes: more than one packet, to detect a path that loses large packets
_MAX_LINE = 65536


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one request, in the network namespace of the calling thread.

    {"op": "look"} returns interfaces, routes and rules; {"op": "dial", "protocol": "tcp"|"udp"|"icmp",
    "address": …}, with port, source, device and timeout where wanted, returns whether there was an answer. "hold",
    "held", "throughput" and "serve-iperf3" are those of `harness.flow`. For an invalid request it returns {"error": …}
    and does not raise, because the client is another process.
    """
    try:
        if (op := request.get("op")) not in _OPS:
            return {"error": f"unknown op {op!r}: known are {', '.join(_OPS)}"}
        return _OPS[op](request)
    except (TypeError, ValueError, KeyError) as error:
        return {"error": f"bad request: {error}"}


def _hold(request: Mapping[str, Any]) -> dict[str, Any]:
    flows = [{"port": PORT, **each} for each in request["flows"]]
    return flow.hold(str(request["name"]), flows, float(request.get("timeout") or 10.0))


def _throughput(request: Mapping[str, Any]) -> dict[str, Any]:
    address, port = str(ipaddress.ip_address(request["address"])), int(request.get("port") or PORT)
    iperf3 = int(request.get("iperf3") or 0)
    return flow.throughput(address, port, float(request.get("seconds") or 1.0), request.get("source") or None, iperf3)


_OPS: dict[Any, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "look": lambda _: look(),
    "dial": lambda request: dial(Dial.of(request)),
    "hold": _hold,
    "held": lambda request: flow.held(str(request["name"]), end=bool(request.get("end"))),
    "throughput": _throughput,
    "resolve": lambda request: resolve(str(request["name"])),
    "serve-iperf3": lambda request: flow.serve_iperf3(float(request.get("seconds") or 1.0)),
}


# --- look -------------------------------------------------------------------------------------------------


def look() -> dict[str, Any]:
    """Interfaces with their addresses, routes (without the local table) and rules."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        links = list(ip.get_links())
        names = {link["index"]: _attr(link, "IFLA_IFNAME") for link in links}
        addresses: dict[int, list[str]] = {}
        for address in ip.get_addr():
            text = _attr(address, "IFA_LOCAL") or _attr(address, "IFA_ADDRESS")
            addresses.setdefault(address["index"], []).append(f"{text}/{address['prefixlen']}")
        routes = [
            entry
            for family in (socket.AF_INET, socket.AF_INET6)
            for route in ip.get_routes(family=family)
            for entry in _routes(route, names)
        ]
        rules = [_rule(rule) for family in (socket.AF_INET, socket.AF_INET6) for rule in ip.get_rules(family=family)]
    return {
        "interfaces": [_interface(link, addresses.get(link["index"], [])) for link in links],
        "routes": routes,
        "rules": rules,
    }


def _attr(message: Any, name: str) -> Any:
    return message.get_attr(name)


def _interface(link: Any, addresses: list[str]) -> dict[str, Any]:
    info = _attr(link, "IFLA_LINKINFO")
    kind = _attr(info, "IFLA_INFO_KIND") if info is not None else None
    return {
        "name": _attr(link, "IFLA_IFNAME"),
        "mac": _attr(link, "IFLA_ADDRESS") or "",
        "mtu": _attr(link, "IFLA_MTU") or 0,
        "up": bool(link["flags"] & _IFF_UP and link["flags"] & _IFF_LOWER_UP),
        "kind": kind or ("loopback" if link["ifi_type"] == _ARPHRD_LOOPBACK else ""),
        "addresses": addresses,
    }


def _routes(route: Any, names: Mapping[int, str]) -> Iterator[dict[str, Any]]:
    """One route, or one for each hop of a multipath route; none for local, broadcast and multicast ones."""
    table = _attr(route, "RTA_TABLE") or route["table"]
    if table == _TABLE_LOCAL or route["type"] != _RTN_UNICAST:
        return
    family = 4 if route["family"] == socket.AF_INET else 6
    dst = _attr(route, "RTA_DST")
    common = {
        "dst": f"{dst}/{route['dst_len']}" if route["dst_len"] else "default",
        "table": table,
        "src": _attr(route, "RTA_PREFSRC"),
        "family": family,
    }
    hops = _attr(route, "RTA_MULTIPATH")
    if hops:
        for hop in hops:
            yield {**common, "gw": _gateway(hop), "dev": names.get(hop["oif"], str(hop["oif"]))}
        return
    index = _attr(route, "RTA_OIF")
    yield {**common, "gw": _gateway(route), "dev": names.get(index, str(index))}


def _gateway(hop: Any) -> str | None:
    gateway: str | None = _attr(hop, "RTA_GATEWAY")
    via = _attr(hop, "RTA_VIA")
    return gateway or (via.get("addr") if isinstance(via, dict) else None)


def _rule(rule: Any) -> dict[str, Any]:
    src = _attr(rule, "FRA_SRC")
    return {
        "priority": _attr(rule, "FRA_PRIORITY") or 0,
        "from": f"{src}/{rule['src_len']}" if src else "all",
        "table": _attr(rule, "FRA_TABLE") or rule["table"],
        "family": 4 if rule["family"] == socket.AF_INET else 6,
    }


# --- dial -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Dial:
    """One attempt to get an answer from an address."""

    protocol: str
    address: str
    port: int = PORT
    source: str | None = None  # bind to this local address
    device: str | None = None  # leave by this interface, regardless of routes
    timeout: float = 2.0
    size: int = 0  # of UDP: the whole packet's, in bytes, which no router may take apart; 0: a small one

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> Dial:
        protocol = request["protocol"]
        if protocol not in ("tcp", "udp", "icmp"):
            raise ValueError(f"protocol {protocol!r}: known are tcp, udp and icmp")
        return cls(
            protocol=protocol,
            address=str(ipaddress.ip_address(request["address"])),
            port=int(request.get("port") or PORT),
            source=request.get("source") or None,
            device=request.get("device") or None,
            timeout=float(request.get("timeout") or 2.0),
            size=int(request.get("size") or 0),
        )

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET


Way = Callable[[Dial, float], tuple[str, dict[str, str]]]  # the deadline; returns the peer's address and its answer


def dial(to: Dial) -> dict[str, Any]:
    """Connect once (UDP and ICMP: repeat until the time is over); returns the answer, or the error."""
    ways: dict[str, Way] = {"tcp": _dial_tcp, "udp": _dial_udp, "icmp": _dial_icmp}
    begin = time.monotonic()
    result: dict[str, Any] = {"ok": False, "error": "", "peer": "", "seen_as": "", "name": ""}
    try:
        result["peer"], reply = ways[to.protocol](to, begin + to.timeout)
        result |= reply
        result["ok"] = True
    except TimeoutError:
        result["error"] = f"no answer within {to.timeout:g} s"
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "")
        result["error"] = f"{error.strerror or error}{f' ({name})' if name else ''}".lower().replace(name.lower(), name)
    result["ms"] = round((time.monotonic() - begin) * 1000, 2)
    return result


def _prepare(sock: socket.socket, to: Dial) -> None:
    if to.device:
        sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, to.device.encode() + b"\0")
    if to.source:
        sock.bind((to.source, 0))


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _dial_tcp(to: Dial, deadline: float) -> tuple[str, dict[str, str]]:
    with socket.socket(to.family, socket.SOCK_STREAM) as sock:
        _prepare(sock, to)
        sock.settimeout(_left(deadline))
        sock.connect((to.address, to.port))
        sock.sendall(json.dumps({"pad": TCP_ANSWER}).encode() + b"\n")
        line = b""
        while not line.endswith(b"\n"):
            sock.settimeout(_left(deadline))
            piece = sock.recv(65536)
            if not piece:
                raise OSError(errno.ECONNRESET, "the connection ended before the whole answer came")
            line += piece
        return _plain(sock.getpeername()[0]), _said(line)


def _dial_udp(to: Dial, deadline: float) -> tuple[str, dict[str, str]]:
    with socket.socket(to.family, socket.SOCK_DGRAM) as sock:
        _prepare(sock, to)
        if to.size:
            six = to.family == socket.AF_INET6
            level, option = (socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER) if six else (socket.IPPROTO_IP, _IP_MTU_DISCOVER)
            sock.setsockopt(level, option, _PMTUDISC_PROBE)
        headers = 8 + (40 if to.family == socket.AF_INET6 else 20)
        while True:
            sock.sendto(b"{}\n".ljust(max(3, to.size - headers)), (to.address, to.port))
            sock.settimeout(min(_UDP_RETRY, _left(deadline)))
            try:
                line, peer = sock.recvfrom(_MAX_LINE)
            except TimeoutError:
                continue
            if _same(peer[0], to.address):
                return _plain(peer[0]), _said(line)
            raise OSError(errno.EPROTO, f"the answer came from {_plain(peer[0])}, not from the address that was asked")


def _dial_icmp(to: Dial, deadline: float) -> tuple[str, dict[str, str]]:
    with _icmp_socket(to.family) as sock:
        raw = sock.type == socket.SOCK_RAW
        _prepare(sock, to)
        ident, sequence = os.getpid() & 0xFFFF ^ threading.get_native_id() & 0xFFFF, 0
        while True:
            sequence += 1
            sock.sendto(_echo(to.family, ident, sequence), (to.address, 0))
            again = min(deadline, time.monotonic() + _UDP_RETRY)
            peer = _await_echo(sock, to, ident if raw else None, again)
            if peer:
                return peer, {}
            _left(deadline)


def _icmp_socket(family: socket.AddressFamily) -> socket.socket:
    """A raw socket, or a ping socket if we lack the capability for it."""
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    try:
        return socket.socket(family, socket.SOCK_RAW, protocol)
    except PermissionError:
        return socket.socket(family, socket.SOCK_DGRAM, protocol)


def _echo(family: socket.AddressFamily, ident: int, sequence: int) -> bytes:
    kind = 128 if family == socket.AF_INET6 else 8
    body = b"genie probe".ljust(48, b".")
    packet = struct.pack("!BBHHH", kind, 0, 0, ident, sequence) + body
    return struct.pack("!BBHHH", kind, 0, _checksum(packet), ident, sequence) + body


def _checksum(packet: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _await_echo(sock: socket.socket, to: Dial, ident: int | None, until: float) -> str:
    """The address that sent our echo back, or None if it is time for the next request."""
    reply = 129 if to.family == socket.AF_INET6 else 0
    while (left := until - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            packet, peer = sock.recvfrom(2048)
        except TimeoutError:
            break
        if ident is not None and to.family == socket.AF_INET:
            packet = packet[(packet[0] & 0x0F) * 4 :]
        if len(packet) < 8 or packet[0] != reply or not _same(peer[0], to.address):
            continue
        if ident is None or struct.unpack("!H", packet[4:6])[0] == ident:
            return _plain(peer[0])
    return ""


def _plain(address: str) -> str:
    """An address without its zone, and an IPv4 address without the prefix of a dual-stack socket."""
    return address.partition("%")[0].removeprefix("::ffff:")


def _same(one: str, other: str) -> bool:
    return ipaddress.ip_address(_plain(one)) == ipaddress.ip_address(_plain(other))


def _said(line: bytes) -> dict[str, str]:
    try:
        reply = json.loads(line)
        return {"seen_as": str(reply["seen_as"]), "name": str(reply["name"])}
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(errno.EPROTO, f"somebody answered who is no probe: {line[:60]!r}") from error


def resolve(name: str) -> dict[str, Any]:
    """The addresses of a name, by the pod's own resolver."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        return {"addresses": sorted({str(each[4][0]) for each in found})}
    except OSError as error:
        return {"error": f"{name}: {error.strerror or error}".lower()}


# --- serve ------------------------------------------------------------------------------------------------


@dataclass
class _Conversation:
    """One accepted connection: reads a request line, answers, and closes, unless the request is to stay or to count."""

    sock: socket.socket
    since: float = field(default_factory=time.monotonic)  # of a long one: its last request
    received: bytes = b""
    sunk: int = -1  # bytes so far, if it only counts them


class Server:
    """Answers over TCP and UDP in the network namespace where it was created, from one thread."""

    def __init__(self, ports: Iterable[int], name: str) -> None:
        self._name = name
        self._listeners: list[tuple[socket.socket, Callable[[socket.socket], None]]] = []
        try:
            for port in ports:
                self._listeners.append((_listener(socket.SOCK_STREAM, port), self._accept))
                self._listeners.append((_listener(socket.SOCK_DGRAM, port), self._datagram))
        except OSError:
            for sock, _ in self._listeners:
                sock.close()
            raise
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._talks: dict[int, _Conversation] = {}
        for sock, handler in (*self._listeners, (self._woken, None)):
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ, handler)
        self._thread = threading.Thread(target=self._run, name=f"probe {name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and free the port; a second call does nothing."""
        with contextlib.suppress(OSError):
            self._wake.send(b".")
        self._thread.join(timeout=5)

    def _run(self) -> None:
        ending = False
        while not ending:
            for key, _ in self._selector.select(timeout=5 if self._talks else None):
                if key.fileobj is self._woken:
                    ending = True
                    break
                with contextlib.suppress(OSError):  # a client that disconnects does not affect the next one
                    key.data(key.fileobj)
            for talk in [talk for talk in self._talks.values() if time.monotonic() - talk.since > 30]:
                self._hang_up(talk)
        for talk in list(self._talks.values()):
            self._hang_up(talk)
        self._selector.close()
        for sock in (*(sock for sock, _ in self._listeners), self._wake, self._woken):
            sock.close()

    def _accept(self, listener: socket.socket) -> None:
        sock, _ = listener.accept()
        sock.setblocking(False)
        self._talks[sock.fileno()] = _Conversation(sock)
        self._selector.register(sock, selectors.EVENT_READ, self._read)

    def _read(self, sock: socket.socket) -> None:
        talk = self._talks[sock.fileno()]
        try:
            piece = sock.recv(flow.CHUNK if talk.sunk >= 0 else 4096)
            if self._goes_on(talk, piece):
                talk.since = time.monotonic()
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._hang_up(talk)

    def _goes_on(self, talk: _Conversation, piece: bytes) -> bool:
        """Answer the requests that have arrived; returns whether the connection stays."""
        if talk.sunk >= 0:
            talk.sunk += len(piece)
            if not piece:
                talk.sock.sendall(self._reply(talk, {"sunk": talk.sunk}))
            return bool(piece)
        talk.received += piece
        while b"\n" in talk.received:
            line, _, talk.received = talk.received.partition(b"\n")
            if line + b"\n" == flow.SINK:
                talk.sunk, talk.received = len(talk.received), b""
                return True
            talk.sock.sendall(self._reply(talk, _pad(line)))
            if line + b"\n" != flow.STAY:
                return False
        return bool(piece) and len(talk.received) < 4096

    def _reply(self, talk: _Conversation, more: Mapping[str, Any]) -> bytes:
        return self._line(talk.sock.getpeername()[0], talk.sock.getsockname()[0], more)

    def _hang_up(self, talk: _Conversation) -> None:
        self._talks.pop(talk.sock.fileno(), None)
        with contextlib.suppress(OSError, KeyError, ValueError):
            self._selector.unregister(talk.sock)
        talk.sock.close()

    def _datagram(self, sock: socket.socket) -> None:
        """Answer from the address that the datagram was sent to, but along the pod's routes, which are under test."""
        _, control, _, client = sock.recvmsg(4096, 256)
        local, reply = _sent_to(control)
        sock.sendmsg([self._line(client[0], local, {})], reply, 0, client)

    def _line(self, client: str, local: str, more: Mapping[str, Any]) -> bytes:
        reply = {"name": self._name, "seen_as": _plain(client), "local": _plain(local), **more}
        return json.dumps(reply).encode() + b"\n"


def serve(port: int = PORT, name: str = "") -> Server:
    """Serve in the network namespace of the calling thread; the caller may leave the namespace afterwards. At the usual
    port, also at OTHER_PORT.
    """
    return Server((port, OTHER_PORT) if port == PORT else (port,), name or socket.gethostname())


def _listener(kind: socket.SocketKind, port: int) -> socket.socket:
    """A socket for both families, or only for IPv4 if the kernel has no IPv6."""
    try:
        sock = socket.socket(socket.AF_INET6, kind)
    except OSError:
        sock = socket.socket(socket.AF_INET, kind)
    try:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if kind == socket.SOCK_DGRAM:
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", port))
        if kind == socket.SOCK_STREAM:
            sock.listen(64)
    except OSError:
        sock.close()
        raise
    return sock


def _sent_to(control: list[tuple[int, int, bytes]]) -> tuple[str, list[tuple[int, int, bytes]]]:
    """The address that a datagram was sent to, and the control message to answer from it by any interface."""
    for level, kind, data in control:
        if level == socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO:
            address = data[:16]
            link_local = ipaddress.IPv6Address(address).is_link_local
            reply = address + (data[16:20] if link_local else struct.pack("@I", 0))
            return socket.inet_ntop(socket.AF_INET6, address), [(level, kind, reply)]
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            address = data[8:12]
            return socket.inet_ntop(socket.AF_INET, address), [(level, kind, struct.pack("@I", 0) + address + bytes(4))]
    return "", []


def _pad(request: bytes) -> dict[str, str]:
    """As many bytes in the answer as a request asks for."""
    try:
        return {"pad": "." * max(0, min(int(json.loads(request)["pad"]), 16384))}
    except (ValueError, KeyError, TypeError):
        return {}


# --- the command ------------------------------------------------------------------------------------------


def console() -> None:
    """Answer requests from standard input until it ends."""
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            reply = answer(json.loads(line))
        except (ValueError, AttributeError) as error:
            reply = {"error": f"not a JSON object: {error}"}
        print(json.dumps(reply), flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m harness.probe", description="The harness's probe inside a pod.")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="answer over TCP and UDP until killed")
    serving.add_argument("--name", default="", help="the name to answer with (default: the host's)")
    serving.add_argument("--port", type=int, default=PORT, help="default: %(default)s")
    commands.add_parser("console", help="read one JSON request per line, write one JSON answer per line")
    options = parser.parse_args(argv)
    if options.command == "console":
        console()
        return
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # a pod's first process has no default action for signals
        signal.signal(number, lambda *_: end.set())
    server = serve(options.port, options.name)
    end.wait()
    server.close()


if __name__ == "__main__":
    main()
