"""`genie install`: installs genie on a node, keeps it there, and removes it again with the node as before.

`EPILOG` names the files on the node. files.py writes and removes them, wanted.py decides their content, keeper.py is
`--keep`, which the DaemonSet runs beside the agent.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from genie import log as logs
from genie.cni.errors import CniError
from genie.log import Log
from genie.node import multus
from genie.node.files import Node, install, remove, write
from genie.node.keeper import Keeper, check_not_kept
from genie.node.multus import Migrated
from genie.node.wanted import read_conf, with_conf

log = Log("genie.install")

EPILOG = """\
examples:
  genie install --direct --conf my.conf       on a node that has Python: genie without an agent. my.conf is a genie.conf
                                              with kubernetes.kubeconfig in it. Again, after genie was upgraded
  genie install --direct --no-kubeconfig      … without Kubernetes
  genie install --remove                      the node as it was before
  genie install --print --from-multus /etc/cni/net.d/00-multus.conf > my.conf      … what Multus' configuration becomes

  The DaemonSet runs this beside the agent:
  genie install --keep --after /run/pod/agent --conf /etc/genie/genie.conf --daemonset kube-system/genie

the files on the node; each is written atomically, also over a running one:
  BIN-DIR/genie                 the plugin: the agent's shim, or with --direct a script
  CONF-DIR/genie.d/kubeconfig   in a pod only: how to reach the API server as the pod's service account
  CONF-DIR/00-genie.conflist    genie.conf, in a list that others may extend; last, for with it the runtime begins to
                                call genie. Should another file come before it, genie takes an earlier name: the runtime
                                uses the first
  STATE-DIR/install/            which files are genie's, and what was in their places before

It takes root. On a node that a DaemonSet keeps, --once and --remove are refused: delete the DaemonSet, and genie is
removed. Pods with several networks should go before genie does: afterwards the runtime knows only the first network.
More: docs/install.md
"""


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="genie install",
        description="Install genie on this node, before every other configuration in net.d, or remove it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, default = parser.add_argument, Node()
    what = parser.add_argument_group("what to do").add_mutually_exclusive_group()
    what.add_argument("--once", action="store_true", help="install and return (the default)")
    what.add_argument("--keep", action="store_true", help="install, and keep genie installed until SIGTERM")
    what.add_argument("--remove", action="store_true", help="remove genie, and restore the node's previous files")
    what.add_argument("--print", action="store_true", help="print the genie.conf that would be installed, and return")
    add("--conf", metavar="PATH", default="", help="the genie.conf to install (default: one without settings)")
    add(
        "--from-multus", metavar="PATH", default="",
        help="install the genie.conf that is equivalent to this configuration of Multus (00-multus.conf)",
    )  # fmt: skip
    add("--direct", action="store_true", help="install genie itself, run by this Python, in place of the agent's shim")
    add(
        "--no-kubeconfig",
        action="store_true",
        help="do not install a kubeconfig of this pod's service account; in direct mode, allow genie.conf without one",
    )
    add("--bin-dir", default=default.bin_dir, metavar="DIR", help="where plugins are (default: %(default)s)")
    add("--conf-dir", default=default.conf_dir, metavar="DIR", help="the runtime's net.d (default: %(default)s)")
    add(
        "--state-dir", default=default.state_dir, metavar="DIR",
        help="genie's own; to remove, name the same one (default: %(default)s)",
    )  # fmt: skip
    keep = parser.add_argument_group("with --keep")
    keep.add_argument(
        "--after", metavar="PATH", default="", help="install once a process holds this file: the agent's --ready-file"
    )
    keep.add_argument("--ready-file", metavar="PATH", default="", help="hold this file once genie is installed")
    keep.add_argument(
        "--daemonset", metavar="NAMESPACE/NAME", default="",
        help="at the end, remove genie if this DaemonSet is gone",
    )  # fmt: skip
    options = parser.parse_args(argv)
    if options.from_multus and (options.conf or options.keep or options.remove):
        parser.error("--from-multus cannot be combined with --conf, --keep or --remove; --keep takes --print's output")
    return options


def main(argv: list[str] | None = None) -> int:
    """`genie install`; returns the exit status."""
    options = _options(argv)
    logs.setup("info")
    node = Node(bin_dir=options.bin_dir, conf_dir=options.conf_dir, state_dir=options.state_dir)
    try:
        if options.keep:
            Keeper(node, options).run()
            return 0
        migrated = _migrated(options) if options.from_multus else None
        if options.print:
            print(json.dumps(dict(migrated.conf if migrated else read_conf(options)[0]), indent=2))
            return 0
        check_not_kept(node)
        if options.remove:
            log.info("removed", files=remove(node))
        else:
            wanted = with_conf(options, *read_conf(options, migrated.conf if migrated else None))
            files = [*_write_networks(node, migrated.networks if migrated else {}), *install(node, wanted)]
            log.info("installed", files=files)
    except (CniError, OSError) as error:
        log.error(f"cannot {'remove' if options.remove else 'install'}", error=str(error))
        return 1
    return 0


def _migrated(options: argparse.Namespace) -> Migrated:
    """The genie.conf for Multus' configuration; differences are logged."""
    migrated = multus.read(options.from_multus, options.conf_dir)
    for note in migrated.notes:
        log.warning("different from Multus", file=options.from_multus, note=note)
    for name, network in migrated.networks.items() if options.print else ():
        log.warning("needs this file, too", file=f"{options.conf_dir}/{name}", content=network)
    return migrated


def _write_networks(node: Node, networks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Write the networks from inside Multus' configuration to files; these stay when genie is removed."""
    paths = {f"{node.conf_dir}/{name}": json.dumps(network, indent=2) for name, network in networks.items()}
    return [path for path, text in paths.items() if write(path, f"{text}\n".encode(), 0o600)]
