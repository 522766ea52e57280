"""CHECK: every delegate with its own prevResult, then the routes that are genie's (specification, section 2)."""

from __future__ import annotations

import socket

from genie.cni import invoke
from genie.cni import result as cni_result
from genie.cni.errors import CniError, Code
from genie.cni.result import Result
from genie.records import Record
from genie.verbs import results
from genie.verbs.context import Context


async def check(call: Context) -> None:
    """Find what somebody changed behind genie's back.

    Raises:
        CniError: 3 without a record; else the first thing found wrong.
    """
    request = call.request
    record = call.records.read(request.container_id, request.ifname)
    if record is None:
        raise CniError(Code.UNKNOWN_CONTAINER, f"genie has attached no {request.ifname} to {request.container_id}")
    if not record.complete:
        raise CniError(
            Code.INTERNAL, f"the ADD of {request.ifname} to {request.container_id} never came to an end: DEL must come"
        )
    _consult(call, record)
    told = results.in_place([a.default_route for a in record.attached], [a.result or Result() for a in record.attached])
    for attached, result in zip(record.attached, told, strict=True):
        await invoke.check(
            attached.network,
            call.attachment(attached, record.args),
            call.executor,
            prev_result=result,
            timeout=call.conf.delegate_timeout,
        )
    if record.arranged:
        _check_routes(call, record)


def _consult(call: Context, record: Record) -> None:
    """Whether the runtime's `prevResult` is of this attachment; a later plugin of a list may have added to it."""
    raw = call.conf.raw.get("prevResult")
    if raw is None:
        raise CniError(Code.INVALID_CONFIG, "CHECK: prevResult: expected the result of the ADD, found nothing")
    told = {_packed(ip.address) for ip in cni_result.parse(raw, call.conf.cni_version).ips}
    for address in (ip.address for attached in record.attached if attached.result for ip in attached.result.ips):
        if _packed(address) not in told:
            raise CniError(Code.INVALID_CONFIG, f"CHECK: prevResult: expected {address} among its ips, as ADD told it")


def _packed(cidr: str) -> bytes:
    """An address, whichever way it was written."""
    address = cidr.partition("/")[0]
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _check_routes(call: Context, record: Record) -> None:
    from genie.kernel import routes

    attached = [
        routes.Attached(
            ifname=a.ifname,
            result=a.result,
            wants_default=a.default_route is not None,
            gateways=a.default_route or (),
        )
        for a in record.attached
        if a.result is not None
    ]
    netns = call.request.netns
    try:
        with call.netlink() as kernel:
            found = routes.drift(kernel, attached, record.arranged)
    except OSError as error:
        raise CniError(Code.IO_FAILURE, f"cannot read the routes in {netns}: {error}") from error
    if found:
        raise CniError(Code.INTERNAL, f"somebody changed the routes that genie arranged in {netns}", "; ".join(found))
