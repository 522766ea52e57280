"""The tables of docs/counterparts.md, with results filled in from reports: `python -m harness counterparts REPORT…`.

A row has links to the files of scenarios, and the heading of a column is a backend. People add rows by hand, but
results always come from reports.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_LINK = re.compile(r"\.\./scenarios/([-a-z0-9]+)\.yaml")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def refresh(text: str, reports: Iterable[Mapping[str, Any]]) -> str:
    """The page with new columns for these reports' backends, and their date."""
    by_backend: dict[str, Mapping[str, Any]] = {}
    for report in reports:
        backend = report["cluster"]["backend"]
        by_backend[backend] = together(by_backend[backend], report) if backend in by_backend else report
    lines, columns = [], list[str]()
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            columns = []
        elif not columns:
            columns = cells
        elif names := _LINK.findall(line):
            marks = [mark(names, by_backend[head]) if head in by_backend else None for head in columns]
            lines.append("| " + " | ".join(new or old for new, old in zip(marks, cells, strict=True)) + " |")
            continue
        lines.append(line)
    made = max((report["date"][:10] for report in by_backend.values()), default="")
    return _DATE.sub(made, "\n".join(lines) + "\n") if made else text


def together(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two runs on one backend: for each scenario the last result that is not a skip."""
    outcomes = {each["name"]: each for each in (*other["scenarios"], *one["scenarios"])}
    outcomes |= {each["name"]: each for each in other["scenarios"] if each["verdict"] != "skipped"}
    networks = {name: offer for name, offer in other["networks"].items() if not offer["missing"]}
    made = max(one["date"], other["date"])
    return {**one, "date": made, "scenarios": list(outcomes.values()), "networks": {**one["networks"], **networks}}


def mark(names: Iterable[str], report: Mapping[str, Any]) -> str:
    """The worst result of several scenarios in a run."""
    outcomes = {outcome["name"]: outcome for outcome in report["scenarios"]}
    found = [outcomes.get(name, {"name": name, "verdict": "skipped", "reason": "not run"}) for name in names]
    if failed := [outcome["name"] for outcome in found if outcome["verdict"] == "failed"]:
        return f"✗ {', '.join(failed)}"
    if unknown := [outcome for outcome in found if outcome["verdict"] in ("broken", "blocked", "not run")]:
        return f"– {unknown[0]['verdict']}"
    if skipped := [outcome["reason"] for outcome in found if outcome["verdict"] == "skipped"]:
        return f"– {': '.join(skipped[0].split(': ')[:2])}"
    networks = {name for outcome in found for name in outcome["networks"]}
    return "(✓)" if any(report["networks"][name]["kind"] == "stand-in" for name in networks) else "✓"
