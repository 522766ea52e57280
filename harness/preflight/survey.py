"""Makes one pod for each node and network, and measures between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TypeVar

from harness.checks.measuring import throughput
from harness.checks.reaching import mtus_of, targets_of
from harness.checks.view import View, subnets
from harness.contract import SERVICES, Cluster, Offer, ProbeError
from harness.model import NetworkName
from harness.objects import OF_SCENARIOS, ApiError, Objects
from harness.pods import Pod
from harness.preflight.plan import ALL_UP_TO, Pair, pairs, rounds
from harness.preflight.result import Network, Spot, Way
from harness.probe import PORT
from harness.progress import Progress
from harness.run.leaks import Ledger
from harness.steps.scene import GONE, Scene
from harness.waiting import NotReady, limit, until_nothing

T = TypeVar("T")
U = TypeVar("U")
WORKERS = 16
ECHOES = 5  # round trips per pair, of which the median counts
SMALLEST = 576  # bytes: every path must take these
PATIENCE = 6.0  # seconds that a network may take after the pods run
SETTLE = 30.0  # seconds that kube-proxy and DNS may take


@dataclass(kw_only=True)
class Survey:
    """A survey of one cluster, in a namespace of its own."""

    cluster: Cluster
    namespace: str
    progress: Progress
    seconds: float  # of one measurement of throughput
    _scenes: list[Scene] = field(default_factory=list)

    def begin(self) -> None:
        """Create the namespace."""
        metadata = {"name": self.namespace, "labels": OF_SCENARIOS}
        self._objects.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    def end(self) -> None:
        """Delete everything, and wait until the nodes have deleted the pods."""
        objects, path = self._objects, f"/api/v1/namespaces/{self.namespace}"
        for scene in self._scenes:
            scene.clear()
        for each in objects.get(f"{path}/services").get("items") or []:
            objects.delete(f"{path}/services/{each['metadata']['name']}")
        objects.delete(path)
        if left := until_nothing(lambda: objects.find(path), GONE):
            raise NotReady(f"namespace {left['metadata']['name']} is not gone after {limit(GONE):.0f} s")

    @property
    def _objects(self) -> Objects:
        return Objects(self.cluster.api())

    def network(self, offer: Offer) -> Network:
        name, nodes = offer.network, self.cluster.facts.nodes
        found = Network(name=name, software=offer.software, kind=offer.kind)
        scene = self._scene(offer)
        self._scenes.append(scene)
        with self.progress.step(f"{name}: a pod on each of {len(nodes)} nodes"):
            broken = self._create(scene)
        there = {node: pod for pod, node in scene.nodes.items() if pod not in broken}
        wanted = [pair for pair in pairs(nodes) if set(pair) <= set(there)]
        with self.progress.step(f"{name}: {len(wanted)} pairs of nodes, ICMP, TCP, UDP, MTU and latency"):
            ways = self._at_once(lambda pair: _reach(scene.view, name, pair, there), wanted)
        ways = self._throughputs(scene.view, ways, there)
        spots, notes = self._spots(scene, offer, there)
        if len(nodes) < 2:
            notes += ("there is only one node, so no pair of nodes was measured",)
        return replace(found, ways=tuple(ways), spots=spots, broken=tuple(broken.values()), notes=notes)

    def _scene(self, offer: Offer) -> Scene:
        name, nodes = offer.network, self.cluster.facts.nodes
        view = View(
            cluster=self.cluster,
            objects=self._objects,
            namespace=self.namespace,
            networks={name: subnets(offer.subnets)},
            leftovers=Ledger(cluster=self.cluster, namespace=self.namespace, alone=True),
            values={},
        )
        placed = {f"{name}-{number}": node for number, node in enumerate(nodes, 1)}
        pods = {pod: Pod(annotations={"cni": name}, labels={"preflight": pod}) for pod in placed}
        return Scene(view=view, pods=pods, nodes=placed, failing=frozenset())

    def _create(self, scene: Scene) -> dict[str, str]:
        """Create the pods; returns those that do not run, with the reason."""
        try:
            scene.create(scene.pods)
        except NotReady:
            listed = scene.listed()
            silent = [
                name for name in scene.pods if (listed.get(name) or {}).get("status", {}).get("phase") != "Running"
            ]
            return {name: "; ".join(scene.state(name).splitlines()) for name in silent}
        return {}

    def _throughputs(self, view: View, ways: Sequence[Way], there: dict[str, str]) -> list[Way]:
        """Measure pairs that work: those without a common node at the same time."""
        by_pair = {(way.one, way.other): way for way in ways}
        turns = rounds([pair for pair, way in by_pair.items() if not way.wrong])
        for number, turn in enumerate(turns, 1):
            network = by_pair[turn[0]].network
            with self.progress.step(f"{network}: throughput, round {number} of {len(turns)}"):
                for way in self._at_once(lambda pair: _fill(view, by_pair[pair], there, self.seconds), turn):
                    by_pair[way.one, way.other] = way
        return list(by_pair.values())

    def _spots(self, scene: Scene, offer: Offer, there: dict[str, str]) -> tuple[tuple[Spot, ...], tuple[str, ...]]:
        """DNS, Services and hairpin from each node; and why they were not tried."""
        if SERVICES not in self.cluster.facts.abilities:
            return (), (f"no DNS, Services or hairpin: the {self.cluster.facts.backend} backend has no Services",)
        if not offer.default_route:
            return (), ("no DNS, Services or hairpin: pods on this network alone have no default route",)
        some = dict(list(there.items())[:ALL_UP_TO])
        notes = () if len(some) == len(there) else (f"DNS, Services and hairpin on {len(some)} of {len(there)} nodes",)
        with self.progress.step(f"{offer.network}: DNS, Services and hairpin"):
            services = {pod: self._serve(pod) for pod in some.values()}
            spots = self._at_once(
                lambda node: _spot(scene.view, offer.network, (node, some[node]), services), list(some)
            )
        return tuple(spots), notes

    def _serve(self, pod: str) -> str:
        """A Service that leads to one pod; returns its cluster IP."""
        ports = [{"name": each.lower(), "port": 80, "targetPort": PORT, "protocol": each} for each in ("TCP", "UDP")]
        spec = {"selector": {"preflight": pod}, "ports": ports}
        made = self._objects.create(
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": pod}, "spec": spec}, self.namespace
        )
        return str(made["spec"]["clusterIP"])

    @staticmethod
    def _at_once(ask: Callable[[T], U], things: Sequence[T]) -> list[U]:
        """The answers for several things; after Ctrl-C, no further one is begun."""
        pool = ThreadPoolExecutor(max_workers=WORKERS)
        try:
            return list(pool.map(ask, things))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _reach(view: View, network: str, pair: Pair, there: dict[str, str]) -> Way:
    """Whether one pod reaches another by each protocol, with the MTU of the path and the latency."""
    way = Way(network=network, one=pair[0], other=pair[1])
    own, other = there[pair[0]], there[pair[1]]
    try:
        looks = view.look(own), view.look(other)
        targets = [str(target) for target in targets_of(view, looks[1], NetworkName(network))]
        if not targets:
            return replace(way, wrong=(f"the pod has no address of {network}",))
        wrong = [text for target in targets for text in _silent(view, own, other, target)]
        if wrong:
            return replace(way, wrong=tuple(wrong))
        mtu = next(iter(mtus_of(view, looks[0], network)), 0)
        path = _path_mtu(view, own, targets[0], mtu)
        short = (
            (f"the path takes {path or 'no'} bytes in one piece, the interface's MTU is {mtu}",) if path < mtu else ()
        )
        return replace(way, wrong=short, mtu=path, interface_mtu=mtu, latency_ms=_latency(view, own, targets[0]))
    except (ProbeError, ApiError) as error:
        return replace(way, wrong=(str(error),))


def _silent(view: View, own: str, other: str, target: str) -> Iterable[str]:
    """The protocols by which the other pod does not answer."""
    for protocol in ("icmp", "tcp", "udp"):

        def attempt(protocol: str = protocol) -> str | None:
            answer = view.dial(own, protocol=protocol, address=target, timeout=2.0)
            if not answer["ok"]:
                return f"{protocol} to {target}: {answer['error'] or 'no answer'}"
            if answer["name"] and answer["name"] != other:
                return f"{protocol} to {target}: {answer['name']} answers, expected {other}"
            return None

        if wrong := view.until(attempt, PATIENCE):
            yield wrong


def _path_mtu(view: View, pod: str, target: str, mtu: int) -> int:
    """The largest UDP packet, up to the interface's MTU, that gets there without being divided; 0 if none does."""

    def passes(size: int) -> bool:
        return any(view.dial(pod, protocol="udp", address=target, size=size, timeout=1.0)["ok"] for _ in range(2))

    if passes(mtu):
        return mtu
    low, high = SMALLEST, mtu
    if not passes(low):
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    return low


