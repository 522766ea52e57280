"""CHECK: calls every delegate with its own prevResult, then checks genie's routes (specification, section 2)."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from genie.cni import invoke
from genie.cni import result as cni_result
from genie.cni.errors import CniError, Code
from genie.cni.fields import invalid
from genie.cni.result import Result, Route
from genie.records import Record
from genie.verbs.context import Context, placed
from genie.verbs.results import in_place, results_size


async def check(call: Context) -> None:
    """Find changes that other programs made to an attachment.

    Raises:
        CniError: 3 without a record; otherwise the first difference found.
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
    results, found = await _look(call, record)
    for attached, result in zip(record.attached, results, strict=True):
        await invoke.check(
            attached.network,
            call.attachment(attached, record.args),
            call.executor,
            prev_result=result,
            timeout=call.conf.delegate_timeout,
        )
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


async def _look(call: Context, record: Record) -> tuple[list[Result], list[str]]:
    """The results to pass to the delegates, with the pod's actual routes; and the changes to genie's routes."""
    results = [attached.result or Result() for attached in record.attached]
    if not record.arranged:
        return results, []
    from genie.kernel import routes

    places = [placed(attached, result) for attached, result in zip(record.attached, results, strict=True)]

    def look() -> tuple[Sequence[tuple[Route, ...]], list[str]]:
        state = routes.look(kernel)
        return routes.plan(places, state).reported, routes.drift(places, state, record.arranged)

    with call.asking_kernel("read the routes"), call.netlink() as kernel:
        reported, found = await call.in_namespace(kernel, look, size=results_size(results))
    return in_place(results, reported), found
