"""Removes what earlier runs wrote into a report's directory: it would look like a part of this run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

#: What is in each folder of evidence, see `diagnose.collect`.
_OF_EVIDENCE = ("pods.json", "events.txt")
REPORTS = ("report.json", "index.html", "junit.xml")


def remove_old(report: Path, *, reports: bool) -> None:
    """Remove folders of evidence, and with `reports` the report itself, if the harness wrote them.

    Raises OSError: something cannot be removed.
    """
    folder = report / "evidence"
    for of_scenario in folder.iterdir() if folder.is_dir() else ():
        if all((of_scenario / name).is_file() for name in _OF_EVIDENCE):
            shutil.rmtree(of_scenario)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    if reports and _is_ours(report / "report.json"):
        for name in REPORTS:
            (report / name).unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and ("apiVersion" in content or "format" in content) and "scenarios" in content
