"""How a plugin is run: the `Executor`, the only door to running anything, and direct mode's, which starts children.

In flows a `PluginCall`, out comes an `Outcome`; no exception leaves, no zombie, no pipe. Here that is done with
`os.posix_spawn` alone: Python's own `subprocess` would do, but importing it takes longer than starting a plugin, and
direct mode pays for imports on each ADD.

What is started belongs to a `Claim`, by which it is found and ended when the call is cut off.

A plugin has ended when its process has, not its pipes: a daemon that it leaves behind may hold them open.
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
from typing import Any, NamedTuple, Protocol, TypeVar

T = TypeVar("T")

BUSY_RETRIES, BUSY_WAIT = 5, 0.2  # seconds
STDOUT_MAX, STDERR_MAX = 1 << 20, 64 << 10  # bytes, as in shim.c: more than that is killed; the rest is dropped
_PIECE, _PIECES = 1 << 16, 32
_TICK = 0.01  # seconds between looks at a child, on kernels without pidfd (before 5.3)
_GUARD_AFTER = 0.3  # seconds; runtimes kill only what has taken long, so most calls never pay for a guard
_MARK = 250
"""The number under which a plugin has its descriptor of the claim's file: below every limit, above what shells use."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginCall:
    """One plugin to run. env is complete, nothing is inherited. timeout: seconds; None: no limit. network: the
    source of the network's configuration, by which an executor may keep networks out of each other's way.
    """

    binary: str
    env: Mapping[str, str]
    stdin: bytes
    timeout: float | None = None
    network: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How it went. status: the exit status, or a signal's number negated. seconds: how long it ran.

    error: "" or why there is no exit status of the plugin's own (it could not be started, it took too long). errno: of
    a plugin that could not be started; 0 of any other.
    """

    status: int
    stdout: bytes = b""
    stderr: bytes = b""
    seconds: float = 0.0
    error: str = ""
    errno: int = 0


class Executor(Protocol):
    """Runs plugins, somewhere. Failures to do so are an Outcome's `error`, not exceptions."""

    async def claim(self, path: str) -> None:
        """What is run from here on is for the container that this file stands for. What an earlier call for it has left
        running ends first, so that nothing is attached after its DEL.

        Raises:
            CniError: 11; it does not end.
        """
        ...

    async def run(self, call: PluginCall) -> Outcome:
        """Run one plugin to its end."""
        ...

    async def gather(self, *work: Coroutine[Any, Any, T]) -> list[T | BaseException]:
        """Run all to their end, at the same time if possible; exceptions are returned in their places."""
        ...

    def in_thread(self, work: Callable[[], T], *, waits: bool = False) -> Awaitable[T]:
        """Begin what may block for a while, without keeping anything else from going on; to await what this returns is
        to wait for its end, and raises what it raises. waits: it may block for seconds, as no disk should.
        """
        ...


async def run(executor: Executor, call: PluginCall) -> Outcome:
    """Run a plugin; again, for a second, while its executable is being written (an upgrade): "text file busy"."""
    for _ in range(BUSY_RETRIES):
        outcome = await executor.run(call)
        if outcome.errno != errno.ETXTBSY:
            return outcome
        await executor.in_thread(lambda: time.sleep(BUSY_WAIT), waits=True)
    return await executor.run(call)


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine that never suspends, without an event loop."""
    try:
        work.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    work.close()
    raise RuntimeError(f"{work!r} waits for an event loop, and there is none")


class SubprocessExecutor:
    """Runs plugins as children, each in a session of its own. One that is cut off ends with all that it has started."""

    def __init__(self) -> None:
        self._claim: Claim | None = None

    async def claim(self, path: str) -> None:
        """At once, if nothing is left running."""
        self.close()
        self._claim = Claim(path)

    def close(self) -> None:
        """The call has come to its end."""
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
            with contextlib.suppress(OSError):  # nobody listening is no reason to fail
                os.write(2, outcome.stderr)
        return outcome

    async def gather(self, *work: Coroutine[Any, Any, T]) -> list[T | BaseException]:
        """One thread for each but the last, which the calling thread does itself."""
        import threading

        outcomes: list[T | BaseException] = [RuntimeError("not run")] * len(work)

        def do(position: int) -> None:
            try:
                outcomes[position] = run_sync(work[position])
            except BaseException as error:
                outcomes[position] = error

        threads = [threading.Thread(target=do, args=(position,)) for position in range(len(work) - 1)]
        for thread in threads:
            thread.start()
        if work:
            do(len(work) - 1)
        for thread in threads:
            thread.join()
        return outcomes

    def in_thread(self, work: Callable[[], T], *, waits: bool = False) -> Awaitable[T]:
        """In a thread, so that a delegate can run meanwhile."""
        return _Threaded(work)


class _Threaded(Awaitable[T]):
    """Work in a thread of its own, begun; to await it blocks until it has ended. `threading` would do, but importing it
    takes longer than most of the work.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._running = _thread.allocate_lock()
        self._running.acquire()
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:  # no more threads can be had
            self._run()

    def _run(self) -> None:
        try:
            self._value.append(self._work())
        except BaseException as error:
            self._error = error
        finally:
            self._running.release()

    def __await__(self) -> Generator[Any, None, T]:
        return self._wait().__await__()

    async def _wait(self) -> T:
        with self._running:
            if self._error is not None:
                raise self._error
            return self._value[0]


