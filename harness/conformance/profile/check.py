"""Finds the mistakes in a profile, each with its place, and makes the subject of a test from a profile.

There are three kinds of mistakes. The file is not a profile: it cannot be used. A binary was not found: there is
nothing to test. The profile makes a false claim: the checks report this as findings, and the profile is at fault.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import catalog
from harness.cluster import software
from harness.conformance.checks import FEATURES
from harness.conformance.machine import NodeProgram
from harness.conformance.profile import configuration
from harness.conformance.profile.configuration import Part, Where
from harness.conformance.spec import VERSIONS
from harness.conformance.subject import BadProfile, Subject, Unusable, find, of, places
from harness.values import texts
from harness.yamlfile import Mistake, Mistakes, YamlFile, hint

_NODES = (
    catalog.Place(number=1, name="node1", address="192.0.2.10"),
    catalog.Place(number=2, name="node2", address="192.0.2.11"),
)
_CONF: Where = ("embedded", "conf")
#: The plugins of containernetworking/plugins that make an interface and set only the default route of their ipam
#: plugin.
_REFERENCE = frozenset({"bridge", "ptp", "macvlan", "ipvlan", "vlan", "host-device", "tap"})


@dataclass(frozen=True)
class Profile:
    """A profile, with the places of its values in the file."""

    network: catalog.Network
    source: YamlFile

    @classmethod
    def read(cls, path: Path) -> Profile:
        """The profile in a file.

        Raises ProfileError: it is not a profile.
        """
        network, source = catalog.located(path)
        if network.cluster is not None and (found := software.mistakes(source, network.cluster)):
            raise catalog.ProfileError.of(found)
        profile = cls(network, source)
        found = [source.mistake((*_CONF, *where), text) for conf in profile.confs for where, text in
                 configuration.malformed(conf)]  # fmt: skip
        if found:
            raise catalog.ProfileError.of(_once(found))
        return profile

    @cached_property
    def confs(self) -> list[dict[str, Any]]:
        """Its configuration on each of two nodes."""
        embedded = self.network.embedded
        return [catalog.conf(embedded, node) for node in _NODES] if embedded else []

    @cached_property
    def parts(self) -> list[Part]:
        """The plugins of its configuration."""
        return [part for conf in self.confs[:1] for part in configuration.parts(conf)]


def mistakes(path: Path, paths: Sequence[Path] = (), *, binaries: bool = True) -> list[Mistake]:
    """All mistakes in a profile.

    paths: directories with further plugins.
    binaries: whether the plugins must be on this machine; if so, they are called.
    """
    try:
        profile = Profile.read(path)
    except catalog.ProfileError as error:
        return list(error.mistakes)
    found = list(_claimed(profile))
    if binaries and profile.network.embedded:
        missing = list(_missing(profile, places(None, [*paths, path.parent])))
        found += missing
        if not missing and not list(_no_such_plugin(profile)):
            found += _seen(profile, path, paths)
    return _once(found)


def read(path: Path, plugin: Path | None = None, paths: Sequence[Path] = ()) -> Subject:
    """The network of a profile's `embedded` section, on a first node.

    plugin: the binary; if empty, it is searched by its type.
    paths: directories with further plugins.

    Raises BadProfile: it is not valid, describes no plugin that runs alone, or a binary is missing or cannot run.
    """
    try:
        profile = Profile.read(path)
    except catalog.ProfileError as error:
        raise BadProfile(str(error)) from error
    if profile.network.embedded is None:
        mistake = profile.source.mistake((), "expected an `embedded` section, with the plugin's configuration")
        raise BadProfile(str(mistake))
    if found := [*_no_such_plugin(profile), *_missing(profile, places(plugin, [*paths, path.parent]), plugin)]:
        raise BadProfile("\n".join(map(str, _once(found))))
    try:
        subject = _subject(profile, path, plugin, paths)
    except Unusable as error:
        raise BadProfile(str(error)) from error
    found = _once([*_claimed(profile), *_answered(profile, subject)])
    embedded = profile.network.embedded
    daemons = tuple(
        NodeProgram(command=each.run, ready=each.ready, directory=path.absolute().parent)
        for each in profile.network.conformance.daemons
    )
    stated = embedded.default_route if "default_route" in embedded.model_fields_set else None
    said = tuple(map(str, found))
    return replace(subject, mistakes=said, subnets=embedded.subnets, default_route=stated, daemons=daemons)


def of_files(plugin: Path, conf: Path, paths: Sequence[Path] = ()) -> Subject:
    """A binary and a file of the kind that is in /etc/cni/net.d.

    Raises Unusable: the binary, the file or a plugin that they need is missing or invalid.
    """
    if not (plugin.is_file() and os.access(plugin, os.X_OK)):
        raise Unusable(f"{plugin}: expected a plugin's executable")
    source = conf_file(conf)
    subject = of(source.values, str(conf), plugin.absolute(), paths=paths)
    wrong = [*configuration.wrong(source.values), *_unsupported(source.values, subject)]
    return replace(subject, mistakes=tuple(str(each) for each in _once(source.mistake(*each) for each in wrong)))


def conf_file(path: Path) -> YamlFile:
    """A CNI configuration in JSON, with the places of its values.

    Raises Unusable: it is not JSON, or is malformed.
    """
    try:  # JSON is YAML except for tabs, and this reader has the places of values
        source = YamlFile.read(path, edit=lambda text: text.replace("\t", " "))
    except Mistakes as error:
        raise Unusable(f"{path}: expected a CNI configuration in JSON: {error}") from error
    refuse(source, configuration.malformed(source.values))
    return source


def refuse(source: YamlFile, found: configuration.Complaints) -> None:
    """Raise the mistakes in a configuration, if there are any, as Unusable."""
    if mistakes := [str(source.mistake(where, text)) for where, text in found]:
        raise Unusable("\n".join(mistakes))


def _subject(profile: Profile, path: Path, plugin: Path | None, paths: Sequence[Path]) -> Subject:
    asked = profile.network.conformance
    return of(
        profile.confs[0], str(path), plugin and plugin.absolute(), wanted=asked.plugin,
        paths=[*paths, path.parent], stays=asked.stays, claims=asked.claims,
    )  # fmt: skip


def _once(found: Iterable[Mistake]) -> list[Mistake]:
    """The mistakes in the order of the file, without duplicates from several nodes' configurations."""
    by_place: dict[tuple[int, int, str], Mistake] = {}
    for mistake in found:
        by_place.setdefault((mistake.line, mistake.column, re.sub(r"\d+", "", mistake.text)), mistake)
    return sorted(by_place.values())


