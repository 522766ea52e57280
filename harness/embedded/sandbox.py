"""A pod's network namespace, as a runtime makes it for CNI: a file under /run/netns, with only a loopback interface.

The pod's probe is not a separate process: threads of the node's daemon enter the namespace. So a request to a pod takes
microseconds, and a hundred pods need hardly any memory.
"""

from __future__ import annotations

import os
import secrets
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from harness import probe
from harness.embedded import linux

T = TypeVar("T")
_PLACE = Path("/var/run/netns")  # the path that containerd passes to plugins


class Sandbox:
    """One attempt at a pod's sandbox."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(32)
        self.path = _PLACE / f"cni-{uuid.uuid4()}"
        self._net = linux.new_net_namespace()
        self.path.touch()
        linux.mount(f"/proc/self/fd/{self._net}", str(self.path), flags=linux.MS_BIND)
        self._server: probe.Server | None = None
        self._lock = threading.Lock()

    @property
    def netns(self) -> str:
        """The value of CNI_NETNS: empty after the namespace is gone."""
        return str(self.path) if self._net >= 0 else ""

    def inside(self, what: Callable[..., T], *args: Any) -> T:
        """Call something in the pod's namespace and return what it returns.

        Raises OSError: the namespace is gone.
        """
        future: Future[T] = Future()

        def run() -> None:
            try:
                linux.setns(self._net, linux.CLONE_NEWNET)
                future.set_result(what(*args))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future.result()

    def serve(self, name: str) -> None:
        """Make the pod answer connections."""
        self._server = self.inside(probe.serve, probe.PORT, name)

    def close(self) -> None:
        """Remove the namespace, and with it all interfaces in it."""
        with self._lock:
            if self._server:
                self._server.close()
                self._server = None
            if self._net < 0:
                return
            with suppress(OSError):
                linux.unmount(str(self.path))
            self.path.unlink(missing_ok=True)
            os.close(self._net)
            self._net = -1
