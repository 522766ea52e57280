"""DEL without a usable record: it was lost or damaged, or never existed.

Every network that may have attached the pod gets a DEL, which is not an error if it has nothing to delete
(specification, section 2, "DEL"). The pod's annotations name the networks and their interfaces, if the API server still
has the pod; net.d names those of the node. Failures are only logged: there may be nothing to delete, and a runtime that
gets an error calls for ever. Anything that is left is removed by the collection (see collect.py).
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
from genie.select.annotations import Ask, asks, size_of
from genie.select.choose import default_for
from genie.select.selection import interface_names
from genie.verbs.context import Context

_ANY = "any"
"""The lookup for a network that was chosen by its load (`cni: ""`): any of the node's."""

_MOST = 8
"""The most interfaces to try for a network if the number of the pod's interfaces is unknown."""

Suspect = tuple[NetworkConfig, str]
"""A network, and an interface that it may have attached."""


async def do_without(call: Context, damaged: DamagedError) -> None:
    """DEL with a damaged record. In any case the record is set aside afterwards: it never becomes readable again, and
    with it the runtime could never finish the DEL.

    Raises CniError: 5; the record cannot be set aside.
    """
    named = await _named(call, damaged.ifname)
    there = _interfaces(call, damaged.ifname)
    on_node = _on_node(call)
    if named is None:
        there += [name for name in _usual(len(on_node)) if name not in there]
    suspects = [*(named or ()), *((network, ifname) for network in on_node for ifname in there)]
    await _ask(call, damaged.container_id, suspects)
    call.story["damaged"] = f"{damaged}: it is {call.records.set_aside(damaged)} now"


async def delete_unrecorded(call: Context) -> None:
    """DEL without a record: the container was deleted already, or is older than genie's installation (and has the
    node's first network of that time), or its record is lost.
    """
    call.story["why"] = "no record"
    request = call.request
    named = await _named(call, request.ifname)
    on_node = _on_node(call)
    others = on_node if named is None else on_node[:1]
    await _ask(call, request.container_id, [*(named or ()), *((network, request.ifname) for network in others)])
    call.records.remove(request.container_id, request.ifname)  # a partly written record, from a writer that was killed


def _ignore(call: Context, error: CniError) -> None:
    call.story.setdefault("ignored", []).append(str(error))


async def _named(call: Context, ifname: str) -> list[Suspect] | None:
    """The networks of the pod's annotations; None if the pod is unknown. A new pod of the same name usually has the
    same annotations; if not, the extra DELs have no effect.
    """
    try:
        pod = await call.pod(of_any_uid=True)
        if pod is None:
            return None
        default = await default_for(pod, call.conf, call.kube)
        asked = await call.compute(lambda: asks(pod, call.conf, default), size=size_of(pod, default))
        if asked.smart:
            asked = replace(asked, primary=(Ask(name="", where="", lookup=_ANY),))
        names = interface_names(asked, ifname)
    except CniError as error:
        _ignore(call, error)
        return None
    found: list[Suspect] = []
    directory = call.directory.now()
    for ask, interface in zip(asked.primary + asked.extra, names, strict=True):
        found += [(network, interface) for network in await _looked_up(call, directory, ask, pod)]
    return found


async def _looked_up(call: Context, directory: networks.Directory, ask: Ask, pod: Pod) -> list[NetworkConfig]:
    if ask.lookup == _ANY:
        return _on_node(call)
    try:
        found = await networks.find(
            [ask], call.kube, directory, pod.namespace, call.request.path, executor=call.executor
        )
    except CniError as error:
        _ignore(call, error)
        return []
    return [one.network for one in found]


def _on_node(call: Context) -> list[NetworkConfig]:
    try:
        return call.directory.networks()
    except CniError as error:
        _ignore(call, error)
        return []


def _interfaces(call: Context, ifname: str) -> list[str]:
    """The possible interfaces: the runtime's, and those of the pod's namespace, if it still exists."""
    if not call.request.netns:
        return [ifname]
    try:
        with call.conversation() as kernel:
            return list(dict.fromkeys([ifname, *(name for name in kernel.links() if name != "lo")]))
    except OSError:
        return [ifname]


def _usual(count: int) -> list[str]:
    """The default interface names of a pod with this many networks."""
    most = min(count, _MOST // 2)
    return [*(f"eth{n}" for n in range(1, most)), *(f"net{n}" for n in range(1, most + 1))]


async def _ask(call: Context, container_id: str, suspects: Sequence[Suspect]) -> None:
    """DEL of attachments that may not exist, in reverse order."""
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
            await invoke.delete(network, attachment, call.executor)
        except CniError as error:
            _ignore(call, error)


def _identified(call: Context, own: str, suspects: Iterable[Suspect]) -> list[tuple[NetworkConfig, str, str]]:
    """Each attachment once, with its possible container IDs: a plugin that looks at the ID alone has a pod's second
    attachment under another ID.
    """
    found: dict[tuple[str, str, str], tuple[NetworkConfig, str, str]] = {}
    before: set[str] = set()
    for network, ifname in suspects:
        for container in dict.fromkeys((own, call.container_id(own, network, ifname, before))):
            found.setdefault((network.name, ifname, container), (network, ifname, container))
        before.update(network.types)
    return list(found.values())
