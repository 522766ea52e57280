"""The version and the commit of the project that made a report."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

from harness.waiting import limit

_CHECKOUT = Path(__file__).parents[2]


def version() -> str:
    """The installed version."""
    try:
        return installed("genie-cni")
    except PackageNotFoundError:
        return "unknown"


def commit(checkout: Path = _CHECKOUT) -> str:
    """The commit of the project's checkout, with `+changes` if files differ; empty if it is not a checkout."""
    if not (checkout / ".git").exists():  # installed: git would find a repository of somebody else above
        return ""
    with suppress(OSError, subprocess.SubprocessError):
        changes = "+changes" if _git(checkout, "status", "--porcelain", "--untracked-files=no") else ""
        return _git(checkout, "rev-parse", "HEAD") + changes
    return ""


def _git(checkout: Path, *args: str) -> str:
    # The embedded backend's user namespace changes who owns the checkout, and git refuses another user's.
    command = ["git", "-c", "safe.directory=*", "-C", str(checkout), "--no-optional-locks", *args]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=limit(30)).stdout.strip()
