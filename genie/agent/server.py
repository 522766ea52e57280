"""The agent's end of the socket: each connection is one CNI call; the shim at the other end runs the delegates.

A connection is read (`Call`), served, and answered. A coroutine without access to the socket serves the call; it gets
the call and a `ShimExecutor`, which runs plugins through the shim. All calls are served at the same time. Only a plugin
may have to wait, for a slot of its network and verb (see slots.py). So a call that waits for the API server delays no
other call, and a network with a plugin that hangs delays only its own pods. More calls than `CALLS_MAX` are refused at
once, except DELs.

In an update the next agent takes over the socket while this one runs; this one finishes its calls. If the next one
fails, this one takes the socket back.

If the shim goes away (the runtime's deadline), its call ends: its delegates fail, and anything else that the call waits
for is cancelled. Calls for one container never overlap, so the following DEL finds a record that is not being written.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from genie import locks
from genie.agent import protocol
from genie.agent.metrics import Metrics
from genie.agent.slots import Slots
from genie.cni.execute import Outcome, PluginCall
from genie.cni.invoke import CALLED
from genie.log import Log

T = TypeVar("T")
Work = Callable[[protocol.Call, "ShimExecutor"], Awaitable[protocol.Answer]]

CONCURRENCY = 16
"""The limit for plugins of one network and one verb at the same time."""
CALLS_MAX = 1024
"""The limit for calls at the same time, more than the pods of a very full node; a DEL is never refused for it."""
CALL_TIMEOUT = 5.0
"""Seconds that a connection may take to send its call."""
DELEGATES_MAX = 16
"""The limit for delegates of one shim at the same time (the same as in shim.c)."""
HEALTH_TIMEOUT = 3.0
"""Seconds for the VERSION call of a health check; a probe in the DaemonSet has 5."""
_LATE = 5.0
"""Seconds that a shim may be late to report a delegate's timeout; after that the shim counts as gone."""
_PIECE = 65536  # bytes read at once
_RIGHTS = socket.CMSG_SPACE(struct.calcsize("i"))  # room for one descriptor; the kernel closes any others
_ACCEPT_PAUSE = 0.2
_LOOK = 0.2
"""Seconds between two checks of the socket's owner: far fewer than a shim tries to connect (CONNECT_MS in shim.c)."""

_WORKING = ThreadPoolExecutor(8, "work")
_WAITING = ThreadPoolExecutor(32, "wait")
"""The limit for separate threads for work that waits for others, such as a kubelet that hangs: no DEL waits behind it.
"""

log = Log(__name__)


