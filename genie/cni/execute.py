"""Runs plugins: the `Executor`, the only way to run anything, and direct mode's, which starts child processes.

An executor turns a `PluginCall` into an `Outcome`. It raises no exception, and leaves no zombie and no open pipe. This
module uses `os.posix_spawn` alone: Python's `subprocess` would work, but importing it takes longer than starting a
plugin, and direct mode pays for imports on each ADD.

Each started process belongs to a `Claim`. If the call is interrupted, the claim is used to find and end its processes.

A plugin has ended when its process has, even if its pipes are still open: a daemon that it started may hold them.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import fcntl
import os
import select
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

T = TypeVar("T")

BUSY_RETRIES, BUSY_WAIT = 5, 0.2  # seconds
# Bytes, as in shim.c: a plugin that prints more than the first is killed; text beyond the second is dropped.
STDOUT_MAX, STDERR_MAX = 1 << 20, 64 << 10
LARGE = 16384
"""Bytes of JSON that are read or written on the event loop at once; more in a thread."""

_PIECE, _PIECES = 1 << 16, 32
_TICK = 0.01  # seconds between looks at a child, on kernels without pidfd (before 5.3)
_GUARD_AFTER = 0.3  # seconds; runtimes kill only long calls, so most calls need no guard
_MARK = 250
"""The descriptor number of the claim's file in a plugin: below every limit, above the numbers that shells use."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginCall:
    """One plugin to run. env is complete, nothing is inherited. timeout: seconds; None: no limit. network: the
    source of the network's configuration; an executor may limit calls for each network by it.
    """

    binary: str
    env: Mapping[str, str]
    stdin: bytes
    timeout: float | None = None
    network: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a plugin ended. status: the exit status, or a signal's number negated. seconds: how long it ran.

    error: "", or the reason that there is no exit status of the plugin's own (it could not be started, it took too
    long). errno: why it could not be started, otherwise 0.
    """

    status: int
    stdout: bytes = b""
    stderr: bytes = b""
    seconds: float = 0.0
    error: str = ""
    errno: int = 0


class Executor(Protocol):
    """Runs plugins, somewhere. A failure to run one is reported in the Outcome's `error`, not raised."""

    async def claim(self, path: str) -> None:
        """Run the following plugins for the container of this file. First end the processes that an earlier call for it
        left running, so that nothing is attached after its DEL.

        Raises CniError: 11; a process does not end.
        """
        ...

    async def run(self, call: PluginCall) -> Outcome:
        """Run one plugin to its end."""
        ...

    async def gather(self, *work: Coroutine[Any, Any, T]) -> list[T | BaseException]:
        """Run all to their end, at the same time if possible; an exception is returned as the result of its job."""
        ...

    def in_thread(self, work: Callable[[], T], *, waits: bool = False) -> Awaitable[T]:
        """Start blocking work without blocking the event loop. Awaiting the return value waits for its end, and raises
        its exception. waits: the work may block for seconds, longer than a disk should.
        """
        ...


async def run(executor: Executor, call: PluginCall) -> Outcome:
    """Run a plugin. While its executable is being written (an upgrade: "text file busy"), retry for a second."""
    for _ in range(BUSY_RETRIES):
        outcome = await executor.run(call)
        if outcome.errno != errno.ETXTBSY:
            return outcome
        await executor.in_thread(lambda: time.sleep(BUSY_WAIT), waits=True)
    return await executor.run(call)


