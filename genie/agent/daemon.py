"""`genie agent`: connects the parts, and starts and ends them in order.

Start: credentials → watches → annotations left from the previous agent → the socket, ready. From then on calls are
served from the cache. End, on SIGTERM: the socket is closed, the calls in flight are finished, the annotations are
written, and the process ends. In a rolling update the next agent has taken over the socket by then, and this one has
more time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from genie import __version__, config, kube, locks, removals
from genie import log as logs
from genie.agent import checker, collector, protocol
from genie.agent import metrics as metric
from genie.agent.cache import Asker, read_object
from genie.agent.calico import CalicoPools
from genie.agent.checker import Checker
from genie.agent.collector import Collector
from genie.agent.offline import OBJECTS, REFRESH, OfflineKube
from genie.agent.reporter import Reporter
from genie.agent.server import CONCURRENCY, Server, ShimExecutor, answers
from genie.agent.traffic import READING, Traffic, store
from genie.agent.writer import Writer, left_over
from genie.cni.errors import CniError
from genie.cni.execute import compute
from genie.cni.fields import invalid
from genie.config import DEFAULT_CONF_DIR, Conf, Credentials
from genie.kube import write_annotations
from genie.log import Complaint, Log
from genie.records import Records
from genie.request import REQUIRED, Reply, Request
from genie.serve import serve
from genie.verbs.network_status import shorter

if TYPE_CHECKING:
    from genie.agent.policies import Policies

SOCKET = "/run/genie/agent.sock"
LISTEN = "127.0.0.1:9465"
GRACE = 25.0
LOG_LEVELS = ("debug", "info", "warning", "error")
GRACE_IF_REPLACED = 230.0
"""Seconds for calls in flight when a newer agent serves already: no call is longer (CALL_MS in shim.c)."""
_FIRST_LISTS = 3.0
"""Seconds to wait for the first lists; after that, calls are served without them."""
_STDERR_SHOWN = 500
_CACHED_CONF = 16384
"""The limit for remembering a parsed genie.conf, in bytes: with a pod's data from the runtime it can be far longer."""
_SAMPLED = 10.0
"""Seconds between two readings of the interfaces' counters."""

