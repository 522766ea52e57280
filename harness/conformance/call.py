"""One call of a plugin, as a runtime makes it: variables and a configuration in, an exit status and output out."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]
SECONDS = 30.0  # the limit for a call; a runtime allows minutes, and a plugin normally needs milliseconds
NOT_STARTED = 126  # the exit status of a shell for a program that cannot be started
_LIMIT = 1 << 20  # the limit of stored output, in bytes
_ELSEWHERE = ("/tmp", 0o077)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, kw_only=True)
class Call:
    """The input of a plugin: binary, variables and standard input."""

    binary: str
    env: Mapping[str, str]
    stdin: bytes
    elsewhere: bool = False  # in another directory and with another umask than usual

    @property
    def verb(self) -> str:
        """CNI_COMMAND."""
        return self.env.get("CNI_COMMAND", "")

    def shell(self, save: str = "", known: Sequence[tuple[Json, str]] = ()) -> str:
        """The call as lines of shell.

        save: a file for its output. known: results, with the files that have them when the lines run.
        """
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.env.items())
        text = self.stdin.decode(errors="backslashreplace")
        if len(text) > 100_000:
            return f"# {len(text)} bytes of input: {text[:200]} …\n{variables} {shlex.quote(self.binary)}"
        text, is_filled = _filled(text, known)
        end = f" | tee {save}" if save else ""
        word = "CONF" if is_filled else "'CONF'"
        call = f"{variables} {shlex.quote(self.binary)} <<{word}{end}\n{text}\nCONF"
        return f"cd {_ELSEWHERE[0]}; umask {_ELSEWHERE[1]:03o}\n{call}\ncd /; umask 022" if self.elsewhere else call


def _filled(text: str, known: Sequence[tuple[Json, str]]) -> tuple[str, bool]:
    """An input in which prevResult is taken from a file, because MAC addresses differ each time; and whether it is.

    A prevResult with other values in some places is the file's, changed in the same places.
    """
    try:
        previous = json.loads(text)["prevResult"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return text, False
    written = f'"prevResult": {json.dumps(previous)}'
    for result, path in reversed(known):
        pairs = _differences(result, previous)
        if pairs is not None and text.count(written) == 1:
            edits = " ".join(f"-e {shlex.quote(_edit(*pair))}" for pair in pairs)
            source = f"$(sed {edits} {path})" if pairs else f"$(cat {path})"
            before, after = (re.sub(r"([\\$`])", r"\\\1", part) for part in text.split(written))
            return f'{before}"prevResult": {source}{after}', True
    return text, False


def _edit(old: str, new: str) -> str:
    """A replacement, for sed."""
    pattern, replacement = re.sub(r"([].*[^$|\\])", r"\\\1", old), re.sub(r"([&|\\])", r"\\\1", new)
    return f"s|{pattern}|{replacement}|"


def _differences(one: Any, other: Any) -> list[tuple[str, str]] | None:
    """The texts in which two values differ, in JSON; None if they differ in more."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        found = [_differences(one[key], other[key]) for key in one]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        found = [_differences(*pair) for pair in zip(one, other, strict=True)]
    elif one == other:
        return []
    else:
        return [(json.dumps(one), json.dumps(other))] if isinstance(one, str) and isinstance(other, str) else None
    if any(each is None for each in found):
        return None
    return list(dict.fromkeys(pair for each in found if each for pair in each))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a call: exit status and output."""

    call: Call
    status: int  # negative: the signal that ended it, as in subprocess
    stdout: bytes
    stderr: bytes
    seconds: float
    late: bool = False  # killed by the harness, because it took too long
    holders: tuple[str, ...] = ()  # processes that have its output open

    @property
    def ok(self) -> bool:
        """Whether the plugin reports success."""
        return self.status == 0

    @property
    def answer(self) -> Any:
        """Standard output, parsed; None if it is not JSON."""
        try:  # as text, because of bytes Python also reads other encodings
            return json.loads(self.stdout.decode(), parse_constant=_refuse)
        except (ValueError, RecursionError):
            return None

    @property
    def object(self) -> Json:
        """The same; empty if it is not an object."""
        return self.answer if isinstance(self.answer, dict) else {}

    @property
    def code(self) -> int | None:
        """The code of an error object."""
        code = self.object.get("code")
        return code if isinstance(code, int) and not isinstance(code, bool) else None

    @property
    def message(self) -> str:
        """The error as text."""
        if self.late:
            return f"no answer within {self.seconds:.0f} s"
        text = ": ".join(str(self.object[key]) for key in ("msg", "details") if self.object.get(key))
        if self.status < 0:
            text = f"ended by {signal.Signals(-self.status).name} {text}".strip()
        return text or (self.stdout or self.stderr).decode(errors="replace").strip()[-300:] or f"status {self.status}"


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def run(call: Call, seconds: float = SECONDS, *, watched: bool = False) -> Outcome:
    """Run a plugin to its end.

    Its input and output are files in memory. So a process that it leaves behind and that holds the output open does not
    block the harness; with `watched`, the outcome names it.
    """
    began = time.monotonic()
    with Memory.of(call.stdin) as stdin, Memory.of() as stdout, Memory.of() as stderr:
        try:
            process = subprocess.Popen(
                [call.binary],
                env=environment(call),
                stdin=stdin.fd,
                stdout=stdout.fd,
                stderr=stderr.fd,
                cwd=_ELSEWHERE[0] if call.elsewhere else "/",
                umask=_ELSEWHERE[1] if call.elsewhere else -1,
                start_new_session=True,
            )
        except OSError as error:  # built for another machine, or a script without its interpreter
            reason = f"{call.binary} cannot be started: {error.strerror}".encode()
            return Outcome(call=call, status=NOT_STARTED, stdout=b"", stderr=reason, seconds=0.0)
        late = not _ends(process.pid, seconds)
        if late:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return Outcome(
            call=call,
            status=process.returncode,
            stdout=stdout.content(),
            stderr=stderr.content(),
            seconds=time.monotonic() - began,
            late=late,
            holders=tuple(_holders(stdout.fd, stderr.fd)) if watched else (),
        )


def _holders(*files: int) -> Iterator[str]:
    """Other processes that have one of these open files of this process open, too."""
    wanted = {(os.fstat(fd).st_dev, os.fstat(fd).st_ino) for fd in files}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found = [each.stat() for each in (place / "fd").iterdir()] if int(place.name) != os.getpid() else []
            if wanted & {(each.st_dev, each.st_ino) for each in found}:
                yield (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()


def _ends(process: int, seconds: float) -> bool:
    """Wait for a child's end; returns whether it came in time. Does not poll, as subprocess does."""
    handle = os.pidfd_open(process)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(handle)


def environment(call: Call) -> dict[str, str]:
    """All variables of a call's process."""
    return {"PATH": _PATH, **call.env}


@dataclass(frozen=True)
class Memory:
    """A file in memory."""

    fd: int

    def content(self) -> bytes:
        """The contents of a file in memory, up to a limit."""
        return os.pread(self.fd, _LIMIT, 0)

    @classmethod
    @contextmanager
    def of(cls, content: bytes = b"") -> Iterator[Memory]:
        """A file in memory with these contents, at its start."""
        fd = os.memfd_create("cni", os.MFD_CLOEXEC)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            os.lseek(fd, 0, os.SEEK_SET)
            yield cls(fd)
        finally:
            os.close(fd)
