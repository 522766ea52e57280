"""A network configuration: as an administrator wrote it, checked, and otherwise unchanged.

The input is the text of a `.conf` (one plugin) or a `.conflist` (several), or of a NetworkAttachmentDefinition. The
output is a `NetworkConfig`. Its plugins are still the raw JSON objects, because unknown fields must reach the plugin
unchanged (specification, section 1). Only the fields of the protocol itself are checked. Each error names the source,
the field and the expected value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from genie.cni import version as versions
from genie.cni.errors import CniError, Code
from genie.cni.fields import Fields, decode, shown, undecodable
from genie.cni.regular import opened

# Section 1, `name`, and section 2, CNI_CONTAINERID. \Z, not $: a name has no trailing newline.
_NAME_IS = "letters, digits, '_', '.' and '-', beginning with a letter or digit"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*\Z")
_TOP = {"cniVersion", "cniVersions", "name", "type", "plugins"}
SUFFIXES = (".conf", ".conflist", ".json")  # the files that libcni, and so a runtime, reads as configurations
#: Plugins that call the plugin of `ipam` with the same configuration.
_CALLING_IPAM = ("bridge", "macvlan", "ipvlan", "ptp", "vlan", "host-device", "dummy", "tap")
IFNAME_IS = "1 to 15 bytes without '/', ':' or white space"
TYPE_IS = "the name of a plugin's executable, without '/' or '\\'"


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """One network (section 1, "Configuration format").

    name: the network's name. cni_version: the highest version in `cniVersion` and `cniVersions` that genie
    supports. plugins: each plugin's object as written, in the order of the chain, never empty. source: a file's
    path or "NetworkAttachmentDefinition ns/x", for messages. is_list: written as a list, not as one plugin's
    object. disable_check, disable_gc: the fields of these names. Treat plugins as read-only.
    """

    name: str
    cni_version: str
    plugins: tuple[dict[str, Any], ...]
    source: str
    is_list: bool = False
    disable_check: bool = False
    disable_gc: bool = False

    @property
    def types(self) -> tuple[str, ...]:
        """The plugins' types, in the order of the chain."""
        return tuple(plugin["type"] for plugin in self.plugins)


class StrangerError(CniError):
    """A JSON object without any key of a CNI configuration: another program's file, like flannel's net-conf.json."""


def parse(
    text: bytes | str, source: str, *, name: str = "", siblings: Iterable[tuple[str, bytes | str]] = ()
) -> NetworkConfig:
    """Read a configuration, of one plugin or a list of them.

    source: its name in messages. name: used if the configuration has none (the name of a
    NetworkAttachmentDefinition). siblings: (source, text) of further plugin objects, from the folder beside
    the file that has the network's name; appended unless `loadOnlyInlinedPlugins` is true.

    Raises CniError: DECODING_FAILURE if it is not a JSON object, INCOMPATIBLE_VERSION if none of its versions
    is known, StrangerError if it is not a CNI configuration at all, INVALID_CONFIG for everything else.
    """
    read = _object(text, source)
    if read.data and not read.data.keys() & _TOP:
        raise StrangerError(Code.INVALID_CONFIG, f"{source}: not a CNI configuration: it has neither type nor plugins")
    is_list = "type" not in read.data or read.data.get("plugins") is not None
    only_inlined = _boolean(read, "loadOnlyInlinedPlugins")
    if only_inlined and read.data.get("plugins") is None:
        raise read.wrong("loadOnlyInlinedPlugins", "false or nothing where there is no `plugins`")
    plugins = [_plugin(each) for each in read.objects("plugins")] if is_list else [_plugin(read)]
    if is_list and not only_inlined:
        plugins += [_plugin(_object(extra, where)) for where, extra in siblings]
    if not plugins or read.data.get("plugins") == []:
        raise read.wrong("plugins", "at least one plugin")
    network = read.data.get("name")
    return NetworkConfig(
        name=_network_name(name if network is None or network == "" else network, read),
        cni_version=_version(read),
        plugins=tuple(plugins),
        source=source,
        is_list=is_list,
        disable_check=_boolean(read, "disableCheck"),
        disable_gc=_boolean(read, "disableGC"),
    )


def conf_files(directory: str) -> list[str]:
    """The file names of the configurations in a net.d directory, in the order in which a runtime reads them.

    Raises OSError.
    """
    with os.scandir(directory) as entries:
        return sorted(
            entry.name for entry in entries if entry.name.endswith(SUFFIXES) and not entry.is_dir(follow_symlinks=False)
        )