log = Log("genie.agent")
_source = Complaint(log, "going on with the genie.conf in net.d", logging.ERROR)
_unread = Complaint(log, "the traffic of the networks cannot be read")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of `genie agent`. None: taken from genie.conf, otherwise the default (see `with_conf`)."""

    socket: Path
    node: str
    conf: Path | None
    kubeconfig: str
    concurrency: int | None
    listen: str | None
    grace: float | None
    ready_file: Path | None
    log_level: str | None


class Agent:
    """One agent; must be created in its own event loop."""

    def __init__(self, settings: Settings, conf: Conf) -> None:
        self.settings, self.conf = settings, conf
        self.metrics = metric.Metrics()
        patching = Asker(self._connect)
        self.reporter = Reporter(Asker(self._connect).ask, settings.node, self.metrics.events)
        self.writer = Writer(
            lambda pod, notes: patching.ask(lambda client: write_annotations(client, pod, notes, shorter)),
            self.metrics,
            self.reporter,
        )
        self.kube = OfflineKube(
            self._connect, settings.node, self.writer, self.metrics, f"{conf.state_dir}/{OBJECTS}",
            labels=conf.agent.policy,
        )  # fmt: skip
        self.policies = self._policies() if conf.agent.policy else None
        self.server = Server(self.work, concurrency=settings.concurrency or CONCURRENCY, metrics=self.metrics)
        self.metrics.active.read = lambda: {(): self.server.active}
        self.metrics.waiting.read = lambda: {(): self.server.waiting}
        self.metrics.removals.read = lambda: {(): noted.count if (noted := removals.read(conf.state_dir)) else 0}
        self.checker = Checker(self.server.serves, self.metrics.drift, self.reporter.add, self._most_repairs)
        self.collector = Collector(self.kube, self.server.serves, self.metrics.collected)
        self.ready = False
        self._ready_file = -1
        self.traffic = Traffic(self.metrics, CalicoPools(self._connect).of)
        self.stopping = asyncio.Event()

    def _connect(self, seconds: float) -> kube.Client:
        """A client with the credentials on disk: `genie install` may have renewed them."""
        return kube.Client(api_server(self.settings, current_conf(self.settings)), seconds, read_object)

    def _policies(self) -> Policies:
        from genie.agent.policies import Policies  # most clusters have none

        return Policies(
            self._connect,
            node=self.settings.node,
            kube=self.kube,
            metrics=self.metrics,
            report=self.reporter.add,
            state_dir=self.conf.state_dir,
        )

    def _most_repairs(self) -> int:
        """How often the agent may repair one pod, by genie.conf as it is now."""
        return checker.MOST if current_conf(self.settings).agent.repair else 0

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        async with contextlib.AsyncExitStack() as stack:
            probes = contextlib.ExitStack()  # ended first, so that the next agent answers the probes
            stack.push(probes)
            if self.settings.listen:
                host, port = _address(self.settings.listen)
                web = await metric.serve(self.metrics, host, port, alive=self._alive, ready=lambda: self.ready)
                probes.callback(web.close)
            self.kube.start()
            stack.callback(self.kube.stop)
            if self.policies:
                self.policies.start()
                stack.callback(self.policies.stop)
            for work in (self.writer.run(), self._sample(), self._tend(), self._keep_objects(), self._left_over()):
                stack.callback(loop.create_task(work).cancel)
            await self._first_lists()
            # Objects made so far live as long as the agent: the garbage collector need not scan them during a call.
            gc.collect()
            gc.freeze()
            self.settings.socket.parent.mkdir(0o700, parents=True, exist_ok=True)
            await self.server.start(self.settings.socket)
            self._say_ready()
            await self.stopping.wait()
            probes.close()
            await self._end()

    async def _alive(self) -> bool:
        """Whether calls are answered, once the socket exists: checked by a call like a shim's."""
        return not self.ready or await answers(self.settings.socket)

    async def _sample(self) -> None:
        """Read the counters of the attachments' interfaces from time to time, for the rates that `cni: ""` uses."""
        while True:
            try:
                sample = await asyncio.to_thread(self.traffic.sample, current_conf(self.settings))
                self.traffic.take(sample)
                path = self.settings.socket.with_name(os.path.basename(READING))
                await asyncio.to_thread(store, sample.reading, str(path))
            except CniError:
                pass  # a damaged record is left to its container's DEL
            except Exception as error:  # go on after any error, such as no more threads: nothing else would read them
                _unread.about(error)
            else:
                _unread.over()
            await asyncio.sleep(_SAMPLED)

    async def _tend(self) -> None:
        """Check the pods and look for orphans from time to time."""
        while True:
            await asyncio.sleep(collector.EVERY)
            try:
                await asyncio.to_thread(self.collector.look, self.conf.state_dir)
                await asyncio.to_thread(self.checker.look, self.conf.state_dir)
                await self.collector.judge()
            except Exception as error:  # go on after any error: nothing else would check the next time
                log.warning("the pods could not be checked", error=str(error) or type(error).__name__)

    async def _first_lists(self) -> None:
        deadline = time.monotonic() + _FIRST_LISTS
        while not self._synced() and time.monotonic() < deadline and not self.stopping.is_set():
            await asyncio.sleep(0.01)
        if not self._synced():
            log.warning("the API server has not answered yet; serving calls anyway")

    def _synced(self) -> bool:
        return self.kube.synced() and (self.policies is None or self.policies.synced())

    async def _keep_objects(self) -> None:
        """Update the network objects on disk from the watches."""
        while True:
            await asyncio.sleep(REFRESH)
            await self.kube.refresh()

    async def _left_over(self) -> None:
        """Write annotations that the previous agent did not write, once the pods are known."""
        while not self.kube.pods.listed.is_set():
            await asyncio.sleep(0.05)
        pods = self.kube.pods.items
        try:
            found = await asyncio.to_thread(lambda: left_over(Records(self.conf.state_dir).dated(), pods))
        except CniError as error:
            log.warning("the records could not be read", error=str(error))
            return
        for pod, missing in found:
            self.writer.add(pod, missing)
        if found:
            log.info("annotations from before are being written", pods=len(found))

    def _say_ready(self) -> None:
        self.ready = True
        if self.settings.ready_file:
            self._ready_file = locks.hold(str(self.settings.ready_file))
        log.info("READY", version=__version__, socket=str(self.settings.socket))
        if address := os.environ.get("NOTIFY_SOCKET"):  # sd_notify(3), where systemd runs the agent
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, contextlib.suppress(OSError):
                notify.sendto(b"READY=1", address.replace("@", "\0", 1) if address[0] == "@" else address)

    async def _end(self) -> None:
        self.ready = False
        if self._ready_file >= 0:
            os.close(self._ready_file)
        log.info("stopping", active=self.server.active, waiting=self.server.waiting)
        finished = await self.server.stop(self.settings.grace or 0.0, GRACE_IF_REPLACED)
        written = await self.writer.flush(3.0)
        await asyncio.get_running_loop().run_in_executor(None, self.reporter.flush, 1.0)
        log.info("stopped", calls_finished=finished, annotations_written=written)

    async def work(self, call: protocol.Call, executor: ShimExecutor) -> protocol.Answer:
        """Serve one call; returns its reply for the server."""
        began = time.perf_counter()
        request = Request(env=call.env, stdin=call.stdin, namespace=executor.namespace)
        try:
            if len(call.stdin) < _CACHED_CONF:
                conf = _conf(call.stdin)
            else:  # with the result of the ADD, or the pod's annotations
                conf = await compute(executor, lambda: config.read(call.stdin), size=len(call.stdin))
        except CniError:
            conf = None  # `serve` gets the same error, and reports it in the verb's form
        collecting = None
        if conf and self.collector.waiting:
            collecting = asyncio.create_task(self.collector.beside(request, executor, conf))
        reply = await serve(request, self.kube, executor, conf, self.traffic.last.reading, guard=self.policies)
        if collecting:
            await collecting  # the shim ends when it has the answer
        seconds = time.perf_counter() - began
        # The answer goes out first.
        asyncio.get_running_loop().call_soon(self._account, reply, executor, seconds)
        return protocol.Answer(status=reply.status, stdout=reply.stdout)

    def _account(self, reply: Reply, executor: ShimExecutor, seconds: float) -> None:
        story = dict(reply.story)
        verb = story.get("verb") if story.get("verb") in REQUIRED else "other"
        own = max(seconds - executor.busy, 0.0)
        result = "ok" if reply.status == 0 else "error"
        self.metrics.calls.add(1, str(verb), result)
        self.metrics.seconds.observe(seconds, str(verb))
        self.metrics.own.observe(own, str(verb))
        logged = []
        for call, outcome in executor.outcomes:
            plugin = call.binary.rpartition("/")[2]
            good = "ok" if outcome.status == 0 and not outcome.error else "error"
            self.metrics.delegates.observe(outcome.seconds, plugin, call.env.get("CNI_COMMAND", ""), good)
            if outcome.stderr:
                logged.append([plugin, outcome.stderr[-_STDERR_SHOWN:].decode("utf-8", "replace").strip()])
        story |= {"seconds": round(seconds, 6), "own_ms": round(own * 1000, 3), "result": result}
        if logged:
            story["stderr"] = logged
        level = logging.DEBUG if verb == "VERSION" else logging.INFO  # each health check calls it
        log.log(level if reply.status == 0 else logging.ERROR, "call", **story)


