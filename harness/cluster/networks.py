"""Installs networks on a real cluster: manifests, binaries and configurations, with waits for conditions.

All networks are installed at the same time, because their software mostly waits. If a network is not available (its
image is neither in the engine nor in a registry), this is found before anything is applied, and the offer has the
reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kubernetes.client import ApiClient

from harness.cluster import engine
from harness.cluster.apply import Applier, Object, wait
from harness.cluster.deploy import CONF_DIR, rollout
from harness.cluster.nodes import Nodes, put
from harness.cluster.software import NodeConf, Software, borrowed, for_node, images, with_borrowed
from harness.contract import Offer, Unavailable
from harness.download import NotHad
from harness.objects import Objects

#: Plugins of configurations that scenarios bring with them.
OWN = frozenset({"bandwidth", "bridge", "host-local", "macvlan", "portmap", "static", "tuning"})


REGISTERED = 120.0  # seconds that a kubelet may take to register its node


@dataclass(frozen=True, kw_only=True)
class Installation:
    """The networks to install, with their objects; and why the others are not available."""

    chosen: Mapping[str, Software]
    objects: Mapping[str, list[Object]]
    missing: Mapping[str, str]

    def images(self) -> tuple[str, ...]:
        return images([thing for things in self.objects.values() for thing in things])

    def plugins(self) -> tuple[str, ...]:
        """All binaries of containernetworking/plugins that chosen networks or scenarios' configurations need on
        nodes."""
        return tuple(sorted({plugin for software in self.chosen.values() for plugin in software.plugins} | OWN))

    def offers(self, known: Mapping[str, Software]) -> dict[str, Offer]:
        return {
            name: Offer(
                network=name, kind="real", software=software.software, subnets=software.subnets,
                default_route=software.default_route, missing=self.missing.get(name, ""),
                file=software.conf, first_only=software.first_only, tidies=software.tidying, daemons=software.daemons,
            )
            for name, software in known.items()
        }  # fmt: skip


def plan(known: Mapping[str, Software], asked: Sequence[str] | None) -> Installation:
    """The known networks to install: those that `asked` names, else all that can share a cluster."""
    missing: dict[str, str] = {}
    wanted = [name for name in known if (name in asked if asked else not known[name].on_request)]
    for name in known:
        if name not in wanted:
            missing[name] = _left_out(name, known[name], wanted)
    for name in sorted(
        wanted, key=lambda name: not known[name].on_request
    ):  # networks with conflicts give way to the others
        if rival := next((other for other in wanted if other in known[name].conflicts), ""):
            wanted.remove(name)
            missing[name] = _rivalry(name, known[name], rival)
    with ThreadPoolExecutor(4) as pool:
        had = dict(zip(wanted, pool.map(lambda name: _had(known[name]), wanted), strict=True))
    objects = {name: found for name, found in had.items() if isinstance(found, list)}
    missing |= {name: found for name, found in had.items() if isinstance(found, str)}
    return Installation(chosen={name: known[name] for name in objects}, objects=objects, missing=missing)


def _left_out(name: str, software: Software, wanted: Iterable[str]) -> str:
    if rival := next((other for other in wanted if other in software.conflicts), ""):
        return _rivalry(name, software, rival)
    return f"it was not asked for (--networks {name})"


def _rivalry(name: str, software: Software, rival: str) -> str:
    return (
        f"it cannot share a cluster with {rival}: {software.conflict_reason}; make a cluster with --networks {name} "
        f"without {' and '.join(software.conflicts)}"
    )


def _had(software: Software) -> list[Object] | str:
    """A network's objects, after its images were pulled into the engine; or why this failed."""
    try:
        found = software.objects()
        for image in images(found):
            engine.have_image(image)
        return found
    except NotHad as error:
        return f"its manifest is not available: {error}"
    except Unavailable as error:
        return str(error)


def install(
    api: ApiClient, nodes: Nodes, names: Sequence[str], todo: Installation, binaries: Mapping[str, bytes]
) -> None:
    """Copy binaries and configurations to the nodes and apply the manifests; does not wait.

    names: all nodes, including the control plane; their order gives them numbers, from 1.
    binaries: a plugin's name to its executable.
    """
    addresses = node_addresses(Objects(api), names)

    def furnish(node: str) -> None:
        others = {names.index(other) + 1: addresses[other] for other in names if other != node}
        _furnish(nodes, node, todo, binaries, number=names.index(node) + 1, others=others)

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(furnish, names))
    applier = Applier(api)
    for things in todo.objects.values():
        applier.apply(with_borrowed(things, _lent(api, borrowed(things))))


