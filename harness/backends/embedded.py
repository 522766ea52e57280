"""The embedded backend: a cluster of namespaces on this machine, which exists only during a run.

On the host, `enter` finds or downloads all programs (the only part that needs a network), and replaces this process by
one in private namespaces. There, `start` makes the cluster; other processes of the same run use `connect`. The
environment passes the results of `enter` to the inside. harness/embedded describes how the cluster works.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import catalog
from harness.backends import embedded_networks
from harness.backends.embedded_cluster import EmbeddedCluster, abilities, save
from harness.contract import Backend, Facts, Offer, RunOptions, Unavailable
from harness.embedded import apiserver, binaries, isolation, linux, plan, socket_api
from harness.embedded.rest import Refusal
from harness.embedded.startup import bring_up, socket_of
from harness.progress import Progress
from harness.waiting import NotReady

NODES = ("worker-1", "worker-2")
CORE = ("bridge", "host-local", "macvlan", "ptp")  # plugins without which it does not start
IMAGE = "genie.example/probe:embedded"  # never pulled: the harness is the runtime
_ADDRESS, _NOWHERE, _NODE_ADDRESS = "172.30.0.1", "172.30.0.254", "172.30.0.{}"
_PREPARED = "GENIE_EMBEDDED"
_USUAL = ("weave-net", "flannel")  # genie.conf's default for `container_id_per_interface`
#: genie.conf of the nodes, with the default plugins of CNI-Genie's design.
_GENIE_CONF = {
    "name": "k8s-pod-network",
    "type": "genie",
    "cniVersion": "1.0.0",
    "log_level": "info",
    "datastore_type": "kubernetes",
    "policy": {"type": "k8s"},
    "kubernetes": {"kubeconfig": plan.KUBECONFIG},
    "capabilities": {"portMappings": True, "bandwidth": True},
}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The programs found on the host, for the process in isolation."""

    programs: Mapping[str, Any]  # of embedded_networks.Programs
    api_server: Mapping[str, str]  # of apiserver.Binaries
    api_server_why: str
    profiles: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()  # empty: all
    why: str = "asked for"

    def to_environment(self) -> None:
        os.environ[_PREPARED] = json.dumps(asdict(self))

    @classmethod
    def from_environment(cls) -> Prepared:
        data: dict[str, Any] = json.loads(os.environ[_PREPARED])
        lists: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        return cls(**lists)


def enter(options: RunOptions, argv: Sequence[str]) -> int:
    """Find or download everything, and replace this process by one that runs `argv` in isolation.

    options: names the networks to install; if empty, all known networks.

    Raises Unavailable: something was not found; the message lists what was tried and what to do.
    """
    progress = Progress(console=options.console)
    known = catalog.load(options.profiles)
    try:
        isolation.probe()
        with progress.step("CNI plugins"):
            beside = [path.resolve().parent for path in options.profiles]
            programs = embedded_networks.find(known.values(), binaries.given(), CORE, beside)
        with progress.step("API server"):
            server, server_why = binaries.api_server(os.environ.get("GENIE_API", ""))
    except (isolation.Refused, binaries.NotFound) as error:
        raise Unavailable(str(error)) from error
    Prepared(
        programs=asdict(programs),
        api_server=vars(server),
        api_server_why=server_why,
        profiles=tuple(str(path.resolve()) for path in options.profiles),
        networks=options.networks,
        why=options.why,
    ).to_environment()
    isolation.enter(argv)


def inside() -> bool:
    """Whether this process is in isolation."""
    return isolation.inside() is not None


def start(options: RunOptions) -> EmbeddedCluster:
    """Make the prepared cluster, in isolation.

    options: names the networks to start as real software if available; others are stand-ins.

    Raises Unavailable: the cluster does not start; the message has the reason.
    """
    place, prepared = _place(), Prepared.from_environment()
    with Progress(console=options.console).step("embedded cluster"):
        try:
            offers, notes = _start(place, prepared, options.networks)
        except (NotReady, Refusal, OSError, socket_api.Failed) as error:
            raise Unavailable(f"the embedded cluster did not start: {error}") from error
    save(_facts(prepared, offers, notes), place)
    return EmbeddedCluster(place)