@functools.lru_cache(maxsize=16)
def _conf(stdin: bytes) -> Conf:
    """Parse genie.conf from the runtime. Almost all calls have the same bytes, so it is parsed once."""
    return config.read(stdin)


def current_conf(settings: Settings) -> Conf:
    """The current genie.conf: the option's, otherwise the one in net.d, otherwise the defaults. If the first has a
    mistake, the agent uses the second, which `genie install` has checked.

    Raises CniError: none can be used.
    """
    installed = config.find(DEFAULT_CONF_DIR)
    if settings.conf is not None:
        try:
            return config.load(str(settings.conf))
        except CniError as error:
            if installed is None:
                raise
            _source.about(error)
    if installed is None:  # genie may be installed on the node after its agent has started
        return config.defaults()
    return config.load(installed)


def api_server(settings: Settings, conf: Conf) -> kube.ApiServer:
    """--kubeconfig, otherwise the pod's service account, otherwise genie.conf, with paths on the node.

    Raises CniError: none of them is usable.
    """
    if settings.kubeconfig:
        return kube.server(Credentials(kubeconfig=settings.kubeconfig, source="genie agent", setting="--kubeconfig"))
    try:
        return kube.server(Credentials())
    except CniError:
        return kube.server(conf.credentials)


def parse(argv: list[str]) -> Settings:
    """Settings from the command line; exits with status 2 if an option is invalid."""
    parser = argparse.ArgumentParser(
        prog="genie agent",
        description="Serve the CNI calls of this node, which the shim in /opt/cni/bin passes on. Runs until SIGTERM, "
        "and then finishes the calls in flight. The DaemonSet runs this; so may a systemd unit (Type=notify).",
    )
    add = parser.add_argument
    add(
        "--socket", default=SOCKET, type=Path, metavar="PATH",
        help="the socket that the shim connects to (default: %(default)s)",
    )  # fmt: skip
    add(
        "--node", default=os.environ.get("NODE_NAME", ""), metavar="NAME",
        help="this node's name in the cluster, to watch its pods; $NODE_NAME if not given",
    )  # fmt: skip
    add(
        "--conf", type=Path, metavar="PATH",
        help=f"genie.conf; if not given, the file of type genie in {DEFAULT_CONF_DIR}, if there is one",
    )  # fmt: skip
    add(
        "--kubeconfig", default="", metavar="PATH",
        help="how to reach the API server; if not given, the pod's service account, otherwise genie.conf",
    )  # fmt: skip
    add(
        "--concurrency", type=_positive, metavar="N",
        help="plugins of one network that run at once for one verb; the rest wait "
        f"(genie.conf's agent.concurrency, else {CONCURRENCY})",
    )  # fmt: skip
    add(
        "--listen", type=_listen, metavar="HOST:PORT",
        help='where /metrics, /healthz and /readyz are served over HTTP; "" for nowhere '
        f"(genie.conf's agent.listen, else {LISTEN})",
    )  # fmt: skip
    add(
        "--grace", type=float, metavar="SECONDS",
        help=f"how long SIGTERM waits for calls in flight (genie.conf's agent.grace, else {GRACE:g})",
    )  # fmt: skip
    add(
        "--ready-file", type=Path, metavar="PATH",
        help="a file to hold locked (flock) while this agent serves calls. A probe can look at it: on a node with two "
        "agents for a moment, in an update, /readyz may be the other one's",
    )  # fmt: skip
    add(
        "--log-level", choices=LOG_LEVELS,
        help="how much is logged (genie.conf's log_level, else info)",
    )  # fmt: skip
    settings = Settings(**vars(parser.parse_args(argv)))
    if not settings.node:
        parser.error("--node or $NODE_NAME is needed: without it the pods of this node are not known from others'")
    return settings


