"""What a run leaves to be read: a JSON file with everything, and one HTML page made from it.

JUnit XML is pytest's own, and the terminal has its reporter (`terminal.py`). The page (`page.py`) is made from the
JSON alone, so it can be made again from a file that CI kept: `python -m harness report DIR`.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.run.session import Suite

FORMAT = 1


def summary(suite: Suite) -> dict[str, Any]:
    """All of a run, as plain JSON."""
    facts = suite.facts
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
            "features": sorted(facts.features),
            "start-seconds": round(suite.start_seconds, 2),
        },
        "networks": {name: {**asdict(offer), "subnets": list(offer.subnets)} for name, offer in facts.offers.items()},
        "seconds": round(suite.seconds, 2),
        "left-on-nodes": suite.leaked,
        "scenarios": [outcome.to_json() for outcome in sorted(suite.outcomes, key=lambda each: each.file)],
    }


def write(suite: Suite) -> Path:
    """Write report.json and index.html into the report's directory; the page's path."""
    from harness.report.page import render

    suite.report.mkdir(parents=True, exist_ok=True)
    said = summary(suite)
    (suite.report / "report.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    page = suite.report / "index.html"
    page.write_text(render(said), encoding="utf-8")
    return page


def rewrite(directory: Path) -> Path:
    """Make the page anew from a report.json."""
    from harness.report.page import render

    page = directory / "index.html"
    page.write_text(render(json.loads((directory / "report.json").read_text(encoding="utf-8"))), encoding="utf-8")
    return page