def connect(options: RunOptions) -> EmbeddedCluster:
    """The cluster that another process in the same isolation started.

    Raises Unavailable: there is none.
    """
    place = _place()
    if not (place / "facts.json").exists():
        raise Unavailable(f"no embedded cluster has been started in {place}")
    return EmbeddedCluster(place)


def _place() -> Path:
    if (place := isolation.inside()) is None:
        raise Unavailable("the embedded cluster is in private namespaces, and this process is not: see `enter`")
    return place


def _start(place: Path, prepared: Prepared, wanted: Collection[str]) -> tuple[dict[str, Offer], list[str]]:
    """Make the cluster; returns the networks and notes of the run."""
    linux.loopback_up()
    server = apiserver.Binaries(**prepared.api_server)
    running = apiserver.start(server, _ADDRESS, place / "api")  # the slowest part starts first
    places, programs = _places(), embedded_networks.Programs.of(prepared.programs)
    networks, notes = embedded_networks.choose(_described(prepared), wanted, programs, places[0])
    offers = {name: embedded_networks.offer(name, network, programs) for name, network in networks.items()}
    there = {name: network for name, network in networks.items() if network and not offers[name].missing}
    layout = plan.Plan(
        place=str(place),
        address=_ADDRESS,
        nowhere=_NOWHERE,
        emulated=not server.real,
        nodes=tuple(embedded_networks.node(here, places, there, programs) for here in places),
        plugins=programs.plugins,
        genie_conf=_genie_conf(there.values()),
    )
    bring_up(layout, running)
    cluster_notes = [note for name in NODES for note in socket_api.ask(socket_of(place, name), "notes")]
    return offers, notes + cluster_notes


def _genie_conf(networks: Iterable[catalog.Embedded]) -> dict[str, Any]:
    """genie.conf of the nodes, with the keys that the networks need."""
    named = [name for network in networks for name in network.container_id_per_interface]
    return {**_GENIE_CONF, "container_id_per_interface": [*_USUAL, *named]} if named else _GENIE_CONF


def _places() -> list[catalog.Place]:
    vxlan = linux.has_vxlan()
    return [
        catalog.Place(number=number, name=name, address=_NODE_ADDRESS.format(10 + number), vxlan=vxlan)
        for number, name in enumerate(NODES, 1)
    ]


def _described(prepared: Prepared) -> dict[str, catalog.Embedded | None]:
    known = catalog.load([Path(path) for path in prepared.profiles])
    asked = prepared.networks or known
    return {name: network.embedded for name, network in known.items() if name in asked}


def _facts(prepared: Prepared, offers: Mapping[str, Offer], notes: Sequence[str]) -> Facts:
    server = apiserver.Binaries(**prepared.api_server)
    if server.real:
        api_server = f"kube-apiserver {server.version.removeprefix('Kubernetes ')}"
    else:
        from importlib.metadata import version

        api_server = f"kmock's emulator {version('kmock')}"
    return Facts(
        backend="embedded",
        why=prepared.why,
        api_server=api_server,
        genie=f"direct mode, Python {platform.python_version()}",
        nodes=NODES,
        image=IMAGE,
        offers=offers,
        notes=(
            f"plugins: {prepared.programs['source']}",
            f"API server: {prepared.api_server_why}",
            f"kernel {platform.release()}, {'root' if linux.is_real_root() else 'a user namespace'}",
            *notes,
        ),
        abilities=abilities(),
        settles=3.0,  # a pod is gone after its DELs; only the kernel still takes a namespace's interfaces away
    )


BACKEND = Backend(name="embedded", inside=inside, enter=enter, start=start, connect=connect, scenario_seconds=180.0)