class ShimExecutor:
    """Runs delegates through the shim. A failure to run one is an Outcome's `error`, as in the Executor protocol.

    order: which call this is, for the slots: the lower, the earlier. outcomes: each delegate that was run, for the log.
    busy: the seconds during which at least one was running, or waited for its slot. waited: the seconds that they
    waited, one after the other. namespace: a descriptor of the pod's network namespace, which lives as long as the
    call; -1 if the shim sent none.
    """

    def __init__(
        self, send: Callable[[bytes], None], give_up: Callable[[str], None], slots: Slots, order: float = 0.0
    ) -> None:
        self._send, self._give_up, self._slots, self._order = send, give_up, slots, order
        self._pending: dict[int, asyncio.Future[protocol.Result | None]] = {}
        self._waits: set[asyncio.Future[None]] = set()
        self._last_id = 0
        self._room = asyncio.Semaphore(DELEGATES_MAX)
        self._lost = ""
        self._began, self._under_way = 0.0, 0
        self.namespace = -1
        self.busy = self.waited = 0.0
        self.outcomes: list[tuple[PluginCall, Outcome]] = []

    async def claim(self, path: str) -> None:
        """Nothing to do: the server runs a container's calls one after the other, and a shim ends its delegates."""

    async def run(self, call: PluginCall) -> Outcome:
        if self._lost:  # the shim is gone, so do not wait for a slot
            return Outcome(status=-1, error=self._lost)
        asked = time.perf_counter()
        if not self._under_way:
            self._began = asked
        self._under_way += 1
        key = (call.network, call.env.get("CNI_COMMAND", ""))
        try:
            async with self._room, self._slots.use(key, self._order, self._waits):
                self.waited += time.perf_counter() - asked
                outcome = await self._run(call)
        except ConnectionError:  # of `lose`, while it waited
            outcome = Outcome(status=-1, error=self._lost)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self.busy += time.perf_counter() - self._began
        self.outcomes.append((call, outcome))
        return outcome

    async def gather(self, *work: Coroutine[Any, Any, T]) -> list[T | BaseException]:
        return await asyncio.gather(*work, return_exceptions=True)

    def in_thread(self, work: Callable[[], T], *, waits: bool = False) -> Awaitable[T]:
        begun = asyncio.get_running_loop().create_task(_in_thread(_WAITING if waits else _WORKING, work))
        return begun if waits else _Whole(begun)

    async def _run(self, call: PluginCall) -> Outcome:
        if self._lost:
            return Outcome(status=-1, error=self._lost)
        self._last_id += 1
        limit = max(1, int(call.timeout * 1000)) if call.timeout else 0
        try:
            frame = protocol.encode(
                protocol.Run(id=self._last_id, binary=call.binary, env=call.env, stdin=call.stdin, timeout=limit)
            )
        except protocol.ProtocolError as error:
            return Outcome(status=-1, error=f"{call.binary} could not be started: {error}", errno=errno.EINVAL)
        loop = asyncio.get_running_loop()
        late = loop.call_later(call.timeout + _LATE, self._give_up, "it is late") if call.timeout else None
        id_, future = self._last_id, loop.create_future()
        self._pending[id_] = future
        self._send(frame)
        try:
            result = await future
            return _outcome(call, result) if result else Outcome(status=-1, error=self._lost)
        finally:
            del self._pending[id_]
            if late:
                late.cancel()

    def resolve(self, result: protocol.Result) -> None:
        """Process a result from the shim.

        Raises ProtocolError: no such delegate is running.
        """
        future = self._pending.get(result.id)
        if future is None:
            raise protocol.ProtocolError(f"a result of delegate {result.id}, which is not running")
        if not future.done():
            future.set_result(result)

    def lose(self, why: str) -> bool:
        """The shim is gone: running delegates and later ones fail. Returns whether any was running."""
        self._lost = why
        running = [future for future in self._pending.values() if not future.done()]
        for future in running:
            future.set_result(None)
        if running:  # otherwise the call is cancelled, with anything that waits
            for waiting in self._waits:
                if not waiting.done():
                    waiting.set_exception(ConnectionError(why))
        return bool(running)


