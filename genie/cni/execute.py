"""How a plugin is run: the `Executor`, the only door to running anything, and direct mode's, which starts children.

In flows a `PluginCall`, out comes an `Outcome`; no exception leaves, no zombie, no pipe. Here that is done with
`os.posix_spawn` alone: Python's own `subprocess` would do, but importing it takes longer than starting a plugin, and
direct mode pays for imports on each ADD.

A plugin has ended when its process has, not its pipes: a daemon that it leaves behind may hold them open.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
import select
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

BUSY_RETRIES, BUSY_WAIT = 5, 0.2  # seconds
_TICK = 0.01  # seconds between looks at a child, on kernels without pidfd (before 5.3)


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

    async def run(self, call: PluginCall) -> Outcome:
        """Run one plugin to its end."""
        ...

    async def gather(self, *work: Coroutine[Any, Any, T]) -> list[T | BaseException]:
        """Run all to their end, at the same time if possible; exceptions are returned in their places."""
        ...

    def in_thread(self, work: Callable[[], T]) -> Awaitable[T]:
        """Begin what may block for a while, without keeping anything else from going on; to await what this returns is
        to wait for its end, and raises what it raises.
        """
        ...


async def run(executor: Executor, call: PluginCall) -> Outcome:
    """Run a plugin; again, for a second, while its executable is being written (an upgrade): "text file busy"."""
    for _ in range(BUSY_RETRIES):
        outcome = await executor.run(call)
        if outcome.errno != errno.ETXTBSY:
            return outcome
        await executor.in_thread(lambda: time.sleep(BUSY_WAIT))
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
    """Runs plugins as children, each in a session of its own; out of time, its whole group is killed."""

    async def run(self, call: PluginCall) -> Outcome:
        """Run one plugin to its end, blocking. What it logs goes on to our standard error."""
        outcome = _run(call)
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

    def in_thread(self, work: Callable[[], T]) -> Awaitable[T]:
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


# One child process, with a time limit


def _run(call: PluginCall) -> Outcome:
    """Run a plugin to its end, or to the end of its time, when its whole process group is killed."""
    began = time.monotonic()
    try:
        with _Pipes() as pipes:
            pid = _spawn(call, pipes)
            pipes.close_far_ends()
            deadline = None if call.timeout is None else began + call.timeout
            status, in_time = _attend(pid, pipes, call.stdin, deadline)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the environment
        why, number = (error.strerror, error.errno) if isinstance(error, OSError) else (str(error), errno.EINVAL)
        return Outcome(status=-1, error=f"{call.binary} could not be started: {why}", errno=number or errno.EINVAL)
    return Outcome(
        status=status,
        stdout=bytes(pipes.heard[pipes.stdout]),
        stderr=bytes(pipes.heard[pipes.stderr]),
        seconds=time.monotonic() - began,
        error="" if in_time else f"no answer within {call.timeout:g} seconds; killed",
    )


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
        """Take in what is there to read; False at the end of it."""
        while True:
            try:
                part = os.read(near, 65536)
            except BlockingIOError:
                return True
            if not part:
                return False
            self.heard[near] += part


def _spawn(call: PluginCall, pipes: _Pipes) -> int:
    """Start the child in a session of its own. Raises OSError."""
    actions = [
        (os.POSIX_SPAWN_DUP2, pipes.far_stdin, 0),
        (os.POSIX_SPAWN_DUP2, pipes.far_stdout, 1),
        (os.POSIX_SPAWN_DUP2, pipes.far_stderr, 2),
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


def _attend(pid: int, pipes: _Pipes, stdin: bytes, deadline: float | None) -> tuple[int, bool]:
    """Feed and listen until the child has ended. Returns its status, and whether that was in time.

    deadline: by time.monotonic(). Whatever happens here, the child is ended and reaped.
    """
    in_time = False
    watch = _watch(pid)
    try:
        in_time = _converse(pid, watch, pipes, stdin, deadline)
    finally:
        if not in_time:
            _kill(pid)
        _, wait_status = os.waitpid(pid, 0)
        if watch is not None:
            os.close(watch)
    for near in pipes.heard:
        pipes.hear(near)
    return os.waitstatus_to_exitcode(wait_status), in_time


def _converse(pid: int, watch: int | None, pipes: _Pipes, stdin: bytes, deadline: float | None) -> bool:
    """Until the child has ended (True; it is yet to be reaped) or its time is up (False)."""
    poll = select.poll()
    for near in pipes.heard:
        poll.register(near, select.POLLIN)
    poll.register(pipes.stdin, select.POLLOUT)
    if watch is not None:
        poll.register(watch, select.POLLIN)
    unsent = memoryview(stdin)
    while True:
        ready = {end for end, _ in poll.poll(_wait(watch, deadline))}
        if pipes.stdin in ready:
            unsent = _feed(pipes.stdin, unsent)
            if not unsent:
                poll.unregister(pipes.stdin)
                pipes.close(pipes.stdin)
        for near in pipes.heard.keys() & ready:
            if not pipes.hear(near):
                poll.unregister(near)
        if watch in ready or (watch is None and _has_ended(pid)):
            return True
        if deadline is not None and time.monotonic() >= deadline:
            return False


def _feed(stdin: int, unsent: memoryview) -> memoryview:
    """Write what fits; return the rest. A child that does not read its input is none of our business."""
    try:
        return unsent[os.write(stdin, unsent) :]
    except BlockingIOError:
        return unsent
    except BrokenPipeError:
        return unsent[:0]


def _wait(watch: int | None, deadline: float | None) -> float | None:
    """Milliseconds to poll for, None for ever."""
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    if watch is None:
        left = _TICK if left is None else min(left, _TICK)
    return None if left is None else left * 1000 + 1


def _watch(pid: int) -> int | None:
    """A descriptor that becomes readable when the child ends, or None on an old kernel."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill(pid: int) -> None:
    """Kill the child's process group, of which it is the leader since it began."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
