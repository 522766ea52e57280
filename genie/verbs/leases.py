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
from collections.abc import Iterable
from contextlib import suppress

from genie import locks
from genie.cni.config import NetworkConfig
from genie.records import Record, attachments
from genie.select.spent import stores


def mend(networks: Iterable[NetworkConfig], records: Iterable[Record]) -> list[str]:
    """Repair the empty leases of these networks. This may take a while.

    records: all of the node's; read only if there is an empty lease.

    Returns a sentence for each repaired lease.
    """
    done: list[str] = []
    for name, store in dict.fromkeys((network.name, store) for network in networks for _, store in stores(network)):
        with suppress(OSError):  # there is none, or this process cannot see it
            if _empty(store):
                with locks.alone(f"{store}/lock", wait=False):  # host-local's; if it is held, a later call does this
                    done += _mend(name, store, records)
    return done


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


def _mend(name: str, store: str, records: Iterable[Record]) -> list[str]:
    own = (one for one in attachments(records) if one.network.name == name)
    owners = {ip.plain: (one.container_id, one.ifname) for one in own for ip in one.ips}
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
