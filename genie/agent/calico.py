"""The addresses of calico's pools, used and in all, for `cni: ""` and for metrics.

calico-ipam keeps them in the cluster: an IPPool has a range, an IPAMBlock has the addresses of a part of it. Blocks are
many, so they are read at most every `EVERY` seconds, and all of them only if they are few, or if there are so many that
a pool may be full. A list costs the API server more than what it tells otherwise.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from genie.agent.cache import Asker, Connect
from genie.agent.sieve import pages
from genie.cni.config import NetworkConfig
from genie.cni.errors import CniError
from genie.kube import Client
from genie.log import Complaint, Log

EVERY = 60.0
FEW = 100
"""Blocks that are always read; by default a node has one or two."""
_API = "/apis/crd.projectcalico.org/v1"
_BLOCK = {"spec": {"cidr": True, "allocations": True}}

log = Log("genie.agent")
Objects = Sequence[Mapping[str, Any]]
Pool = tuple[int, int]


class CalicoPools:
    """What is known of the pools. For one thread at a time."""

    def __init__(self, connect: Connect) -> None:
        self._asker = Asker(connect)
        self._until, self._known = 0.0, dict[str, Pool]()
        self._complaint = Complaint(log, "calico's pools could not be read")

    def of(self, networks: Iterable[NetworkConfig]) -> dict[str, Pool]:
        """The addresses used and in all, by the network's name; only where they are known."""
        mine = {network.name: ipam for network in networks if (ipam := ipam_of(network))}
        if mine and time.monotonic() >= self._until:
            self._until = time.monotonic() + EVERY
            pools, blocks = self._read()
            found = {name: used_and_total(ipam, pools, blocks) for name, ipam in mine.items()}
            self._known = {name: pool for name, pool in found.items() if pool}
        return {name: pool for name, pool in self._known.items() if name in mine}

    def _read(self) -> tuple[Objects, Objects]:
        try:
            return self._asker.ask(read)
        except (CniError, ValueError) as error:  # ValueError: not JSON
            self._complaint.about(error)
            return [], []


def read(client: Client) -> tuple[Objects, Objects]:
    """The IPPools, and the IPAMBlocks; no pools if not all blocks were read.

    Raises CniError: 11; the API server does not answer, or refuses.
    """
    pools = [item for items, _ in pages(client, f"{_API}/ippools", {"spec": True, "metadata": True}) for item in items]
    smallest = min((range_.num_addresses for range_ in map(_range, pools) if range_), default=0)
    blocks: list[Mapping[str, Any]] = []
    for items, meta in pages(client, f"{_API}/ipamblocks", _BLOCK, limit=FEW):
        blocks += items
        claimed = sum(range_.num_addresses for range_ in map(_range, blocks) if range_)
        more = int(meta.get("remainingItemCount") or 0)
        if more and claimed * (1 + more / len(blocks)) < smallest:
            return [], []  # no pool can be full
    return pools, blocks


def used_and_total(ipam: Mapping[str, Any], pools: Objects, blocks: Objects) -> Pool | None:
    """The addresses of the pools that a configuration of calico-ipam uses; of the family with the fewest left, because
    a pod gets one address of each. None if they are not known. Pure.

    A pool for some nodes or namespaces counts for all: then a full one is noticed when an ADD fails.
    """
    found = []
    for version, assigned in ((4, ipam.get("assign_ipv4", "true")), (6, ipam.get("assign_ipv6", "false"))):
        names = ipam.get(f"ipv{version}_pools") or ()
        ranges = [
            range_
            for pool in pools
            if (range_ := _range(pool)) and range_.version == version and _is_usable(pool, names)
        ]
        if str(assigned).lower() != "true":
            continue
        if not ranges:
            return None
        used = sum(_taken(block) for block in blocks if (its := _range(block)) and any(map(_within(its), ranges)))
        found.append((used, sum(range_.num_addresses for range_ in ranges)))
    return min(found, key=lambda each: each[1] - each[0], default=None)


def ipam_of(network: NetworkConfig) -> Mapping[str, Any] | None:
    """The configuration of calico-ipam in a network; None if it has another ipam plugin."""
    found = (plugin.get("ipam") for plugin in network.plugins)
    return next((one for one in found if isinstance(one, dict) and one.get("type") == "calico-ipam"), None)


def _is_usable(pool: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether pods get addresses of a pool. names: the names or CIDRs in the configuration; empty: all."""
    spec, name = pool.get("spec") or {}, (pool.get("metadata") or {}).get("name")
    uses = spec.get("allowedUses") or ["Workload"]
    return not spec.get("disabled") and "Workload" in uses and (not names or name in names or spec.get("cidr") in names)


Range = ipaddress.IPv4Network | ipaddress.IPv6Network


def _range(item: Mapping[str, Any]) -> Range | None:
    with suppress(ValueError):
        return ipaddress.ip_network(str((item.get("spec") or {}).get("cidr")))
    return None


def _within(block: Range) -> Callable[[Range], bool]:
    return lambda pool: block.version == pool.version and block.subnet_of(pool)  # type: ignore[arg-type]


def _taken(block: Mapping[str, Any]) -> int:
    allocations = (block.get("spec") or {}).get("allocations")
    return sum(each is not None for each in allocations) if isinstance(allocations, list) else 0
