"""The reports of a run: a JSON file with everything, and one HTML page made from it.

pytest writes JUnit XML, and `terminal.py` reports to the terminal. The page (`page.py`) is made only from the JSON, so
it can be made again from a file that CI kept: `python -m harness report page DIR`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness.report import origin

if TYPE_CHECKING:
    from harness.report.outcome import Run
    from harness.report.published import ScenarioReport


def of_run(run: Run) -> ScenarioReport:
    from harness.report import published as form
    from harness.report.outcome import counted

    facts = run.facts
    return form.ScenarioReport(
        apiVersion=form.API_VERSION,
        kind=form.KIND,
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.began)),
        command=run.command,
        shard=run.shard,
        project=form.ProjectOf(version=origin.version(), commit=origin.commit()),
        suite=form.SuiteOf(names=run.selected, sha256=run.scenarios_sha256),
        cluster=form.ClusterOf(
            backend=facts.backend,
            why=facts.why,
            api_server=facts.api_server,
            genie=facts.genie,
            nodes=facts.nodes,
            notes=facts.notes,
            features=tuple(sorted(ability.name for ability in facts.abilities)),
            start_seconds=round(run.start_seconds, 2),
        ),
        networks={
            name: form.NetworkOf(
                kind=offer.kind, software=offer.software, subnets=tuple(offer.subnets), missing=offer.missing
            )
            for name, offer in facts.offers.items()
        },
        binaries=tuple(
            form.ExecutableOf(name=name, sha256=checksum, nodes=nodes)
            for (name, checksum), nodes in sorted(run.binaries.items())
        ),
        seconds=round(run.seconds, 2),
        exit=form.ExitOf(code=run.code, why=run.why),
        counts=counted(outcome.verdict for outcome in run.outcomes),
        left_on_nodes=run.leaked,
        scenarios=tuple(sorted(run.outcomes, key=lambda each: (each.file, each.name))),
    )


def write(run: Run, directory: Path) -> Path:
    """Write report.json and index.html into a directory; returns the page's path."""
    return save(of_run(run), directory)


def save(report: ScenarioReport, directory: Path) -> Path:
    """The same for a report."""
    from harness.report.published import as_json

    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(as_json(report), indent=2, ensure_ascii=False)
    (directory / "report.json").write_text(text + "\n", encoding="utf-8")
    return _page(report, directory)


def rewrite(directory: Path) -> Path:
    """Make the page again from a report.json.

    Raises BadReport: there is none.
    """
    from harness.report.published import read

    return _page(read(directory), directory)


def _page(report: ScenarioReport, directory: Path) -> Path:
    from harness.report.page import render

    page = directory / "index.html"
    page.write_text(render(report), encoding="utf-8")
    return page
