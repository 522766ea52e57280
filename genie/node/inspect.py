"""`genie status`: shows whether genie works on this node, and its attachments."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain

from genie import config, locks, removals
from genie.agent.daemon import SOCKET
from genie.agent.offline import OBJECTS, KeptObjects
from genie.cni.config import SUFFIXES, NetworkConfig, conf_files
from genie.cni.errors import CniError
from genie.config import DEFAULT_CONF_DIR, Conf
from genie.node import conflist
from genie.records import Records
from genie.select import networks

DEFAULT_BIN_DIR = "/opt/cni/bin"
SUFFIXES_ARE = ", ".join(SUFFIXES)
RENAMERS = "Cilium does that, unless its cni.exclusive is false (docs/install.md)"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="genie status",
        description="Show whether genie works on this node, the node's networks, and genie's attachments: each "
        "container, its interfaces, networks and addresses.",
    )
    parser.add_argument(
        "--conf", metavar="PATH",
        help=f"genie.conf of this node; if not given, the file of type genie in {DEFAULT_CONF_DIR}",
    )  # fmt: skip
    parser.add_argument("--bin-dir", metavar="DIR", default=DEFAULT_BIN_DIR, help="default: %(default)s")
    parser.add_argument("--socket", metavar="PATH", default=SOCKET, help="the agent's (default: %(default)s)")
    arguments = parser.parse_args(argv)
    path = arguments.conf or find(DEFAULT_CONF_DIR)
    conf = config.load(path)
    for line in chain(
        health(path, conf, f"{arguments.bin_dir}/genie", arguments.socket),
        [""],
        status(Records(conf.state_dir)),
        kept(KeptObjects(f"{conf.state_dir}/{OBJECTS}")),
    ):
        print(line)
    return 0


def find(directory: str) -> str:
    """The path of genie's configuration in net.d.

    Raises CniError: 5; the runtime loads none, with the likely reason.
    """
    if path := config.find(directory):
        return path
    renamed = ", ".join(_renamed(directory))
    reason = (
        f"it was renamed to {renamed}, so NO POD goes through genie. {RENAMERS}"
        if renamed
        else "genie is not installed here, or name it with --conf"
    )
    broken = ""
    with suppress(CniError):  # there is no such directory
        broken = "".join(f"; broken, and perhaps genie's: {each}" for each in networks.directory(directory).broken())
    raise CniError(
        5, f"{directory} has no configuration of type genie that a runtime loads ({SUFFIXES_ARE}): {reason}{broken}"
    )


def _renamed(directory: str) -> list[str]:
    """The names of files with genie's configuration that no runtime loads, because of the end of their names."""
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries if entry.is_file() and not entry.name.endswith(SUFFIXES))
    except OSError:
        return []
    return [os.path.basename(path) for path in config.own_files(directory, names)]


def health(path: str, conf: Conf, plugin: str, socket: str) -> Iterable[str]:
    """Whether the runtime calls genie here, whether the agent answers, and the node's networks."""
    directory, name = os.path.split(path)
    yield f"configuration  {path}{_unused(name, conf_files(directory or '.'))}"
    for other in config.own_files(directory, conf_files(directory or ".")):
        if other != path:
            yield f"               {other} is of type genie, too, and not used: remove it (CNI-Genie's?)"
    for other in _renamed(directory):
        if other != name:
            yield f"               {other} was genie's configuration, before somebody renamed it. {RENAMERS}"
    if noted := removals.read(conf.state_dir):
        yield f"               removed {noted.count} times so far, last {_when(noted.at)}: {noted.why}"
    if conf.raw.get("cAdvisor_address"):  # of CNI-Genie; the kubelet's cAdvisor port is gone since Kubernetes 1.12
        yield "               its cAdvisor_address does nothing: loads are read from this node's interfaces"
    if conf.drop_undeclared:
        yield "               undeclared_capabilities: requests of pods that no plugin declares are DROPPED"
    yield f"plugin         {plugin}: {_served_by(plugin, socket)}"
    yield from _networks(networks.directory(conf.conf_dir), conf, os.path.dirname(plugin))


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _unused(name: str, loaded: list[str]) -> str:
    """The reason that the runtime does not use this configuration. loaded: the names that it loads."""
    if name not in loaded:
        return f": NOT USED, the runtime loads only {SUFFIXES_ARE}"
    return "" if loaded[0] == name else f": NOT USED, the runtime takes {loaded[0]}, which is first"