class Claim:
    """A call's right to a container, and the mark of all that it starts: a file, locked by each of them.

    path: of the file, which is there while the call is on, and stays where the call was killed. "": of no container;
    then nobody looks for what is left of the call but its guard.
    """

    def __init__(self, path: str = "") -> None:
        """Raises CniError: 11; what an earlier call left running does not end."""
        self._path, self._handle = path, -1
        self._handle = _locked(path) if path else -1
        if self._handle < 0:
            self._path, self._handle = "", os.memfd_create("genie-call", os.MFD_CLOEXEC)
            fcntl.flock(self._handle, fcntl.LOCK_SH)
        self._last, self._mutex = 0, _thread.allocate_lock()
        self._guard = (0, -1)  # its PID, and our end of its pipe
        self.guard_at: float | None = time.monotonic() + _GUARD_AFTER

    def close(self) -> None:
        """The call is over: what plugins left behind is none of its business."""
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

    __del__ = close  # of an executor that nobody closed

    @contextlib.contextmanager
    def mark(self) -> Iterator[_Mark]:
        """A mark for one more plugin. Taken off, what has inherited it is free, too. Raises OSError."""
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
        """A plugin is cut off: it ends with all that it has started."""
        from genie.cni import leftovers  # a call that goes well does not pay for it

        leftovers.end(self._handle, position, delegate, patience=2.0)

    def guard(self) -> None:
        """Start a process that ends what this one has started, should this one be killed."""
        with self._mutex:
            if self.guard_at is None:
                return
            self.guard_at = None
            with contextlib.suppress(OSError):  # without one, the DEL does it
                far, near = os.pipe2(os.O_CLOEXEC)
                from genie.cni import leftovers

                pid = os.fork()
                if not pid:
                    leftovers.be_guard(far, self._handle)
                os.close(far)
                self._guard = pid, near


def _locked(path: str) -> int:
    """A descriptor of the file, locked after what else held a lock of it has ended; -1 if the disk takes no file.

    Raises:
        CniError: 11; it does not end.
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
                from genie.cni import leftovers  # a call after one that went well does not pay for it

                leftovers.clear(handle)
            if os.stat(path).st_ino == os.fstat(handle).st_ino:
                fcntl.flock(handle, fcntl.LOCK_SH)
                return handle
        except FileNotFoundError:  # the call before this one has just come to its end
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


# One child process, with a time limit


def _run(call: PluginCall, claim: Claim) -> Outcome:
    """Run a plugin to its end, or to the end of its time, when it is killed with all that it has started."""
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
    """What a plugin and all that it starts are known by: a descriptor of the claim's file, locked, and its offset."""

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
        """Take in what is there to read; False at the end of it. Not for ever, though: somebody may go on writing."""
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
        """Whether the child printed more than a result can be."""
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
        # Python ignores these two, and an ignored signal would stay ignored in the child.
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
    )


def _attend(pid: int, pipes: _Pipes, stdin: bytes, deadline: float | None, mark: _Mark) -> tuple[int, bool]:
    """Feed and listen until the child has ended. Returns its status, and whether that was in time.

    deadline: by time.monotonic(). Whatever happens here, the child is ended and reaped. Where it did not end by itself,
    what it has started would go on with half of its work, so that ends, too.
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
    """Until the child has ended (True; it is yet to be reaped) or its time is up (False)."""
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
    """Write what fits; return the rest. A child that does not read its input is none of our business."""
    try:
        return unsent[os.write(stdin, unsent) :]
    except BlockingIOError:
        return unsent
    except BrokenPipeError:
        return unsent[:0]


def _wait(watch: int | None, *until: float | None) -> float | None:
    """Milliseconds to poll for, None for ever: to the first of some moments."""
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
