"""Repairs leases without an owner in host-local's store.

host-local creates a lease's file first and then writes its owner into it. If it is killed in between, it leaves an
empty file. No DEL ever removes that file, because a DEL looks for the owner in it: the address is lost
(docs/findings.md). An empty lease belongs to a living attachment only if a record has the address: an ADD succeeds
after the owner was written. So the lease is written again if a record has the address, and removed otherwise.
host-local's own lock is held during this, so that no lease is read while it is being written. A store that this process
cannot see (an agent without that mount) is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from genie.cni.config import NetworkConfig
from genie.records import Record
from genie.select.spent import STORE


def mend(networks: Iterable[NetworkConfig], records: Iterable[Record]) -> list[str]:
    """Repair the empty leases of these networks. This may take a while.

    Args:
        records: all of the node's; read only if there is an empty lease.

    Returns:
        A sentence for each repaired lease.
    """
    done: list[str] = []
    for name, store in dict.fromkeys((network.name, store) for network in networks for store in _stores(network)):
        with suppress(OSError):  # there is none, or this process cannot see it
            if _empty(store):
                with _alone(store):
                    done += _mend(name, store, records)
    return done


def _stores(network: NetworkConfig) -> Iterator[str]:
    for ipam in (plugin.get("ipam") for plugin in network.plugins):
        if isinstance(ipam, dict) and ipam.get("type") == "host-local":
            yield f"{ipam.get('dataDir') or STORE}/{network.name}"


def _empty(store: str) -> list[str]:
    """The addresses of a store's empty leases, without other files such as `lock` and `last_reserved_ip.0`."""
    with os.scandir(store) as entries:
        return [
            entry.name
            for entry in entries
            if entry.name[:1] in "0123456789abcdef:"
            and ("." in entry.name or ":" in entry.name)
            and entry.is_file(follow_symlinks=False)
            and not entry.stat(follow_symlinks=False).st_size
        ]


@contextmanager
def _alone(store: str) -> Iterator[None]:
    """Hold host-local's lock. Raises OSError if it is held or does not exist; then a later call does the repair."""
    import fcntl

    handle = os.open(f"{store}/lock", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _mend(name: str, store: str, records: Iterable[Record]) -> list[str]:
    attachments = (one for record in records for one in record.attached if one.network.name == name and one.result)
    owners = {
        ip.address.partition("/")[0]: (one.container_id, one.ifname)
        for one in attachments
        for ip in (one.result.ips if one.result else ())
    }
    done = []
    for address in _empty(store):
        if owner := owners.get(address):
            with open(f"{store}/{address}", "w", encoding="ascii", newline="") as file:
                file.write("\r\n".join(owner))  # in host-local's format
            done.append(f"network {name!r}: the lease of {address} was empty: it is {owner[0]}'s")
        else:
            os.unlink(f"{store}/{address}")
            done.append(f"network {name!r}: the lease of {address} was empty and without an owner: freed")
    return done
