"""A pod in, its selection out: annotations.py reads, networks.py looks up, and selection.py decides."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from genie.cni.errors import CniError
from genie.cni.execute import Executor, compute
from genie.config import Conf
from genie.kube import Default, Kube, Pod
from genie.records import Records
from genie.select import networks
from genie.select.annotations import CNI, Ask, Asked, asks, names_default, size_of
from genie.select.networks import Directory
from genie.select.selection import Selection, assemble

if TYPE_CHECKING:
    from genie.select.least_loaded import Reading


async def choose(
    pod: Pod,
    conf: Conf,
    kube: Kube,
    executor: Executor,
    *,
    path: Sequence[str],
    ifname: str = "eth0",
    earlier: Reading | None = None,
) -> tuple[Selection, Mapping[str, str]]:
    """Select a pod's networks. Returns the selection, and annotations to write back to the pod (for `cni: ""`).

    earlier: an earlier reading of the interfaces' counters, if there is one (see least_loaded.py).

    Raises CniError: the request cannot be met, or the API server or the kubelet does not answer.
    """
    directory = networks.directory(conf.conf_dir)
    default = await default_for(pod, conf, kube)
    length = size_of(pod, default)
    asked = await compute(executor, lambda: asks(pod, conf, default), size=length)
    notes: Mapping[str, str] = {}
    if asked.smart:
        smart = asked
        asked = await executor.in_thread(lambda: _least_loaded(smart, directory, path, conf, earlier))
        notes = {CNI: asked.primary[0].name}
    found = await networks.find(
        asked.primary + asked.extra,
        kube,
        directory,
        pod.namespace,
        path,
        executor=executor,
        devices=lambda: _devices(pod, executor),
    )
    size = 4 * length + 4 * sum(one.length for one in found) + 1000 * len(found)

    work = partial(
        assemble,
        asked,
        found,
        ifname=ifname,
        runtime_config=conf.runtime_config,
        drop_undeclared=conf.drop_undeclared,
        size=size,
    )
    return await compute(executor, work, size=size), notes


async def default_for(pod: Pod, conf: Conf, kube: Kube) -> Default | None:
    """The default networks of the pod's namespace or node, if the pod does not decide them and genie.conf lets them.

    Raises CniError: 11; it is not known. A static pod then comes up without them, because it needs no API server.
    """
    if conf.namespace_defaults is False or names_default(pod):
        return None
    try:
        return await kube.defaults(pod.namespace)
    except CniError:
        if pod.is_static:
            return None
        raise


async def _devices(pod: Pod, executor: Executor) -> dict[str, list[str]]:
    from genie.select import devices

    until = time.monotonic() + devices.TIMEOUT  # the timeout starts before the wait for a turn
    return await executor.in_thread(lambda: devices.of_pod(pod.namespace, pod.name, until=until), waits=True)


def _least_loaded(
    asked: Asked, directory: Directory, path: Sequence[str], conf: Conf, earlier: Reading | None
) -> Asked:
    """Decide `cni: ""`: the default network is the least loaded one. Without earlier counters this waits between two
    readings.
    """
    from genie.select import least_loaded, spent

    directory = directory.now()
    usable = [network for network in directory.networks() if not networks.unusable(network, path)]
    names = {network.name: directory.title(network) for network in usable}
    known = list(Records(conf.state_dir))
    pools = {**spent.pools(usable, known), **(earlier.pools if earlier else {})}
    last = spent.reasons(usable, pools, conf.state_dir)
    choice = least_loaded.least_loaded(least_loaded.loads(list(names), known, earlier, last, pools), conf)
    ask = Ask(name=names[choice.network], where='annotation cni ("")', lookup="default")
    return replace(asked, primary=(ask,), smart=False, why=f"{asked.why}: {choice.why}")
