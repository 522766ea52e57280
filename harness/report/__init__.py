"""The reports of a run: a JSON file with everything, and one HTML page made from it.

pytest writes JUnit XML, and `terminal.py` reports to the terminal. The page (`page.py`) is made only from the JSON, so
it can be made again from a file that CI kept: `python -m harness report page DIR`.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.report.outcome import Run, counted
from harness.report.page import render

FORMAT = 1


def summary(run: Run) -> dict[str, Any]:
    """A run as plain JSON."""
    facts = run.facts
    return {
        "format": FORMAT,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cluster": {
            "backend": facts.backend,
            "why": facts.why,
            "api-server": facts.api_server,
            "genie": facts.genie,
            "nodes": list(facts.nodes),
            "notes": list(facts.notes),
            "features": sorted(ability.name for ability in facts.abilities),
            "start-seconds": round(run.start_seconds, 2),
        },
        "networks": {name: {**asdict(offer), "subnets": list(offer.subnets)} for name, offer in facts.offers.items()},
        "seconds": round(run.seconds, 2),
        "exit": {"code": run.code, "why": run.why},
        "counts": counted(outcome.verdict for outcome in run.outcomes),
        "left-on-nodes": list(run.leaked),
        "scenarios": [outcome.to_json() for outcome in sorted(run.outcomes, key=lambda each: each.file)],
    }


def write(run: Run, directory: Path) -> Path:
    """Write report.json and index.html into a directory; returns the page's path."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.json").write_text(json.dumps(summary(run), indent=2) + "\n", encoding="utf-8")
    return rewrite(directory)


def rewrite(directory: Path) -> Path:
    """Make the page again from a report.json."""
    page = directory / "index.html"
    page.write_text(render(json.loads((directory / "report.json").read_text(encoding="utf-8"))), encoding="utf-8")
    return page
