"""Kills a process at the start of its Nth system call that changes something, by ptrace(2).

strace cannot do this, because it does not count calls over all threads. The tracer is a separate process without
threads, because ptrace belongs to the thread that attached.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TRACEME, SETOPTIONS, SYSCALL, SEIZE, INTERRUPT, SYSCALL_INFO = 0, 0x4200, 24, 0x4206, 0x4207, 0x420E
SYSGOOD, TRACECLONE, EXITKILL = 1, 8, 1 << 20
WALL = 0x40000000
ENTRY = 1
#: The system calls of x86_64 that change files, sockets, processes or locks; everywhere else a kill shows nothing new.
CALLS = {
    1: "write", 3: "close", 18: "pwrite64", 20: "writev", 44: "sendto", 46: "sendmsg", 48: "shutdown", 56: "clone",
    57: "fork", 58: "vfork", 59: "execve", 62: "kill", 73: "flock", 74: "fsync", 75: "fdatasync", 77: "ftruncate",
    82: "rename", 83: "mkdir", 86: "link", 87: "unlink", 257: "openat", 258: "mkdirat", 263: "unlinkat",
    264: "renameat", 265: "linkat", 308: "setns", 316: "renameat2", 435: "clone3",
}  # fmt: skip


def unsupported() -> str:
    """Why tracing is not possible here; empty if it is."""
    if platform.machine() != "x86_64":
        return f"crash points: system calls are known for x86_64, this machine is {platform.machine()}"
    return ""


@dataclass(frozen=True)
class Traced:
    """The result of a trace. at: the call at which the process was killed, empty if it was not. total: counted
    calls."""

    at: str
    total: int


class _Stop(Exception):
    """SIGTERM: the tracer must detach."""


@dataclass
class Tracer:
    """A running tracer; `end` detaches, or waits for the end of the process, and returns the result."""

    pid: int
    pipe: int

    def end(self, *, wait: bool = False) -> Traced:
        if not wait:
            os.kill(self.pid, signal.SIGTERM)
        with os.fdopen(self.pipe, "rb") as pipe:
            reported = pipe.read().split()
        os.waitpid(self.pid, 0)
        if len(reported) < 2:
            raise RuntimeError("the tracer ended without a report")
        return Traced(at=CALLS.get(int(reported[-2]), ""), total=int(reported[-1]))


def attach(pid: int, count: int) -> Tracer:
    """Trace a process with all its threads; kill it at the start of its count-th call from now on."""
    return _tracer(lambda ready: _seize(pid, ready), count)


def launch(command: Sequence[str], env: Mapping[str, str], stdin: int, stdout: int, count: int) -> Tracer:
    """Start a command and kill it at the start of its count-th call; its child processes are not traced."""
    return _tracer(lambda ready: _start(command, env, stdin, stdout, ready), count)


def _tracer(begin: Callable[[int], list[int]], count: int) -> Tracer:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            signal.signal(signal.SIGTERM, _raise)
            number, total = _follow(begin(writer), count)
            os.write(writer, f" {number} {total}".encode())
        except BaseException as error:
            print(f"tracer: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(0)
    os.close(writer)
    os.read(reader, 1)  # attached
    return Tracer(pid=pid, pipe=reader)


def _raise(*_: object) -> None:
    raise _Stop


def _ptrace(request: int, pid: int, address: int = 0, data: object = 0) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    pointer = data if isinstance(data, ctypes.Array) else ctypes.c_void_p(int(str(data)))
    result: int = libc.ptrace(request, pid, ctypes.c_void_p(address), pointer)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _seize(pid: int, ready: int) -> list[int]:
    threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    for thread in threads:
        _ptrace(SEIZE, thread, 0, SYSGOOD | TRACECLONE)
        _ptrace(INTERRUPT, thread)
    for thread in threads:
        os.waitpid(thread, WALL)
        _ptrace(SYSCALL, thread)
    os.write(ready, b".")
    return [pid, *(thread for thread in threads if thread != pid)]


def _start(command: Sequence[str], env: Mapping[str, str], stdin: int, stdout: int, ready: int) -> list[int]:
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(stdin, 0)
            os.dup2(stdout, 1)
            os.closerange(3, 256)
            _ptrace(TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            os.execve(command[0], list(command), dict(env))
        finally:
            os._exit(126)
    for name in [
        path.name for path in Path("/proc/self/fd").iterdir()
    ]:  # also the other ends of the pipes: a reader waits until all are closed
        with contextlib.suppress(OSError):
            if int(name) > 2 and int(name) != ready:
                os.close(int(name))
    os.waitpid(pid, 0)
    _ptrace(SETOPTIONS, pid, 0, SYSGOOD | EXITKILL)
    _ptrace(SYSCALL, pid)
    os.write(ready, b".")
    return [pid]


def _follow(threads: list[int], count: int) -> tuple[int, int]:
    """Run them from call to call; returns the number of the call at which the process was killed (-1: none), and the
    count.

    The first `execve` of a launched command is not its own.
    """
    pid, seen = threads[0], 0
    try:
        while True:
            thread, status = os.waitpid(-1, WALL)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                if thread == pid:
                    return -1, seen
                continue
            stopped, given = os.WSTOPSIG(status), 0
            if stopped == signal.SIGTRAP | 0x80:
                number = _entered(thread)
                seen += number in CALLS
                if number in CALLS and seen == count:
                    os.kill(pid, signal.SIGKILL)
                    return number, seen
            elif status >> 16 == 0 and stopped not in (signal.SIGTRAP, signal.SIGSTOP):
                given = stopped
            try:
                _ptrace(SYSCALL, thread, 0, given)
            except ProcessLookupError:
                continue
    except (_Stop, ChildProcessError):
        return -1, seen


def _entered(thread: int) -> int:
    """The system call that a stopped thread enters; -1 if it returns from one."""
    info = ctypes.create_string_buffer(88)
    _ptrace(SYSCALL_INFO, thread, len(info), info)
    operation, number = struct.unpack_from("<B23xq", info.raw)
    return int(number) if operation == ENTRY else -1