def _claimed(profile: Profile) -> Iterator[Mistake]:
    """Claims of the profile that cannot be true for any binary."""
    at = profile.source.mistake
    network = profile.network
    for conf in profile.confs:
        for where, text in configuration.wrong(conf):
            yield at((*_CONF, *where), text)
    if network.embedded:
        yield from _embedded(profile, network.embedded)
    yield from _conformance(profile)


def _embedded(profile: Profile, embedded: catalog.Embedded) -> Iterator[Mistake]:
    at, conf = profile.source.mistake, profile.confs[0]
    if not embedded.subnets:
        yield at(("embedded", "subnets"), "expected at least one subnet")
    for each in profile.confs:
        for where, subnet in configuration.subnets(each):
            if not configuration.covered(subnet, embedded.subnets):
                listed = ", ".join(embedded.subnets)
                yield at((*_CONF, *where), f"{subnet} is in none of embedded.subnets ({listed})")
    for part in profile.parts:
        for where, name in part.types:
            if name not in embedded.plugins:
                yield at((*_CONF, *where), f"{name!r} is not in embedded.plugins{hint(name, embedded.plugins)}")
    types = [part.type for part in profile.parts]
    for index, name in enumerate(embedded.container_id_per_interface):
        if name not in types:
            where = ("embedded", "container-id-per-interface", index)
            yield at(where, f"no plugin of the configuration is {name!r}{hint(name, types)}")
    name = profile.network.network
    if name not in (conf["name"], re.sub(r"\A\d+-", "", embedded.file.rpartition(".")[0])):
        text = f"expected {name!r}, as `network`, or a `file` of that name: pods ask for the network by it"
        yield at((*_CONF, "name"), text)
    if ("plugins" in conf) != embedded.file.endswith(".conflist"):
        text = "a configuration with `plugins` is a .conflist, and one without is a .conf"
        yield at(("embedded", "file"), text)
    yield from _default_route(profile, embedded)


def _default_route(profile: Profile, embedded: catalog.Embedded) -> Iterator[Mistake]:
    """`default-route: true` for reference plugins that cannot set one.

    Another plugin may set one by itself; a check tests that.
    """
    first = profile.parts[0]
    known = first.type in _REFERENCE and first.ipam.get("type") in ("host-local", "static")
    if not (known and embedded.default_route):
        return
    routes = first.ipam.get("routes")
    dsts = [route.get("dst") for route in routes if isinstance(route, dict)] if isinstance(routes, list) else []
    if not first.conf.get("isDefaultGateway") and not any(str(dst).endswith("/0") for dst in dsts):
        place = ("embedded", "default-route") if "default_route" in embedded.model_fields_set else ("embedded",)
        text = "default-route is true, as by default, but the configuration has no route to 0.0.0.0/0 or ::/0"
        text = text if place == ("embedded",) else text.replace(" as by default,", "")
        yield profile.source.mistake(place, f"{text}: expected one in ipam.routes, or `default-route: false`")