def _latency(view: View, pod: str, target: str) -> float | None:
    answers = [view.dial(pod, protocol="icmp", address=target, timeout=2.0) for _ in range(ECHOES)]
    times = [answer["ms"] for answer in answers if answer["ok"]]
    return round(median(times), 3) if times else None


def _fill(view: View, way: Way, there: dict[str, str], seconds: float) -> Way:
    """The way with its throughput."""
    own, other = there[way.one], there[way.other]
    try:
        target = targets_of(view, view.look(other), NetworkName(way.network))[0]
        answer = throughput(view, own, other, str(target), seconds)
    except (ProbeError, ApiError) as error:
        answer = {"error": str(error)}
    if "error" in answer:
        return replace(way, wrong=(*way.wrong, f"throughput: {answer['error']}"))
    return replace(way, bits_per_second=answer["bits_per_second"], tool=answer["tool"])


def _spot(view: View, network: str, place: tuple[str, str], services: dict[str, str]) -> Spot:
    """What a pod sees: DNS, another pod's Service, and its own, which leads back to it.

    place: the node and its pod. services: the cluster IP of each pod's Service.
    """
    node, pod = place
    others = [*services, *services]
    other = others[others.index(pod) + 1]
    resolve = {"op": "resolve", "name": "kubernetes.default.svc", "timeout": 10.0}

    def dns() -> str | None:
        answer = view.ask(pod, resolve)
        return str(answer["error"]) if answer.get("error") else None

    def service(of: str) -> str | None:
        for protocol in ("tcp", "udp"):
            answer = view.dial(pod, protocol=protocol, address=services[of], port=80, timeout=2.0)
            if not answer["ok"]:
                return f"{protocol} to {services[of]}: {answer['error']}"
            if answer["name"] != of:
                return f"{protocol} to {services[of]}: {answer['name']} answers, expected {of}"
        return None

    reached = None if other == pod else view.until(lambda: service(other), SETTLE) or ""
    hairpin = view.until(lambda: service(pod), SETTLE) or ""
    return Spot(network=network, node=node, dns=view.until(dns, SETTLE) or "", service=reached, hairpin=hairpin)
