"""`cni: ""`: which of the node's networks is the least loaded, as CNI-Genie's "smart" selection has it.

A network's load is the traffic of its attachments on this node, in bytes per second. genie's records name the host ends
of their interfaces; the bytes that a host end has sent are the bytes that the pod has received. Two readings a short
time apart give the rate: the agent keeps an earlier one, direct mode waits between two. Among equally idle networks,
the one with the fewest drops, then with the fewest attachments is taken, then the first in the order of the
configurations; `smart` in genie.conf gives weights instead. A network without a free address, or with an ADD that
failed a moment ago, is taken only if there is no other (spent.py).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from genie.cni.errors import CniError, Code
from genie.config import Conf
from genie.records import Record

INTERVAL = 0.2  # seconds between direct mode's two readings
STATISTICS = "/sys/class/net/{}/statistics/{}"
#: The host's counters of each figure, in the order of `Reading`.
COUNTERS = {"received": ("tx_bytes",), "sent": ("rx_bytes",), "drops": ("tx_dropped", "rx_dropped")}


@dataclass(frozen=True, kw_only=True)
class Load:
    """One candidate. received, sent, drops: per second, from the pods' side. used, total: addresses of the network's
    pool on this node; 0 if they are not known. latency: seconds to its gateway; None if nobody measured it. out: why it
    is taken only if there is no other.
    """

    network: str
    received: float = 0.0
    sent: float = 0.0
    drops: float = 0.0
    attachments: int = 0
    used: int = 0
    total: int = 0
    latency: float | None = None
    out: str = ""

    def figure(self, name: str) -> float:
        """The figure of a weight; 0 if it is not known."""
        if name == "used":
            return self.used / self.total if self.total else 0.0
        return float(getattr(self, name) or 0)

    def __str__(self) -> str:
        pool = f", {self.used} of {self.total} addresses" if self.total else ""
        latency = "" if self.latency is None else f", {1000 * self.latency:.1f} ms"
        drops = f", {self.drops:.0f} drops/s" if self.drops else ""
        return (
            f"{self.network} {self.received:.0f} B/s received, {self.sent:.0f} B/s sent{drops}, "
            f"{self.attachments} attachments{pool}{latency}{f', goes last: {self.out}' if self.out else ''}"
        )


@dataclass(frozen=True, kw_only=True)
class LeastLoaded:
    network: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The counters of each host interface (see `COUNTERS`), and the time of the reading in seconds. latency: of the
    networks where somebody measured it, in seconds.
    """

    at: float
    counters: Mapping[str, tuple[int, ...]]
    latency: Mapping[str, float] = field(default_factory=dict)


def loads(
    networks: Sequence[str],
    records: Iterable[Record],
    earlier: Reading | None = None,
    last: Mapping[str, str] | None = None,
    pools: Mapping[str, tuple[int, int]] | None = None,
) -> list[Load]:
    """The candidates with their figures now.

    Args:
        networks: names of configurations, in order.
        earlier: an earlier reading; without one, this takes two, `INTERVAL` seconds apart.
        last: networks that are taken only if there is no other, with the reason (see spent.py).
        pools: addresses used and in all, of the networks where they are known.
    """
    records = list(records)
    interfaces = host_interfaces(records)
    wanted = [name for names in interfaces.values() for name in names]
    if earlier is None and wanted:
        earlier = read(wanted)
        time.sleep(INTERVAL)
    by_interface = rates_between(earlier, read(wanted)) if earlier else {}
    attachments = Counter(attached.network.name for record in records for attached in record.attached)
    found = []
    for name in networks:
        rates = [by_interface[one] for one in interfaces.get(name, ()) if one in by_interface]
        sums = [sum(each) for each in zip(*rates, strict=True)] or [0.0] * len(COUNTERS)
        used, total = (pools or {}).get(name, (0, 0))
        found.append(
            Load(
                network=name,
                **dict(zip(COUNTERS, sums, strict=True)),
                attachments=attachments[name],
                used=used,
                total=total,
                latency=earlier.latency.get(name) if earlier else None,
                out=(last or {}).get(name, ""),
            )
        )
    return found


def least_loaded(candidates: Sequence[Load], conf: Conf) -> LeastLoaded:
    """Decide which network to take. Pure.

    Raises:
        CniError: 11; the node has no network.
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

    With weights, the rank is the weighted sum of the figures, each as a part of the largest among the candidates.
    Without, traffic counts first, then drops, then attachments.
    """
    largest = {name: max(each.figure(name) for each in candidates) or 1.0 for name in weights}

    def rank(one: Load) -> tuple[float, ...]:
        if weights:
            score = sum(weight * one.figure(name) / largest[name] for name, weight in weights.items())
            return float(bool(one.out)), score
        return float(bool(one.out)), one.received + one.sent, one.drops, float(one.attachments)

    return [(one, rank(one)) for one in candidates]


def host_interfaces(records: Iterable[Record]) -> dict[str, list[str]]:
    """The host ends of each network's attachments, from the results in the records.

    A bridge that the attachments share is in every result, so an interface that occurs twice is left out.
    """
    found: dict[str, list[str]] = {}
    for record in records:
        for attached in record.attached:
            for interface in attached.result.interfaces if attached.result else ():
                if not interface.sandbox:
                    found.setdefault(attached.network.name, []).append(interface.name)
    once = {name: [one for one, times in Counter(all_).items() if times == 1] for name, all_ in found.items()}
    return {name: [one for one in own if is_pair(one)] for name, own in once.items()}


def is_pair(interface: str) -> bool:
    """Whether this host interface is one end of a pair (a veth), not a bridge or a NIC."""
    try:
        with open(f"/sys/class/net/{interface}/iflink", encoding="ascii") as link:
            with open(f"/sys/class/net/{interface}/ifindex", encoding="ascii") as index:
                return link.read() != index.read()
    except OSError:
        return False


def read(interfaces: Iterable[str], latency: Mapping[str, float] | None = None) -> Reading:
    """Read the counters now; an interface that is gone is skipped."""
    found = {}
    for interface in interfaces:
        try:
            found[interface] = tuple(
                sum(_counter(interface, counter) for counter in counters) for counters in COUNTERS.values()
            )
        except (OSError, ValueError):
            continue
    return Reading(at=time.monotonic(), counters=found, latency=latency or {})


def _counter(interface: str, counter: str) -> int:
    with open(STATISTICS.format(interface, counter), encoding="ascii") as file:
        return int(file.read())


def rates_between(earlier: Reading, later: Reading) -> dict[str, tuple[float, ...]]:
    """The figures per second of each interface that is in both readings."""
    seconds = max(later.at - earlier.at, 1e-6)
    return {
        name: tuple(max(new - old, 0) / seconds for new, old in zip(counts, earlier.counters[name], strict=True))
        for name, counts in later.counters.items()
        if name in earlier.counters
    }
