"""GC: removes invalid attachments, first genie's records, then in each network (specification, section 2, "GC")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genie.cni import invoke
from genie.cni.config import NetworkConfig
from genie.cni.errors import CniError, joined
from genie.cni.fields import invalid
from genie.records import DamagedError, Record
from genie.select.networks import rival
from genie.verbs.context import Context
from genie.verbs.delete import mended, undo
from genie.verbs.unrecorded import do_without


async def gc(call: Context) -> None:
    """Collect all garbage. A failure does not stop it; the first is reported at the end, with the others in its
    details.

    While there is a damaged record, genie does not know all attachments in use. So no network gets a GC until that
    container is gone. A container that is not valid any more is deleted even if its record is damaged.
    """
    valid = {(entry["containerID"], entry["ifname"]) for entry in _valid_attachments(call.conf.raw)}
    errors: list[CniError] = []
    keep: dict[str, set[tuple[str, str]]] = {}
    networks: dict[str, NetworkConfig] = {}  # also those of NetworkAttachmentDefinitions
    hidden = False
    for record in call.records.all():
        if not isinstance(record, Record | DamagedError):
            hidden = True
            errors.append(record)
            continue
        if record.key not in valid:
            try:
                await call.claim(record.container_id, record.ifname)
                await (undo(call, record) if isinstance(record, Record) else do_without(call, record))
            except CniError as error:
                errors.append(error)
        elif isinstance(record, DamagedError):
            hidden = True
            errors.append(record.adding("until then no network is asked to collect garbage"))
        for attached in record.attached if isinstance(record, Record) else ():
            networks[attached.network.name] = attached.network
            if record.key in valid:
                for key in _known_by(call, attached.network):
                    keep.setdefault(key, set()).add((attached.container_id, attached.ifname))
    # a rival would delete its own attachments from before genie was installed: genie has no records of them
    networks |= {network.name: network for network in call.directory.networks() if not rival(network)}
    for network in () if hidden else networks.values():
        # a valid container without a record is from before genie was installed: no network may delete it
        stay = valid.union(*(keep.get(key, ()) for key in _known_by(call, network)))
        entries = [{"containerID": container, "ifname": ifname} for container, ifname in sorted(stay)]
        try:
            await invoke.gc(network, call.nowhere, call.executor, entries)
        except CniError as error:
            errors.append(error)
    await mended(call, list(networks.values()))
    if errors:
        raise joined(errors)


def _known_by(call: Context, network: NetworkConfig) -> set[str]:
    """The names by which a network's plugins know their attachments: the network's, and the types of those plugins that
    look at the container ID alone. Attachments of other networks by such a plugin count, too.
    """
    return {network.name, *set(network.types).intersection(call.conf.container_id_per_interface)}


def _valid_attachments(raw: Mapping[str, Any]) -> list[Mapping[str, str]]:
    """Read `cni.dev/valid-attachments`, or libcni's first name for it (`cni.dev/attachments`). libcni writes `null` for
    an empty list.

    Raises CniError: 7; without the list, everything would be garbage.
    """
    entries = raw.get("cni.dev/valid-attachments", raw.get("cni.dev/attachments", ""))
    if entries is None:
        return []
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("containerID"), str) and isinstance(e.get("ifname"), str)
        for e in entries
    ):
        raise invalid("GC", "cni.dev/valid-attachments: expected a list of objects with containerID and ifname")
    return entries
