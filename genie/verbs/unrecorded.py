"""DEL of what no record shows: the record was lost or damaged, or there never was one.

Every network that may hold something is asked to let go of it, which is no error where it has nothing (specification,
section 2, "DEL"). The pod's annotations name the networks and their interfaces, if the API server still has the pod;
net.d names those of the node. What fails here is logged and keeps nobody: there may be nothing to delete, and a runtime
that got an error would call for ever. What stays all the same is the collection's (see collect.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from genie.cni import invoke
from genie.cni.config import NetworkConfig
from genie.cni.errors import CniError
from genie.kube import Pod
from genie.records import DamagedError, RecordedAttachment
from genie.select import networks
from genie.select.annotations import Ask, asks
from genie.select.selection import interface_names
from genie.verbs.context import Context

_ANY = "any"
"""How a network is looked up that was chosen by its load (`cni: ""`): it can be any of the node's."""

_MOST = 8
"""Interfaces for which a network is asked in vain at most, where nothing shows how many a pod had."""

Suspect = tuple[NetworkConfig, str]
"""A network, and the interface that it may have attached."""


async def do_without(call: Context, damaged: DamagedError) -> None:
    """DEL with a record that cannot be read. Whether or not asking helps, the record goes aside: nothing would ever
    make it readable, and the runtime could never be done with the container.

    Raises:
        CniError: 5; the record cannot be set aside.
    """
    ignored: list[str] = []
    named = await _named(call, damaged.ifname, ignored)
    there = _interfaces(call, damaged.ifname)
    on_node = _on_node(call, ignored)
    if named is None:
        there += [name for name in _usual(len(on_node)) if name not in there]
    suspects = [*(named or ()), *((network, ifname) for network in on_node for ifname in there)]
    await _ask(call, damaged.container_id, suspects, ignored)
    call.story["damaged"] = f"{damaged}: it is {call.records.set_aside(damaged)} now"
    if ignored:
        call.story["ignored"] = ignored


async def delete_unrecorded(call: Context) -> None:
    """DEL without a record: the container was deleted already, or was made before genie was installed by the network
    that was first then, or its record is lost.
    """
    call.story["why"] = "no record"
    ignored: list[str] = []
    request = call.request
    named = await _named(call, request.ifname, ignored)
    on_node = _on_node(call, ignored)
    others = on_node if named is None else on_node[:1]
    await _ask(
        call, request.container_id, [*(named or ()), *((network, request.ifname) for network in others)], ignored
    )
    call.records.remove(request.container_id, request.ifname)  # what a writer left of one, that was ended
    if ignored:
        call.story["ignored"] = ignored


async def _named(call: Context, ifname: str, ignored: list[str]) -> list[Suspect] | None:
    """What the pod's annotations come to; None where the pod is not known. Of a pod that was made again under the same
    name they are most often the same; else they are asked in vain.
    """
    try:
        pod = await call.pod(of_any_uid=True)
        if pod is None:
            return None
        asked = asks(pod, call.conf)
        if asked.smart:
            asked = replace(asked, primary=(Ask(name="", where="", lookup=_ANY),))
        names = interface_names(asked, ifname)
    except CniError as error:
        ignored.append(str(error))
        return None
    found: list[Suspect] = []
    for ask, interface in zip(asked.primary + asked.extra, names, strict=True):
        found += [(network, interface) for network in await _looked_up(call, ask, pod, ignored)]
    return found


async def _looked_up(call: Context, ask: Ask, pod: Pod, ignored: list[str]) -> list[NetworkConfig]:
    if ask.lookup == _ANY:
        return _on_node(call, ignored)
    try:
        found = await networks.find([ask], call.kube, call.directory, pod.namespace, call.request.path)
    except CniError as error:
        ignored.append(str(error))
        return []
    return [one.network for one in found]


def _on_node(call: Context, ignored: list[str]) -> list[NetworkConfig]:
    try:
        return call.directory.networks()
    except CniError as error:
        ignored.append(str(error))
        return []


def _interfaces(call: Context, ifname: str) -> list[str]:
    """The interfaces that there may be: the runtime's, and whatever the pod has, if it is still there."""
    if not call.request.netns:
        return [ifname]
    try:
        with call.conversation() as kernel:
            return list(dict.fromkeys([ifname, *(name for name in kernel.links() if name != "lo")]))
    except OSError:
        return [ifname]


def _usual(count: int) -> list[str]:
    """The names that genie gives to interfaces of a pod that has each of so many networks once."""
    most = min(count, _MOST // 2)
    return [*(f"eth{n}" for n in range(1, most)), *(f"net{n}" for n in range(1, most + 1))]


async def _ask(call: Context, container_id: str, suspects: Sequence[Suspect], ignored: list[str]) -> None:
    """DEL of attachments that there may not be, in reverse, as they would be undone."""
    for network, ifname, container in reversed(_identified(call, container_id, suspects)):
        attached = RecordedAttachment(
            label=network.name,
            network=network,
            container_id=container,
            ifname=ifname,
            runtime_config=call.conf.runtime_config,
        )
        attachment = call.attachment(attached, call.request.env.get("CNI_ARGS", ""))
        try:
            await invoke.delete(network, attachment, call.executor, timeout=call.conf.delegate_timeout)
        except CniError as error:
            ignored.append(str(error))


def _identified(call: Context, own: str, suspects: Iterable[Suspect]) -> list[tuple[NetworkConfig, str, str]]:
    """Each once, with the container IDs under which its attachment may be: a plugin that looks at the ID alone has a
    pod's second attachment under another.
    """
    found: dict[tuple[str, str, str], tuple[NetworkConfig, str, str]] = {}
    before: list[NetworkConfig] = []
    for network, ifname in suspects:
        for container in dict.fromkeys((own, call.container_id(own, network, ifname, before))):
            found.setdefault((network.name, ifname, container), (network, ifname, container))
        before.append(network)
    return list(found.values())