async def compute(executor: Executor, work: Callable[[], T], *, size: int) -> T:
    """Compute something: here if it is small, otherwise in a thread, because other pods wait for the event loop.

    size: in bytes of JSON, or as many; a computation of a millisecond has about `LARGE`.
    """
    return work() if size <= LARGE else await executor.in_thread(work)


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine that never suspends, without an event loop."""
    try:
        work.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    work.close()
    raise RuntimeError(f"{work!r} waits for an event loop, and there is none")


class PassingExecutor:
    """An executor over another one; a subclass changes a part of it."""

    def __init__(self, inner: Executor) -> None:
        self.inner = inner

    async def claim(self, path: str) -> None:
        await self.inner.claim(path)

    async def run(self, call: PluginCall) -> Outcome:
        return await self.inner.run(call)

    async def gather(self, *work: Coroutine[Any, Any, T]) -> list[T | BaseException]:
        return await self.inner.gather(*work)

    def in_thread(self, work: Callable[[], T], *, waits: bool = False) -> Awaitable[T]:
        return self.inner.in_thread(work, waits=waits)


class SubprocessExecutor:
    """Runs plugins as children, each in its own session. When a plugin is interrupted, all its children end with it."""

    def __init__(self) -> None:
        self._claim: Claim | None = None

    async def claim(self, path: str) -> None:
        """Returns at once if nothing is left running."""
        self.close()
        self._claim = Claim(path)

    def close(self) -> None:
        """Release the claim, at the end of the call."""
        if self._claim:
            self._claim.close()
        self._claim = None

    async def run(self, call: PluginCall) -> Outcome:
        """Run one plugin to its end, blocking. What it logs goes on to our standard error."""
        claim = self._claim or Claim()
        try:
            outcome = _run(call, claim)
        finally:
            if claim is not self._claim:
                claim.close()
        if outcome.status == 0 and outcome.stderr:
            with contextlib.suppress(OSError):  # it may be closed, and that must not fail the call
                os.write(2, outcome.stderr)
        return outcome

    async def gather(self, *work: Coroutine[Any, Any, T]) -> list[T | BaseException]:
        """One thread for each job but the last, which runs in the calling thread."""
        jobs = [partial(run_sync, each) for each in work]
        begun = [Threaded(job, or_here=True) for job in jobs[:-1]]
        last = [_outcome(job) for job in jobs[-1:]]
        return [*(_outcome(each.wait) for each in begun), *last]

    def in_thread(self, work: Callable[[], T], *, waits: bool = False) -> Awaitable[T]:
        """Run in a thread, so that a delegate can run at the same time; here, if the system gives no more threads."""
        return Threaded(work, or_here=True)


def _outcome(work: Callable[[], T]) -> T | BaseException:
    """The value of the work, or its exception."""
    try:
        return work()
    except BaseException as error:
        return error


class Threaded(Awaitable[T]):
    """Work that runs in its own thread; awaiting it blocks until it has ended. `threading` would work, but importing it
    takes longer than most of the work.
    """

    def __init__(self, work: Callable[[], T], *, or_here: bool = False) -> None:
        """Raises RuntimeError, without `or_here`: the system gives no more threads."""
        self._work = work
        self._done: list[T | BaseException] = []
        self._running = _thread.allocate_lock()
        self._running.acquire()
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:
            if not or_here:
                raise
            self._run()

    def _run(self) -> None:
        self._done.append(_outcome(self._work))
        self._running.release()

    def wait(self) -> T:
        """Wait for its end; returns the value of the work, or raises its exception."""
        with self._running:
            (outcome,) = self._done
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def __await__(self) -> Generator[Any, None, T]:
        return self._wait().__await__()

    async def _wait(self) -> T:
        return self.wait()


class Claim:
    """A call's claim to a container: a file that the call, and every process that it starts, holds locked.

    path: of the file. It exists during the call, and stays if the call is killed. "": for no container; then only the
    call's own guard looks for processes that are left.
    """

    def __init__(self, path: str = "") -> None:
        """Raises CniError: 11; processes that an earlier call left running do not end."""
        self._path, self._handle = path, -1
        self._handle = _locked(path) if path else -1
        if self._handle < 0:
            self._path, self._handle = "", os.memfd_create("genie-call", os.MFD_CLOEXEC)
            fcntl.flock(self._handle, fcntl.LOCK_SH)
        self._last, self._mutex = 0, _thread.allocate_lock()
        self._guard = (0, -1)  # its PID, and our end of its pipe
        self.guard_at: float | None = time.monotonic() + _GUARD_AFTER

    def close(self) -> None:
        """End the call. Daemons that plugins left behind keep running."""
        handle, self._handle = self._handle, -1
        if handle < 0:
            return
        pid, pipe = self._guard
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(pipe)
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        os.close(handle)

    __del__ = close  # the executor was never closed

    @contextlib.contextmanager
    def mark(self) -> Iterator[_Mark]:
        """A mark for one more plugin. Removing it also releases the processes that inherited it. Raises OSError."""
        with self._mutex:
            self._last += 1
            position = self._last
        handle = os.open(f"/proc/self/fd/{self._handle}", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.lseek(handle, position, os.SEEK_SET)
            fcntl.flock(handle, fcntl.LOCK_SH)
            yield _Mark(claim=self, handle=handle, position=position)
            fcntl.flock(handle, fcntl.LOCK_UN)
        finally:
            os.close(handle)

    def end(self, position: int, delegate: int) -> None:
        """Interrupt a plugin: end it and all that it has started."""
        from genie.cni import leftovers  # a successful call does not need it

        leftovers.end(self._handle, position, delegate, patience=2.0)

    def guard(self) -> None:
        """Start a guard: if this process is killed, the guard ends the processes that it started."""
        with self._mutex:
            if self.guard_at is None:
                return
            self.guard_at = None
            with contextlib.suppress(OSError):  # without a guard, the DEL does it
                far, near = os.pipe2(os.O_CLOEXEC)
                from genie.cni import leftovers

                pid = os.fork()
                if not pid:
                    leftovers.be_guard(far, self._handle)
                os.close(far)
                self._guard = pid, near


def _locked(path: str) -> int:
    """Lock the file, after ending the other processes that hold it locked. Returns a descriptor; -1 if the disk cannot
    take the file.

    Raises CniError: 11; a process does not end.
    """
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return -1
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                from genie.cni import leftovers  # not needed after a successful call

                leftovers.clear(handle)
            if os.stat(path).st_ino == os.fstat(handle).st_ino:
                fcntl.flock(handle, fcntl.LOCK_SH)
                return handle
        except FileNotFoundError:  # the previous call has just ended
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


# One child process, with a time limit


def _run(call: PluginCall, claim: Claim) -> Outcome:
    """Run a plugin to its end. At its time limit it is killed, with all that it has started."""
    began = time.monotonic()
    try:
        with _Pipes() as pipes, claim.mark() as mark:
            pid = _spawn(call, pipes, mark.handle)
            pipes.close_far_ends()
            deadline = None if call.timeout is None else began + call.timeout
            status, in_time = _attend(pid, pipes, call.stdin, deadline, mark)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the environment
        why, number = (error.strerror, error.errno) if isinstance(error, OSError) else (str(error), errno.EINVAL)
        return Outcome(status=-1, error=f"{call.binary} could not be started: {why}", errno=number or errno.EINVAL)
    if pipes.too_much:
        cut_off = "more than 1 MiB of output; killed"
    else:
        cut_off = "" if in_time else f"no answer within {call.timeout or 0:g} seconds; killed"
    return Outcome(
        status=status,
        stdout=b"" if pipes.too_much else bytes(pipes.heard[pipes.stdout]),
        stderr=bytes(pipes.heard[pipes.stderr]),
        seconds=time.monotonic() - began,
        error=cut_off,
    )


class _Mark(NamedTuple):
    """The mark of a plugin and of all that it starts: a locked descriptor of the claim's file, and its file offset."""

    claim: Claim
    handle: int
    position: int


