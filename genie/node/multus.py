"""Converts Multus' configuration, such as 00-multus.conf, to an equivalent genie.conf.

The keys are from docs/configuration.md, pkg/types/types.go and pkg/server/config/generator.go of Multus 4. Each becomes
a key of genie.conf, or a note explains its replacement. A key without any replacement is refused. A key that Multus
does not know either is named in a note.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from genie import config
from genie.cni import config as cni_config
from genie.cni.fields import Fields, invalid
from genie.config import DEFAULT_CONF_DIR
from genie.select.annotations import DEFAULT_NETWORK_NAMESPACE
from genie.select.networks import RIVALS, Directory, rival

#: The mount point of the node's root in a pod of Multus.
_MOUNTS = ("/hostroot", "/host")
_LEVELS = {"debug": "debug", "verbose": "info", "error": "error", "panic": "error"}
_TAKEN = (
    *("name", "type", "cniVersion", "plugins", "clusterNetwork", "defaultNetworks", "delegates", "kubeconfig"),
    *("namespaceIsolation", "globalNamespaces", "capabilities", "logFile", "logLevel"),
)
#: Keys without an equivalent key, with their replacement; "" if none is needed.
_NOTES = {
    "readinessindicatorfile": "genie needs no such file: while a network of default_plugin has no configuration in "
    "net.d, or no plugin, pods wait, and genie's STATUS fails",
    "systemNamespaces": "pods there get defaultNetworks, too, unless their annotation cni names another network",
    "confDir": "genie looks for networks in net.d alone: copy what NetworkAttachmentDefinitions without a config name",
    "binDir": "genie looks for plugins where the runtime does (CNI_PATH, usually /opt/cni/bin): copy those of binDir",
    "auxiliaryCNIChainName": "put those plugins into the folder of the network itself: net.d/NAME/*.conf",
    "logOptions": "genie does not rotate its log_file: leave that to logrotate",
    **dict.fromkeys(("logToStderr", "cniDir", "retryDeleteOnError", "socketDir", "daemonSocketDir"), ""),
    **dict.fromkeys(("cniConfigDir", "multusAutoconfigDir", "multusConfigFile", "multusMasterCNI"), ""),
    **dict.fromkeys(("chrootDir", "forceCNIVersion", "overrideNetworkName", "metricsPort", "perNodeCertificate"), ""),
}

_KNOWN = {*_TAKEN, *_NOTES, "multusNamespace"}

Find = Callable[[str], str]
"""Returns the name of a network in net.d, by its name or path; empty if there is none."""


@dataclass(frozen=True, kw_only=True)
class Migrated:
    """conf: genie.conf. networks: files to add to net.d, if they do not exist yet. notes: the differences."""

    conf: Mapping[str, Any]
    networks: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...]


def read(path: str, conf_dir: str) -> Migrated:
    """Read Multus' configuration from a file, for a node with this net.d.

    Raises CniError: 5 when it cannot be read, 6 when it is not JSON, 7 when it is not Multus', or has a setting that
    genie does not support.
    """
    directory = Directory(conf_dir)
    found = migrated(Fields(config.decoded(path), path), lambda name: _in_net_d(name, directory))
    return found if conf_dir == DEFAULT_CONF_DIR else replace(found, conf={**found.conf, "conf_dir": conf_dir})


def migrated(read: Fields, find: Find) -> Migrated:
    """Convert a configuration of Multus.

    Raises CniError: 7.
    """
    own = next((each for each in (read, *read.objects("plugins")) if each.data.get("type") in tuple(RIVALS)), None)
    if own is None:
        raise read.wrong("type", f"a configuration of Multus ({' or '.join(RIVALS)})")
    names, networks = _first(own, find)
    names += [_network(own, "defaultNetworks", name, find) for name in own.strings("defaultNetworks")]
    conf: dict[str, Any] = {
        "cniVersion": "1.0.0",
        "name": "genie",
        "type": "genie",
        "default_plugin": names,
        "namespace_isolation": own.boolean("namespaceIsolation"),
        "global_namespaces": [each.strip() for each in own.text("globalNamespaces").split(",") if each.strip()],
        "capabilities": dict(own.object("capabilities")),
        "log_file": _on_node(own.text("logFile")),
        "log_level": _level(own),
    }
    if kubeconfig := own.text("kubeconfig"):
        conf["kubernetes"] = {"kubeconfig": _on_node(kubeconfig)}
    granted = {key: value for key, value in conf.items() if value}
    config.parse(granted, own.where)
    return Migrated(conf=granted, networks=networks, notes=tuple(_notes(own, names, networks)))


def _first(own: Fields, find: Find) -> tuple[list[str], dict[str, Mapping[str, Any]]]:
    """The networks of every pod, the default one first, and those of them that have no file yet."""
    if cluster := own.text("clusterNetwork"):
        return [_network(own, "clusterNetwork", cluster, find)], {}
    names: list[str] = []
    networks: dict[str, Mapping[str, Any]] = {}
    for at, delegate in enumerate(own.objects("delegates")):
        name = delegate.text("name") or delegate.text("type")
        network = cni_config.parse(json.dumps({**delegate.data, "name": name}), delegate.where)
        if caller := next((kind for kind in network.types if kind in (config.GENIE, *RIVALS)), ""):
            raise invalid(delegate.where, f"type: expected the plugin of a network, found {caller!r}")
        if network.name in names:  # both would be the first one
            raise invalid(delegate.where, f"name: expected another than an earlier delegate's, found {network.name!r}")
        names.append(network.name)
        if (there := find(network.name)) and there != network.name:
            raise invalid(
                delegate.where, f"name: expected one that no file of net.d has, where {network.name!r} is {there!r}"
            )
        if not there:
            file = f"{10 + at}-{network.name}.{'conflist' if network.is_list else 'conf'}"
            networks[file] = {**delegate.data, "name": network.name}
    if not names:
        raise own.wrong("clusterNetwork", "a network, or at least one of `delegates`")
    return names, networks


def _network(own: Fields, key: str, name: str, find: Find) -> str:
    """The name of a network that Multus finds in a file, a folder or a NetworkAttachmentDefinition."""
    if found := find(_on_node(name)):
        return found
    if "/" in name:
        raise invalid(own.where, f"{key}: expected a network in the node's net.d, found {name!r}")
    return f"{_namespace(own)}/{name}"


def _namespace(own: Fields) -> str:
    """The namespace where Multus looks for the NetworkAttachmentDefinitions of every pod."""
    return own.text("multusNamespace") or DEFAULT_NETWORK_NAMESPACE


def _in_net_d(name: str, directory: Directory) -> str:
    """Multus' rules (pkg/k8sclient, getNetDelegate): with a slash it is a path, of a file or of a folder (its first
    file counts); otherwise it is the name in a configuration.
    """
    if "/" not in name:
        network = directory.find(name)
        return network.name if network else ""
    try:
        path = f"{name.rstrip('/')}/{cni_config.conf_files(name)[0]}" if os.path.isdir(name) else name
        network = next(each for each in directory.networks() if os.path.samefile(each.source, path))
    except (OSError, IndexError, StopIteration):
        return ""
    return "" if rival(network) else network.name


def _on_node(path: str) -> str:
    """A path on the node: a pod of Multus has the node's files mounted elsewhere."""
    mount = next((each for each in _MOUNTS if path.startswith(f"{each}/")), "")
    return path.removeprefix(mount)


