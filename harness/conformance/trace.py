"""Kills a plugin at one of its system calls, to simulate a power failure or an impatient runtime.

The call runs under ptrace, with all its threads and children. Only system calls that change something (files,
interfaces, processes) are counted, so a sweep over them is a sweep over every state that an interrupted call can leave.
A filter in the kernel (seccomp) stops the call at these alone, so it is nearly as fast as it is without.
Python has no ptrace, and libraries with ptrace are debuggers; this module needs only four of its requests.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from harness.conformance.call import SECONDS, Call, Memory, environment

_TRACEME, _CONT, _SETOPTIONS, _SYSCALL, _GET_SYSCALL_INFO = 0, 7, 0x4200, 24, 0x420E
# Syscalls marked; forks, vforks, clones followed; the filter's stops seen; all killed with the tracer.
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x80 | 0x100000
_BY_FILTER, _SECCOMP_STOP = 3, 7
_SET_SECCOMP, _NO_NEW_PRIVILEGES = 22, 38
_ALLOW, _TRACE = 0x7FFF0000, 0x7FF00000
_O_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
#: Numbers of system calls that change something, by machine.
_CHANGING = {
    "x86_64": {
        1: "write", 20: "writev", 44: "sendto", 46: "sendmsg", 82: "rename", 83: "mkdir", 84: "rmdir", 86: "link",
        87: "unlink", 88: "symlink", 165: "mount", 166: "umount2", 2: "open", 257: "openat", 258: "mkdirat",
        263: "unlinkat", 264: "renameat", 265: "linkat", 266: "symlinkat", 316: "renameat2", 76: "truncate",
        77: "ftruncate", 59: "execve", 18: "pwrite64",
    },
    "aarch64": {
        64: "write", 66: "writev", 206: "sendto", 211: "sendmsg", 38: "renameat", 34: "mkdirat", 35: "unlinkat",
        36: "symlinkat", 37: "linkat", 40: "mount", 39: "umount2", 56: "openat", 276: "renameat2", 45: "truncate",
        46: "ftruncate", 221: "execve", 68: "pwrite64",
    },
}  # fmt: skip
_libc = ctypes.CDLL(None, use_errno=True)


class NoTracing(Exception):
    """The kernel, or this machine, does not allow it; the message has the reason."""


@dataclass(frozen=True, kw_only=True)
class Traced:
    """The outcome of a traced call."""

    changes: int  # the number of its system calls that change something
    killed: str = ""  # the system call after which it was killed; empty if it ended by itself
    status: int = 0


def run(call: Call, kill_at: int = 0) -> Traced:
    """Run a call and kill it after this number of system calls that change something.

    kill_at: the number, from 1; with 0 it runs to its end.

    Raises NoTracing: it cannot be traced.
    """
    table = _CHANGING.get(os.uname().machine)
    if table is None:
        raise NoTracing(f"system calls of {os.uname().machine} are not known to the harness")
    with Memory.of(call.stdin) as stdin, Memory.of() as output:
        child = os.fork()
        if child == 0:
            _become(call, stdin.fd, output.fd, table)
        return _Tracer(child, table, kill_at).watch()


def _become(call: Call, stdin: int, output: int, table: dict[int, str]) -> None:
    try:
        os.setsid()
        for fd, standard in ((stdin, 0), (output, 1), (output, 2)):
            os.dup2(fd, standard)
        os.chdir("/")
        if _libc.ptrace(_TRACEME, 0, None, None) == 0:
            os.kill(os.getpid(), signal.SIGSTOP)  # until the tracer has set its options
            if _filter(table):
                os.execve(call.binary, [call.binary], environment(call))
    finally:
        os._exit(127)


def _filter(numbers: Iterable[int]) -> bool:
    """Have the kernel stop this process at these system calls, and at no others; whether it does."""
    load, equal, answer = 0x20, 0x15, 0x06  # of the classic BPF: the number of the call is the first word
    wanted = list(numbers)
    program = [(load, 0, 0, 0), *((equal, len(wanted) - at, 0, number) for at, number in enumerate(wanted))]
    program += [(answer, 0, 0, _ALLOW), (answer, 0, 0, _TRACE)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    described = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    _libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    return bool(_libc.prctl(_SET_SECCOMP, 2, described, 0, 0) == 0)


class _Tracer:
    """The loop over one call's stops."""

    def __init__(self, child: int, table: dict[int, str], kill_at: int) -> None:
        self._child, self._table, self._kill_at = child, table, kill_at
        self._changes, self._alive, self._entered = -1, {child}, dict[int, str]()  # the call's own start is no change
        self._killed = ""

    def watch(self) -> Traced:
        """Run until no process of the call is left."""
        status = self._begin()
        signal.signal(signal.SIGALRM, lambda *_: self._end("", _ALL))
        signal.alarm(int(SECONDS))
        try:
            while self._alive:
                try:
                    process, stop = os.waitpid(-1, _ALL)
                except ChildProcessError:
                    break
                if os.WIFSTOPPED(stop):
                    self._stopped(process, stop)
                else:
                    self._alive.discard(process)
                    if process == self._child:
                        status = os.waitstatus_to_exitcode(stop)
                        if not self._killed:
                            break  # remaining processes are not part of the call
        finally:
            signal.alarm(0)
        if self._changes < 0:
            raise NoTracing("the kernel does not allow a filter of system calls here, or the plugin to start")
        return Traced(changes=self._changes, killed=self._killed, status=status)

    def _begin(self) -> int:
        _, stop = os.waitpid(self._child, 0)
        if not os.WIFSTOPPED(stop):
            raise NoTracing("the kernel does not allow a process to be traced here")
        if _libc.ptrace(_SETOPTIONS, self._child, None, ctypes.c_void_p(_OPTIONS)) != 0:
            os.kill(self._child, signal.SIGKILL)
            raise NoTracing(f"ptrace: {os.strerror(ctypes.get_errno())}")
        self._go_on(self._child, 0)
        return 0

    def _stopped(self, process: int, stop: int) -> None:
        self._alive.add(process)
        number = os.WSTOPSIG(stop)
        if number == signal.SIGTRAP | 0x80:
            self._returned(process)
            number = 0
        elif stop >> 16 == _SECCOMP_STOP:
            self._entered_call(process)
            number = 0
        elif stop >> 16 or number in (signal.SIGSTOP, signal.SIGTRAP):
            number = 0  # a fork, a new child's first stop, an exec
        if not self._killed:
            self._go_on(process, number)

    def _entered_call(self, process: int) -> None:
        buffer = ctypes.create_string_buffer(88)
        if _libc.ptrace(_GET_SYSCALL_INFO, process, ctypes.c_size_t(88), buffer) <= 0 or buffer.raw[0] != _BY_FILTER:
            return
        number, *arguments = struct.unpack_from("=7Q", buffer.raw, 24)
        name = self._table.get(number, "")
        if name not in ("open", "openat") or arguments[1 if name == "open" else 2] & _O_WRITES:
            self._entered[process] = name

    def _returned(self, process: int) -> None:
        if name := self._entered.pop(process, ""):
            self._changes += 1
            if 0 < self._changes == self._kill_at:
                self._end(name, 0)

    def _end(self, name: str, _: int) -> None:
        """Kill all processes of the call at once."""
        self._killed = name or "nothing: it took too long"
        for process in self._alive:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def _go_on(self, process: int, number: int) -> None:
        """To the return of the system call that it is in, or to the next that counts."""
        _libc.ptrace(_SYSCALL if process in self._entered else _CONT, process, None, ctypes.c_void_p(number))


_ALL = 0x40000000  # __WALL: threads too
