"""`python -m harness cluster create|delete|status`: a kind cluster to keep between runs, for people.

A run with `--backend kind` finds it, brings it up to date and leaves it in place.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from harness.backends import kind
from harness.cluster.deploy import AGENT_LABEL, NAMESPACE
from harness.cluster.kindtool import Kind
from harness.cluster.real import client
from harness.cluster.state import ClusterState
from harness.contract import RunOptions, Unavailable
from harness.objects import ApiError, Objects
from harness.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands to `harness cluster`."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    creating = commands.add_parser("create", help="make it, or go on with it, or bring it up to date")
    creating.add_argument("--networks", default="", metavar="A,B", help="default: all that fit beside each other")
    creating.add_argument("--profile", type=Path, action="append", default=[], help="a vendor's network description")
    creating.set_defaults(do=_create)
    deleting = commands.add_parser("delete", help="end it; no error if there is none")
    deleting.set_defaults(do=_delete)
    telling = commands.add_parser("status", help="what is there, and how to reach it")
    telling.set_defaults(do=_status)
    for command in (creating, deleting, telling):
        command.add_argument("--name", default=kind.NAME, help="default: %(default)s")


def _create(options: argparse.Namespace) -> int:
    asked = tuple(name.strip() for name in options.networks.split(",") if name.strip())
    console = Console(stderr=True, highlight=False)
    wanted = RunOptions(networks=asked, profiles=tuple(options.profile), why="asked for", console=console)
    try:
        cluster = kind.start(wanted, options.name)
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 1
    cluster.close(keep=True)
    return _status(options)


def _delete(options: argparse.Namespace) -> int:
    with Progress().step(f"deleting cluster {options.name}"):
        kind.delete(options.name)
    return 0


def _status(options: argparse.Namespace) -> int:
    state = ClusterState.load(options.name)
    if not Kind(options.name).exists():
        print(f"no cluster {options.name}", file=sys.stderr)
        return 1
    if not state.complete:
        print(f"cluster {options.name} was not completed: `cluster create` goes on with it", file=sys.stderr)
        return 1
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
        pods = Objects(client(state.kubeconfig)).get(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=AGENT_LABEL)[
            "items"
        ]
    except ApiError as error:
        return f"the cluster does not answer ({error})"
    ready = sum(
        all(each["ready"] for each in pod["status"].get("containerStatuses") or [{"ready": False}]) for pod in pods
    )
    return f"{ready} of {len(pods)} agents ready"
