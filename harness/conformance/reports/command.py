"""`harness report merge`, `diff` and `badge`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.conformance.published import ConformanceReport

_REPORT = "a report of `harness conformance`, JSON or YAML"


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The commands."""
    merging = commands.add_parser("merge", help="one matrix of many implementations: a page, and JSON")
    merging.add_argument("reports", nargs="+", type=Path, metavar="REPORT", help=_REPORT)
    merging.add_argument("--out", type=Path, required=True, metavar="DIR", help="index.html and matrix.json go here")
    merging.set_defaults(do=main, act=merge)

    comparing = commands.add_parser(
        "diff", help="new, fixed and known failures; exit status 1 if something is worse than before"
    )
    comparing.add_argument("old", type=Path, help=_REPORT)
    comparing.add_argument("new", type=Path, help="one of the same plugin, made later")
    comparing.add_argument("--json", action="store_true", help="for programs")
    comparing.set_defaults(do=main, act=diff)

    drawing = commands.add_parser("badge", help="the verdict as a picture for a README")
    drawing.add_argument("report", type=Path, help=_REPORT)
    drawing.add_argument("--out", type=Path, required=True, metavar="FILE.svg", help="the SVG to write")
    drawing.set_defaults(do=main, act=badge)


def main(options: argparse.Namespace) -> int:
    """Returns 0; 1 if `diff` found something worse; 2 if a file is not a report or cannot be written."""
    from harness.report.reading import BadReport

    try:
        status: int = options.act(options)
    except BadReport as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return status


def merge(options: argparse.Namespace) -> int:
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
    """Print what changed."""
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


def badge(options: argparse.Namespace) -> int:
    """Write the badge."""
    from harness.conformance.published import read
    from harness.conformance.reports.badge import svg

    options.out.write_text(svg(read(options.report)), encoding="utf-8")
    print(options.out)
    return 0
