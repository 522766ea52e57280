"""A network configuration: what an administrator wrote, checked, and otherwise untouched.

In flows the text of a `.conf` (one plugin) or a `.conflist` (several), or of a NetworkAttachmentDefinition;
out comes a `NetworkConfig` whose plugins are still the raw JSON objects, because the specification (section
1) demands that unknown fields reach the plugin unchanged. Only what the protocol itself uses is looked at.
Each complaint names the source, the field and what was expected there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from genie.cni import version as versions
from genie.cni.errors import CniError, Code

if TYPE_CHECKING:
    from pathlib import Path

# Section 1, `name`, and section 2, CNI_CONTAINERID. \Z, not $: a trailing newline is no part of a name.
_NAME_IS = "letters, digits, '_', '.' and '-', beginning with a letter or digit"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """One network (section 1, "Configuration format").

    name: the network's name. cni_version: the highest version in `cniVersion` and `cniVersions` that we
    speak. plugins: each plugin's object as written, in the order of the chain, never empty. source: a file's
    path or "NetworkAttachmentDefinition ns/x", for messages. is_list: written as a list, rather than as one
    plugin's object. disable_check, disable_gc: the administrator's. raw: the whole object as written. Treat
    both as read-only.
    """

    name: str
    cni_version: str
    plugins: tuple[dict[str, Any], ...]
    source: str
    is_list: bool = False
    disable_check: bool = False
    disable_gc: bool = False
    raw: dict[str, Any]

    @property
    def types(self) -> tuple[str, ...]:
        """The plugins' types, in the order of the chain."""
        return tuple(plugin["type"] for plugin in self.plugins)


def parse(
    text: bytes | str, source: str, *, name: str = "", siblings: Iterable[tuple[str, bytes | str]] = ()
) -> NetworkConfig:
    """Read a configuration, of one plugin or a list of them.

    source: what to call it in messages. name: for a configuration that gives none (a
    NetworkAttachmentDefinition's lends its own). siblings: (source, text) of further plugin objects, from the
    folder beside the file that is named like the network; appended unless `loadOnlyInlinedPlugins` is true.

    Raises CniError: DECODING_FAILURE where it is no JSON object, INCOMPATIBLE_VERSION where no version in it
    is known, INVALID_CONFIG for everything else.
    """
    raw = _object(text, source)
    is_list = "type" not in raw or raw.get("plugins") is not None
    only_inlined = _boolean(raw, "loadOnlyInlinedPlugins", source)
    if only_inlined and raw.get("plugins") is None:
        _refuse(source, "loadOnlyInlinedPlugins", "to be false or absent where there is no `plugins`", True)
    plugins = _inlined(raw, source) if is_list else (_plugin(raw, source, ""),)
    if is_list and not only_inlined:
        plugins += tuple(_plugin(_object(extra, where), where, "") for where, extra in siblings)
    if not plugins:
        _refuse(source, "plugins" if is_list else "type", "at least one plugin", None)
    network = raw.get("name")
    return NetworkConfig(
        name=_network_name(name if network is None or network == "" else network, source),
        cni_version=_version(raw, source),
        plugins=plugins,
        source=source,
        is_list=is_list,
        disable_check=_boolean(raw, "disableCheck", source),
        disable_gc=_boolean(raw, "disableGC", source),
        raw=raw,
    )


def load(path: str | Path) -> NetworkConfig:
    """Read a file, and the plugins in the folder beside it (section 1, `loadOnlyInlinedPlugins`).

    For `net.d/10-blue.conflist` of a network named `blue` those are `net.d/blue/*.conf`, in the order of
    their names. Raises CniError: IO_FAILURE where a file cannot be read, and as `parse` does.
    """
    from pathlib import Path

    path = Path(path)
    text = _read(path)
    if path.suffix != ".conflist":
        return parse(text, str(path))
    name = _object(text, str(path)).get("name")
    folder = path.parent / name if isinstance(name, str) and _NAME.match(name) else None
    extras = sorted(folder.glob("*.conf")) if folder is not None and folder.is_dir() else []
    return parse(text, str(path), siblings=[(str(extra), _read(extra)) for extra in extras])


def validate_network_name(name: str) -> None:
    """Section 1, `name`. Raises CniError (INVALID_CONFIG)."""
    if not _NAME.match(name):
        raise CniError(
            Code.INVALID_CONFIG,
            f"network name {name!r}: expected {_NAME_IS}",
        )