def load(path: str | os.PathLike[str]) -> NetworkConfig:
    """Read a file, and the plugins in the folder beside it (section 1, `loadOnlyInlinedPlugins`).

    For `net.d/10-blue.conflist` of a network named `blue` these are `net.d/blue/*.conf`, in the order of
    their names. Raises CniError: IO_FAILURE if a file cannot be read, and the errors of `parse`.
    """
    path = os.fspath(path)
    text = _read(path)
    if not path.endswith(".conflist"):
        return parse(text, path)
    name = _object(text, path).data.get("name")
    folder = os.path.join(os.path.dirname(path), name) if isinstance(name, str) and _NAME.match(name) else ""
    try:
        extras = [f"{folder}/{file}" for file in sorted(os.listdir(folder)) if file.endswith(".conf")] if folder else []
    except OSError:  # most networks have no folder
        extras = []
    return parse(text, path, siblings=[(extra, _read(extra)) for extra in extras])


def validate_network_name(name: str) -> None:
    """Section 1, `name`. Raises CniError (INVALID_CONFIG)."""
    if not _NAME.match(name):
        raise CniError(Code.INVALID_CONFIG, f"network name {name!r}: expected {_NAME_IS}")


def validate_container_id(container_id: str) -> None:
    """Section 2, CNI_CONTAINERID. Raises CniError (INVALID_ENVIRONMENT)."""
    if not _NAME.match(container_id):
        raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_CONTAINERID {container_id!r}: expected {_NAME_IS}")


def is_ifname(name: str) -> bool:
    """Whether Linux accepts this as an interface's name."""
    size = len(name.encode("utf-8", "surrogateescape")) if name.isprintable() else 0
    return 1 <= size <= 15 and name not in (".", "..") and not any(c in "/:" or c.isspace() for c in name)


def validate_ifname(ifname: str) -> None:
    """Check CNI_IFNAME by Linux's rules. Raises CniError (INVALID_ENVIRONMENT)."""
    if not is_ifname(ifname):
        raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_IFNAME {ifname!r}: expected {IFNAME_IS}")


def is_type(kind: object) -> bool:
    """Whether this can be a plugin's `type` (section 1): an executable's name, not a path."""
    return isinstance(kind, str) and kind not in ("", ".", "..") and not any(c in kind for c in "/\\\0")


def _object(text: bytes | str, source: str) -> Fields:
    data = decode(text, source)
    if not isinstance(data, dict):
        raise undecodable(source, f"expected a JSON object, found {shown(data)}")
    return Fields(data, source)


def _read(path: str) -> bytes:
    try:
        with opened(path) as file:
            return file.read()
    except OSError as error:
        raise CniError(Code.IO_FAILURE, f"{path}: cannot be read", error.strerror or str(error)) from error


def _network_name(name: object, read: Fields) -> str:
    if not isinstance(name, str) or not _NAME.match(name):
        raise read.wrong("name", _NAME_IS)
    return name


def recorded(read: Fields) -> NetworkConfig:
    """A network of a record: the fields of a `NetworkConfig` by their names in a configuration, and `source`.

    Raises CniError, made by `read`: a field is missing, or is not what `parse` would have accepted.
    """
    plugins = read.objects("plugins")
    for plugin in plugins:
        plugin.string("type")
        _type(plugin)
    if not plugins:
        raise read.wrong("plugins", "at least one plugin")
    version = read.string("cniVersion")
    if version not in versions.SUPPORTED:
        raise read.wrong("cniVersion", f"one of {', '.join(versions.SUPPORTED)}")
    return NetworkConfig(
        name=_network_name(read.string("name"), read),
        cni_version=version,
        plugins=tuple(plugin.data for plugin in plugins),
        source=read.string("source"),
        is_list=True,
        disable_check=read.boolean("disableCheck"),
        disable_gc=read.boolean("disableGC"),
    )


def _version(read: Fields) -> str:
    """Section 1, "Version considerations": the highest supported version in `cniVersion` and `cniVersions`."""
    single, several = read.string("cniVersion"), read.strings("cniVersions")
    offered = [*([single] if single else []), *several] or [versions.UNDECLARED]
    chosen = versions.highest(offered)
    if chosen is None:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"{read.where}: cniVersion: expected one of {', '.join(versions.SUPPORTED)}",
            f"found {', '.join(offered)[:80]}",
        )
    return chosen


def _boolean(read: Fields, key: str) -> bool:
    """A boolean; like libcni, accept the strings "true" and "false" too, because existing files use them."""
    value = read.data.get(key)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return read.boolean(key)


def _plugin(read: Fields) -> dict[str, Any]:
    """Check one plugin's object (section 1, "Plugin configuration objects") and return it as it is."""
    _type(read)
    capabilities = read.object("capabilities")
    if not all(isinstance(on, bool) for on in capabilities.values()):
        raise read.wrong("capabilities", "an object of booleans")
    if (ipam := read.inner("ipam")).data.get("type") not in (None, ""):
        _type(ipam)
        if ipam.data["type"] in _CALLING_IPAM:
            raise ipam.wrong("type", "an ipam plugin, not one that calls its ipam plugin, and so itself, without end")
    return read.data


def _type(read: Fields) -> None:
    """A plugin's `type` (section 1): an executable's name, not a path."""
    if not is_type(read.data.get("type")):
        raise read.wrong("type", TYPE_IS)
