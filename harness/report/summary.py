"""The short form of a run's report: Markdown for `$GITHUB_STEP_SUMMARY`, and lines for `$GITHUB_OUTPUT`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from harness.report.outcome import VERDICTS, Verdict
from harness.report.published import ScenarioReport
from harness.report.words import short

_LONGEST = 300  # characters of a reason in a table
_MOST = 30  # causes in a table: a step summary may have 1 MiB


def markdown(report: ScenarioReport) -> str:
    """Counts, then one line for each cause of what did not pass, with the scenarios that have it."""
    cluster, shard = report.cluster, f", shard {report.shard}" if report.shard else ""
    lines = [
        f"### Scenarios on {cluster.backend}{shard}: {report.totals or 'none'}",
        "",
        f"{cluster.api_server}; genie: {cluster.genie}; {report.seconds:.0f} s; exit code {report.exit.code}",
    ]
    if report.exit.why:
        lines += ["", f"**{_cell(report.exit.why)}**"]
    if table := [*_causes(report)]:
        lines += ["", "| verdict | scenarios | cause |", "|---|---|---|", *table]
    if report.left_on_nodes:
        lines += ["", "Left on the nodes:", "", *(f"- `{_cell(each)}`" for each in report.left_on_nodes)]
    return "\n".join(lines) + "\n"


def outputs(report: ScenarioReport, directory: Path) -> str:
    """`report`, `code`, and a count for each verdict, as NAME=VALUE lines."""
    values: dict[str, object] = {"report": directory.resolve(), "code": report.exit.code}
    values |= {verdict.replace(" ", "-"): report.counts.get(verdict, 0) for verdict in VERDICTS}
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _causes(report: ScenarioReport) -> Iterator[str]:
    grouped: dict[tuple[Verdict, str], list[str]] = defaultdict(list)
    for outcome in report.scenarios:
        if outcome.verdict != "passed":
            grouped[outcome.verdict, short(outcome)].append(outcome.name)
    ranked = sorted(grouped.items(), key=lambda each: (VERDICTS.index(each[0][0]), -len(each[1])))
    for (verdict, cause), names in ranked[:_MOST]:
        yield f"| {verdict} | {', '.join(names)} | {_cell(cause)} |"
    if len(ranked) > _MOST:
        yield f"| | | {len(ranked) - _MOST} more causes are in the report |"


def _cell(text: str) -> str:
    """A text of a plugin, which may have any characters, in one cell of a table."""
    line = " ".join(text.split())
    line = f"{line[: _LONGEST - 1]}…" if len(line) > _LONGEST else line
    for mark, harmless in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "'"), ("@", "&#64;")):
        line = line.replace(mark, harmless)
    return line