def _networks(directory: networks.Directory, conf: Conf, bin_dir: str) -> Iterable[str]:
    """The networks of net.d, broken and skipped configurations, and whether a pod without annotations fails."""
    try:
        known = directory.networks()
        described = [f"{directory.title(one)} ({' + '.join(one.types)})" for one in known if not networks.rival(one)]
        complaints = [str(each) for each in directory.broken()]
    except CniError as error:
        yield f"networks       NONE: {error}"
        return
    for one in known:
        if networks.rival(one):
            complaints.append(networks.rival(one))
        elif why := networks.unusable(one, (bin_dir,)):
            complaints.append(f"{one.source} is skipped: {why}")
    yield f"networks       {', '.join(described) or 'NONE: a pod that asks for nothing gets an error'}"
    yield from (f"               {each}" for each in complaints)
    if described and not conf.default_plugin:
        try:
            networks.first(directory, (bin_dir,))
        except CniError as error:
            yield f"default        NONE, a pod that asks for nothing fails: {error}"
    yield from _capabilities(conf, [one for one in known if not networks.rival(one)])


def _capabilities(conf: Conf, known: list[NetworkConfig]) -> Iterable[str]:
    """The capabilities that the runtime passes to genie, and those that are missing."""
    asked = conf.raw.get("capabilities") or {}
    yield f"capabilities   {', '.join(sorted(name for name, on in asked.items() if on)) or 'none'}"
    declared = conflist.declared(known)
    if off := [name for name in declared if asked.get(name) is False]:
        yield f"               turned off in genie.conf, though the networks or genie use it: {', '.join(off)}"
    if missing := [name for name in declared if name not in asked]:
        yield (
            f"               MISSING, so the runtime does not hand it over: {', '.join(missing)}. `genie install` asks "
            "for all that the networks declare, and `keep` does within a minute"
        )


def is_direct(plugin: str) -> bool:
    """Whether genie's plugin is a script, so that there is no agent. Raises OSError."""
    with open(plugin, "rb") as file:
        return file.read(2) == b"#!"


def _served_by(plugin: str, socket: str) -> str:
    try:
        direct = is_direct(plugin)
    except OSError as error:
        return f"MISSING ({error.strerror}): no pod comes up"
    if direct:
        return "direct mode, without an agent"
    if locks.answers(socket):
        return f"the agent answers on {socket}"
    return f"NO AGENT answers on {socket}: pods wait for it"


def status(records: Records) -> Iterable[str]:
    """A line for each container, and below it a line for each attachment."""
    count = 0
    for record in records.all():
        if isinstance(record, CniError):
            yield str(record)
            continue
        count += 1
        unfinished = "" if record.complete else "  INCOMPLETE: waits for its DEL"
        yield f"{record.title}  {record.container_id[:13]}{unfinished}"
        for attached in record.attached:
            addresses = ", ".join(ip.address for ip in attached.ips) if attached.result else "not attached"
            yield f"  {attached.ifname:<15} {attached.label:<24} {addresses}"
    for path in records.aside():
        yield f"{path}: a damaged record, set aside when its container was deleted; remove it once you have seen it"
    yield f"{count} container{'' if count == 1 else 's'}"


def kept(objects: KeptObjects) -> Iterable[str]:
    """The network objects that are stored for when the API server is away, and their age."""
    there = [one.found is not None for one in objects]
    if there:
        checked = objects.checked()
        age = "never compared with the API server since" if checked is None else f"as of {_ago(time.time() - checked)}"
        yield (
            f"{sum(there)} network object{'' if sum(there) == 1 else 's'} and {len(there) - sum(there)} names without "
            f"one are kept for when the API server is away, {age}"
        )


def _ago(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} seconds ago"
