"""Names to CNI configurations: finds the networks that a pod asks for, and writes devices into them.

A name is looked up in this order (docs/annotations.md): a NetworkAttachmentDefinition; the `name` field of a
configuration in net.d; a file's name (`10-weave.conf` → weave); for bridge and macvlan, a configuration that genie
generates if the plugin's binary is installed. genie's own configuration is never found, or genie would call itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from genie.cni import config as cni_config
from genie.cni import invoke
from genie.cni.config import NetworkConfig
from genie.cni.errors import CniError, Code
from genie.cni.execute import Executor, compute
from genie.cni.fields import invalid
from genie.config import GENIE
from genie.kube import Kube
from genie.select.annotations import Ask, SelectionError
from genie.select.selection import Found

#: On a NetworkAttachmentDefinition: its network runs over a device of this resource.
RESOURCE = "k8s.v1.cni.cncf.io/resourceName"
CONFIG_MAX = 65536
"""The limit for one NetworkAttachmentDefinition's configuration, in characters. The API server accepts 1.5 MB."""
CONFIGS_MAX = 4 * CONFIG_MAX
"""The limit for all of a pod's together, in characters, each counted as often as the pod asks for it."""
PLUGINS_MAX = 16
"""The limit for the plugins of one NetworkAttachmentDefinition."""
#: Generated for a network that nobody configured. The bridge's subnet is CNI-Genie's.
GENERATED_SUBNET = {"bridge": "10.10.0.0/16", "macvlan": "10.11.0.0/16"}

#: Plugins that do not create an interface: they change one that a plugin before them made, or are ipam plugins. A
#: network with only these and the loopback cannot be a pod's network, whatever their order.
META = ("bandwidth", "firewall", "portmap", "sbr", "tuning", "vrf", "istio-cni", "linkerd-cni")
IPAM = ("host-local", "static", "dhcp", "whereabouts", "calico-ipam", "weave-ipam")
NO_INTERFACE = frozenset(("loopback", *META, *IPAM))

#: Plugins that read the same annotations as genie and attach a pod to all of its networks, by their owner: with genie
#: before them, each further network would be attached twice. Multus' installers write either of its two.
RIVALS = {"multus": "Multus", "multus-shim": "Multus"}

#: Returns the IDs of a pod's devices by resource.
Devices = Callable[[], Awaitable[dict[str, list[str]]]]
_Entries = Mapping[str, NetworkConfig | CniError]
_Read = tuple[tuple[int, ...], NetworkConfig | CniError | None]
"""A file as it was read: its stamp (see `_stamp`), and its network, its error, or None for genie's own."""


async def _no_devices() -> dict[str, list[str]]:
    return {}


class Directory:
    """The configurations in a node's net.d. A file is read again only when it has changed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._seen: tuple[dict[str, _Read], _Entries, _Entries] = {}, {}, {}
        self._folders: dict[str, str] = {}

    def networks(self) -> list[NetworkConfig]:
        """The valid configurations except genie's own, in the order of their file names, as a runtime reads them."""
        return [entry for entry in self.entries().values() if isinstance(entry, NetworkConfig)]

    def find(self, name: str) -> NetworkConfig | None:
        """Find a network by the `name` field of its configuration, otherwise by its file's name.

        Raises CniError: the only file of that name is broken; the error is the file's.
        """
        entry = self._look()[1].get(name)
        if isinstance(entry, CniError):
            raise entry
        return entry

    def now(self) -> Directory:
        """The configurations as they are at the first look, for one call: with many files, each look takes a while."""
        return _Snapshot(self)

    def title(self, network: NetworkConfig) -> str:
        """The name that people use: the file's (`calico` for k8s-pod-network), unless it finds another network."""
        name = file_network(os.path.basename(network.source))
        return name if self.find(name) is network else network.name

    def known(self) -> str:
        """The names that a pod can ask for, for messages."""
        mine = {file: e for file, e in self.entries().items() if isinstance(e, NetworkConfig) and not rival(e)}
        names = {entry.name: None for entry in mine.values()}
        names.update({file_network(file): None for file in mine})
        return ", ".join(names) or "none"

    def broken(self) -> list[CniError]:
        return [entry for entry in self.entries().values() if isinstance(entry, CniError)]

    def entries(self) -> _Entries:
        """The configurations except genie's own, by their file names, in order; for a broken one, its error.

        Raises CniError: 5; the directory cannot be read.
        """
        return self._look()[0]

    def _look(self) -> tuple[_Entries, _Entries]:
        """The configurations by their file names, and by the names that find them; made again after a change."""
        try:
            files = cni_config.conf_files(self.path)
        except OSError as error:
            raise CniError(
                Code.IO_FAILURE, f"cannot read the configurations in {self.path}: {error.strerror}"
            ) from error
        seen = self._seen  # replaced in one step, because threads look, too
        read = {file: self._load(file, seen[0].get(file)) for file in files}
        if read != seen[0]:
            entries = {file: entry for file, (_, entry) in read.items() if entry is not None}
            self._seen = seen = read, entries, _by_name(entries)
        return seen[1:]

    def _load(self, file: str, before: _Read | None) -> _Read:
        path = f"{self.path}/{file}"
        folder = self._folders.get(file, "")
        stamp = _stamp(path, folder)
        if not stamp:
            return (), None
        if before and before[0] == stamp:
            return before
        entry: NetworkConfig | CniError | None
        try:
            network = cni_config.load(path)
            entry = None if GENIE in network.types else network
            if file.endswith(".conflist"):  # its folder may hold plugins, too: compared from the next call on
                self._folders[file] = f"{self.path}/{network.name}"
        except CniError as error:
            entry = error
        return stamp, entry


