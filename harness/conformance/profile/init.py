"""`harness profile init`: a profile from a binary and its configuration, and from what only its author knows."""

from __future__ import annotations

import ipaddress
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.conformance.profile import configuration
from harness.conformance.profile.check import conf_file, refuse
from harness.conformance.profile.look import Seen, look, versions
from harness.conformance.spec import VERSIONS
from harness.conformance.subject import Subject, Unusable, find, of, places

_NODE = "{{ node.number }}"
_SUBNET = "10.77.0.0/16"
_RANGE = {"rangeStart", "rangeEnd", "gateway"}


@dataclass
class Questions:
    """What is asked on a terminal, and taken as given without one."""

    terminal: bool
    taken: list[str] = field(default_factory=list)
    read: Callable[[str], str] = input

    def ask(self, what: str, default: str, wrong: Callable[[str], str] = lambda _: "") -> str:
        """An answer; without a terminal, the default.

        wrong: what is wrong with an answer; empty: nothing.
        """
        if not self.terminal:
            self.taken.append(f"{what}: {default or 'none'}")
            return default
        while True:
            answer = self.read(f"{what} [{default or 'none'}]: ").strip() or default
            if not (mistake := wrong(answer)):
                return answer
            print(f"  {mistake}", file=sys.stderr)

    def sure(self, what: str) -> bool:
        """Whether somebody on a terminal says yes."""
        return self.terminal and self.ask(f"{what} (yes or no)", "no", _no_yes) == "yes"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A plugin with its configuration."""

    plugin: Path
    conf: dict[str, Any]  # as an administrator has it
    subject: Subject
    seen: Seen


def configured(plugin: Path | None, conf: Path | None, paths: list[Path], questions: Questions) -> Found:
    """Look at a binary and at its configuration, and at what they do.

    Raises Unusable: the binary is no plugin, or the configuration is none of it.
    """
    network = _read(conf) if conf else None
    if plugin is None:
        plugin = _binary(network, paths, conf, questions)
    supported = versions(plugin)
    if network is None:
        network = _made(plugin, supported, paths, questions)
    types = [part.type for part in configuration.parts(network)]
    if plugin.name not in types:
        expected = f"{conf}: expected a plugin of type {plugin.name!r}, as the executable is named"
        raise Unusable(f"{expected}, found {', '.join(types)}")
    where = str(conf or plugin)
    subject = of(network, where, plugin.absolute(), paths=paths)
    return Found(plugin=plugin, conf=network, subject=subject, seen=look(subject))


def _read(conf: Path) -> dict[str, Any]:
    source = conf_file(conf)
    refuse(source, configuration.wrong(source.values))
    values: dict[str, Any] = source.values
    return values


def _binary(network: dict[str, Any] | None, paths: list[Path], conf: Path | None, questions: Questions) -> Path:
    """The plugin that a configuration names first, or that is asked for."""
    looked_in = [*paths, *([conf.parent] if conf else []), *places(None)]
    name = configuration.parts(network)[0].type if network else ""
    found = find(name, looked_in) if name else None
    if found is None and not questions.terminal:
        nowhere = f": no {name} in {', '.join(map(str, looked_in))}" if name else ""
        raise Unusable(f"--plugin: expected the plugin's executable{nowhere}")
    return Path(questions.ask("the plugin's executable", str(found or ""), _no_file))


def _no_file(answer: str) -> str:
    return "" if Path(answer).is_file() else "expected the path of a file"


def _made(plugin: Path, supported: tuple[str, ...], paths: list[Path], questions: Questions) -> dict[str, Any]:
    """A configuration for a plugin that has none yet."""
    version = next((each for each in reversed(VERSIONS) if each in supported), VERSIONS[0])
    subnet = questions.ask("its subnet, of all nodes", _SUBNET, _no_subnet)
    range_ = str(next(ipaddress.ip_network(subnet).subnets(new_prefix=_node_prefix(subnet))))
    local = find("host-local", [plugin.absolute().parent, *paths, *places(None)])
    ipam = questions.ask("its ipam plugin, or `none` if it has addresses of its own", "host-local" if local else "none")
    conf: dict[str, Any] = {"cniVersion": version, "name": _name(plugin.name), "type": plugin.name}
    if ipam == "none":
        return {**conf, "subnet": range_}
    default = "::/0" if ":" in subnet else "0.0.0.0/0"
    return {**conf, "ipam": {"type": ipam, "ranges": [[{"subnet": range_}]], "routes": [{"dst": default}]}}


def _node_prefix(subnet: str) -> int:
    net = ipaddress.ip_network(subnet)
    return max(net.prefixlen, 24 if net.version == 4 else 64)


def _no_subnet(answer: str) -> str:
    try:
        ipaddress.ip_network(answer)
    except ValueError as error:
        return f"expected a subnet such as {_SUBNET}: {error}"
    return ""


def _name(text: str) -> str:
    """A name that a network can have."""
    return re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-") or "mynet"


def _no_name(answer: str) -> str:
    return "" if answer and _name(answer) == answer else "expected small letters, digits and dashes"


def spread(conf: Any) -> tuple[Any, list[str]]:
    """A configuration with a subnet for each node in place of one that all would share, and the subnets of all nodes.

    An IPv4 subnet of 24 bits, or an IPv6 subnet of 64, gets the node's number in its last place, and so does what is in
    it. Of a wider IPv4 subnet, each node has 24 bits. Others stay as they are.
    """
    every: list[str] = []

    def change(value: Any) -> Any:
        if isinstance(value, list):
            return [change(each) for each in value]
        if not isinstance(value, dict):
            return value
        net = configuration.network(value)
        if net is not None and net.version == 4 and net.prefixlen <= 16 and not _RANGE & value.keys():
            every.append(str(net))
            return {**value, "subnet": f"{'.'.join(str(net.network_address).split('.')[:2])}.{_NODE}.0/24"}
        if net is None:
            return {key: change(each) for key, each in value.items()}
        if not _has_place(net):
            every.append(str(net))
            return value
        every.append(str(net.supernet(new_prefix=net.prefixlen - (8 if net.version == 4 else 16))))
        return {key: _for_node(each, net) if isinstance(each, str) else change(each) for key, each in value.items()}

    changed = change(conf)
    return changed, list(dict.fromkeys(every))


def _has_place(net: configuration.Net) -> bool:
    return net.prefixlen == (24 if net.version == 4 else 64) and not net.is_link_local


def _for_node(text: str, net: configuration.Net) -> str:
    """An address of a subnet, or the subnet, as that of a node."""
    address, _, length = text.partition("/")
    found = configuration.interface(address)
    if found is None or found.ip not in net:
        return text
    suffix = f"/{length}" if length else ""
    if net.version == 4:
        octets = str(found.ip).split(".")
        return ".".join([*octets[:2], _NODE, octets[3]]) + suffix
    groups = found.ip.exploded.split(":")
    head = ":".join(f"{int(group, 16):x}" for group in groups[:3])
    tail = ":".join(f"{int(group, 16):x}" for group in groups[4:])
    return f"{head}:{_NODE}:{tail if set(tail) - set('0:') else ':'}{suffix}"


@dataclass(frozen=True)
class Written:
    """A profile that is ready."""

    name: str  # the network's
    text: str


def written(found: Found, questions: Questions) -> Written:
    """The profile: what was found, and what is asked."""
    conf, subnets = spread(found.conf)
    name = questions.ask("the network's name, by which pods ask for it", _name(found.conf["name"]), _no_name)
    software = questions.ask("what reports call it, with its release", f"{found.plugin.name} (release unknown)")
    given = [str(ipaddress.ip_interface(address).network) for address in found.seen.addresses]
    default = ", ".join(subnets or dict.fromkeys(given) or [_SUBNET])
    listed = questions.ask("the subnets of its addresses, on all nodes", default, _no_subnets)
    if found.seen.failure:
        print(f"ADD was tried and failed, so this was not seen: {found.seen.failure}", file=sys.stderr)
        answer = questions.ask("does it set a default route (yes or no)", "yes" if _has_route(conf) else "no", _no_yes)
        routed = answer == "yes"
    else:
        routed = found.seen.default_route
    types = [each for part in configuration.parts(found.conf) for _, each in part.types]
    text = _text(found, conf, name=name, software=software, subnets=listed, routed=routed, types=types)
    return Written(name, text)


def following(out: Path, name: str, found: Found) -> list[str]:
    """The commands that take a profile."""
    here = find(found.plugin.name, [out.absolute().parent, *places(None)])
    directory = found.plugin.absolute().parent
    path = "" if here == found.plugin.absolute() else f" --path {directory}"
    given = f"GENIE_CNI_BIN={directory} " if path else ""
    return [
        f"  harness profile check {out}{path}",
        f"  harness conformance {out}{path} --report report.json",
        f"  {given}pytest --profile {out} --swap calico={name} --backend embedded",
    ]


def _no_subnets(answer: str) -> str:
    return next((wrong for each in answer.split(",") if (wrong := _no_subnet(each.strip()))), "")


def _no_yes(answer: str) -> str:
    return "" if answer in ("yes", "no") else "expected yes or no"


def _has_route(conf: Any) -> bool:
    return '"dst": "0.0.0.0/0"' in json.dumps(conf) or '"dst": "::/0"' in json.dumps(conf)


def _text(
    found: Found, conf: dict[str, Any], *, name: str, software: str, subnets: str, routed: bool, types: list[str]
) -> str:
    listed = ", ".join(dict.fromkeys(types))
    file = f"10-{name}.conf{'list' if 'plugins' in conf else ''}"
    stays = [each for each in found.seen.stays if each not in found.subject.shared]
    features = ", ".join(sorted(found.subject.features)) or "nothing"
    seen = "seen in an ADD" if not found.seen.failure else "not seen: ADD failed"
    body = yaml.safe_dump(conf, sort_keys=False, allow_unicode=True, width=100).rstrip()
    lines = [
        (f"network: {name}", "its name in scenarios and annotations"),
        ("embedded:", ""),
        ("  kind: real", ""),
        (f"  software: {json.dumps(software, ensure_ascii=False)}", "for reports"),
        (f"  plugins: [{listed}]", "executables: beside this file, in --path, in $GENIE_CNI_BIN or in /opt/cni/bin"),
        (f"  subnets: [{subnets}]", "every address is in one of these"),
        (f"  default-route: {str(routed).lower()}", f"whether the plugin sets one by itself: {seen}"),
        (f"  file: {file}", "its configuration's file in a node's net.d"),
        ("  # Plugins that know an attachment by the container's ID alone: a pod's second one breaks the first.", ""),
        (f"  # container-id-per-interface: [{found.plugin.name}]", ""),
        ("  conf:", f"{_NODE} is 1, 2, ...: each node has a subnet of its own"),
        *((f"    {line}", "") for line in body.splitlines()),
        ("conformance:", ""),
        (f"  plugin: {found.plugin.name}", "the one to test"),
        (f"  # Optional features. The configuration shows: {features}. Others have to be claimed:", ""),
        ("  # args.ips (addresses in args.cni.ips), netns-override (CNI_NETNS_OVERRIDE).", ""),
        ("  claims: []", ""),
        (
            "  # Interfaces of the host that stay after the last container, beside those that the configuration names.",
            "",
        ),
        (f"  stays: [{', '.join(stays)}]", ""),
        ("  # Programs that the plugin needs on the node, and a file or socket that is there when one is ready.", ""),
        (f"  # daemons: [{{run: ./{found.plugin.name}d, ready: /run/{found.plugin.name}d.sock}}]", ""),
    ]
    head = f"# {found.plugin.name}, for `harness`. `harness profile check` finds mistakes in this file.\n"
    return head + "".join(f"{code:<36}  # {why}\n" if why else f"{code}\n" for code, why in lines)
