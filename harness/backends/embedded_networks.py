"""Decides how the embedded cluster provides each network: as real software, as a stand-in, or not at all.

The real software, a network's `real:` section, is a daemon on every node with its plugins. It is used if a scenario
needs the network, its programs are on this machine, and the kernel allows in a namespace what it needs; this is tried,
not guessed. If it is not used, the reason becomes a note of the run.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import catalog
from harness.contract import Kind, Offer
from harness.embedded import binaries, linux, plan, rootfs
from harness.waiting import limit


@dataclass(frozen=True, kw_only=True)
class Programs:
    """Programs of networks that were found on the host."""

    plugins: tuple[str, ...]  # paths
    lacking: tuple[str, ...]  # names of plugins that were not found
    daemons: Mapping[str, str]  # name to path
    source: str  # the version of the reference plugins, for reports

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Programs:
        """From the JSON form of `asdict`."""
        return cls(**{**data, "plugins": tuple(data["plugins"]), "lacking": tuple(data["lacking"])})


def find(
    known: Iterable[catalog.Network], given: list[Path], core: Iterable[str], beside: Iterable[Path] = ()
) -> Programs:
    """Find the programs of networks. Reference plugins are downloaded or built if necessary; other programs are only
    looked for.

    beside: directories of profiles; a network's plugins that are there come first, and nothing else there counts.

    Raises binaries.NotFound: one of `core` was not found.
    """
    embedded = [network.embedded for network in known if network.embedded]
    own = [network.real for network in embedded if network.real]
    names = {name for network in embedded for name in network.plugins}
    first = binaries.look(names, beside)
    found = binaries.plugins(given, names - set(first), core)
    others = [path for path in found.paths if Path(path).name not in first]
    there = {Path(path).name for path in others} | set(first)
    more = {name for real in own for name in real.plugins} - there
    also = binaries.look(more, [*given, *binaries.PLACES])
    programs = binaries.look({real.daemon[0] for real in own}, [*given, *binaries.on_path(), *binaries.PLACES])
    return Programs(
        plugins=(*map(str, first.values()), *others, *map(str, also.values())),
        lacking=tuple(sorted(found.lacking | (more - set(also)))),
        daemons={name: str(path) for name, path in programs.items()},
        source=found.source,
    )


def choose(
    networks: Mapping[str, catalog.Embedded | None],
    wanted: Collection[str],
    programs: Programs,
    somewhere: catalog.Place,
) -> tuple[dict[str, catalog.Embedded | None], list[str]]:
    """Each network as this machine can provide it, and notes for the run.

    networks: the sections by network name; None if the network is not for this backend.
    wanted: networks to start as real software.
    programs: the programs that were found.
    somewhere: any of the nodes.
    """
    chosen: dict[str, catalog.Embedded | None] = {}
    notes = []
    for name, network in networks.items():
        if network is None or network.real is None:
            chosen[name] = network
        elif name not in wanted:
            chosen[name] = catalog.stand_in(network)
        elif reason := _why_not(network.real, programs):
            chosen[name] = catalog.stand_in(network)
            notes.append(f"{name} is a stand-in: {reason}")
        else:
            path = Path(programs.daemons[network.real.daemon[0]])
            chosen[name] = own = catalog.itself(network, binaries.version(path), somewhere)
            notes.append(f"{name} is itself: {own.software} ({path})")
    return chosen, notes


def _why_not(real: catalog.Real, programs: Programs) -> str:
    """Why the real software cannot run here; empty if it can."""
    absent = [name for name in real.daemon[:1] if name not in programs.daemons]
    absent += [f"plugin {name}" for name in real.plugins if name in programs.lacking]
    if absent:
        return f"no {' and no '.join(absent)} in $GENIE_CNI_BIN, on PATH or in {', '.join(map(str, binaries.PLACES))}"
    return next((reason for command in real.needs if (reason := _fails(command))), "")


def _fails(command: tuple[str, ...]) -> str:
    """Try a command as on a node: in a new network namespace, with an empty /run."""
    shown = f"`{shlex.join(command)}`"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit(10), check=False, env={"PATH": linux.search_path()},
            preexec_fn=_apart,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return f"{shown}: {getattr(error, 'strerror', None) or error}"
    last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    return f"{shown}: {last}" if done.returncode else ""


def _apart() -> None:
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWNET)
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("run", "/run", "tmpfs")


def offer(name: str, network: catalog.Embedded | None, programs: Programs) -> Offer:
    """A network, for reports and checks."""
    if network is None:
        missing = "not on the embedded backend: it needs a real cluster"
        return Offer(network=name, kind="real", software="", subnets=(), missing=missing)
    kind: Kind = network.kind
    absent = sorted(set(network.plugins) & set(programs.lacking))
    plugins = network.conf.get("plugins") or [network.conf]
    return Offer(
        network=name,
        kind=kind,
        software=network.software,
        subnets=network.subnets,
        default_route=network.default_route,
        missing=f"no binary of the plugin {', '.join(absent)} beside its profile or in $GENIE_CNI_BIN"
        if absent
        else "",
        host_ports=any((plugin.get("capabilities") or {}).get("portMappings") for plugin in plugins),
        ipam=any(plugin.get("ipam") for plugin in plugins),
        file=network.file,
        daemons=network.real.daemon[:1] if network.real else (),
    )


def node(
    here: catalog.Place,
    places: Iterable[catalog.Place],
    networks: Mapping[str, catalog.Embedded],
    programs: Programs,
) -> plan.NodePlan:
    """A node with these networks."""
    peers = [other for other in places if other is not here]
    return plan.NodePlan(
        name=here.name,
        number=here.number,
        address=here.address,
        files={network.file: catalog.conf(network, here) for network in networks.values()},
        setup=[step for network in networks.values() for step in catalog.setup(network, here, peers)],
        daemons=[
            _daemon(name, network.real, here, peers, programs) for name, network in networks.items() if network.real
        ],
        pod_subnets=[subnet for network in networks.values() for subnet in catalog.pod_subnets(network, here)],
        kubeconfig=here.kubeconfig,
    )


def _daemon(
    name: str, real: catalog.Real, here: catalog.Place, peers: Sequence[catalog.Place], programs: Programs
) -> plan.DaemonPlan:
    rendered = catalog.daemon(real, here, peers)
    program, *arguments = rendered["command"]
    command = [rootfs.HOST + programs.daemons[program], *arguments]
    return plan.DaemonPlan(network=name, **{**rendered, "command": command})
