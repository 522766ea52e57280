"""DEL: needs only the record, not the API server or net.d (specification, section 2, "DEL")."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace

from genie.cni import invoke
from genie.cni.config import NetworkConfig
from genie.cni.errors import CniError, Code, joined
from genie.cni.invoke import PluginError
from genie.records import DamagedError, Record, RecordedAttachment
from genie.select.selection import DEVICE_INFO_FILE
from genie.verbs.context import Context
from genie.verbs.unrecorded import delete_unrecorded, do_without


async def delete(call: Context) -> None:
    """Delete the attachments in the record; without a record there is usually nothing to do (unrecorded.py)."""
    await call.claim(call.request.container_id, call.request.ifname)
    try:
        record = await call.record()
    except DamagedError as damaged:
        await do_without(call, damaged)
        return
    if record is None:
        await delete_unrecorded(call)
        return
    call.story["selection"] = [[a.label, a.ifname] for a in record.attached]
    await undo(call, record)


async def undo(call: Context, record: Record, failure: BaseException | None = None) -> None:
    """Delete a record's attachments, network by network in reverse. A failed network does not stop the others; it stays
    in the record, for another DEL to try.

    failure: the error of the ADD that this undoes.

    Raises CniError: the first failure, with the others in its details.
    """
    left: list[RecordedAttachment] = []
    errors: list[CniError] = []
    for attached in reversed(record.attached):
        stuck, failed = await _take_off(call, record, attached, failure)
        if stuck:
            left.insert(0, replace(attached, left=stuck))
        elif DEVICE_INFO_FILE in attached.runtime_config:
            _forget_device(call, attached)
        errors += failed
    if not errors:
        if len(record.attached) > 1:
            await _forget_routes(call)
        if call.guard:
            await call.guard.release(call)
        call.records.remove(record.container_id, record.ifname)
        if not record.complete:  # its plugins may have been killed before they finished
            await mended(call, [attached.network for attached in record.attached])
        return
    rest = replace(record, attached=tuple(left), complete=record.complete and call.request.command == "DEL")
    try:
        if failure:
            call.records.complete(rest)  # never created again: another agent's DEL may have removed it meanwhile
        else:
            await call.executor.in_thread(lambda: call.records.write(rest))
    except CniError as error:  # then a further DEL calls all plugins again
        errors.append(error)
    raise _hinting(joined(errors), record, errors)


def _hinting(error: CniError, record: Record, errors: Sequence[CniError]) -> CniError:
    """The error, with the command for giving up on its plugins: otherwise the runtime calls for ever."""
    gone, failing = set[str](), set[str]()
    for each in errors:
        if isinstance(each, PluginError):
            (gone if each.missing else failing).add(str(each.plugin["type"]))
    causes = ((gone, "is gone for good"), (failing, "keeps failing"))
    when = " or ".join(f"{', '.join(sorted(kinds))} {cause}" for kinds, cause in causes if kinds)
    if not when:
        return error
    return error.adding(f"if {when}, `genie gc --forget {record.container_id}` on the node gives up on it")


async def _take_off(
    call: Context, record: Record, attached: RecordedAttachment, failure: BaseException | None
) -> tuple[tuple[int, ...], list[CniError]]:
    """DEL of one attachment, plugin by plugin in reverse. Returns the positions of the plugins that may not have
    cleaned up, and the errors.

    For a complete attachment, the first plugin that fails ends it (specification, section 3, "Deleting an attachment"):
    it may still need the work of the plugins before it in the chain. For an ADD that failed or was interrupted, every
    plugin is called; otherwise a missing plugin would keep the others' addresses in use.
    """
    positions = sorted(range(len(attached.network.plugins)) if attached.left is None else attached.left)
    stuck: list[int] = []
    errors: list[CniError] = []
    while positions:
        position = positions.pop()
        alone = replace(attached.network, plugins=(attached.network.plugins[position],))
        try:
            await invoke.delete(alone, call.attachment(attached, record.args), call.executor, attached.result)
        except CniError as error:
            if _refused_alike(failure, error) or await _let_go(call, record, attached, alone):
                continue
            stuck.insert(0, position)
            errors.append(error)
            if record.complete:
                break
    return (*positions, *stuck), errors


async def _let_go(call: Context, record: Record, attached: RecordedAttachment, plugin: NetworkConfig) -> bool:
    """Whether a plugin cleans up without the namespace, after it failed because its interface is not there: its ADD
    failed before it had one (host-device), the pod renamed or removed it, or CNI_NETNS is no namespace any more. An
    empty CNI_NETNS means that nothing is left there (specification, section 2, "DEL"), and then such a plugin releases
    the rest.
    """
    try:
        try:
            with call.conversation() as kernel:
                if attached.ifname in await call.in_namespace(kernel, kernel.links):
                    return False
        except OSError as error:
            if error.errno != errno.EINVAL:  # of setns: it is another kind of file, as after an umount
                raise
        without = replace(call.attachment(attached, record.args), netns="")
        await invoke.delete(plugin, without, call.executor, attached.result)
    except (OSError, CniError):
        return False
    return True


async def mended(call: Context, networks: Sequence[NetworkConfig]) -> None:
    """Repair the empty leases of these networks (leases.py)."""
    if not any("ipam" in plugin for network in networks for plugin in network.plugins):
        return
    from genie.verbs import leases

    if done := await call.executor.in_thread(lambda: leases.mend(networks, call.records)):
        call.story["leases"] = done


def _refused_alike(add: BaseException | None, delete: CniError) -> bool:
    """Whether a plugin fails at DEL as it did at ADD: it is missing, or cannot read its configuration.

    Then it has nothing to delete. And because the record keeps the configuration, no later DEL could succeed.
    """
    if not (isinstance(add, PluginError) and isinstance(delete, PluginError)):
        return False
    if add.cut_off or add.code == Code.TRY_AGAIN or (add.plugin, add.ifname) != (delete.plugin, delete.ifname):
        return False
    return (add.own.code, add.own.msg) == (delete.own.code, delete.own.msg)


def _forget_device(call: Context, attached: RecordedAttachment) -> None:
    """Remove its device information file (device-info specification, 4.2.1)."""
    from genie.verbs import device_info

    try:
        device_info.remove(str(attached.runtime_config[DEVICE_INFO_FILE]))
    except OSError as error:
        call.story["device_info"] = str(error)


async def _forget_routes(call: Context) -> None:
    """Remove genie's own rules and tables from a namespace that outlives its attachments."""
    from genie.kernel import routes

    try:
        with call.netlink() as kernel:
            await call.in_namespace(kernel, lambda: routes.arrange(kernel, []))
    except OSError as error:
        call.story["routes"] = f"ignored, because the namespace is about to go: {error}"
