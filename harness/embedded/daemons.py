"""The daemons of networks that run as real software (flanneld), one of each on every node.

A daemon runs in its node's namespaces, so its files and links belong to the node and end with the cluster. It starts as
soon as the API server accepts connections, before that answers: this hides most of a daemon's start time.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.embedded import links, linux
from harness.embedded.plan import DaemonPlan
from harness.waiting import limit, until_nothing

LOGS = Path("/var/log")
_TIMEOUT = 45.0


class Died(Exception):
    """A daemon exited, or is not ready in time; the message has the end of its log."""


class Daemons:
    def __init__(self, node: str, plans: Sequence[DaemonPlan]) -> None:
        self._node, self._plans = node, plans
        self._running: list[tuple[DaemonPlan, subprocess.Popen[bytes]]] = []

    def start(self) -> None:
        """Start them.

        Raises OSError: one cannot be started.
        """
        self._running = [(plan, _spawn(plan)) for plan in self._plans]

    def restart(self, network: str) -> None:
        """End the daemons of a network, start them again, and wait until they are ready.

        Raises Died: one exited or is not ready in time. OSError: one cannot be started.
        """
        for at, (plan, process) in enumerate(self._running):
            if plan.network == network:
                process.terminate()
                process.wait()
                self._running[at] = plan, _spawn(plan)
        self.await_ready()

    def await_ready(self, timeout: float = _TIMEOUT) -> None:
        """Wait until each is ready for pods.

        Raises Died: one exited or is not ready in time.
        """

        def lacking() -> tuple[DaemonPlan, str] | None:
            found = next(((plan, what) for plan in self._plans if (what := _lacking(plan))), None)
            if found:
                self.check()
            return found

        if left := until_nothing(lacking, timeout, longest=0.03):
            raise Died(self._told(left[0], f"has not made {left[1]} in {limit(timeout):.0f} s"))

    def check(self) -> None:
        """Check that they run.

        Raises Died: one exited.
        """
        for plan, process in self._running:
            if process.poll() is not None:
                raise Died(self._told(plan, f"has ended with status {process.returncode}"))

    def logs(self) -> dict[str, str]:
        """Their logs, by file name."""
        return {log.name: log.read_text(errors="replace") for log in map(_log, self._plans) if log.exists()}

    def _told(self, plan: DaemonPlan, what: str) -> str:
        last = linux.tail(_log(plan), 3)
        return f"network {plan.network}: its daemon {_name(plan)} on node {self._node} {what}: {last}"


def _spawn(plan: DaemonPlan) -> subprocess.Popen[bytes]:
    for path, text in plan.files.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    return linux.spawn(plan.command, _log(plan), {"PATH": linux.search_path(), **plan.environment})


def _name(plan: DaemonPlan) -> str:
    return Path(plan.command[0]).name


def _log(plan: DaemonPlan) -> Path:
    return LOGS / f"{_name(plan)}.log"


def _lacking(plan: DaemonPlan) -> str:
    """The missing files and routes."""
    for path in plan.ready_files:
        if not Path(path).exists():
            return path
    return next((f"a route to {subnet}" for subnet in plan.ready_routes if not links.has_route(subnet)), "")