def _level(own: Fields) -> str:
    level = own.text("logLevel").lower()
    if level and level not in _LEVELS:
        raise own.wrong("logLevel", f"one of {', '.join(_LEVELS)}")
    return _LEVELS.get(level, "")


def _notes(own: Fields, names: list[str], networks: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The differences with genie, a sentence for each key."""
    for key, value in own.data.items():
        if value in (None, "", [], {}):
            continue
        if key not in _KNOWN:
            yield f"{key}: unknown to Multus and to genie, ignored"
        elif note := _NOTES.get(key, ""):
            yield f"{key}: {note}"
    if len(names) > 1:
        key = "defaultNetworks" if own.data.get("defaultNetworks") else "delegates"
        yield (
            f"{key}: the further networks are on eth1, eth2, …, with Multus on net1, net2, …; pods of kube-system get "
            f"them, too, unless their annotation cni names another network (cni: {names[0]!r})"
        )
    if own.data.get("delegates"):
        if own.data.get("clusterNetwork"):
            yield "delegates: ignored, as by Multus, because there is clusterNetwork"
        else:
            new = [network["name"] for network in networks.values()]
            for name in (name for name in names if name not in new):
                yield f"delegates: {name} is in net.d already: that configuration counts"
    for name in (name for name in names if "/" in name):
        yield (
            f"{name}: not in net.d, so it is taken for a NetworkAttachmentDefinition; pods that name no network "
            "wait until there is one"
        )
    if (space := _namespace(own)) != DEFAULT_NETWORK_NAMESPACE:
        yield (
            f"multusNamespace: the annotation v1.multus-cni.io/default-network means a NetworkAttachmentDefinition in "
            f"kube-system with genie, not in {space}: move those that pods name there"
        )
    if own.data.get("kubeconfig"):
        yield "kubeconfig: it is of Multus' account, and ends with Multus: give genie one of its own (rbac.yaml)"
