"""`python -m harness cluster create|delete|status`: a kind cluster to keep between runs, for people.

A run with `--backend kind` finds the cluster, updates it and keeps it.
"""

from __future__ import annotations

import argparse
import sys

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from harness.backends import kind
from harness.cluster.deploy import AGENT_LABEL, NAMESPACE
from harness.cluster.kindtool import Kind
from harness.cluster.real import client
from harness.cluster.state import ClusterState
from harness.contract import RunOptions
from harness.exits import Exit
from harness.objects import ApiError, Objects
from harness.progress import Progress
from harness.values import listed


def create(options: argparse.Namespace) -> int:
    """Create or update a cluster; returns the exit status."""
    console = Console(stderr=True, highlight=False)
    wanted = RunOptions(
        networks=listed(options.networks), profiles=tuple(options.profile), why="asked for", console=console
    )
    kind.start(wanted, options.name).close(keep=True)
    return status(options)


def delete(options: argparse.Namespace) -> int:
    """Delete a cluster; returns the exit status."""
    with Progress().step(f"deleting cluster {options.name}"):
        kind.delete(options.name)
    return 0


def status(options: argparse.Namespace) -> int:
    """Print what is on a cluster, and how to reach it; returns the exit status."""
    state = ClusterState.load(options.name)
    if not Kind(options.name).exists():
        print(f"no cluster {options.name}", file=sys.stderr)
        return Exit.BROKEN
    if not state.complete:
        print(f"cluster {options.name} was not completed: `cluster create` continues it", file=sys.stderr)
        return Exit.BROKEN
    console = Console() if Console().is_terminal else Console(width=160)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("network", "software", "state"):
        table.add_column(column, overflow="fold")
    for name, offer in state.offers.items():
        table.add_row(name, offer["software"], offer["missing"] or "there")
    console.print(table)
    console.print(f"genie: {_agents(state)}, image {state.image}")
    console.print(f"export KUBECONFIG={state.kubeconfig}", soft_wrap=True)
    return 0


def _agents(state: ClusterState) -> str:
    try:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        pods = Objects(client(state.kubeconfig)).get(path, labelSelector=AGENT_LABEL)["items"]
    except ApiError as error:
        return f"the cluster does not answer ({error})"
    ready = sum(
        all(each["ready"] for each in pod["status"].get("containerStatuses") or [{"ready": False}]) for pod in pods
    )
    return f"{ready} of {len(pods)} agents ready"