def _conformance(profile: Profile) -> Iterator[Mistake]:
    at, asked = profile.source.mistake, profile.network.conformance
    yield from _no_such_plugin(profile)
    tested = next((part for part in profile.parts if part.type == (asked.plugin or part.type)), None)
    for index, claim in enumerate(asked.claims):
        where = ("conformance", "claims", index)
        if claim not in FEATURES:
            yield at(where, f"unknown claim {claim!r}{hint(claim, FEATURES)}")
        elif tested and (text := _cannot_ask(claim, tested)):
            yield at(where, text)
    for index, name in enumerate(asked.stays):
        if not _is_interface(name):
            text = f"expected an interface's name, got {name!r}: 1 to 15 characters, no space, no slash, no colon"
            yield at(("conformance", "stays", index), text)


def _cannot_ask(claim: str, part: Part) -> str:
    """Why the configuration makes a claim impossible; empty if it does not."""
    declared = part.conf.get("capabilities")
    on = [name for name, value in declared.items() if value] if isinstance(declared, dict) else []
    kind, _, name = claim.partition(":")
    if kind == "capability" and name not in on:
        return f"nobody can ask for {name}: the configuration of {part.type} lacks `capabilities: {{{name}: true}}`"
    if claim == "capabilities" and not on:
        return f"the configuration of {part.type} has no `capabilities`"
    if claim == "dns" and not part.conf.get("dns"):
        return f"the configuration of {part.type} has no `dns`"
    if claim == "pool" and not any("subnet" in where for where, _ in texts(part.conf)):
        return f"the configuration of {part.type} has no `subnet` that could be made small"
    return ""


def _is_interface(name: str) -> bool:
    return 0 < len(name.encode()) < 16 and name not in (".", "..") and not re.search(r"[\s/:]", name)


def _no_such_plugin(profile: Profile) -> Iterator[Mistake]:
    """`conformance.plugin` that is not in the configuration."""
    wanted, types = profile.network.conformance.plugin, [part.type for part in profile.parts]
    if wanted and types and wanted not in types:
        text = f"no plugin of the configuration is {wanted!r}{hint(wanted, types)}"
        yield profile.source.mistake(("conformance", "plugin"), text)


def _missing(profile: Profile, looked_in: Sequence[Path], plugin: Path | None = None) -> Iterator[Mistake]:
    """Plugins of the configuration that were not found, without duplicates."""
    types = [part.type for part in profile.parts]
    named = [profile.network.conformance.plugin, plugin.name, *types[:1]] if plugin else []
    seen = {next(name for name in named if name in types)} if named else set[str]()
    for part in profile.parts:
        for where, name in part.types:
            if name in seen or find(name, looked_in):
                continue
            seen.add(name)
            there = next((place / name for place in looked_in if (place / name).is_file()), None)
            nowhere = f"no executable {name} in {', '.join(map(str, looked_in))}"
            yield profile.source.mistake((*_CONF, *where), f"{there} is not executable" if there else nowhere)


def _seen(profile: Profile, path: Path, paths: Sequence[Path]) -> list[Mistake]:
    """Mistakes in existing plugins, and contradictions to them."""
    try:
        return _answered(profile, _subject(profile, path, None, paths))
    except Unusable as error:
        text = str(error).removeprefix(f"{path}: ")
        return [profile.source.mistake((*_CONF, *profile.parts[0].at, "type"), text)]


def _answered(profile: Profile, subject: Subject) -> list[Mistake]:
    """Contradictions to the plugin's answer to VERSION."""
    conf = profile.confs[0]
    return [profile.source.mistake((*_CONF, *where), text) for where, text in _unsupported(conf, subject)]


def _unsupported(conf: dict[str, Any], subject: Subject) -> Iterator[tuple[Where, str]]:
    version = conf.get("cniVersion", VERSIONS[0])
    if isinstance(version, str) and version in VERSIONS and version not in subject.supported:
        listed = ", ".join(subject.supported)
        yield ("cniVersion",), f"{version} is not among the versions that {subject.conf['type']} supports: {listed}"
    at = configuration.parts(conf)[subject.position].at
    for name in sorted(subject.features):
        kind, _, capability = name.partition(":")
        if kind == "capability" and (unable := _unable(capability, subject)):
            yield (*at, "capabilities", capability), unable


def _unable(capability: str, subject: Subject) -> str:
    """Why the plugin cannot have a declared capability; empty if it may have it.

    The executable contains the keys for Go's JSON decoder, and an ipam plugin reads its caller's input.
    """
    asked = [subject.binary, *([subject.binaries[subject.ipam]] if subject.ipam else [])]
    contents = [binary.read_bytes() for binary in asked]
    if all(b"Go buildinf:" in each and capability.encode() not in each for each in contents):
        return f"{subject.conf['type']} cannot do {capability}: nothing in its executable has that name"
    return ""