def _lent(api: ApiClient, parts: frozenset[str]) -> dict[str, str]:
    """The images of parts of the control plane, from its pods; waits until these exist.

    Raises NotReady: there are no such pods, for example because a provider runs the control plane.
    """
    objects, found = Objects(api), dict[str, str]()

    def missing() -> str:
        pods = objects.get("/api/v1/namespaces/kube-system/pods?labelSelector=tier=control-plane")["items"]
        found.update({pod["metadata"]["labels"]["component"]: pod["spec"]["containers"][0]["image"] for pod in pods})
        return ", ".join(f"no pod of {part} in kube-system" for part in sorted(parts - found.keys()))

    if parts:
        wait("images of the control plane", missing, 60.0)
    return found


def _furnish(
    nodes: Nodes,
    node: str,
    todo: Installation,
    binaries: Mapping[str, bytes],
    *,
    number: int,
    others: Mapping[int, str],
) -> None:
    """Prepare one node: missing binaries, its configurations, and routes to the other nodes' subnets.

    others: the other nodes' numbers and addresses.
    """
    there = set(nodes.run(node, "ls", "/opt/cni/bin", check=False).split())
    lacking = {f"/opt/cni/bin/{name}": content for name, content in binaries.items() if name not in there}
    if lacking:
        put(nodes, node, lacking, mode=0o755)
    written = {software.conf: software.node_conf for software in todo.chosen.values() if software.node_conf}
    if not written:
        return
    # The configurations come last: with one, the runtime starts pods, and their plugin makes a bridge that is missing.
    nodes.run(node, "sh", "-ec", "\n".join(_furniture(written.values(), todo, number, others)))
    contents = {name: json.dumps(for_node(conf.content, number), indent=2) for name, conf in written.items()}
    put(nodes, node, {f"{CONF_DIR}/{name}": content.encode() for name, content in contents.items()})


def _furniture(confs: Iterable[NodeConf], todo: Installation, number: int, others: Mapping[int, str]) -> Iterator[str]:
    """Commands for a node's bridge and routes; each can be repeated."""
    for conf in confs:
        if conf.bridge:
            name, address = conf.bridge.name, for_node(conf.bridge.address, number)
            yield f"ip link show {name} >/dev/null 2>&1 || ip link add {name} type bridge"
            # Set its address: otherwise it takes the lowest address of its ports, which changes as ports come and go.
            yield f"ip link set {name} address $(cat /sys/class/net/{name}/address)"
            yield f"ip addr replace {address} dev {name}; ip link set {name} up"
        if conf.routes:
            for other, address in others.items():
                yield f"ip route replace {for_node(conf.routes, other)} via {address}"
    for software in todo.chosen.values():
        if software.node_conf:  # packets to an address of no node must not leave the cluster by the default route
            yield from (f"ip route replace unreachable {subnet} metric 4278198272" for subnet in software.subnets)


def node_addresses(objects: Objects, names: Iterable[str]) -> dict[str, str]:
    """Each node's address. A kubelet registers its node some time after the node's container runs.

    Raises NotReady: a node is not there, or has no address.
    """
    found: dict[str, str] = {}

    def missing() -> str:
        for node in objects.get("/api/v1/nodes")["items"]:
            for each in node["status"].get("addresses") or []:
                if each["type"] == "InternalIP":
                    found.setdefault(node["metadata"]["name"], each["address"])
        return ", ".join(f"{name} is not registered" for name in names if name not in found)

    wait("nodes", missing, REGISTERED)
    return found


def wait_ready(api: ApiClient, nodes: Nodes, names: Sequence[str], todo: Installation, timeout: float) -> None:
    """Wait until every network works on every node: its software is rolled out, its configuration is in net.d.

    Raises NotReady: some are not ready; the message has the last state.
    """
    objects = Objects(api)

    def lacking(name: str) -> str:
        software = todo.chosen[name]
        for part in software.ready:
            if missing := rollout(objects, part.kind, part.namespace, part.name):
                return f"{name}: {missing}"
        path = f"{CONF_DIR}/{software.conf}"
        without = [node for node in names if not nodes.run(node, "ls", path, check=False).strip()]
        return f"{name}: {path} is not on {', '.join(without)}" if without else ""

    left = list(todo.chosen)

    def still_missing() -> str:
        reasons = {name: lacking(name) for name in left}
        left[:] = [name for name, reason in reasons.items() if reason]
        return "; ".join(filter(None, reasons.values()))

    wait("networks", still_missing, timeout)