async def _in_thread(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """A coroutine, so that the thread starts when the call waits: a plugin is started before its record is synced."""
    return await asyncio.get_running_loop().run_in_executor(pool, work)


class _Whole(Awaitable[T]):
    """Work in a thread that a cancelled call waits for: it may be using something that the call is about to close."""

    def __init__(self, begun: asyncio.Task[T]) -> None:
        self._begun = begun

    def __await__(self) -> Generator[Any, None, T]:
        return self._end().__await__()

    async def _end(self) -> T:
        try:
            return await asyncio.shield(self._begun)
        except asyncio.CancelledError:
            await asyncio.wait({self._begun})
            raise


def _outcome(call: PluginCall, result: protocol.Result) -> Outcome:
    error = {
        protocol.How.EXITED: "",
        protocol.How.NOT_STARTED: f"{call.binary} could not be started: {os.strerror(result.errno)}",
        protocol.How.TIMED_OUT: f"no answer within {call.timeout or 0:g} seconds; killed",
        protocol.How.TOO_MUCH: "more than 1 MiB of output; killed",
    }[result.how]
    return Outcome(
        status=result.status,
        stdout=result.stdout,
        stderr=result.stderr,
        seconds=result.micros / 1e6,
        error=error,
        errno=result.errno if result.how == protocol.How.NOT_STARTED else 0,
    )


class _Connection:
    """One shim, on a plain socket: asyncio's transports would take twice the time of all else that is done here.

    The server owns it until `Server.done`, which is called exactly once: at the connection's end if there is no task
        yet, otherwise at the end of the task. The task itself does not call it, because a task that is cancelled before
        its start runs no code.
    """

    def __init__(self, server: Server, peer: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.arrived = time.perf_counter()
        self._server, self._socket, self._loop = server, peer, loop
        self._number = peer.fileno()  # for the loop, which makes a text of a socket's object at each change
        self._decoder = protocol.Decoder()
        self._unsent = b""
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.executor = ShimExecutor(self._send, self._drop, server.slots, self.arrived)
        self._timer = loop.call_later(CALL_TIMEOUT, self._drop, "it says nothing")

    def begin(self) -> None:
        self._loop.add_reader(self._number, self._readable)
        self._readable()  # its call has most often arrived by now

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_PIECE) if self._task else self._receive()
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        try:
            for frame in self._decoder.feed(data):
                self._take(frame)
        except protocol.ProtocolError:
            self._drop("it sent nonsense")

    def _receive(self) -> bytes:
        """Read the available data of the call, and the descriptor that comes with it."""
        data, ancillary, _, _ = self._socket.recvmsg(_PIECE, _RIGHTS, socket.MSG_CMSG_CLOEXEC)
        for _, _, numbers in ancillary:
            for handle in memoryview(numbers).cast("i"):
                if self.executor.namespace < 0 and _is_namespace(handle):
                    self.executor.namespace = handle
                else:
                    os.close(handle)
        return data

    def _take(self, frame: protocol.Frame) -> None:
        if isinstance(frame, protocol.Result) and self._task:
            self.executor.resolve(frame)
        elif isinstance(frame, protocol.Call) and not self._task:
            self._timer.cancel()
            self._task = self._loop.create_task(self._work(frame))
            self._task.add_done_callback(self._worked)
        else:
            raise protocol.ProtocolError(f"{type(frame).__name__} has no place here")

    async def _work(self, call: protocol.Call) -> None:
        answer = await self._server.answer(call, self)
        try:
            data = protocol.encode(answer)
        except protocol.ProtocolError as error:
            data = protocol.encode(_refusal(f"the result is too long: {error}", ""))
        self._send(data)

    def _worked(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("a call was not answered", exc_info=error)
        self._forget_namespace()
        self._server.done(self)
        if not self._unsent:
            self._close()

    def _forget_namespace(self) -> None:
        handle, self.executor.namespace = self.executor.namespace, -1
        if handle >= 0:
            os.close(handle)

    def _send(self, data: bytes) -> None:
        if self._closed:
            return
        if not self._unsent:
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                pass
            except OSError:  # reading finds out, too
                return
            if data:
                self._loop.add_writer(self._number, self._writable)
        self._unsent += data

    def _writable(self) -> None:
        unsent, self._unsent = self._unsent, b""
        self._loop.remove_writer(self._number)
        self._send(unsent)
        if not self._unsent and self._task and self._task.done():
            self._close()

    def _drop(self, why: str) -> None:
        """Close the connection: the shim, if it is one, reports the error to the runtime."""
        if not self._closed:
            self._server.metrics.shims_dropped.add(1, why)
            self._lost()

    def _lost(self) -> None:
        if self._closed:
            return
        self._close()
        running = self.executor.lose("the shim went away, killed by the runtime perhaps")
        if self._task is None:
            self._forget_namespace()
            self._server.done(self)
        elif not running:
            self._task.cancel()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._timer.cancel()
        self._loop.remove_reader(self._number)
        self._loop.remove_writer(self._number)
        self._socket.close()


class Server:
    """A socket for shims. work: serves a call; it must not raise, and is cancelled when the shim goes away."""

    def __init__(self, work: Work, *, concurrency: int = CONCURRENCY, metrics: Metrics | None = None) -> None:
        self.work, self.slots = work, Slots(concurrency)
        self.metrics = metrics or Metrics()
        self._active: set[_Connection] = set()
        self._working = 0
        self._containers: dict[str, asyncio.Task[Any]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._listener: socket.socket | None = None
        self._path: Path | None = None
        self._inode = (0, 0)
        self._looking: asyncio.TimerHandle | None = None

    async def start(self, path: Path) -> None:
        """Serve on this path. If another agent's socket is there, it is replaced in one step.

        Raises OSError: the socket cannot be created.
        """
        self._path = path
        with locks.alone(str(path.parent)):
            self._bind(path)
        self._look_later()

    def _bind(self, path: Path) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        os.fchmod(listener.fileno(), 0o600)  # before it has a name: on Linux bind() makes the file with this mode
        listener.bind(str(temporary))
        stat = temporary.stat()
        self._inode = (stat.st_dev, stat.st_ino)
        # A call waits in the kernel rather than being refused: the number is that of pods on a very full node.
        listener.listen(1024)
        listener.setblocking(False)
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)
        temporary.rename(path)

    async def stop(self, grace: float, grace_if_replaced: float | None = None) -> bool:
        """Accept no more calls and finish the current ones; returns whether all were finished within the grace
        (seconds).

        The socket is left alone if a newer agent has taken its place. Then nobody waits for this one to end, and
        grace_if_replaced holds, if given.
        """
        assert self._listener and self._path
        if self._looking:
            self._looking.cancel()
        with locks.alone(str(self._path.parent)):
            mine = self._has_socket()
            if mine:
                self._path.unlink()
            replaced = not mine and locks.answers(str(self._path))
        self._stop_listening(self._listener)
        if replaced and grace_if_replaced is not None:
            grace = grace_if_replaced
        try:
            await asyncio.wait_for(self._idle.wait(), grace)
        except TimeoutError:
            return False
        return True

    def _stop_listening(self, listener: socket.socket) -> None:
        self._accept(listener)  # accept the connections that are still in the queue
        asyncio.get_running_loop().remove_reader(listener)
        listener.close()

    def _has_socket(self) -> bool:
        assert self._path
        try:
            stat = self._path.stat()
        except OSError:
            return False
        return (stat.st_dev, stat.st_ino) == self._inode

    def _look_later(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(_LOOK, self._look)

    def _look(self) -> None:
        """Take the socket back if the agent that took it over is dead, or if the file was deleted: no other process
        would.
        """
        assert self._listener and self._path
        try:
            if not self._has_socket() and not locks.answers(str(self._path)):
                with locks.alone(str(self._path.parent)):
                    if not locks.answers(str(self._path)):
                        before = self._listener
                        self._bind(self._path)
                        self._stop_listening(before)
                        log.warning("taking the socket back: nobody answered on it")
        except OSError as error:
            log.error("cannot take the socket back", error=str(error))
        self._look_later()

    def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer, _ = listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError as error:  # most likely out of descriptors: calls wait until some are free
                log.error("cannot accept a call", error=str(error))
                loop.remove_reader(listener)
                loop.call_later(_ACCEPT_PAUSE, self._accept_again, listener)
                return
            if not _is_trusted(peer):
                peer.close()
                continue
            peer.setblocking(False)
            connection = _Connection(self, peer, loop)
            self._active.add(connection)
            self._idle.clear()
            connection.begin()

    def _accept_again(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)
            self._accept(listener)

    @property
    def active(self) -> int:
        return len(self._active)

    @property
    def waiting(self) -> int:
        """The number of plugins that wait for a slot."""
        return self.slots.waiting

    def serves(self, container: str) -> bool:
        """Whether a call for this container is being served."""
        return container in self._containers

    def done(self, connection: _Connection) -> None:
        self._active.discard(connection)
        if not self._active:
            self._idle.set()

    async def answer(self, call: protocol.Call, connection: _Connection) -> protocol.Answer:
        if call.version != protocol.VERSION:
            why = f"this agent speaks version {protocol.VERSION} of its protocol, the shim {call.version}"
            return _refusal(why, "an update is under way")
        if self._working >= CALLS_MAX and call.env.get("CNI_COMMAND") != "DEL":
            return _refusal(f"the agent works on {CALLS_MAX} calls already, its limit; try again later", "")
        task = asyncio.current_task()
        # genie as its own delegate is refused; it must not wait for the call that waits for it
        container = "" if call.env.get(CALLED) else call.env.get("CNI_CONTAINERID", "")
        before = self._containers.get(container)
        if container and task:
            self._containers[container] = task
        self._working += 1
        try:
            if container and before:
                await asyncio.wait({before})
            return await self.work(call, connection.executor)
        finally:
            self._working -= 1
            self.metrics.waited.observe(connection.executor.waited)
            if self._containers.get(container) is task:
                del self._containers[container]


def _refusal(msg: str, details: str) -> protocol.Answer:
    import json

    error = {"cniVersion": "1.0.0", "code": 11, "msg": f"genie: {msg}", "details": details}
    return protocol.Answer(status=1, stdout=json.dumps(error).encode())


async def answers(path: Path) -> bool:
    """Whether a whole call on this socket, a VERSION, is answered well within `HEALTH_TIMEOUT`."""
    call = protocol.Call(env={"CNI_COMMAND": "VERSION"}, stdin=b'{"cniVersion": "1.0.0"}')
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(protocol.encode(call))
                (answer,) = protocol.Decoder().feed(await reader.read())
            finally:
                writer.close()
    except (OSError, ValueError, protocol.ProtocolError):  # TimeoutError is an OSError
        return False
    return isinstance(answer, protocol.Answer) and answer.status == 0 and b"supportedVersions" in answer.stdout


def _is_namespace(handle: int) -> bool:
    """Whether a descriptor is a namespace's, and not of a file that could block."""
    return os.fstat(handle).st_dev == os.stat("/proc/self/ns/net").st_dev


def _is_trusted(peer: socket.socket) -> bool:
    """Whether the peer is root or the agent's own user. The socket's mode has the same rule; this also holds if the
    mode was changed.
    """
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (0, os.geteuid())