class _Snapshot(Directory):
    """A directory that is looked at once, when something is asked of it."""

    def __init__(self, live: Directory) -> None:
        super().__init__(live.path)
        self._live = live
        self._looked: tuple[_Entries, _Entries] | None = None

    def _look(self) -> tuple[_Entries, _Entries]:
        self._looked = self._looked or self._live._look()
        return self._looked


def _by_name(entries: _Entries) -> _Entries:
    """The configurations by the names that find them."""
    whole = [(file, entry) for file, entry in entries.items() if isinstance(entry, NetworkConfig)]
    found: dict[str, NetworkConfig | CniError] = {}
    for _, entry in whole:
        found.setdefault(entry.name, entry)
    for file, network in whole:
        found.setdefault(file_network(file), network)
    for file, one in entries.items():
        found.setdefault(file_network(file), one)
    return found


def _stamp(path: str, folder: str) -> tuple[int, ...]:
    """A value that changes when a configuration's file or a file of its folder changes; empty if there is no file."""
    files = [path]
    if folder:
        try:
            files += sorted(f"{folder}/{file}" for file in os.listdir(folder) if file.endswith(".conf"))
        except OSError:
            pass  # most networks have no folder
    stamp: tuple[int, ...] = ()
    for file in files:
        try:
            stat = os.stat(file)
        except OSError:
            return ()
        stamp += (stat.st_ino, stat.st_mtime_ns, stat.st_size)
    return stamp


def unusable(network: NetworkConfig, path: Sequence[str] | None) -> str:
    """Why genie does not choose this network of net.d by itself; "" if it may. A pod that names the network still gets
    it, or the plugin's error.

    path: the directories of CNI_PATH, None if they are not seen from here. A configuration without its plugin is not in
    use any more, as for the kubelet.
    """
    if why := rival(network):
        return why
    if NO_INTERFACE.issuperset(network.types):
        return f"{' + '.join(network.types)} cannot be a pod's network"
    try:
        for kind in network.types if path is not None else ():
            invoke.find(kind, path or ())
    except CniError as error:
        return error.msg
    return ""


def rival(network: NetworkConfig) -> str:
    """Why genie never calls this configuration: its owner attaches pods to networks as genie does. "" if not."""
    owner = next((RIVALS[kind] for kind in network.types if kind in RIVALS), "")
    if not owner:
        return ""
    return (
        f"{network.source} is {owner}' own configuration: {owner} reads the same annotations as genie, and would "
        f"attach a pod's networks a second time. genie never calls it for a pod; remove {owner} (docs/migration.md)"
    )


def file_network(file: str) -> str:
    """The network that a file is named after: `10-weave.conf` → weave, `calico.conflist` → calico."""
    stem = file.rpartition(".")[0]
    return re.sub(r"\A\d+-", "", stem)


