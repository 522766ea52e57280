"""A folder as a node, for `genie install`."""

from __future__ import annotations

import logging
from pathlib import Path

from genie.node import install
from genie.node.files import Node, Wanted

CONF = {"cniVersion": "1.0.0", "name": "genie", "type": "genie"}


def wanted(plugin: bytes = b"shim", kubeconfig: bytes | None = b"kubeconfig", **conf: object) -> Wanted:
    return Wanted(plugin=plugin, conf={**CONF, **conf}, kubeconfig=kubeconfig)


def tree(node: Node) -> dict[str, str]:
    """All files in net.d and in the plugin directory, with their contents."""
    folders = [Path(node.bin_dir), Path(node.conf_dir)]
    return {
        str(p.relative_to(Path(node.bin_dir).parent)): p.read_text()
        for f in folders
        for p in f.rglob("*")
        if p.is_file()
    }


def main(node: Node, *options: str) -> int:
    where = ["--bin-dir", node.bin_dir, "--conf-dir", node.conf_dir, "--state-dir", node.state_dir]
    root = logging.getLogger()
    before = root.handlers[:]
    try:
        return install.main([*options, *where])
    finally:
        root.handlers[:] = before  # later log lines must not go to this test's standard error
