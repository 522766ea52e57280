"""Networks that `cni: ""` takes last: without a free address, or with an ADD that failed a moment ago.

A network without free addresses stays idle, so its load alone would make it the first choice for ever. For host-local,
genie counts the free addresses: its ranges, less the leases in its store and the addresses in genie's records (the
agent may not see the store). For calico-ipam, the agent counts those of its pools (agent/calico.py). Other ipam plugins
run out without notice until an ADD fails. In both modes a failed ADD leaves a file in the state directory, which counts
for `WHILE` seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from genie.cni.config import NetworkConfig
from genie.records import Record, attachments

STORE = "/var/lib/cni/networks"  # host-local's, where `dataDir` names no other
WHILE = 60.0  # seconds
SUFFIX = ".failed"


def pools(networks: Iterable[NetworkConfig], records: Iterable[Record]) -> dict[str, tuple[int, int]]:
    """The addresses used and in all, by the network's name; only of networks where they are known."""
    addresses: dict[str, set[str]] = {}
    for attached in attachments(records):
        addresses.setdefault(attached.network.name, set()).update(ip.plain for ip in attached.ips)
    found = {network.name: _pool(network, addresses.get(network.name, ())) for network in networks}
    return {name: each for name, each in found.items() if each is not None}


def reasons(networks: Iterable[NetworkConfig], known: Mapping[str, tuple[int, int]], state_dir: str) -> dict[str, str]:
    """The reason to take a network last, by its name; only for networks that have one. known: see `pools`."""
    found = {}
    for network in networks:
        used, total = known.get(network.name, (0, 1))
        if used >= total:
            found[network.name] = "no free address"
        elif has_failed(state_dir, network.name):
            found[network.name] = "an ADD failed there a moment ago"
    return found


def _pool(network: NetworkConfig, addresses: Iterable[str]) -> tuple[int, int] | None:
    """How many addresses of host-local's are used, and how many there are: of the ranges with the fewest left, because
    a pod gets one address of each; None for other ipam plugins.

    addresses: addresses in use, besides the leases in host-local's store.
    """
    found = []
    for ipam, store in stores(network):
        with suppress(ValueError, TypeError, AttributeError, LookupError):  # host-local itself refuses such ranges
            taken = {*addresses, *_leases(store)}
            for ranges in filter(None, _range_sets(ipam)):
                total = max(free(ranges, ()), 0)
                found.append((total - max(free(ranges, taken), 0), total))
    return min(found, key=lambda each: each[1] - each[0], default=None)


def stores(network: NetworkConfig) -> Iterator[tuple[Mapping[str, Any], str]]:
    """A network's configurations of host-local, each with the directory of its leases."""
    for ipam in (plugin.get("ipam") for plugin in network.plugins):
        if isinstance(ipam, dict) and ipam.get("type") == "host-local":
            yield ipam, f"{ipam.get('dataDir') or STORE}/{network.name}"


def free(ranges: Sequence[Mapping[str, Any]], taken: Iterable[str]) -> int:
    """Count the free addresses of one of host-local's range sets. Pure.

    Raises ValueError, TypeError, AttributeError, LookupError: the ranges are malformed.
    """
    import ipaddress

    in_use = set()
    for text in taken:
        with suppress(ValueError):
            in_use.add(ipaddress.ip_address(text))
    count = 0
    for one in ranges:
        subnet = ipaddress.ip_network(str(one["subnet"]), strict=False)
        last = subnet.broadcast_address - (1 if subnet.version == 4 else 0)
        start = ipaddress.ip_address(str(one.get("rangeStart") or subnet.network_address + 1))
        end = ipaddress.ip_address(str(one.get("rangeEnd") or last))
        gateway = ipaddress.ip_address(str(one.get("gateway") or subnet.network_address + 1))
        same = (each for each in {*in_use, gateway} if each.version == subnet.version)
        count += int(end) - int(start) + 1 - sum(int(start) <= int(each) <= int(end) for each in same)
    return count


def _range_sets(ipam: Mapping[str, Any]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """host-local's sets of ranges; it gives one address from each. A `subnet` beside them is another set."""
    if ipam.get("subnet"):
        yield [ipam]
    yield from ipam.get("ranges") or ()


def _leases(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:  # no pod yet, or this process cannot see the store
        return []


def failed(state_dir: str, network: str) -> None:
    """Note that an ADD failed on this network, which `cni: ""` had chosen."""
    path = f"{state_dir}/{network}{SUFFIX}"
    with suppress(OSError):  # with a full disk, the choice is as good as without this file
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.utime(path)


def has_failed(state_dir: str, network: str) -> bool:
    """Whether an ADD failed on this network in the last `WHILE` seconds. An older note is removed."""
    path = f"{state_dir}/{network}{SUFFIX}"
    with suppress(OSError):
        if 0 <= time.time() - os.stat(path).st_mtime < WHILE:
            return True
        os.unlink(path)
    return False