async def find(
    asks: Sequence[Ask],
    kube: Kube,
    directory: Directory,
    pod_namespace: str,
    path: Sequence[str] | None,
    *,
    executor: Executor | None = None,
    devices: Devices = _no_devices,
) -> list[Found]:
    """Look up each network that the pod asks for.

    path: the directories of CNI_PATH, where a generated configuration's plugin must be; None: it is there.
    executor: runs long computations off the event loop; without one they run here.
    devices: returns the pod's devices by resource; asked at most once, and only for a network that runs over one.

    Raises SelectionError: a network does not exist; the message names the places searched and the networks found there.
    """
    directory = directory.now()
    found: list[Found] = []
    length = 0  # of the definitions so far: many short ones take as long as a long one
    for ask in asks:
        one = await _find(ask, kube, directory, pod_namespace, path, executor=executor, before=length)
        length += one.length
        if length > CONFIGS_MAX:  # they are written and read as one record
            raise SelectionError(
                ask.where, f"the definitions of the pod's networks come to more than {CONFIGS_MAX} characters"
            )
        if why := rival(one.network):
            raise SelectionError(ask.where, why)
        found.append(one)
    free = await devices() if any(one.resource for one in found) else {}
    return [
        replace(one, network=with_device(one.network, _next_device(free, one.resource, ask))) if one.resource else one
        for ask, one in zip(asks, found, strict=True)
    ]


def _next_device(free: dict[str, list[str]], resource: str, ask: Ask) -> str:
    """The pod's next device of a resource: each network takes one, in the kubelet's order."""
    if not free.get(resource):
        raise SelectionError(
            ask.where,
            f"the network runs over a device of {resource}, and the pod has no (further) one: ask for it in the "
            "resources of a container",
        )
    return free[resource].pop(0)


def with_device(network: NetworkConfig, device: str) -> NetworkConfig:
    """The network over one device: `deviceID` in its first plugin, as Multus does (device-info specification, 1.1)."""
    first, *others = network.plugins
    return replace(network, plugins=({**first, "deviceID": device}, *others))


async def _find(
    ask: Ask,
    kube: Kube,
    directory: Directory,
    pod_namespace: str,
    path: Sequence[str] | None,
    *,
    executor: Executor | None,
    before: int,
) -> Found:
    """A network, still without a device. before: the characters of definitions that were read before it."""
    try:
        if ask.lookup == "first":
            network = first(directory, path)
            return Found(network=network, label=network.name)
        if ask.lookup == "logical":
            from genie.select import logical  # most clusters have no such objects

            above = await logical.read(kube, pod_namespace, ask.name)
            return Found(network=above.over(_on_node(above.plugin, directory, path)), label=ask.name)
        namespace = ask.namespace or pod_namespace
        if ask.lookup in ("named", "attachment") and namespace:
            needed = ask.lookup == "attachment"
            definition = await kube.network("NetworkAttachmentDefinition", namespace, ask.name, needed=needed)
            if definition is not None:
                resource = ((definition.get("metadata") or {}).get("annotations") or {}).get(RESOURCE, "")
                length = _length(definition)
                read = partial(from_definition, definition, namespace, ask.name, directory)
                network = await compute(executor, read, size=before + length) if executor else read()
                return Found(network=network, label=f"{namespace}/{ask.name}", resource=resource, length=length)
            if needed:
                raise CniError(Code.INVALID_CONFIG, f"there is no NetworkAttachmentDefinition {namespace}/{ask.name}")
        return Found(network=_on_node(ask.name, directory, path), label=ask.name)
    except SelectionError:
        raise
    except CniError as error:
        raise SelectionError(ask.where, error.msg, error.code, error.details) from error


def _length(definition: Mapping[str, Any]) -> int:
    """Characters of a definition's configuration."""
    spec = definition.get("spec")
    config = spec.get("config") if isinstance(spec, dict) else None
    return len(config) if isinstance(config, str) else 0


