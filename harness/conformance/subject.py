"""The subject of a test: a plugin's binary, its configuration, and the other plugins of its network."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.conformance.call import NOT_STARTED, Call, Json, Outcome, run
from harness.conformance.machine import NodeProgram
from harness.conformance.spec import VERSIONS
from harness.embedded.binaries import INSTALLED, NotFound, given
from harness.values import texts

#: Why a plugin cannot be tested alone.
_IMPOSSIBLE = {
    "dhcp": "dhcp needs its daemon on the node and a DHCP server on the network, and a test of one plugin has neither: "
    "test with another ipam plugin",
}
_EXCLUSIVE = ("host-device",)  # plugins of a device that only one container can have
_BY_DAEMON = {  # what a plugin's daemon writes: the key of its configuration with the file, by default this one
    "flannel": (
        ("subnetFile", "/run/flannel/subnet.env"),
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n",
    ),
}
_DELEGATES = {"flannel": ("bridge", "host-local")}  # plugins that a plugin executes by default
_DEFAULT_BRIDGES = {"bridge": "cni0", "flannel": "cni0"}  # the interface of plugins that name none


class Unusable(Exception):
    """There is nothing to test; the message names the file and the expected value."""


class BadProfile(Unusable):
    """There is nothing to test, and the profile is at fault."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A plugin in its network."""

    name: str
    network: Json  # as a list of plugins
    position: int  # of the plugin in the list
    binaries: Mapping[str, Path]  # by type: those of the list, and their ipam plugins
    assigns: bool = False  # the tested one is the ipam plugin of the plugin at that position
    stays: tuple[str, ...] = ()  # interfaces that all containers share
    claims: frozenset[str] = frozenset()
    daemons: tuple[NodeProgram, ...] = ()
    places: tuple[Path, ...] = ()  # directories with further plugins
    supported: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()  # that the profile states
    default_route: bool | None = None  # the claim of the profile
    mistakes: tuple[str, ...] = ()  # mistakes in the profile or the configuration, each with its place
    limits: tuple[tuple[str, ...], ...] = ()  # versions: requested, and of its ipam plugin and of the plugins before it

    @property
    def conf(self) -> Json:
        """The plugin's part of the configuration."""
        part: Json = self.network["plugins"][self.position]
        return part

    @property
    def type(self) -> str:
        """The tested plugin's."""
        return _ipam(self.conf) if self.assigns else str(self.conf["type"])

    @property
    def is_exclusive(self) -> bool:
        """Whether only one container at a time can be attached."""
        return self.type in _EXCLUSIVE

    @property
    def files(self) -> dict[str, str]:
        """What the daemons of the plugins have written on a node: path to text."""
        found = {}
        for part in self.network["plugins"]:
            if part["type"] in _BY_DAEMON:
                (key, default), text = _BY_DAEMON[part["type"]]
                found[str(part.get(key) or default)] = text
        return found

    @property
    def ifname(self) -> str:
        """CNI_IFNAME: runtimes call loopback with that of the interface that it is for."""
        return "lo" if self.conf["type"] == "loopback" else "eth0"

    @property
    def adjusts(self) -> bool:
        """Whether the plugin makes no interface: it adjusts one that is there already, or assigns addresses."""
        return self.position > 0 or self.ifname == "lo" or self.assigns

    @property
    def binary(self) -> Path:
        """The plugin's."""
        return self.binaries[self.type]

    @property
    def ipam(self) -> str:
        """The type of its ipam plugin, if it delegates to one."""
        return "" if self.assigns else _ipam(self.conf)

    @property
    def path(self) -> str:
        """CNI_PATH."""
        return os.pathsep.join(dict.fromkeys(str(binary.parent) for binary in self.binaries.values()))

    def beside(self, name: str) -> Path | None:
        """Another plugin, from the same directories."""
        return find(name, [*self.places, *(binary.parent for binary in self.binaries.values())])

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that the plugin claims, that the harness knows, and that are not excluded."""
        return tuple(each for each in VERSIONS if all(each in listed for listed in (self.supported, *self.limits)))

    @property
    def features(self) -> set[str]:
        """Claimed extended features: those that the profile names, and those that the configuration uses."""
        declared = self.conf.get("capabilities")
        wanted = {f"capability:{name}" for name, on in declared.items() if on} if isinstance(declared, dict) else set()
        if self.assigns:
            wanted &= {"capability:ips", "capability:ipRanges"}
        dns = None if self.assigns else self.conf.get("dns")
        used = {"dns": dns, "capabilities": wanted, "pool": "subnet" in dict(_strings(self.conf))}
        return {*self.claims, *wanted, *(feature for feature, use in used.items() if use)}

    @property
    def conf_subnets(self) -> tuple[str, ...]:
        """Every subnet in the plugin's configuration."""
        return tuple(value for key, value in _strings(self.conf) if key == "subnet" and "/" in value)

    def has_address(self, cidr: str) -> bool:
        """Whether the plugin's configuration itself names an address of containers."""
        address = cidr.partition("/")[0]
        return any(text.partition("/")[0] == address for key, text in _strings(self.conf) if key != "gateway")

    @property
    def masters(self) -> list[str]:
        """Interfaces of the host that the configuration needs."""
        found = [value for key, value in _strings(self.network) if key in ("master", "device") and value]
        return list(dict.fromkeys(found))

    @property
    def shared(self) -> set[str]:
        """Interfaces that may stay after the last container, because the administrator named them."""
        named = {value for _, value in _strings(self.network)}
        made = {
            _DEFAULT_BRIDGES[plugin["type"]] for plugin in self.network["plugins"] if plugin["type"] in _DEFAULT_BRIDGES
        }
        return named | made | set(self.stays)

    def described(self) -> Json:
        """For a report: the real binaries with their checksums."""
        return {
            "name": self.name,
            "type": self.type,
            "network": self.network,
            "binaries": [
                {"type": name, "path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
                for name, path in sorted(self.binaries.items())
            ],
            "supportedVersions": list(self.supported),
        }


def _strings(value: Any) -> Iterator[tuple[str, str]]:
    """Every text in a configuration with the key that it is under."""
    return ((next((key for key in reversed(place) if isinstance(key, str)), ""), text) for place, text in texts(value))


def places(plugin: Path | None, paths: Sequence[Path] = ()) -> list[Path]:
    """The directories in which plugins are searched.

    plugin: the tested plugin's binary; its directory is searched, too.
    paths: directories that were named.

    Raises Unusable: $GENIE_CNI_BIN names a directory that is not there.
    """
    try:
        named = given()
    except NotFound as error:
        raise Unusable(str(error)) from error
    return [*paths, *([plugin.parent] if plugin else []), *named, *INSTALLED]


def find(name: str, looked_in: Sequence[Path]) -> Path | None:
    """A plugin's executable."""
    found = shutil.which(name, path=_joined(looked_in))
    return Path(found).absolute() if found else None


def of(
    network: Any,
    where: str,
    plugin: Path | None = None,
    *,
    wanted: str = "",
    paths: Sequence[Path] = (),
    stays: Sequence[str] = (),
    claims: Sequence[str] = (),
) -> Subject:
    """The subject from a parsed configuration.

    where: the file that it is from, for messages.
    plugin: the binary; if empty, it is searched by its type.
    wanted: the type of the plugin that is tested; by default the binary's name, else the first of the list.
    paths: directories with further plugins, before those of $GENIE_CNI_BIN and the usual ones.

    Raises Unusable: it is not a configuration, or a plugin that it needs was not found.
    """
    listed = as_list(network, where)
    types = [part["type"] for part in listed["plugins"]]
    wanted = wanted or (plugin.name if plugin else types[0])
    ipams = [_ipam(part) for part in listed["plugins"]]
    assigns = wanted in ipams
    if wanted not in types and not assigns:
        if len(types) > 1 or not plugin:
            raise Unusable(f"{where}: expected a plugin of type {wanted!r}, found {', '.join(types)}")
        wanted = types[0]
    position = ipams.index(wanted) if assigns else types.index(wanted)
    needed = {name for number, part in enumerate(listed["plugins"]) for name in _executed(part)
              if not assigns or number != position or name == wanted}  # fmt: skip
    if impossible := needed & _IMPOSSIBLE.keys():
        raise Unusable(f"{where}: {_IMPOSSIBLE[min(impossible)]}")
    looked_in = places(plugin, paths)
    binaries = {name: found for name in needed if (found := find(name, looked_in))}
    if plugin:
        binaries[wanted] = plugin
    if missing := needed - set(binaries):
        raise Unusable(f"{where}: no executable {', '.join(sorted(missing))} in {', '.join(map(str, looked_in))}")
    subject = Subject(
        name=listed["name"], network=listed, position=position, binaries=binaries, assigns=assigns,
        stays=tuple(stays), claims=frozenset(claims), places=tuple(looked_in),
    )  # fmt: skip
    configured = str(network.get("cniVersion") or "0.1.0")
    used = [*types[: subject.position], *([subject.ipam] if subject.ipam else [])]
    limits = tuple(claimed_versions(probe(binaries[name], subject.path), configured) for name in used)
    answered = probe(subject.binary, subject.path)
    if answered.status == NOT_STARTED:
        raise Unusable(f"{where}: {answered.message}")
    return replace(subject, supported=claimed_versions(answered, configured), limits=limits)


def as_list(network: Any, where: str) -> Json:
    """A configuration as a list of plugins.

    Raises Unusable: it is not valid.
    """
    if not isinstance(network, dict) or not isinstance(network.get("name"), str):
        raise Unusable(f"{where}: name: expected the network's name")
    if "plugins" not in network:
        network = {"cniVersion": network.get("cniVersion", "1.0.0"), "name": network["name"], "plugins": [network]}
    parts = network["plugins"]
    if not isinstance(parts, list) or not parts:
        raise Unusable(f"{where}: plugins: expected a list of at least one plugin")
    for number, part in enumerate(parts):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str) or not part["type"]:
            raise Unusable(f"{where}: plugins[{number}].type: expected the name of a plugin's executable")
    listed: Json = network
    return listed


