"""GC: what is not valid goes, genie's records first, then each network's own (specification, section 2, "GC")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genie.cni import invoke
from genie.cni.errors import CniError, Code
from genie.verbs.context import Context
from genie.verbs.delete import undo


async def gc(call: Context) -> None:
    """Go through all of it, past what fails, and report the first failure with the others in its details."""
    valid = {(entry["containerID"], entry["ifname"]) for entry in _valid_attachments(call.conf.raw)}
    errors: list[CniError] = []
    keep: dict[str, set[tuple[str, str]]] = {}
    for record in call.records.all():
        if isinstance(record, CniError):
            raise record  # who knows what it holds; without it, a network would delete what is in use
        if (record.container_id, record.ifname) not in valid:
            try:
                await undo(call, record)
            except CniError as error:
                errors.append(error)
            continue
        for attached in record.attached:
            keep.setdefault(attached.network.name, set()).add((attached.container_id, attached.ifname))
    for network in call.directory.networks():
        # a valid container without a record is from before genie: no network may take it for garbage
        stay = keep.get(network.name, set()) | valid
        entries = [{"containerID": container, "ifname": ifname} for container, ifname in sorted(stay)]
        try:
            await invoke.gc(
                network,
                entries,
                call.executor,
                path=call.request.path,
                env=call.request.env,
                timeout=call.conf.delegate_timeout,
            )
        except CniError as error:
            errors.append(error)
    if errors:
        raise CniError(errors[0].code, errors[0].msg, "; ".join(str(error) for error in errors[1:]))


def _valid_attachments(raw: Mapping[str, Any]) -> list[Mapping[str, str]]:
    """`cni.dev/valid-attachments`, or the name that libcni used at first (`cni.dev/attachments`).

    Raises:
        CniError: 7; without the list, everything would be garbage.
    """
    entries = raw.get("cni.dev/valid-attachments", raw.get("cni.dev/attachments"))
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("containerID"), str) and isinstance(e.get("ifname"), str)
        for e in entries
    ):
        raise CniError(
            Code.INVALID_CONFIG, "GC: cni.dev/valid-attachments: expected a list of objects with containerID and ifname"
        )
    return entries
