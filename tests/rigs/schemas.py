"""JSON Schemas, checked by a tool that does not know this project."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


def schema_errors(*args: str | Path) -> str:
    """The errors of check-jsonschema; empty if there are none."""
    if find_spec("check_jsonschema") is None:
        pytest.skip("check-jsonschema of the extra `dev` is not installed")
    command = [sys.executable, "-m", "check_jsonschema", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr
