"""A cluster in memory: pods immediately get the networks of their `cni` annotation, and packets reach all pods.

`faults` turns on faults of real clusters: "leak", "unreachable", "no-gateway", "two-defaults",
"missing-interface", "never-runs", "wrong-status", "wrong-pod", "probe-away", "isolate", "check",
"narrow" (packets of at most 1400 bytes), "wide" (9000), "broken-node".
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness.contract import (
    API_OUTAGE,
    CNI_CALLS,
    END_SANDBOX,
    LIVING_LEFT_OUT,
    NET_D,
    SETTINGS,
    STATIC_PODS,
    Ability,
    Facts,
    Inventory,
    Offer,
    ProbeError,
)

Json = dict[str, Any]
SUBNETS = {"calico": "10.1.0.0/16", "weave": "10.2.0.0/16", "flannel": "10.3.0.0/16", "bridge": "10.4.0.0/16"}
DEFAULT = "bridge"
ABILITIES: frozenset[Ability[Any]] = frozenset({SETTINGS, API_OUTAGE, END_SANDBOX, CNI_CALLS, NET_D, STATIC_PODS})
LOOPBACK = {"name": "lo", "mac": "", "mtu": 1, "up": True, "kind": "loopback", "addresses": ["127.0.0.1/8"]}


def facts(**changes: Any) -> Facts:
    """The facts of the cluster: canal is missing, and calico is a stand-in."""
    offers = {
        name: Offer(
            network=name,
            kind="stand-in" if name == "calico" else "real",
            software=f"{name} of the fake",
            subnets=(subnet,),
            file=f"10-{name}.conf",
        )
        for name, subnet in SUBNETS.items()
    }
    missing = "its image cannot be had"
    offers["canal"] = Offer(network="canal", kind="real", software="canal", subnets=(), missing=missing)
    usual: Json = {
        "backend": "fake",
        "why": "a test asked for it",
        "api_server": "an API server in memory",
        "genie": "direct mode, imagined",
        "nodes": ("one", "two"),
        "image": "probe:1",
        "offers": offers,
        "abilities": ABILITIES,
    }
    return Facts(**{**usual, **changes})


class FakeCluster:
    """See `harness.contract.Cluster`."""

    def __init__(self, *, faults: tuple[str, ...] = (), living_left_out: bool = False, **changes: Any) -> None:
        self.facts = facts(**changes)
        if living_left_out:
            self.facts = facts(**{**changes, "abilities": self.facts.abilities | {LIVING_LEFT_OUT}})
        self.faults = set(faults)
        self.store: dict[str, Json] = {}
        self.attached: dict[tuple[str, str], list[Json]] = {}
        self.leaked: set[str] = set()
        self.stranger: set[str] = set()  # entries of another scenario on the nodes
        self.history: list[str] = []
        self.sources: set[str | None] = set()  # of dials
        self.static: dict[str, str] = {}  # file to the mirror's path
        self.closed: bool | None = None
        self._next = 10
        self._lock = threading.RLock()

    # --- Kubernetes

    def api(self) -> Any:
        configuration = SimpleNamespace(
            host="http://fake", username="", get_api_key_with_prefix=lambda *_: "", get_basic_auth_token=lambda: ""
        )
        pool = SimpleNamespace(request=self._request)
        return SimpleNamespace(configuration=configuration, rest_client=SimpleNamespace(pool_manager=pool))

    def _request(self, method: str, url: str, body: bytes | None = None, **_: Any) -> SimpleNamespace:
        path = url.removeprefix("http://fake").partition("?")[0]
        with self._lock:
            status, answer = self._answer(method, path, json.loads(body) if body else {})
        return SimpleNamespace(status=status, data=json.dumps(answer).encode())

    def _answer(self, method: str, path: str, body: Json) -> tuple[int, Json]:
        if method == "POST":
            return self._create(path, body)
        if method == "DELETE":
            return self._delete(path)
        if method == "PATCH":
            self.store[path]["metadata"]["annotations"] |= body["metadata"]["annotations"]
        if path in self.store:
            return 200, self.store[path]
        if path.rpartition("/")[2] in ("configmaps", "events", "namespaces", "pods", "services"):
            items = [thing for where, thing in self.store.items() if where.rpartition("/")[0] == path]
            return 200, {"items": items}
        return 404, {"message": f"{path} not found"}

    def _create(self, path: str, body: Json) -> tuple[int, Json]:
        name = body["metadata"]["name"]
        if f"{path}/{name}" in self.store:
            return 409, {"message": f"{name} already exists"}
        self.store[f"{path}/{name}"] = body
        if body.get("kind") == "Service":
            body["spec"]["clusterIP"] = "10.96.0.1"
        if found := re.fullmatch(r"/api/v1/namespaces/([^/]+)/pods", path):
            self._attach(found[1], body)
        return 201, body

    def _delete(self, path: str) -> tuple[int, Json]:
        thing = self.store.pop(path, None)
        if found := re.fullmatch(r"/api/v1/namespaces/([^/]+)/pods/([^/]+)", path):
            self._detach(found[1], found[2])
        if path.count("/") == 4:  # a namespace: its events go with it
            self.store = {where: it for where, it in self.store.items() if not where.startswith(f"{path}/events/")}
        return (200, {}) if thing else (404, {"message": "not found"})

    # --- pods

    def _attach(self, namespace: str, pod: Json) -> None:
        name, annotations = pod["metadata"]["name"], pod["metadata"]["annotations"]
        wanted = [each.strip() for each in annotations.get("cni", DEFAULT).split(",")]
        unknown = [each for each in wanted if each.partition("@")[0] not in SUBNETS]
        if unknown or "never-runs" in self.faults:
            network = (unknown or ["?"])[0]
            words = f'plugin type="genie" name="genie" failed (add): network "{network}" not found'
            before = "Failed to create pod sandbox: rpc error: failed to setup network for sandbox"
            self._event(namespace, name, f'{before} "{self._id(namespace, name)}": {words}')
            pod["status"] = {"phase": "Pending"}
            return
        interfaces: list[Json] = []
        for place, each in enumerate(wanted):
            network, _, ifname = each.partition("@")
            net = ip_network(SUBNETS[network])
            self._next += 1
            ip = str(net[self._next])
            interfaces.append({"name": ifname or f"eth{place}", "network": network, "ip": ip, "net": net})
        if "missing-interface" in self.faults:
            interfaces.pop()
        self.attached[namespace, name] = interfaces
        ips = [interfaces[0]["ip"]] if interfaces else []
        if "wrong-status" in self.faults:
            ips = ["10.9.9.9"]
        pod["status"] = {"phase": "Running", "podIP": (ips or [""])[0], "podIPs": [{"ip": ip} for ip in ips]}

    def _event(self, namespace: str, pod: str, message: str) -> None:
        self._next += 1
        event = {"involvedObject": {"name": pod}, "type": "Warning", "reason": "FailedCreatePodSandBox"}
        self.store[f"/api/v1/namespaces/{namespace}/events/{self._next}"] = {**event, "message": message}

    def _detach(self, namespace: str, pod: str) -> None:
        interfaces = self.attached.pop((namespace, pod), [])
        if "leak" in self.faults:
            self.leaked |= {f"weave {each['ip']} {self._id(namespace, pod)}/{each['name']}" for each in interfaces}

    @staticmethod
    def _id(namespace: str, pod: str) -> str:
        return hashlib.sha256(f"{namespace}/{pod}".encode()).hexdigest()

    # --- the probe

    def ask(self, namespace: str, pod: str, request: Mapping[str, Any]) -> Json:
        if (namespace, pod) not in self.attached or "probe-away" in self.faults:
            raise ProbeError(f"{namespace}/{pod} does not answer")
        interfaces = self.attached[namespace, pod]
        match request["op"]:
            case "look":
                return self._look(interfaces)
            case "serve-iperf3":
                return {"port": 0}
            case "throughput":
                return {"bits_per_second": 10**9, "tool": "imagined"}
            case "resolve":
                return {"addresses": ["10.96.0.1"]}
        return self._dial(interfaces, request)

    def _look(self, interfaces: list[Json]) -> Json:
        defaults = interfaces if "two-defaults" in self.faults else interfaces[:1]
        if "no-gateway" in self.faults:
            defaults = []
        usual = {"mac": "0a:00:00:00:00:01", "mtu": 1500, "up": True, "kind": "veth"}
        route = {"table": 254, "family": 4}
        return {
            "interfaces": [
                LOOPBACK,
                *(
                    {"name": each["name"], **usual, "addresses": [f"{each['ip']}/16", "fe80::1/64"]}
                    for each in interfaces
                ),
            ],
            "routes": [
                *(
                    {"dst": "default", "gw": str(each["net"][1]), "dev": each["name"], "src": None, **route}
                    for each in defaults
                ),
                *(
                    {"dst": str(each["net"]), "gw": None, "dev": each["name"], "src": each["ip"], **route}
                    for each in interfaces
                ),
            ],
            "rules": [{"priority": 0, "from": "all", "table": 255, "family": 4}],
        }

    def _dial(self, interfaces: list[Json], request: Mapping[str, Any]) -> Json:
        self.sources.add(request.get("source"))
        address = request["address"]
        holders = (pod for (_, pod), has in self.attached.items() if any(each["ip"] == address for each in has))
        target = next(holders, None)
        largest = 1400 if "narrow" in self.faults else 9000 if "wide" in self.faults else 1500
        if request.get("size", 0) > largest:
            return {"ok": False, "error": "message too long", "peer": "", "seen_as": "", "name": "", "ms": 0.1}
        isolated = "isolate" in self.faults and address not in {each["ip"] for each in interfaces}
        if target is None or isolated or "unreachable" in self.faults:
            return {"ok": False, "error": "no answer within 2 s", "peer": "", "seen_as": "", "name": "", "ms": 2000}
        self.history.append(f"{request['protocol']} {address}")
        near = (each["ip"] for each in interfaces if ip_address(address) in each["net"])
        name = "somebody" if "wrong-pod" in self.faults else target.removesuffix("-one").removesuffix("-two")
        seen_as = next(near, interfaces[0]["ip"])
        return {"ok": True, "error": "", "peer": address, "seen_as": seen_as, "name": name, "ms": 0.1}

    # --- nodes

    def calls(self, namespace: str) -> list[Json]:
        delegates = [{"plugin": "bridge", "verb": "ADD", "ifname": "eth0", "status": 0, "ms": 20.0}]
        return [{"verb": "ADD", "selection": [["weave", "eth0"]], "delegates": delegates}]

    def binaries(self, node: str) -> dict[str, str]:
        return {"bridge": "ab" * 32, "ptp": hashlib.sha256(node.encode()).hexdigest()}

    def inventory(self, node: str) -> Inventory:
        if "broken-node" in self.faults:
            raise OSError("the node's daemon has ended")
        empty: frozenset[str] = frozenset()
        held = set(self.leaked) | self.stranger
        if LIVING_LEFT_OUT not in self.facts.abilities:
            for (namespace, pod), interfaces in self.attached.items():
                held |= {f"weave {each['ip']} {self._id(namespace, pod)}/{each['name']}" for each in interfaces}
        addresses = frozenset(held if node == "one" else ())
        return Inventory(interfaces=empty, addresses=addresses, netfilter=empty, namespaces=empty, records=empty)

    def end_sandbox(self, namespace: str, pod: str) -> None:
        self._detach(namespace, pod)
        self.history.append(f"end {pod}")

    def cni_check(self, namespace: str, pod: str) -> str:
        return "eth0 has lost its address" if "check" in self.faults else ""

    def cni_status(self, node: str, genie_conf: Mapping[str, Any], env: Mapping[str, str]) -> str:
        return f"no plugin in {env['CNI_PATH']}" if env else ""

    def static_pod(self, node: str, name: str, manifest: Mapping[str, Any] | None) -> None:
        """The API server has only a mirror of a static pod, under another name."""
        if manifest is None:
            path = self.static.pop(name, None)
            if path and self.store.pop(path, None):
                _, _, _, _, namespace, _, pod = path.split("/")
                self._detach(namespace, pod)
            return
        meta = manifest["metadata"]
        shown = f"{meta['name']}-{node}"
        self.static[name] = f"/api/v1/namespaces/{meta['namespace']}/pods/{shown}"
        mirror = {**manifest, "metadata": {**meta, "name": shown}}
        self.store[self.static[name]] = mirror
        self._attach(meta["namespace"], mirror)

    @contextmanager
    def net_d(self, files: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
        self.history.append(f"net.d {dict(files)}")
        yield
        self.history.append("net.d back")

    @contextmanager
    def settings(self, genie_conf: Mapping[str, Any], namespace: str) -> Iterator[None]:
        self.history.append(f"settings {dict(genie_conf)}")
        yield
        self.history.append("settings back")

    @contextmanager
    def api_server_away(self, namespace: str) -> Iterator[None]:
        self.history.append("API server away")
        yield
        self.history.append("API server back")

    def evidence(self, namespace: str, pod: str, into: Path) -> list[Path]:
        file = into / "genie.log"
        file.write_text("genie's log\n")
        return [file]

    def shell(self, namespace: str, pod: str) -> Sequence[str]:
        return "echo", f"a shell in {pod}"

    def close(self, keep: bool = False) -> None:
        self.closed = keep
