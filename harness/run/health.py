"""Whether the environment of a failed scenario works: if not, the failure says nothing about the plugin."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.contract import Cluster
from harness.objects import ApiError, Objects
from harness.run.leaks import take

_SPACE = 1 << 20  # bytes; evidence of a failure needs about this much


def ailing(cluster: Cluster, report: Path) -> str:
    """What does not work now: the API server, a node, or the disk of the reports; empty if all works."""
    try:
        Objects(cluster.api()).find("/api/v1/namespaces/default")
    except ApiError as error:
        return f"the API server does not work: {error}"
    try:
        take(cluster)
    except Exception as error:  # of whatever kind the backend's are
        return f"a node does not answer: {error}"
    there = next(path for path in (report, *report.parents) if path.exists())
    free = shutil.disk_usage(there).free
    return f"no space is left for reports in {report} ({free} bytes)" if free < _SPACE else ""
