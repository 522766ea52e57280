"""Run by tests/harness/backends/test_embedded.py: enters isolation, makes a cluster, prints its facts, and then ends or
waits, depending on its argument.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.backends import embedded
from harness.contract import RunOptions
from harness.objects import Objects
from harness.waiting import until_nothing

OPTIONS = RunOptions(networks=("bridge", "weave"), why="asked for", console=Console(stderr=True))
NAMESPACE = "/api/v1/namespaces/smoke"
#: Each pod's network and the number of its node.
PODS = {"a": ("weave", 0), "b": ("weave", 1), "c": ("bridge", 0), "d": ("bridge", 1), "e": ("canal", 0)}
_PORT = {"containerPort": 8472, "hostPort": 18080}  # this causes netfilter rules if a plugin maps ports
_CONTAINER = {"name": "probe", "image": embedded.IMAGE, "ports": [_PORT]}


def main(then: str) -> None:
    if not embedded.inside():
        embedded.enter(replace(OPTIONS, networks=()), [sys.executable, "-m", "tests.rigs.embedded_smoke", then])
    cluster = embedded.start(OPTIONS)
    objects = Objects(cluster.api())
    objects.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "smoke"}})
    before = {node: cluster.inventory(node) for node in cluster.facts.nodes}
    report: dict[str, Any] = {"api": cluster.facts.api_server}
    for name, (network, node) in PODS.items():
        _create(objects, name, network, cluster.facts.nodes[node])
    addresses = {name: _address(objects, name) for name in PODS}
    report["addresses"] = addresses
    report["dials"] = [
        cluster.ask(
            "smoke", one, {"op": "dial", "protocol": "tcp", "address": addresses[other], "port": 8472, "timeout": 5}
        )
        for one, other in (("a", "b"), ("b", "a"), ("c", "d"))
    ]
    if then == "linger":
        print(json.dumps({"place": str(cluster.place)}), flush=True)
        time.sleep(600)
    report["node"] = _seen_on(cluster.place / "worker-1.pid")
    report["connected"] = embedded.connect(OPTIONS).facts == cluster.facts
    objects.delete(NAMESPACE)
    until_nothing(lambda: objects.find(NAMESPACE), 20)
    report["left"] = [line for node in cluster.facts.nodes for line in cluster.inventory(node).beyond(before[node])]
    report["evidence"] = [path.name for path in cluster.evidence("smoke", "a", cluster.place / "evidence")]
    cluster.close()
    print(json.dumps(report))


def _create(objects: Objects, name: str, network: str, node: str) -> None:
    metadata = {"name": name, "annotations": {"cni": network}}
    spec = {"nodeName": node, "containers": [_CONTAINER], "automountServiceAccountToken": False}
    objects.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, "smoke")


def _address(objects: Objects, name: str) -> str:
    path = f"{NAMESPACE}/pods/{name}"
    if until_nothing(lambda: objects.get(path)["status"]["phase"] != "Running", 30):
        output = [event["message"] for event in objects.get(f"{NAMESPACE}/events")["items"]]
        raise SystemExit(f"pod {name} does not run: {output}")
    return str(objects.get(path)["status"]["podIP"])


def _seen_on(pid: Path) -> Any:
    """The parts of a node that tests search on the host; on the node they must exist."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = ["nsenter", "--target", pid.read_text(), "--mount", "--net", sys.executable, "-m", "tests.rigs.host"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout)


if __name__ == "__main__":
    main(sys.argv[1])
