"""The administrator's commands: install genie, run the agent, show its records, explain a pod."""

from __future__ import annotations

import argparse
import importlib
import io
import sys

from genie import __version__
from genie.cni.errors import CniError

#: subcommand: (module with main(argv), one sentence)
COMMANDS = {
    "install": (
        "genie.node.install",
        "install genie on this node: plugin, genie.conf, kubeconfig; --remove removes it",
    ),
    "agent": ("genie.agent.daemon", "run the agent that the shim in /opt/cni/bin calls (what the DaemonSet runs)"),
    "status": ("genie.node.inspect", "list the containers on this node that genie attached, and to which networks"),
    "gc": (
        "genie.node.collect",
        "delete orphaned attachments; --forget gives up on a container that cannot be deleted",
    ),
    "admission": ("genie.admission", "serve the admission webhook (what genie/deploy/webhook runs)"),
    "explain": (
        "genie.node.explain",
        "show which networks a pod would get, and why: genie explain pod NAMESPACE/NAME, or -f FILE",
    ),
}


def main(argv: list[str]) -> int:
    """Run the subcommand's module; only that one is imported."""
    parser = argparse.ArgumentParser(
        prog="genie",
        description="One CNI plugin in front of all the others. The container runtime calls it with CNI_COMMAND in the "
        "environment; these are the commands for people.",
        epilog="`genie COMMAND --help` has more. The annotations that pods can carry: docs/annotations.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"genie {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, (_, sentence) in COMMANDS.items():
        commands.add_parser(name, help=sentence, add_help=False)
    arguments, rest = parser.parse_known_args(argv)
    if not arguments.command:
        parser.print_help(sys.stderr)
        return 2
    for stream in (sys.stdout, sys.stderr):  # names of files and pods can be of any bytes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    module = importlib.import_module(COMMANDS[arguments.command][0])
    try:
        return int(module.main(rest) or 0)
    except CniError as error:
        print(f"genie {arguments.command}: {error}", file=sys.stderr)
        return 1
