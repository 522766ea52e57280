"""Starts a cluster from its plan: API server and nodes at the same time.

They do not call each other; each waits for files in the run's directory.
"""

from __future__ import annotations

import compileall
import json
from importlib import resources
from pathlib import Path

from harness.embedded import apiserver, socket_api
from harness.embedded.furnish import furnish, introduce
from harness.embedded.plan import Plan
from harness.embedded.rest import Client
from harness.waiting import NotReady, until_nothing

_TIMEOUT = 60.0


def bring_up(plan: Plan, running: apiserver.Running) -> None:
    """Start the nodes of a plan, and wait until they and the API server are ready.

    Raises NotReady: one is not ready; the message names it and the reason.
    Raises Refusal: the API server rejects an object.
    """
    place = Path(plan.place)
    compileall.compile_dir(str(resources.files("genie")), quiet=2)  # on nodes genie's files are read-only
    plan.write(place / "plan.json")
    process = apiserver.python("harness.embedded.nodes", str(place / "plan.json"), log=place / "nodes.log")

    def see_nodes() -> None:
        if process.poll() is not None:
            raise NotReady(f"no nodes: {(place / 'nodes.log').read_text(errors='replace').strip()}")

    introduce(running, plan.nodes, _TIMEOUT)
    running = apiserver.reach(running, _TIMEOUT, see_nodes)
    running.admin.write(place / "daemons-access.json")
    running.genie.write(place / "genie-access.json")
    apiserver.wait(running, _TIMEOUT, see_nodes)
    furnish(Client(running.admin))
    running.admin.write(place / "access.json")
    (place / "kubeconfig").write_text(json.dumps(running.admin.kubeconfig()))
    sockets = [socket_of(place, node.name) for node in plan.nodes]

    def silent() -> list[Path]:
        see_nodes()
        return [path for path in sockets if not path.exists()]

    if until_nothing(silent, _TIMEOUT, longest=0.01):
        raise NotReady("the nodes' daemons did not answer in time")
    for path in sockets:
        socket_api.ask(path, "ready")


def socket_of(place: Path, node: str) -> Path:
    """The path of a node's socket for the harness."""
    return place / f"{node}.sock"
