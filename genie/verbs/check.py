"""CHECK: calls every delegate with its own prevResult, then checks genie's routes (specification, section 2)."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import replace

from genie.cni import invoke
from genie.cni import result as cni_result
from genie.cni.errors import CniError, Code
from genie.cni.fields import invalid
from genie.cni.result import Result
from genie.records import Record, RecordedAttachment
from genie.verbs.context import Context, placed
from genie.verbs.results import results_size


async def check(call: Context) -> None:
    """Find changes that other programs made to an attachment.

    Raises CniError: 3 without a record; otherwise the first difference found.
    """
    request = call.request
    record = await call.record()
    if record is None:
        raise CniError(Code.UNKNOWN_CONTAINER, f"genie has attached no {request.ifname} to {request.container_id}")
    if not record.complete:
        raise CniError(
            Code.INTERNAL, f"the ADD of {request.ifname} to {request.container_id} never came to an end: DEL must come"
        )
    await call.compute(lambda: _consult(call, record), size=4 * len(request.stdin))
    found = await _look(call, record)
    for attached in record.attached:
        at = call.attachment(attached, record.args)
        await invoke.check(attached.network, at, call.executor, _reported(attached))
    if found:
        netns = request.netns
        raise CniError(Code.INTERNAL, f"somebody changed the routes that genie arranged in {netns}", "; ".join(found))


def _consult(call: Context, record: Record) -> None:
    """Check that the runtime's `prevResult` is this attachment's; a later plugin of a list may have added to it."""
    raw = call.conf.raw.get("prevResult")
    if raw is None:
        raise invalid("CHECK", "prevResult: expected the result of the ADD, found nothing")
    reported = {_packed(ip.address) for ip in cni_result.parse(raw, call.conf.cni_version).ips}
    for address in (ip.address for attached in record.attached if attached.result for ip in attached.result.ips):
        if _packed(address) not in reported:
            raise invalid("CHECK", f"prevResult: expected {address} among its ips, as ADD reported it")


def _packed(cidr: str) -> bytes:
    """An address in one form, so that two spellings compare equal."""
    address = cidr.partition("/")[0]
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _reported(attached: RecordedAttachment) -> Result:
    """The prevResult for a delegate: the result of the ADD, with the routes that genie reported (specification,
    section 2, "CHECK").

    They are not planned again from the pod's state: if one network lost the default route, it would count as the next
    one's, and CHECK would blame that one's plugin.
    """
    result = attached.result or Result()
    return result if attached.reported is None else replace(result, routes=attached.reported)


async def _look(call: Context, record: Record) -> list[str]:
    """The changes to the routes that genie arranged."""
    if not record.arranged:
        return []
    from genie.kernel import routes

    results = [attached.result or Result() for attached in record.attached]
    places = [placed(attached, result) for attached, result in zip(record.attached, results, strict=True)]

    def look() -> list[str]:
        state = routes.look(kernel)
        names = {str(index): name for name, index in state.links.items()}
        return [_with_name(text, names) for text in routes.drift(places, state, record.arranged)]

    with call.asking_kernel("read the routes"), call.netlink() as kernel:
        return await call.in_namespace(kernel, look, size=results_size(results))


def _with_name(text: str, names: Mapping[str, str]) -> str:
    """A route's text with the name of its interface instead of the index, if the interface still exists."""
    head, dev, tail = text.partition(" dev ")
    index, space, table = tail.partition(" ")
    return f"{head}{dev}{names.get(index, index)}{space}{table}"
