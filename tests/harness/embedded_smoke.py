"""Run by test_embedded.py in a cage: makes a cluster, prints what it is, does what it is told to."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from kubernetes.client import CoreV1Api
from rich.console import Console

from harness.backends import embedded
from harness.contract import RunOptions

_CONTAINER = {"name": "probe", "image": embedded.IMAGE}


def main(then: str) -> None:
    options = RunOptions(networks=("bridge", "weave"), why="asked for", console=Console(stderr=True))
    if not embedded.inside():
        embedded.enter(replace(options, networks=()), [sys.executable, __file__, then])
    cluster = embedded.start(options)
    core = CoreV1Api(cluster.api())
    core.create_namespace({"metadata": {"name": "smoke"}})
    before = {node: cluster.inventory(node) for node in cluster.facts.nodes}
    report: dict[str, Any] = {"api": cluster.facts.api_server}
    for name, network, node in (("a", "weave", 0), ("b", "weave", 1), ("c", "bridge", 0), ("d", "bridge", 1)):
        make(core, name, network, cluster.facts.nodes[node])
    addresses = {name: wait(core, name) for name in "abcd"}
    report["addresses"] = addresses
    report["dials"] = [
        cluster.ask(
            "smoke", one, {"op": "dial", "protocol": "tcp", "address": addresses[other], "port": 8472, "timeout": 5}
        )
        for one, other in (("a", "b"), ("b", "a"), ("c", "d"))
    ]
    if then == "linger":
        print(json.dumps({"cage": os.environ["GENIE_CAGE"]}), flush=True)
        time.sleep(600)
    report["connected"] = embedded.connect(options).facts == cluster.facts
    core.delete_namespace("smoke")
    until = time.monotonic() + 20
    while any(item.metadata.name == "smoke" for item in core.list_namespace().items) and time.monotonic() < until:
        time.sleep(0.02)
    report["left"] = [line for node in cluster.facts.nodes for line in cluster.inventory(node).beyond(before[node])]
    report["evidence"] = [path.name for path in cluster.evidence("smoke", "a", Path(os.environ["GENIE_CAGE"]) / "e")]
    cluster.close()
    print(json.dumps(report))


def make(core: CoreV1Api, name: str, network: str, node: str) -> None:
    spec = {"nodeName": node, "containers": [_CONTAINER], "automountServiceAccountToken": False}
    core.create_namespaced_pod("smoke", {"metadata": {"name": name, "annotations": {"cni": network}}, "spec": spec})


def wait(core: CoreV1Api, name: str) -> str:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        status = core.read_namespaced_pod(name, "smoke").status
        if status.phase == "Running":
            return str(status.pod_ip)
        time.sleep(0.02)
    said = [event.message for event in core.list_namespaced_event("smoke").items]
    raise SystemExit(f"pod {name} does not run: {said}")


if __name__ == "__main__":
    main(sys.argv[1])
