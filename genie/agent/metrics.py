"""The agent's metrics, in Prometheus' text format, and the small HTTP server for them.

Written by hand: prometheus_client would save about 110 lines and cost each agent 3.35 MB and about 25 ms at its start.
All of it runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from contextlib import suppress

from genie import __version__

BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class _Metric:
    """The common part of the three kinds: a name, a sentence of help, the names of the labels."""

    def __init__(self, name: str, help_: str, *labels: str) -> None:
        self.name, self.help, self.labels = name, help_, labels


class Gauge(_Metric):
    """A number that is read when it is reported: for each value of its label, if it has one."""

    kind = "gauge"
    read: Callable[[], dict[tuple[str, ...], float]] = dict

    def lines(self) -> list[str]:
        return [f"{self.name}{_labels(self.labels, values)} {_exact(n)}" for values, n in sorted(self.read().items())]


class Counter(Gauge):
    """A number that grows, for each combination of labels."""

    kind = "counter"

    def __init__(self, name: str, help_: str, *labels: str) -> None:
        super().__init__(name, help_, *labels)
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0}
        self.read = lambda: self._values

    def add(self, amount: float, *values: str) -> None:
        self._values[values] = self._values.get(values, 0) + amount

    def value(self, *values: str) -> float:
        return self._values.get(values, 0)


class Histogram(_Metric):
    """The distribution of times, for each combination of labels."""

    kind = "histogram"

    def __init__(self, name: str, help_: str, *labels: str) -> None:
        super().__init__(name, help_, *labels)
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, seconds: float, *values: str) -> None:
        counts = self._counts.setdefault(values, [0] * (len(BUCKETS) + 1))
        counts[bisect_left(BUCKETS, seconds)] += 1
        self._sums[values] = self._sums.get(values, 0.0) + seconds

    def lines(self) -> list[str]:
        lines = []
        for values, counts in sorted(self._counts.items()):
            below = 0
            for bound, count in zip([f"{bound:g}" for bound in BUCKETS] + ["+Inf"], counts, strict=True):
                below += count
                lines.append(f"{self.name}_bucket{_labels((*self.labels, 'le'), (*values, bound))} {below}")
            lines.append(f"{self.name}_sum{_labels(self.labels, values)} {_exact(self._sums[values])}")
            lines.append(f"{self.name}_count{_labels(self.labels, values)} {below}")
        return lines


class Metrics:
    def __init__(self) -> None:
        self.build = Gauge("genie_build_info", "Always 1; the version of this agent.", "version")
        self.build.read = lambda: {(__version__,): 1}
        self.calls = Counter(
            "genie_calls_total", "CNI calls answered: ADD, DEL, CHECK, GC, STATUS; ok or error.", "verb", "result"
        )
        self.seconds = Histogram(
            "genie_call_seconds", "Time of a CNI call until its answer, networks' plugins included.", "verb"
        )
        self.own = Histogram(
            "genie_call_own_seconds",
            "The part of genie_call_seconds without running or waiting plugins.",
            "verb",
        )
        self.waited = Histogram(
            "genie_call_wait_seconds",
            "Time that a call's plugins waited for a slot of their network (--concurrency).",
        )
        self.delegates = Histogram(
            "genie_delegate_seconds", "Time of one run of a network's plugin.", "plugin", "verb", "result"
        )
        self.active = Gauge("genie_calls_active", "CNI calls in progress.")
        self.waiting = Gauge("genie_calls_waiting", "Plugins waiting for a slot of their network.")
        self.shims_dropped = Counter(
            "genie_shims_dropped_total", "Connections that the agent closed: they sent nothing or invalid data.", "why"
        )
        self.collected = Counter(
            "genie_collected_total",
            "Deletions of containers that the runtime forgot: ok or error.",
            "result",
        )
        self.drift = Counter(
            "genie_drift_total",
            "Routes, rules and addresses of pods that somebody changed: repaired, or left.",
            "result",
        )
        self.api_direct = Counter(
            "genie_api_direct_total", "Objects requested from the API server: the watch did not have them yet.", "what"
        )
        self.offline = Counter(
            "genie_api_offline_total",
            "Network objects read from the node's disk, because the API server was away.",
            "kind",
        )
        self.patches = Counter(
            "genie_annotation_patches_total",
            "Attempts to write annotations to a pod: written, shortened (not all of it fitted), refused by the API "
            "server, or failed (and made again).",
            "result",
        )
        self.unwritten = Gauge(
            "genie_annotations_waiting", "Pods with annotations to be written; above 0 for long: API trouble."
        )
        self.events = Counter(
            "genie_events_total",
            "Events of pods: written, refused by the API server, or dropped (too many, or it was away for too long).",
            "result",
        )
        self.removals = Counter(
            "genie_conf_removed_total",
            "Times that somebody removed genie's configuration or plugin from this node, or put a file before it.",
        )
        self.policies = Gauge(
            "genie_policies", "Network policies: ok, or bad (malformed, or too large; see their Events).", "result"
        )
        self.policy_rules = Counter(
            "genie_policy_rules_total",
            "Times that the rules of a pod were set: ok, failed, or repaired (somebody had changed them).",
            "result",
        )
        self.attachments = Gauge("genie_network_attachments", "Attachments of pods on this node.", "network")
        self.received_bytes = Counter(
            "genie_network_received_bytes_total", "Bytes that pods of this node received on a network.", "network"
        )
        self.sent_bytes = Counter(
            "genie_network_sent_bytes_total", "Bytes that pods of this node sent on a network.", "network"
        )
        self.drops = Counter(
            "genie_network_drops_total",
            "Packets dropped at the ends of pods' interfaces (see docs/install.md).",
            "network",
        )
        self.pool_used = Gauge(
            "genie_network_pool_used",
            "Addresses of a network that are used on this node, where they are known.",
            "network",
        )
        self.pool_total = Gauge(
            "genie_network_pool_total", "Addresses that a network has on this node, where they are known.", "network"
        )
        self.pod_networks = Gauge(
            "pod_network_name_info",
            "Always 0, to be added to container_network_*: the network of a pod's interface.",
            *("pod", "namespace", "interface", "network_name"),
        )
        self.cache_age = Gauge(
            "genie_cache_age_seconds",
            "Time since the API server last sent data; after a few minutes the cache may be out of date.",
            "resource",
        )
        self.cached = Gauge(
            "genie_cache_objects", "Objects known: pods of this node, network objects of the cluster.", "resource"
        )

    def text(self) -> str:
        """The exposition: https://prometheus.io/docs/instrumenting/exposition_formats/."""
        lines: list[str] = []
        for metric in vars(self).values():
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}", *metric.lines()]
        return "\n".join(lines) + "\n"


