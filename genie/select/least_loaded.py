"""`cni: ""`: which of the node's networks is the least loaded, as CNI-Genie's "smart" selection has it.

A network's load is the traffic of its attachments on this node, in bytes per second. genie's records name the host ends
of their interfaces; the bytes that a host end has sent are the bytes that the pod has received. Where there is no host
end (macvlan), the interface in the pod counts. Two readings a short time apart give the rate: the agent keeps an
earlier one, direct mode waits between two. Among equally idle networks,
the one with the fewest drops, then with the fewest attachments is taken, then the first in the order of the
configurations; `smart` in genie.conf gives weights instead. A network without a free address, or with an ADD that
failed a moment ago, is taken only if there is no other (spent.py).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from genie.cni.errors import CniError, Code
from genie.config import Conf
from genie.kernel.netns import inside
from genie.records import Record, attachments

INTERVAL = 0.2  # seconds between direct mode's two readings
#: The figures of traffic, in the order of `Reading`.
COUNTERS = ("received", "sent", "drops")
DEVICES = "/proc/thread-self/net/dev"  # of the namespace that the thread is in
UNMEASURED = "its pods' interfaces cannot be read from here"


@dataclass(frozen=True, kw_only=True)
class Load:
    """One candidate. received, sent, drops: per second, from the pods' side. used, total: addresses of the network's
    pool on this node; 0 if they are not known. latency: seconds to its gateway; None if nobody measured it. unmeasured:
    why its traffic is not known; it then counts as the busiest. out: why it is taken only if there is no other.
    """

    network: str
    received: float = 0.0
    sent: float = 0.0
    drops: float = 0.0
    attachments: int = 0
    used: int = 0
    total: int = 0
    latency: float | None = None
    unmeasured: str = ""
    out: str = ""

    def figure(self, name: str) -> float:
        """The figure of a weight; 0 if it is not known."""
        if name == "used":
            return self.used / self.total if self.total else 0.0
        return float(getattr(self, name) or 0)

    def __str__(self) -> str:
        pool = f", {self.used} of {self.total} addresses" if self.total else ""
        latency = "" if self.latency is None else f", {1000 * self.latency:.2f} ms"
        traffic = f"{self.received:.0f} B/s received, {self.sent:.0f} B/s sent"
        if self.drops:
            traffic += f", {self.drops:.0f} drops/s"
        if self.unmeasured:
            traffic = f"traffic not known ({self.unmeasured})"
        out = f", goes last: {self.out}" if self.out else ""
        return f"{self.network} {traffic}, {self.attachments} attachments{pool}{latency}{out}"


@dataclass(frozen=True, kw_only=True)
class LeastLoaded:
    network: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The counters of each interface (see `measured` and `COUNTERS`), and the time of the reading in seconds
    (time.monotonic). latency: of the networks where somebody measured it, in seconds. pools: addresses used and in all,
    of networks whose pools the agent reads (calico.py).
    """

    at: float
    counters: Mapping[str, tuple[int, ...]]
    latency: Mapping[str, float] = field(default_factory=dict)
    pools: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def loads(
    networks: Sequence[str],
    records: Iterable[Record],
    earlier: Reading | None = None,
    last: Mapping[str, str] | None = None,
    pools: Mapping[str, tuple[int, int]] | None = None,
) -> list[Load]:
    """The candidates with their figures now.

    networks: names of configurations, in order.
    earlier: an earlier reading; without one, this takes two, `INTERVAL` seconds apart.
    last: networks that are taken only if there is no other, with the reason (see spent.py).
    pools: addresses used and in all, of the networks where they are known.
    """
    records = list(records)
    interfaces = measured(records)
    wanted = [name for names in interfaces.values() for name in names]
    if earlier is None and wanted:
        earlier = read(wanted)
        time.sleep(INTERVAL)
    now = read(wanted)
    by_interface = rates_between(earlier, now) if earlier else {}
    attached = Counter(one.network.name for one in attachments(records))
    found = []
    for name in networks:
        used, total = (pools or {}).get(name, (0, 0))
        own = interfaces.get(name, ())
        rates = [by_interface[one] for one in own if one in by_interface]
        sums = [sum(each) for each in zip(*rates, strict=True)] or [0.0] * len(COUNTERS)
        is_measured = not own or any(one in now.counters for one in own)
        found.append(
            Load(
                network=name,
                **dict(zip(COUNTERS, sums, strict=True)),
                attachments=attached[name],
                used=used,
                total=total,
                latency=earlier.latency.get(name) if earlier else None,
                unmeasured="" if is_measured else UNMEASURED,
                out=(last or {}).get(name, ""),
            )
        )
    return found


