"""genie's agent on a node, for pods that network policies are for: direct mode does not enforce them.

The agent starts when a scenario first needs it. The runtime calls its shim, under another name, for the scenario's
pods; those of other scenarios are served in direct mode as before.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from harness.embedded import linux
from harness.embedded.plan import KUBECONFIG
from harness.embedded.runtime import BINARIES
from harness.waiting import until_nothing

PLUGIN = "genie-agent"
"""The shim's name among the plugins."""
LOG = Path("/var/log/genie-agent.log")
_CONF, _PLACE = Path("/etc/kubernetes/genie-agent.conf"), Path("/run/genie/install")
_TIMEOUT = 30.0


def enforces_policies() -> bool:
    """Whether this machine has what the agent needs: nft, and a compiler for the shim."""
    path = linux.search_path()
    compiler = shutil.which("cc", path=path) or importlib.util.find_spec("ziglang")
    return bool(compiler and shutil.which("nft", path=path))


class NodeAgent:
    """The agent of one node. Safe to use from several threads."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, genie_conf: dict[str, Any]) -> None:
        """Start it, if it does not run, and wait until it serves.

        Raises RuntimeError: it does not; the message has the end of its log.
        """
        with self._lock:
            if self._process and self._process.poll() is None:
                return
            # Pods of other scenarios, which run without it, must stay as these have left them.
            _CONF.write_text(json.dumps({**genie_conf, "agent": {"policy": True, "repair": False}}))
            _install_shim()
            command = [
                *(sys.executable, "-m", "genie", "agent", "--node", self._node, "--conf", str(_CONF)),
                *("--listen", "", "--kubeconfig", KUBECONFIG),
            ]
            environment = {**os.environ, "PATH": linux.search_path()}
            self._process = linux.spawn(command, LOG, environment)
            if until_nothing(lambda: b"READY" not in LOG.read_bytes(), _TIMEOUT, longest=0.05):
                raise RuntimeError(f"genie's agent does not serve: {linux.tail(LOG, 3)}")


def _install_shim() -> None:
    """Let genie install its shim, and give it another name beside direct mode's plugin."""
    shim = _PLACE / "bin" / "genie"
    for directory in (shim.parent, _PLACE / "net.d", _PLACE / "state"):
        directory.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "genie", "install", "--no-kubeconfig", "--conf", str(_CONF)),
        *("--bin-dir", str(shim.parent), "--conf-dir", str(_PLACE / "net.d"), "--state-dir", str(_PLACE / "state")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"genie's shim cannot be installed: {done.stderr.strip() or done.stdout.strip()}")
    shutil.copy(shim, f"{BINARIES}/{PLUGIN}")