def _joined(places: Sequence[Path]) -> str:
    return os.pathsep.join(map(str, places))


def _ipam(part: Json) -> str:
    ipam = part.get("ipam")
    return str(ipam.get("type") or "") if isinstance(ipam, dict) else ""


def _executed(part: Json) -> list[str]:
    """The types of a plugin, its ipam plugin, and others that it executes."""
    delegate = part.get("delegate")
    named = [str(delegate.get("type") or "")] if isinstance(delegate, dict) else []
    return [name for name in (part["type"], _ipam(part), *_DELEGATES.get(part["type"], ()), *named) if name]


def probe(binary: Path, path: str) -> Outcome:
    """A plugin's answer to VERSION. path: CNI_PATH."""
    env = {"CNI_COMMAND": "VERSION", "CNI_PATH": path}
    return run(Call(binary=str(binary), env=env, stdin=b'{"cniVersion": "1.0.0"}'))


def claimed_versions(outcome: Outcome, configured: str = "0.1.0") -> tuple[str, ...]:
    """Versions in an answer to VERSION.

    If the answer has no known version, the plugin is assumed to support 0.1.0, which has no VERSION, and the version in
    its configuration. So a broken VERSION is found, and the other checks still run.
    """
    listed = outcome.object.get("supportedVersions") if outcome.ok else None
    texts = tuple(each for each in listed if isinstance(each, str)) if isinstance(listed, list) else ()
    return texts if any(each in VERSIONS for each in texts) else tuple(dict.fromkeys(["0.1.0", configured]))
