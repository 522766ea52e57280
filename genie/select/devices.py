"""Which devices the kubelet gave to a pod: for networks over SR-IOV and the like.

A NetworkAttachmentDefinition with `k8s.v1.cni.cncf.io/resourceName` runs over a device of that resource. Only the
kubelet knows which device the pod has. It reports it by its PodResources API (v1, `List`), gRPC on a unix socket. genie
needs one call without arguments, so this module has just enough HTTP/2 (RFC 9113) and protobuf for that: a gRPC library
costs more than the rest of genie together.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

from genie.cni.errors import CniError, Code

SOCKET = "/var/lib/kubelet/pod-resources/kubelet.sock"
TIMEOUT = 5.0  # seconds for all of it

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
END_STREAM, END_HEADERS, ACK, PADDED = 0x1, 0x4, 0x1, 0x8
LIMIT = 16 << 20  # bytes of an answer: the kubelet's own limit for it


def of_pod(namespace: str, pod: str, path: str = "", *, until: float | None = None) -> dict[str, list[str]]:
    """The IDs of a pod's devices by resource, all containers together, in the kubelet's order.

    path: the kubelet's socket; empty: `SOCKET`.
    until: when to give up, by time.monotonic(); by default in `TIMEOUT` seconds.

    Raises CniError: 11; the kubelet does not answer, or its answer is not the one expected.
    """
    path = path or SOCKET
    try:
        answer = _list(path, time.monotonic() + TIMEOUT if until is None else until)
        return _devices(answer, namespace, pod)
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise CniError(
            Code.TRY_AGAIN, f"the kubelet does not report the devices of pod {namespace}/{pod} on {path}: {error}"
        ) from error


# --- gRPC over HTTP/2, one call of one message -------------------------------------------------------------------


def _list(path: str, until: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_left(until))
        connection.connect(path)
        window = struct.pack("!HI", 0x4, 2**31 - 1)
        connection.sendall(
            PREFACE
            + _frame(SETTINGS, 0, 0, window)
            + _frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", 2**31 - 1 - 65535))
            + _frame(HEADERS, END_HEADERS, 1, _request_headers("/v1.PodResourcesLister/List"))
            + _frame(DATA, END_STREAM, 1, b"\0\0\0\0\0")  # one empty message, not compressed
        )
        body = bytearray()
        for kind, flags, payload in _frames(connection, until):
            if kind == DATA:
                body += payload[1 : len(payload) - payload[0]] if flags & PADDED else payload
            elif kind == SETTINGS and not flags & ACK:
                connection.sendall(_frame(SETTINGS, ACK, 0, b""))
            elif kind == PING and not flags & ACK:
                connection.sendall(_frame(PING, ACK, 0, payload))
            elif kind in (RESET, GOAWAY):
                raise ValueError("it ended the call early")
            if len(body) > LIMIT:
                raise ValueError(f"its answer is longer than {LIMIT} bytes")
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                break
    if len(body) < 5 or body[0] != 0:
        raise ValueError("its answer is an error, or compressed")
    length = int.from_bytes(body[1:5], "big")
    if len(body) < 5 + length:
        raise ValueError("its answer is cut off")
    return bytes(body[5 : 5 + length])


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _frames(connection: socket.socket, until: float) -> Iterator[tuple[int, int, bytes]]:
    while head := _read(connection, 9, until):
        payload = _read(connection, int.from_bytes(head[:3], "big"), until)
        if len(head) < 9 or len(payload) < int.from_bytes(head[:3], "big"):
            raise ValueError("its answer ends within a frame")
        yield head[3], head[4], payload


def _read(connection: socket.socket, size: int, until: float) -> bytes:
    """Read this many bytes, fewer at the end of the stream. Raises TimeoutError."""
    read = bytearray()
    while len(read) < size:
        connection.settimeout(_left(until))
        if not (part := connection.recv(size - len(read))):
            break
        read += part
    return bytes(read)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left


def _request_headers(method: str) -> bytes:
    """Encode headers by HPACK (RFC 7541, section 6.2.2), as literals without indexing: neither side keeps a table."""
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
    return b"".join(
        b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode() for name, value in fields
    )


# --- protobuf: ListPodResourcesResponse ------------------------------------------------------------------------------


def _devices(response: bytes, namespace: str, pod: str) -> dict[str, list[str]]:
    """pod_resources = 1 {name = 1, namespace = 2, containers = 3 {devices = 2 {resource_name = 1, device_ids = 2}}}"""
    found: dict[str, list[str]] = {}
    for resources in _all(response, 1):
        if (_text(resources, 1), _text(resources, 2)) != (pod, namespace):
            continue
        for container in _all(resources, 3):
            for device in _all(container, 2):
                ids = [each.decode() for each in _all(device, 2)]
                found.setdefault(_text(device, 1), []).extend(ids)
    return found


def _all(message: bytes, number: int) -> list[bytes]:
    return [value for field, value in _fields(message) if field == number]


def _text(message: bytes, number: int) -> str:
    values = _all(message, number)
    return values[-1].decode() if values else ""


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a message; numbers are skipped."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 2:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("a field of its answer is cut off")
            yield tag >> 3, message[at : at + length]
            at += length
        elif kind == 0:
            _, at = _varint(message, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError("its answer is not a protobuf message")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of its answer is too long")
