"""Runs commands on a cluster's nodes.

kind's nodes are containers, so `docker exec` works, even without the API server. For the nodes of other clusters, the
harness has a privileged pod on each.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from typing import Protocol

from harness.cluster import engine


class Nodes(Protocol):
    """How to run a command on a node, as root, in the node's own namespaces."""

    def run(self, node: str, *argv: str, stdin: bytes | None = None, timeout: float = 60.0, check: bool = True) -> str:
        """Run a command and return its standard output.

        Raises CommandFailed: it failed (and `check`) or did not end in time.
        """


class DockerNodes:
    """kind's nodes."""

    def run(self, node: str, *argv: str, stdin: bytes | None = None, timeout: float = 60.0, check: bool = True) -> str:
        interactive = ["--interactive"] if stdin is not None else []
        return engine.docker("exec", *interactive, node, *argv, stdin=stdin, timeout=timeout, check=check)


def put(nodes: Nodes, node: str, files: Mapping[str, bytes], mode: int = 0o644, unread: bool = False) -> None:
    """Write files on a node atomically: unpack each under another name, then rename it.

    unread: set the files' access time to 0, so that a later read can be noticed.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(f"{path}.new".lstrip("/"))
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    folders = " ".join(sorted({path.rpartition("/")[0] for path in files}))
    forget = "touch -a -d @0 {0}.new; " if unread else ""
    moves = "; ".join(f"{forget.format(path)}mv -f {path}.new {path}" for path in files)
    nodes.run(node, "sh", "-ec", f"mkdir -p {folders}; tar -xf - -C /; {moves}", stdin=packed.getvalue())


def allow_ipv6(nodes: Nodes, node: str) -> None:
    """Allow IPv6 addresses on a node's interfaces: an engine without IPv6 forbids them each time the node starts."""
    nodes.run(node, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0", check=False)
