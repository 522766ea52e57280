"""The frames between the shim (shim.c) and the agent: a simple binary format, so that shim.c need not parse JSON.

A frame is a length (4 bytes, big-endian, of what follows), a kind (1 byte), then integers of 4 bytes and blobs; a
blob is a length of 4 bytes and so many bytes. One connection is one CNI call:

    shim → agent   CALL    protocol version, blob environment, blob standard input
    agent → shim   RUN     id, timeout in ms (0: none), blob binary, blob environment, blob standard input; any number,
                           several at once
    shim → agent   RESULT  id, how it ended, status (signed), errno, microseconds, blob stdout, blob stderr
    agent → shim   ANSWER  exit status, blob standard output: the last frame

The first byte of CALL may carry a descriptor (SCM_RIGHTS): the pod's network namespace, open, because CNI_NETNS may be
a path that the agent does not have. An agent that does not expect a descriptor never gets it. An agent that gets none
uses the path.

An environment is `KEY=value` strings, each ended by a NUL, and so is the binary's path. CALL begins with the version
and ANSWER never changes, so that an agent and a shim of different versions can at least report that.
"""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

VERSION = 1
"""In an update the new agent starts before its shim is installed: it must answer shims of the previous version, too."""
FRAME_MAX = 3 << 20
"""The limit for a frame, in bytes. The shim's own limits are lower, so a longer frame is never valid."""


class ProtocolError(Exception):
    """The peer sent malformed data, or a frame that it may not send."""


class How(enum.IntEnum):
    """How a delegate ended."""

    EXITED = 0
    NOT_STARTED = 1
    TIMED_OUT = 2
    TOO_MUCH = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A CNI call, as the runtime made it."""

    env: Mapping[str, str]
    stdin: bytes
    version: int = VERSION


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Start this delegate. timeout: milliseconds, 0 for none."""

    id: int
    binary: str
    env: Mapping[str, str]
    stdin: bytes
    timeout: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The result of a delegate. status: the exit status, or a signal's number negated."""

    id: int
    how: How
    status: int
    errno: int
    micros: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Print this and exit."""

    status: int
    stdout: bytes


Frame = Call | Run | Result | Answer

_LENGTH = struct.Struct(">I")
#: Each frame: its kind, and its fields in order, first the numbers, then the blobs.
_FORMS: dict[type[Frame], tuple[bytes, struct.Struct, tuple[str, ...], tuple[str, ...]]] = {
    Call: (b"C", _LENGTH, ("version",), ("env", "stdin")),
    Run: (b"R", struct.Struct(">II"), ("id", "timeout"), ("binary", "env", "stdin")),
    Result: (b"D", struct.Struct(">IIiII"), ("id", "how", "status", "errno", "micros"), ("stdout", "stderr")),
    Answer: (b"A", _LENGTH, ("status",), ("stdout",)),
}
_KINDS = {kind: frame for frame, (kind, *_) in _FORMS.items()}


def encode(frame: Frame) -> bytes:
    """A frame's bytes, its length included."""
    kind, struct_, numbers, blobs = _FORMS[type(frame)]
    parts = [kind, struct_.pack(*[getattr(frame, name) for name in numbers])]
    for blob in [_blob(getattr(frame, name)) for name in blobs]:
        parts += (_LENGTH.pack(len(blob)), blob)
    body = b"".join(parts)
    if len(body) > FRAME_MAX:
        raise ProtocolError(f"a frame of {len(body)} bytes, of at most {FRAME_MAX}")
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Frame:
    """A frame from its bytes, without its length.

    Raises ProtocolError: it is malformed.
    """
    if body[:1] not in _KINDS:
        raise ProtocolError(f"a frame of kind {body[:1]!r}")
    frame = _KINDS[body[:1]]
    _, struct_, numbers, blobs = _FORMS[frame]
    try:
        values: list[Any] = [*struct_.unpack_from(body, 1), *_blobs(body, 1 + struct_.size, len(blobs))]
        fields = zip((*numbers, *blobs), values, strict=True)
        made: Frame = frame(**{name: _READ[name](value) if name in _READ else value for name, value in fields})
    except (struct.error, ValueError) as error:
        raise ProtocolError(str(error)) from error
    return made


class Decoder:
    """Reads frames from a stream that comes in pieces of any size."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete so far.

        Raises ProtocolError: the stream is malformed, and cannot be read any further.
        """
        self._held += data
        frames, at = [], 0
        while len(self._held) - at >= 4:
            (length,) = _LENGTH.unpack_from(self._held, at)
            if not 1 <= length <= FRAME_MAX:
                raise ProtocolError(f"a frame of {length} bytes, of at most {FRAME_MAX}")
            if len(self._held) - at < 4 + length:
                break
            frames.append(decode(bytes(self._held[at + 4 : at + 4 + length])))
            at += 4 + length
        del self._held[:at]
        return frames


def _blobs(body: bytes, at: int, count: int) -> list[bytes]:
    """Exactly this many blobs from this offset to the end."""
    blobs = []
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(body, at)
        blob = body[at + 4 : at + 4 + length]
        if len(blob) != length:
            raise ProtocolError("a blob is longer than its frame")
        blobs.append(blob)
        at += 4 + length
    if at != len(body):
        raise ProtocolError("a frame is longer than its content")
    return blobs


def _blob(value: bytes | str | Mapping[str, str]) -> bytes:
    """Standard input or output as it is, a path with a NUL, an environment with one after each variable."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return os.fsencode(value) + b"\0"
    text = "".join([f"{key}={one}\0" for key, one in value.items()])
    if text.count("\0") != len(value):
        raise ProtocolError("a NUL inside an environment variable")
    return os.fsencode(text)


def _path(blob: bytes) -> str:
    if not blob.endswith(b"\0"):
        raise ProtocolError("a binary's path without its NUL")
    return os.fsdecode(blob[:-1])


def _split(block: bytes) -> dict[str, str]:
    """Parse an environment. The first value of a name counts, as for getenv; strings without `=` are skipped."""
    if block and not block.endswith(b"\0"):
        raise ProtocolError("an environment without its last NUL")
    env: dict[str, str] = {}
    for item in os.fsdecode(block).split("\0")[:-1]:
        name, equals, value = item.partition("=")
        if equals and name:
            env.setdefault(name, value)
    return env


_READ: dict[str, Callable[[Any], Any]] = {"how": How, "binary": _path, "env": _split}