def first(directory: Directory, path: Sequence[str] | None) -> NetworkConfig:
    """The default network if neither the pod nor genie.conf names one: the first configuration in net.d.

    A configuration that genie does not choose by itself (see `unusable`) is skipped. A broken one is an error, as in
    containerd: it may be half written, and a pod on the wrong network is worse than a pod that waits. Folders and other
    programs' JSON files are ignored.

    Raises CniError: 11; there is none, or a broken one comes first.
    """
    passed = []
    for file, entry in directory.entries().items():
        if not isinstance(entry, CniError):
            if not (why := unusable(entry, path)):
                return entry
            passed.append(why if rival(entry) else f"{entry.source}: {why}")
        elif isinstance(entry, cni_config.StrangerError) or os.path.isdir(f"{directory.path}/{file}"):
            passed.append(entry.msg)
        else:
            raise CniError(
                Code.TRY_AGAIN,
                f"{entry.msg}; it comes first in {directory.path}, and genie takes no other: repair or remove it",
                entry.details,
            )
    raise CniError(
        Code.TRY_AGAIN,
        f"{directory.path} has no valid configuration but genie's own{''.join(f'; {each}' for each in passed)}: "
        "install a network, or set default_plugin",
    )


def _on_node(name: str, directory: Directory, path: Sequence[str] | None) -> NetworkConfig:
    network = directory.find(name) or generated(name, path)
    if network is None:
        broken = "".join(f"; broken: {error}" for error in directory.broken())
        raise CniError(
            Code.INVALID_CONFIG,
            f"no network {name!r}: no NetworkAttachmentDefinition of that name in the pod's namespace and no "
            f"configuration in {directory.path} (which has: {directory.known()}{broken})",
        )
    return network


def from_definition(definition: Mapping[str, Any], namespace: str, name: str, directory: Directory) -> NetworkConfig:
    """A NetworkAttachmentDefinition's configuration: `spec.config`, otherwise the node's configuration of the same name
    (multi-network specification, section 3.1: "config … if empty, the network name is looked up on disk").
    """
    source = f"NetworkAttachmentDefinition {namespace}/{name}"
    spec = definition.get("spec")
    text = spec.get("config") if isinstance(spec, dict) else None
    network: NetworkConfig | None
    if text is not None and not isinstance(text, str):
        raise invalid(source, "spec.config: expected a string that holds a CNI configuration")
    if text and len(text) > CONFIG_MAX:
        raise too_large("NetworkAttachmentDefinition", namespace, name)
    if text and text.strip():
        network = cni_config.parse(text, source, name=name)
        if GENIE in network.types:
            raise invalid(source, "a plugin of type genie: genie would call itself")
        if len(network.plugins) > PLUGINS_MAX:
            raise invalid(source, f"plugins: {len(network.plugins)} plugins, of at most {PLUGINS_MAX}")
        return network
    network = directory.find(name)
    if network is None:
        missing = f"{directory.path} has no configuration {name!r} (it has: {directory.known()})"
        raise invalid(source, f"spec.config is empty and {missing}")
    return network


def too_large(kind: str, namespace: str, name: str) -> CniError:
    what = "spec.config" if kind == "NetworkAttachmentDefinition" else "spec"
    return invalid(
        f"{kind} {namespace}/{name}", f"{what} has more than {CONFIG_MAX} characters, the most that genie reads"
    )


def generated(name: str, path: Sequence[str] | None) -> NetworkConfig | None:
    """CNI-Genie's "default configuration": bridge and macvlan work without a file if their binary is installed."""
    subnet = GENERATED_SUBNET.get(name)
    if subnet is None or not (path is None or any(os.access(f"{each}/{name}", os.X_OK) for each in path)):
        return None
    plugin: dict[str, Any] = {"type": name, "ipam": {"type": "host-local", "subnet": subnet}}
    if name == "bridge":
        plugin.update(bridge="genie0", isGateway=True, ipMasq=True)
        plugin["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]
    else:
        plugin.update(master=default_interface())
    return NetworkConfig(
        name=f"genie-{name}",
        cni_version="1.0.0",
        plugins=(plugin,),
        source=f"the configuration that genie makes for {name}",
        is_list=True,
    )


def default_interface() -> str:
    """The node's interface with the IPv4 default route; `eth0` if there is none."""
    try:
        with open("/proc/net/route", encoding="ascii") as file:
            for line in file:
                columns = line.split()
                if columns[1] == "00000000" and columns[7] == "00000000":
                    return columns[0]
    except (OSError, IndexError):
        pass
    return "eth0"


_directories: dict[str, Directory] = {}


def directory(path: str) -> Directory:
    """The net.d of a path; all calls of the agent share one cache."""
    return _directories.setdefault(path, Directory(path))
