"""`harness conformance`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.exits import Exit

if TYPE_CHECKING:
    from harness.conformance.run import Checked
    from harness.conformance.subject import Subject

DESCRIPTION = """\
Test one CNI plugin against the specification: each verb in each version that it claims, on machines of their own
(network, mount and process namespaces; root, or user namespaces). Nothing of this machine changes.

  harness conformance mynet.yaml
  harness conformance mynet.yaml --behind       and behind genie: pods on an embedded cluster, beside other networks
  harness conformance --plugin ./mynet --conf 10-mynet.conf --report report.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("profile", nargs="?", type=Path, help="a profile, see docs/vendors.md")
    parser.add_argument("--plugin", type=Path, help="the plugin's executable")
    parser.add_argument("--conf", type=Path, help="its configuration, as in /etc/cni/net.d")
    parser.add_argument("--path", type=Path, action="append", default=[], help="a directory with further plugins")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="only checks with names that begin with NAME"
    )
    parser.add_argument("--versions", default="", metavar="A,B", help="only these versions, or: newest")
    parser.add_argument(
        "--behind", nargs="?", const="too", choices=("too", "only"), help="also behind genie (only: nothing but that)"
    )
    parser.add_argument("--backend", default="embedded", metavar="NAME", help="for --behind: where its pods run")
    parser.add_argument("--churn", type=int, default=0, metavar="N", help="for --behind: at most N pods come and go")
    parser.add_argument("--rounds", type=int, default=200, help="rounds of ADD and DEL, to find occasional failures")
    parser.add_argument("--kills", type=int, default=40, help="system calls at which a call is killed, at most")
    parser.add_argument("--jobs", type=int, default=0, help="checks at once; default: as many as there are processors")
    parser.add_argument("--list", action="store_true", help="list the checks and end")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of a report and end")
    parser.add_argument("--format", choices=("text", "json", "yaml"), default="text", help="of standard output")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write the report as JSON, or as YAML if FILE ends in .yaml"
    )
    parser.add_argument("--release", default="", metavar="NAME", help="the plugin's release, for the report")


def main(options: argparse.Namespace) -> int:
    """Returns 0 if all that the specification demands is so, 1 if not; 4 without a subject, 5 if all was skipped."""
    from harness.conformance import report
    from harness.conformance.checks import CHECKS
    from harness.conformance.subject import BadProfile, Unusable

    if options.list or options.schema:
        print(_schema() if options.schema else _listed())
        return 0
    if options.report and not options.report.parent.is_dir():
        print(f"nothing was tested: --report: expected a directory, {options.report.parent} is none", file=sys.stderr)
        return Exit.USAGE
    try:
        subject = _subject(options)
    except Unusable as error:
        blame = "; the profile is at fault" if isinstance(error, BadProfile) else ""
        print(f"nothing was tested{blame}: {error}", file=sys.stderr)
        return Exit.USAGE
    if options.versions:
        wanted = subject.versions[-1:] if options.versions == "newest" else tuple(options.versions.split(","))
        subject = replace(subject, limits=(*subject.limits, wanted))
    names = [check.name for check in CHECKS if options.behind != "only"] + ["behind-"] * bool(options.behind)
    if options.only and not any(_is_among(name, options.only) for name in names):
        print(f"nothing was tested: no check begins with {' or '.join(options.only)}", file=sys.stderr)
        return Exit.USAGE
    text, began = options.format == "text", time.monotonic()
    if text:
        print(f"{subject.binary} in {subject.name}, versions {', '.join(subject.versions) or 'none that are known'}")
    results = _results(options, subject, lambda result: print(report.line(result), flush=True) if text else None)
    seconds = time.monotonic() - began
    content = report.as_json(subject, results, seconds, options.rounds)
    content["implementation"]["version"] = options.release
    if options.report:
        options.report.write_text(report.dump(content, options.report.suffix in (".yaml", ".yml")), encoding="utf-8")
    print(report.summary(results, seconds) if text else report.dump(content, options.format == "yaml"))
    if text:
        print(_next(options.report))
    return report.status(results)


def _is_among(name: str, only: Sequence[str]) -> bool:
    """Whether --only has a check, or the part behind genie."""
    return any(name.startswith(each) or (name == "behind-" and each.startswith(name)) for each in only)


def _results(options: argparse.Namespace, subject: Subject, done: Callable[[Checked], None]) -> list[Checked]:
    """All checks that are asked for."""
    from harness.conformance import behind
    from harness.conformance.run import run

    results = (
        []
        if options.behind == "only"
        else run(subject, options.only, options.rounds, done, jobs=options.jobs, kills=options.kills)
    )
    if options.behind and (not options.only or _is_among("behind-", options.only)):
        wanted = behind.Wanted(
            profile=options.profile, backend=options.backend, only=tuple(options.only), churn=options.churn
        )
        results += behind.run(wanted, done)
    return results


def _next(report: Path | None) -> str:
    """The next steps with the report."""
    if not report:
        return "\nNo report was written. Use --report report.json to write one, to look at, compare and publish."
    return (
        f"\nThe report is {report}. Next:\n"
        f"  harness report merge {report} --out page       a page: each finding with its script and evidence\n"
        f"  harness report diff {report} NEWER.json        new and fixed findings of a later run\n"
        f"  harness report badge {report} --out badge.svg  for a README"
    )


def _schema() -> str:
    import json

    from harness.conformance.published import schema

    return json.dumps(schema(), indent=2)


def _listed() -> str:
    """The checks, one per line."""
    from harness.conformance.checks import CHECKS

    lines = []
    for check in CHECKS:
        described = check.describe()
        more = f"{described['level']}; {described['strength']}; {described['section']}"
        lines.append(f"{check.name:28} {check.sentence} [{more}]")
    return "\n".join(lines)


def _subject(options: argparse.Namespace) -> Subject:
    from harness.conformance.profile import check
    from harness.conformance.subject import Unusable

    if options.profile:
        return check.read(options.profile, options.plugin, options.path)
    if options.behind:
        raise Unusable("--behind: expected a profile, which describes the network on each node")
    if not (options.plugin and options.conf):
        raise Unusable("expected a profile, or --plugin and --conf")
    return check.of_files(options.plugin, options.conf, options.path)
