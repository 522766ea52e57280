"""`harness report merge`, `diff`, `page`, `durations` and `badge`: each returns its exit code."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.conformance.published import ConformanceReport

_REPORT = "a report of `harness conformance`, JSON or YAML"
_RUN = "the report.json of a run of scenarios, or its directory"


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    merging = commands.add_parser(
        "merge",
        help="conformance reports: one matrix of many implementations; reports of `pytest --shard`: the whole run's",
    )
    merging.add_argument("reports", nargs="+", type=Path, metavar="REPORT", help=f"{_REPORT}, or {_RUN}")
    merging.add_argument("--out", "-o", type=Path, required=True, metavar="DIR", help="index.html and JSON go here")
    merging.set_defaults(do=merge)

    comparing = commands.add_parser(
        "diff", help="new, fixed and known failures; exit code 1 if something is worse than before"
    )
    comparing.add_argument("old", type=Path, help=f"{_REPORT}, or {_RUN}")
    comparing.add_argument("new", type=Path, help="one of the same kind, made later")
    form = comparing.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--markdown", action="store_true", help="of runs of scenarios: for a pull request")
    excused = "of runs of scenarios: failures that are known, see docs/ci.md"
    comparing.add_argument("--known-failures", type=Path, metavar="FILE", help=excused)
    comparing.set_defaults(do=diff)

    timing = commands.add_parser("durations", help="print how long scenarios took, for `pytest --durations-from`")
    timing.add_argument("report", type=Path, help=_RUN)
    timing.set_defaults(do=durations)

    drawing = commands.add_parser("badge", help="the verdict as a picture for a README")
    drawing.add_argument("report", type=Path, help=_REPORT)
    drawing.add_argument("--out", type=Path, required=True, metavar="FILE.svg", help="the SVG to write")
    drawing.set_defaults(do=badge)


def of_scenarios(paths: Sequence[Path]) -> bool:
    """Whether these are reports of runs of scenarios, by their kind.

    Raises BadReport: some are, and some are not.
    """
    from harness.report.published import KIND
    from harness.report.reading import BadReport, kind, load

    found = {path: path.is_dir() or kind(load(path)) == KIND for path in paths}
    if len(set(found.values())) > 1:
        other = next(path for path, is_run in found.items() if is_run != found[paths[0]])
        raise BadReport(f"{other}: kind: expected that of {paths[0]}, for reports of one kind")
    return found[paths[0]]


def merge(options: argparse.Namespace) -> int:
    """Write one report of several, by their kind."""
    return _merge_shards(options) if of_scenarios(options.reports) else _merge_implementations(options)


def _merge_shards(options: argparse.Namespace) -> int:
    """Write what one run would have written; returns its exit code."""
    from harness.report.merge import merge

    report = merge(options.reports, options.out)
    print(f"{report.totals}: {options.out / 'index.html'}")
    if report.exit.why:
        print(f"ERROR: {report.exit.why}", file=sys.stderr)
    return report.exit.code


def _merge_implementations(options: argparse.Namespace) -> int:
    """Write the page and the matrix."""
    from harness.conformance.published import read
    from harness.conformance.reports.matrix import as_json, in_order

    reports = in_order([read(path) for path in options.reports])
    write(reports, as_json(reports), options.out)
    print(f"{len(reports)} report{'s' if len(reports) > 1 else ''}: {options.out / 'index.html'}")
    return 0


def write(reports: list[ConformanceReport], matrix: dict[str, Any], out: Path) -> None:
    """Write the page and the matrix into a directory."""
    from harness.conformance.reports.page import render

    page = render(reports)
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.html").write_text(page, encoding="utf-8")
    (out / "matrix.json").write_text(json.dumps(matrix, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def diff(options: argparse.Namespace) -> int:
    """Print what changed between two reports, by their kind."""
    if of_scenarios([options.old, options.new]):
        return _diff_runs(options)
    if options.markdown or options.known_failures:
        from harness.report.reading import BadReport

        raise BadReport(f"{options.old}: kind: expected a run of scenarios for --markdown and --known-failures")
    return _diff_implementations(options)


def _diff_runs(options: argparse.Namespace) -> int:
    from harness.report import diff, known
    from harness.report.published import read

    entries = known.read(options.known_failures) if options.known_failures else {}
    found = diff.compare(read(options.old), read(options.new), entries, known.today())
    if options.json:
        print(json.dumps(diff.as_json(found), indent=2, ensure_ascii=False))
    else:
        print(diff.markdown(found) if options.markdown else diff.text(found), end="")
    return found.code


def _diff_implementations(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from harness.conformance.published import read
    from harness.conformance.reports.compare import compare, text
    from harness.conformance.reports.matrix import label

    old, new = read(options.old), read(options.new)
    found = compare(old, new)
    if options.json:
        print(json.dumps(asdict(found), indent=2, ensure_ascii=False))
    else:
        print(f"{label(old)} of {old.date}, then {label(new)} of {new.date}\n\n{text(found)}", end="")
    return found.status


def page(options: argparse.Namespace) -> int:
    """Make the page of a run of scenarios again."""
    from harness.report import rewrite

    print(rewrite(options.directory))
    return 0


def durations(options: argparse.Namespace) -> int:
    """Print the durations of a run's scenarios."""
    from harness.report import durations

    print(durations.text(durations.read(options.report)), end="")
    return 0


def badge(options: argparse.Namespace) -> int:
    from harness.conformance.published import read
    from harness.conformance.reports.badge import svg

    options.out.write_text(svg(read(options.report)), encoding="utf-8")
    print(options.out)
    return 0
