"""The traffic of each network of the node: read from time to time, for `cni: ""` and for metrics.

The counters of interfaces end with their pods. So a network's bytes are the sum of what each reading adds,
from the agent's start on, as Prometheus' counters are.
"""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from genie.agent.metrics import Metrics
from genie.cni.config import NetworkConfig
from genie.cni.errors import CniError
from genie.cni.regular import put
from genie.config import Conf
from genie.kernel import netns
from genie.records import Record, Records, attachments
from genie.select import least_loaded, networks, spent
from genie.select.least_loaded import COUNTERS, Reading

DISCARD = 9
"""The port that nothing listens on."""
PATIENCE = 0.3
"""Seconds to wait for a gateway."""
TRIES = 3
READING = "/run/genie/reading.json"
RECENT = 60.0
"""Seconds after which a stored reading does not count any more."""
Pools = dict[str, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One reading. attachments and pools: by the network's label. interfaces: pod, namespace, interface and network of
    each attachment. carried: each network's traffic since the last reading, in the order of COUNTERS.
    """

    reading: Reading
    attachments: dict[str, int] = field(default_factory=dict)
    pools: Pools = field(default_factory=dict)
    interfaces: list[tuple[str, str, str, str]] = field(default_factory=list)
    carried: dict[str, list[int]] = field(default_factory=dict)


class Traffic:
    """The last sample, and its metrics. pools: reads further pools of networks, in the thread of `sample`."""

    def __init__(self, metrics: Metrics, pools: Callable[[Sequence[NetworkConfig]], Pools] = lambda _: {}) -> None:
        self._pools = pools
        self.last = Sample(reading=Reading(at=time.monotonic(), counters={}))
        self._metrics, self._begun = metrics, False
        metrics.attachments.read = lambda: {(name,): count for name, count in self.last.attachments.items()}
        metrics.pool_used.read = lambda: {(name,): used for name, (used, _) in self.last.pools.items()}
        metrics.pool_total.read = lambda: {(name,): total for name, (_, total) in self.last.pools.items()}
        metrics.pod_networks.read = lambda: dict.fromkeys(self.last.interfaces, 0)

    def take(self, sample: Sample) -> None:
        """Make a sample the last one; in the event loop's thread."""
        counters = (self._metrics.received_bytes, self._metrics.sent_bytes, self._metrics.drops)
        for name in sample.attachments:
            for counter, amount in zip(counters, sample.carried.get(name, (0, 0, 0)), strict=True):
                counter.add(amount, name)
        self.last, self._begun = sample, True

    def sample(self, conf: Conf) -> Sample:
        """Read records, counters and pools. It takes a while: run it in a thread.

        Raises CniError: net.d or a record cannot be read.
        """
        records = list(Records(conf.state_dir))
        owners = least_loaded.measured(records)
        labels = _labels(records)
        latency = _latencies(records) if "latency" in conf.smart_weights else {}
        reading = least_loaded.read((name for each in owners.values() for name in each), latency)
        before, carried = self.last.reading.counters, dict[str, list[int]]()
        for network, interfaces in owners.items() if self._begun else ():
            sums = carried.setdefault(labels.get(network, network), [0] * len(COUNTERS))
            for name in interfaces:
                for at, value in enumerate(reading.counters.get(name, ())):
                    sums[at] += max(value - before.get(name, (0,) * len(COUNTERS))[at], 0)
        attached = [(record, one) for record in records for one in record.attached]
        directory = networks.directory(conf.conf_dir).now()
        configured = _configured(directory)
        read = self._pools(configured)
        known = spent.pools([*configured, *(one.network for _, one in attached)], records) | read
        titles = {network.name: labels.get(network.name) or directory.title(network) for network in configured}
        return Sample(
            reading=replace(reading, pools=read),
            attachments={
                **dict.fromkeys(titles.values(), 0),
                **Counter(labels[one.network.name] for _, one in attached),
            },
            pools={{**labels, **titles}[name]: each for name, each in known.items()},
            interfaces=[(record.pod, record.namespace, one.ifname, one.label) for record, one in attached],
            carried=carried,
        )


def store(reading: Reading, path: str) -> None:
    """Keep a reading for `genie explain`."""
    with suppress(OSError):
        put(path, json.dumps(vars(reading)).encode(), 0o644)


def stored(path: str = READING) -> Reading | None:
    """The agent's last reading on this node; None if there is none, or an old one."""
    try:
        with open(path, encoding="utf-8") as file:
            reading = Reading(**json.load(file))
    except (OSError, ValueError, TypeError):
        return None
    return reading if 0 <= time.monotonic() - reading.at <= RECENT else None


def _latencies(records: Sequence[Record]) -> dict[str, float]:
    """The time to each network's gateway in seconds, from the first pod where it can be measured, of at most three."""
    found: dict[str, float] = {}
    tries: Counter[str] = Counter()
    for namespace, one in [(record.netns, one) for record in records for one in record.attached]:
        name = one.network.name
        for ip in one.ips:
            if ip.gateway and name not in found and tries[name] < TRIES:
                tries[name] += 1
                times = [round_trip(namespace, ip.plain, ip.gateway) for _ in range(2)]
                if measured := [each for each in times if each is not None]:
                    found[name] = min(measured)  # the first may include the search for the neighbour
    return found


def round_trip(namespace: str, address: str, gateway: str) -> float | None:
    """Seconds until a gateway answers a TCP connection from an address of a pod, most likely by refusing it; None if it
    does not. This needs no right but to enter the namespace.
    """
    family = socket.AF_INET6 if ":" in gateway else socket.AF_INET
    with suppress(OSError), netns.inside(namespace, lambda: socket.socket(family, socket.SOCK_STREAM)) as made:
        made.settimeout(PATIENCE)
        made.bind((address, 0))
        begun = time.perf_counter()
        with suppress(ConnectionRefusedError):
            made.connect((gateway, DISCARD))
        return time.perf_counter() - begun
    return None


def _labels(records: Sequence[Record]) -> dict[str, str]:
    """A network's label by its configuration's name: the one that most of its attachments have."""
    counted: dict[str, Counter[str]] = {}
    for one in attachments(records):
        counted.setdefault(one.network.name, Counter())[one.label] += 1
    return {name: labels.most_common(1)[0][0] for name, labels in counted.items()}


def _configured(directory: networks.Directory) -> list[NetworkConfig]:
    try:
        return [network for network in directory.networks() if not networks.rival(network)]
    except CniError:
        return []