def validate_container_id(container_id: str) -> None:
    """Section 2, CNI_CONTAINERID. Raises CniError (INVALID_ENVIRONMENT)."""
    if not _NAME.match(container_id):
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_CONTAINERID {container_id!r}: expected {_NAME_IS}",
        )


def validate_ifname(ifname: str) -> None:
    """CNI_IFNAME, as Linux takes it. Raises CniError (INVALID_ENVIRONMENT)."""
    size = len(ifname.encode("utf-8", "surrogateescape")) if ifname.isprintable() or not ifname else 0
    if not 1 <= size <= 15 or ifname in (".", "..") or any(c in "/:" or c.isspace() for c in ifname):
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_IFNAME {ifname!r}: expected 1 to 15 bytes without '/', ':' or white space",
        )


def validate_type(kind: object, source: str, field: str) -> str:
    """A plugin's `type` (section 1): an executable's name, not a path. Raises CniError (INVALID_CONFIG)."""
    if not isinstance(kind, str) or kind in ("", ".", "..") or any(c in kind for c in "/\\\0"):
        _refuse(source, field, "the name of a plugin's executable, without '/' or '\\'", kind)
    return kind


def _refuse(source: str, field: str, expected: str, found: object) -> NoReturn:
    shown = "nothing" if found is None else repr(found)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    raise CniError(Code.INVALID_CONFIG, f"{source}: {field}: expected {expected}, found {shown}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _object(text: bytes | str, source: str) -> dict[str, Any]:
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise CniError(Code.DECODING_FAILURE, f"{source}: no valid JSON", str(error)) from error
    if not isinstance(data, dict):
        raise CniError(Code.DECODING_FAILURE, f"{source}: expected a JSON object, found {type(data).__name__}")
    return data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CniError(Code.IO_FAILURE, f"{path}: cannot be read", error.strerror or str(error)) from error


def _network_name(name: object, source: str) -> str:
    if not isinstance(name, str) or not _NAME.match(name):
        _refuse(source, "name", _NAME_IS, name or None)
    return name


def _version(raw: dict[str, Any], source: str) -> str:
    """Section 1, "Version considerations": the highest that we speak of `cniVersion` and `cniVersions`."""
    single, several = raw.get("cniVersion"), raw.get("cniVersions")
    if single is not None and not isinstance(single, str):
        _refuse(source, "cniVersion", "a version like 1.0.0", single)
    if several is not None and (
        not isinstance(several, list) or not all(isinstance(version, str) for version in several)
    ):
        _refuse(source, "cniVersions", "a list of versions like 1.0.0", several)
    offered = [*([single] if single else []), *(several or [])] or [versions.UNDECLARED]
    chosen = versions.highest(offered)
    if chosen is None:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"{source}: cniVersion: expected one of {', '.join(versions.SUPPORTED)}",
            f"found {', '.join(offered)[:80]}",
        )
    return chosen


def _boolean(raw: dict[str, Any], field: str, source: str) -> bool:
    """A boolean; libcni takes the strings "true" and "false" too, and files in the wild rely on it."""
    value = raw.get(field)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if value is not None and not isinstance(value, bool):
        _refuse(source, field, "true or false", value)
    return bool(value)


def _inlined(raw: dict[str, Any], source: str) -> tuple[dict[str, Any], ...]:
    plugins = raw.get("plugins")
    if plugins is None:
        return ()
    if not isinstance(plugins, list) or not plugins:
        _refuse(source, "plugins", "a list of plugin objects", plugins)
    return tuple(_plugin(plugin, source, f"plugins[{at}]") for at, plugin in enumerate(plugins))


def _plugin(plugin: object, source: str, at: str) -> dict[str, Any]:
    """Check one plugin's object (section 1, "Plugin configuration objects") and return it as it is."""
    dot = at and at + "."
    if not isinstance(plugin, dict):
        _refuse(source, at, "a plugin's object", plugin)
    validate_type(plugin.get("type"), source, f"{dot}type")
    capabilities = plugin.get("capabilities")
    if capabilities is not None and (
        not isinstance(capabilities, dict) or not all(isinstance(on, bool) for on in capabilities.values())
    ):
        _refuse(source, f"{dot}capabilities", "an object of booleans", capabilities)
    ipam = plugin.get("ipam")
    if ipam is not None and not isinstance(ipam, dict):
        _refuse(source, f"{dot}ipam", "an object", ipam)
    if ipam and ipam.get("type") not in (None, ""):
        validate_type(ipam["type"], source, f"{dot}ipam.type")
    return plugin