def least_loaded(candidates: Sequence[Load], conf: Conf) -> LeastLoaded:
    """Decide which network to take. Pure.

    Raises CniError: 11; the node has no network.
    """
    if not candidates:
        raise CniError(
            Code.TRY_AGAIN,
            f"{conf.conf_dir} has no configuration but genie's own that can be a pod's network: nothing to choose from",
        )
    best = min(ranked(candidates, conf.smart_weights), key=lambda each: each[1])[0]
    return LeastLoaded(network=best.network, why=f"{best.network} ({'; '.join(map(str, candidates))})")


def ranked(candidates: Sequence[Load], weights: Mapping[str, int]) -> list[tuple[Load, tuple[float, ...]]]:
    """Each candidate with its rank; the smallest is the best. Pure.

    With weights, the rank is the weighted sum of the figures, each as a part of the largest among the candidates. A
    network with pods, but no latency where others have one, counts as the slowest: its gateway does not answer.
    Without, traffic counts first, then drops, then attachments.
    """
    largest = {name: max(each.figure(name) for each in candidates) or 1.0 for name in weights}

    has_latency = any(each.latency is not None for each in candidates)

    def part(one: Load, name: str) -> float:
        silent = name == "latency" and has_latency and one.latency is None and one.attachments
        return 1.0 if silent or (one.unmeasured and name in COUNTERS) else one.figure(name) / largest[name]

    def rank(one: Load) -> tuple[float, ...]:
        if weights:
            return float(bool(one.out)), sum(weight * part(one, name) for name, weight in weights.items())
        traffic = math.inf if one.unmeasured else one.received + one.sent
        return float(bool(one.out)), traffic, one.drops, float(one.attachments)

    return [(one, rank(one)) for one in candidates]


def measured(records: Iterable[Record]) -> dict[str, list[str]]:
    """The interfaces with the counters of each network's attachments: the host ends that the results in the records
    name. An attachment without one has NETNS/INTERFACE: the interface in the pod.

    A bridge that the attachments share is in every result, so an interface that occurs twice is left out.
    """
    attached = [(record.netns, one, one.result) for record in records for one in record.attached if one.result]
    hosts = [[each.name for each in result.interfaces if not each.sandbox] for _, _, result in attached]
    times = Counter(
        (one.network.name, name) for (_, one, _), names in zip(attached, hosts, strict=True) for name in names
    )
    found: dict[str, list[str]] = {}
    for (netns, one, _), names in zip(attached, hosts, strict=True):
        network = one.network.name
        pairs = [name for name in names if times[network, name] == 1 and is_pair(name)]
        found.setdefault(network, []).extend(pairs or [f"{netns}/{one.ifname}"] * bool(netns))
    return found


def is_pair(interface: str) -> bool:
    """Whether this host interface is one end of a pair (a veth), not a bridge or a NIC."""
    try:
        with open(f"/sys/class/net/{interface}/iflink", encoding="ascii") as link:
            with open(f"/sys/class/net/{interface}/ifindex", encoding="ascii") as index:
                return link.read() != index.read()
    except OSError:
        return False


def read(interfaces: Iterable[str], latency: Mapping[str, float] | None = None) -> Reading:
    """Read the counters now, of interfaces as `measured` names them; one that is gone is skipped."""
    within: dict[str, list[str]] = {}
    for interface in interfaces:
        within.setdefault(interface.rpartition("/")[0], []).append(interface)
    found = {}
    for namespace, wanted in within.items():
        try:
            devices = _devices(namespace)
        except (OSError, ValueError):
            continue
        found.update({each: devices[name] for each in wanted if (name := each.rpartition("/")[2]) in devices})
    return Reading(at=time.monotonic(), counters=found, latency=latency or {})


def _devices(namespace: str) -> dict[str, tuple[int, ...]]:
    """The counters of all interfaces of a network namespace, by name, from the pods' side; "" is the host's.

    Raises OSError, ValueError: the namespace cannot be entered or read.
    """
    text = inside(namespace, _listed) if namespace else _listed()
    found: dict[str, tuple[int, ...]] = {}
    for line in text.splitlines()[2:]:
        name, _, columns = line.partition(":")
        in_bytes, _, _, in_drops, _, _, _, _, out_bytes, _, _, out_drops, *_ = map(int, columns.split())
        ways = (in_bytes, out_bytes) if namespace else (out_bytes, in_bytes)
        found[name.strip()] = (*ways, in_drops + out_drops)
    return found


def _listed() -> str:
    with open(DEVICES, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def rates_between(earlier: Reading, later: Reading) -> dict[str, tuple[float, ...]]:
    """The figures per second of each interface that is in both readings."""
    seconds = max(later.at - earlier.at, 1e-6)
    return {
        name: tuple(max(new - old, 0) / seconds for new, old in zip(counts, earlier.counters[name], strict=True))
        for name, counts in later.counters.items()
        if name in earlier.counters
    }