def _exact(number: float) -> str:
    """All digits: rounding would hide increments from rate()."""
    return str(int(number)) if number == int(number) else repr(number)


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    if not names:
        return ""
    escaped = [value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for value in values]
    return "{" + ",".join(f'{name}="{value}"' for name, value in zip(names, escaped, strict=True)) + "}"


async def serve(
    metrics: Metrics, host: str, port: int, *, alive: Callable[[], Awaitable[bool]], ready: Callable[[], bool]
) -> asyncio.Server:
    """GET /metrics, /healthz (alive) and /readyz (ready), one request a connection, and nothing else."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            target = request.split(b" ", 2)[1].partition(b"?")[0] if request.startswith(b"GET ") else b""
            match target:
                case b"/metrics":
                    status, body = "200 OK", metrics.text()
                case b"/healthz":
                    status, body = _verdict(await alive())
                case b"/readyz":
                    status, body = _verdict(ready())
                case _:
                    status, body = "404 Not Found", "/metrics, /healthz, /readyz\n"
            payload = body.encode()
            head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\n"
            writer.write(f"{head}Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n".encode() + payload)
            await asyncio.wait_for(writer.drain(), 5)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, IndexError):
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    # In an update the next agent starts before this one ends, on the same port of the same host.
    return await asyncio.start_server(handle, host, port, limit=8192, reuse_port=True)


def _verdict(good: bool) -> tuple[str, str]:
    return ("200 OK", "ok\n") if good else ("503 Service Unavailable", "not yet\n")