class _Pipes:
    """Three pipes to a child: near ends non-blocking and ours, far ends the child's."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        try:
            self.far_stdin, self.stdin = self._pipe()
            self.stdout, self.far_stdout = self._pipe()
            self.stderr, self.far_stderr = self._pipe()
        except OSError:
            self.__exit__()
            raise
        for near in (self.stdin, self.stdout, self.stderr):
            os.set_blocking(near, False)
        self.heard = {self.stdout: bytearray(), self.stderr: bytearray()}

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe2(os.O_CLOEXEC)
        self._open.update(ends)
        return ends

    def __enter__(self) -> _Pipes:
        return self

    def __exit__(self, *_: object) -> None:
        for end in tuple(self._open):
            self.close(end)

    def close(self, end: int) -> None:
        self._open.discard(end)
        os.close(end)

    def close_far_ends(self) -> None:
        for end in (self.far_stdin, self.far_stdout, self.far_stderr):
            self.close(end)

    def hear(self, near: int) -> bool:
        """Read the available output; False at its end. Stops after a while, because a process may write without end."""
        heard = self.heard[near]
        for _ in range(_PIECES):
            try:
                part = os.read(near, _PIECE)
            except BlockingIOError:
                return True
            if not part:
                return False
            if near == self.stdout:
                heard += part
                if self.too_much:
                    return False
            else:
                heard += part[: STDERR_MAX - len(heard)]
        return True

    @property
    def too_much(self) -> bool:
        """Whether the child printed more than the limit."""
        return len(self.heard[self.stdout]) > STDOUT_MAX


def _spawn(call: PluginCall, pipes: _Pipes, mark: int) -> int:
    """Start the child in a session of its own. Raises OSError."""
    actions = [
        (os.POSIX_SPAWN_DUP2, pipes.far_stdin, 0),
        (os.POSIX_SPAWN_DUP2, pipes.far_stdout, 1),
        (os.POSIX_SPAWN_DUP2, pipes.far_stderr, 2),
        (os.POSIX_SPAWN_DUP2, mark, _MARK),
    ]
    return os.posix_spawn(
        call.binary,
        [call.binary],
        call.env,
        file_actions=actions,
        setsid=True,
        setsigmask=[],
        # Python ignores these two signals, and a child inherits that.
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
    )


def _attend(pid: int, pipes: _Pipes, stdin: bytes, deadline: float | None, mark: _Mark) -> tuple[int, bool]:
    """Write its input and read its output until the child has ended. Returns its status, and whether it was in time.

    deadline: by time.monotonic(). In every case the child is ended and reaped. If it did not end by itself, its own
    children end too: otherwise they would go on with unfinished work.
    """
    in_time = False
    try:
        in_time = _converse(pid, pipes, stdin, deadline, mark.claim)
    finally:
        if not in_time:
            mark.claim.end(mark.position, pid)
        _, wait_status = os.waitpid(pid, 0)
    status = os.waitstatus_to_exitcode(wait_status)
    if in_time and status < 0:
        mark.claim.end(mark.position, pid)
    for near in pipes.heard:
        pipes.hear(near)
    if in_time and pipes.too_much:
        mark.claim.end(mark.position, pid)
    return status, in_time


def _converse(pid: int, pipes: _Pipes, stdin: bytes, deadline: float | None, claim: Claim) -> bool:
    """Wait until the child has ended (True; it is not reaped yet) or its time is up (False)."""
    with _watched(pid) as watch:
        poll = select.poll()
        for near in pipes.heard:
            poll.register(near, select.POLLIN)
        poll.register(pipes.stdin, select.POLLOUT)
        if watch is not None:
            poll.register(watch, select.POLLIN)
        unsent = memoryview(stdin)
        while True:
            ready = {end for end, _ in poll.poll(_wait(watch, deadline, claim.guard_at))}
            if pipes.stdin in ready:
                unsent = _feed(pipes.stdin, unsent)
                if not unsent:
                    poll.unregister(pipes.stdin)
                    pipes.close(pipes.stdin)
            for near in pipes.heard.keys() & ready:
                if not pipes.hear(near):
                    poll.unregister(near)
            if pipes.too_much:
                return False
            if watch in ready or (watch is None and _has_ended(pid)):
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
            if claim.guard_at is not None and time.monotonic() >= claim.guard_at:
                claim.guard()


def _feed(stdin: int, unsent: memoryview) -> memoryview:
    """Write as much as fits; return the rest. A child may end without reading its input."""
    try:
        return unsent[os.write(stdin, unsent) :]
    except BlockingIOError:
        return unsent
    except BrokenPipeError:
        return unsent[:0]


def _wait(watch: int | None, *until: float | None) -> float | None:
    """The milliseconds to poll until the first of these times; None: without limit."""
    now = time.monotonic()
    left = [max(0.0, moment - now) for moment in until if moment is not None]
    if watch is None:
        left.append(_TICK)
    return min(left) * 1000 + 1 if left else None


@contextlib.contextmanager
def _watched(pid: int) -> Iterator[int | None]:
    """A descriptor that becomes readable when the child ends, or None on an old kernel."""
    try:
        watch = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield watch
    finally:
        os.close(watch)


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
