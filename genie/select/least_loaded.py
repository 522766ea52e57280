"""`cni: ""`: which of the node's networks is the least loaded, as CNI-Genie's "smart" selection has it.

A network's load is the traffic that its attachments on this node receive, in bytes per second. genie's records name the
host ends of their interfaces; the bytes that a host end has sent are the bytes that the pod has received. Two readings
a short time apart give the rate: the agent keeps an earlier one, direct mode waits between two. Among equally idle
networks, the one with the fewest attachments is taken, then the first in the order of the configurations. A network
without a free address, or with an ADD that failed a moment ago, is taken only if there is no other (spent.py).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from genie.cni.errors import CniError, Code
from genie.config import Conf
from genie.records import Record

INTERVAL = 0.2  # seconds between direct mode's two readings
STATISTICS = "/sys/class/net/{}/statistics/tx_bytes"


@dataclass(frozen=True, kw_only=True)
class LeastLoaded:
    network: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The bytes that each host interface has sent, and the time of the reading in seconds."""

    at: float
    sent: Mapping[str, int]


def least(
    networks: Sequence[str],
    records: Iterable[Record],
    conf: Conf,
    earlier: Reading | None = None,
    last: Mapping[str, str] | None = None,
) -> LeastLoaded:
    """The least loaded of these networks (names of configurations, in order).

    Args:
        earlier: an earlier reading; without one, this takes two, `INTERVAL` seconds apart.
        last: networks that are taken only if there is no other, with the reason (see spent.py).

    Raises:
        CniError: 11; the node has no network.
    """
    if not networks:
        raise CniError(
            Code.TRY_AGAIN,
            f"{conf.conf_dir} has no configuration but genie's own that can be a pod's network: nothing to choose from",
        )
    records = list(records)
    interfaces = host_interfaces(records)
    wanted = [name for names in interfaces.values() for name in names]
    if earlier is None and wanted:
        earlier = read(wanted)
        time.sleep(INTERVAL)
    by_interface = rates_between(earlier, read(wanted)) if earlier else {}
    attachments: dict[str, int] = {}
    for attached in (one for record in records for one in record.attached):
        attachments[attached.network.name] = attachments.get(attached.network.name, 0) + 1
    return least_loaded(networks, interfaces, by_interface, attachments, last or {})


def least_loaded(
    networks: Sequence[str],
    interfaces: Mapping[str, Sequence[str]],
    rates: Mapping[str, float],
    attachments: Mapping[str, int],
    last: Mapping[str, str],
) -> LeastLoaded:
    """Decide which network to take. Pure.

    Args:
        networks: in order.
        interfaces: each network's interfaces on the host; a network without any (macvlan) counts as idle.
        rates: bytes per second by interface.
        attachments: how many attachments each network has.
        last: see `least`.
    """

    def load(name: str) -> tuple[float, int]:
        return sum(rates.get(interface, 0.0) for interface in interfaces.get(name, ())), attachments.get(name, 0)

    best = min(networks, key=lambda name: (name in last, load(name)))
    loads = ", ".join(f"{name} {load(name)[0]:.0f} B/s in {load(name)[1]}" for name in networks)
    put_last = "".join(f"; {name} goes last: {last[name]}" for name in networks if name in last)
    return LeastLoaded(network=best, why=f"{best} ({loads} attachments{put_last})")


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


def read(interfaces: Iterable[str]) -> Reading:
    """Read the counters now; an interface that is gone is skipped."""
    sent = {}
    for interface in interfaces:
        try:
            with open(STATISTICS.format(interface), encoding="ascii") as file:
                sent[interface] = int(file.read())
        except (OSError, ValueError):
            continue
    return Reading(at=time.monotonic(), sent=sent)


def rates_between(earlier: Reading, later: Reading) -> dict[str, float]:
    """Bytes per second of each interface that is in both readings."""
    seconds = max(later.at - earlier.at, 1e-6)
    return {
        name: max(sent - earlier.sent[name], 0) / seconds for name, sent in later.sent.items() if name in earlier.sent
    }
