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
from collections.abc import Mapping
from dataclasses import dataclass

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
_RUN = struct.Struct(">BII")
_RESULT = struct.Struct(">BIIiII")


def encode(frame: Frame) -> bytes:
    """A frame's bytes, its length included."""
    blobs: tuple[bytes, ...]
    match frame:
        case Run():
            head = _RUN.pack(ord("R"), frame.id, frame.timeout)
            blobs = (os.fsencode(frame.binary) + b"\0", _join(frame.env), frame.stdin)
        case Answer():
            head, blobs = b"A" + _LENGTH.pack(frame.status), (frame.stdout,)
        case Call():
            head, blobs = b"C" + _LENGTH.pack(frame.version), (_join(frame.env), frame.stdin)
        case Result():
            numbers = (frame.id, frame.how, frame.status, frame.errno, frame.micros)
            head, blobs = _RESULT.pack(ord("D"), *numbers), (frame.stdout, frame.stderr)
    body = b"".join([head, *(part for blob in blobs for part in (_LENGTH.pack(len(blob)), blob))])
    if len(body) > FRAME_MAX:
        raise ProtocolError(f"a frame of {len(body)} bytes, of at most {FRAME_MAX}")
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Frame:
    """A frame from its bytes, without its length.

    Raises:
        ProtocolError: it is malformed.
    """
    try:
        match body[:1]:
            case b"R":
                _, id_, timeout = _RUN.unpack_from(body)
                binary, env, stdin = _blobs(body, _RUN.size, 3)
                if not binary.endswith(b"\0"):
                    raise ProtocolError("a binary's path without its NUL")
                path = os.fsdecode(binary[:-1])
                return Run(id=id_, timeout=timeout, binary=path, env=_split(env), stdin=stdin)
            case b"A":
                (status,) = _LENGTH.unpack_from(body, 1)
                (stdout,) = _blobs(body, 5, 1)
                return Answer(status=status, stdout=stdout)
            case b"C":
                (version,) = _LENGTH.unpack_from(body, 1)
                env, stdin = _blobs(body, 5, 2)
                return Call(version=version, env=_split(env), stdin=stdin)
            case b"D":
                _, id_, how, status, errno, micros = _RESULT.unpack_from(body)
                stdout, stderr = _blobs(body, _RESULT.size, 2)
                return Result(
                    id=id_, how=How(how), status=status, errno=errno, micros=micros, stdout=stdout, stderr=stderr
                )
            case kind:
                raise ProtocolError(f"a frame of kind {kind!r}")
    except (struct.error, ValueError) as error:
        raise ProtocolError(str(error)) from error


class Decoder:
    """Reads frames from a stream that comes in pieces of any size."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete so far.

        Raises:
            ProtocolError: the stream is malformed, and cannot be read any further.
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
        raise ProtocolError("a frame is longer than what is in it")
    return blobs


def _join(env: Mapping[str, str]) -> bytes:
    text = "".join([f"{key}={value}\0" for key, value in env.items()])
    if text.count("\0") != len(env):
        raise ProtocolError("a NUL inside an environment variable")
    return os.fsencode(text)


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