def with_conf(settings: Settings, conf: Conf) -> Settings:
    """All settings: the command line's, else genie.conf's, else the defaults.

    Raises CniError: 7; genie.conf's `agent.listen` is not an address.
    """
    given = conf.agent
    if given.listen:
        try:
            _address(given.listen)
        except ValueError as error:
            raise invalid("genie.conf: agent", f"listen: expected HOST:PORT, found {given.listen!r}") from error
    return replace(
        settings,
        concurrency=settings.concurrency or given.concurrency or CONCURRENCY,
        listen=next(each for each in (settings.listen, given.listen, LISTEN) if each is not None),
        grace=next(each for each in (settings.grace, given.grace, GRACE) if each is not None),
        log_level=settings.log_level or (conf.log_level if conf.log_level in LOG_LEVELS else "info"),
    )


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError(text)
    return value


def _listen(text: str) -> str:
    if text:
        _address(text)
    return text


def _address(text: str) -> tuple[str, int]:
    """Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not 0 <= int(port) < 65536:
        raise ValueError(text)
    return host.strip("[]") or "0.0.0.0", int(port)


def main(argv: list[str] | None = None) -> int:
    """Run the agent; returns the exit status."""
    settings = parse(sys.argv[2:] if argv is None else argv)
    logs.setup(settings.log_level or "info")
    try:
        conf = current_conf(settings)
        settings = with_conf(settings, conf)
        logs.setup(settings.log_level or "info")
        api_server(settings, conf)  # report problems with the credentials at once
    except CniError as error:
        log.error("cannot start", error=str(error))
        return 1
    _import_all()
    try:
        asyncio.run(_run(settings, conf))
    except OSError as error:
        log.error("cannot serve", error=str(error))
        return 1
    return 0


async def _run(settings: Settings, conf: Conf) -> None:
    await Agent(settings, conf).run()


def _import_all() -> None:
    """Import the modules that direct mode imports only when needed: the agent's first call should not wait for them."""
    import hashlib
    import http.client
    import ipaddress

    from genie.kernel import routes
    from genie.select import spent
    from genie.verbs import add, check, default_route, device_info, footprint, gc, status

    _ = (hashlib, http.client, ipaddress, spent, routes, add, check, default_route, device_info, footprint, gc, status)
