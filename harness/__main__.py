"""`python -m harness`: all commands of the harness except scenario runs, which are pytest's part (`nox -s e2e`)."""

from __future__ import annotations

import argparse
import errno
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness.cluster.state import NAME
from harness.conformance import command as testing
from harness.conformance.profile import command as profiling
from harness.conformance.reports import command as reporting
from harness.contract import Unavailable
from harness.download import SCENARIOS
from harness.exits import Ended, Exit
from harness.preflight import command as preflight
from harness.values import listed

if TYPE_CHECKING:
    from harness.scenario.file import Scenario

EPILOG = """\
pytest runs scenarios:
  pytest scenarios                            all of them, on kind if a Docker engine answers, else embedded
  pytest scenarios --backend embedded -k weave   some of them, without containers
  pytest scenarios --networks bridge,ptp -n 2    two workers; only scenarios of these networks
  pytest my.yaml --profile my-network.yaml --report out   a vendor's own, with a report to publish
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    end = given.index("--") if given[:1] == ["job"] and "--" in given else len(given)
    options = _parser().parse_args(given[:end])
    options.arguments = given[end + 1 :]  # pytest's
    try:
        status: int = options.do(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except Exception as error:
        if (code := _code_of(error)) is None:
            raise
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        print(text, file=sys.stderr)
        return code
    return status


def _code_of(error: Exception) -> Exit | None:
    """The exit code for an error with a message for people; None for a fault of the harness."""
    from harness.catalog import ProfileError
    from harness.cluster.engine import CommandFailed
    from harness.conformance.subject import Unusable
    from harness.objects import ApiError
    from harness.report.reading import BadReport
    from harness.yamlfile import Mistakes

    if isinstance(error, Ended):
        return error.code
    if isinstance(error, BadReport | Mistakes | ProfileError | Unusable):
        return Exit.USAGE
    if isinstance(error, OSError):
        return Exit.BROKEN if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) else Exit.USAGE
    return Exit.BROKEN if isinstance(error, ApiError | CommandFailed | Unavailable) else None


class _Parser(argparse.ArgumentParser):
    """A parser that ends with the code for a wrong usage."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        super().exit(Exit.USAGE if status else 0, message)


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="python -m harness",
        description="Tests for CNI networks: scenarios on a cluster, and conformance checks for one plugin.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    usual = "default: scenarios/ in this directory, else those of the project"
    listing = commands.add_parser(
        "list", help="the scenarios, with their networks, labels and checks; needs no cluster"
    )
    listing.add_argument("paths", nargs="*", type=Path, default=_usual(), help=usual)
    listing.add_argument("--json", action="store_true", help="for programs")
    listing.set_defaults(do=_list)

    linting = commands.add_parser("lint", help="find mistakes in scenario files, with file, line, column and advice")
    linting.add_argument("paths", nargs="*", type=Path, default=_usual(), help=usual)
    described = "a vendor's description of a network (repeatable)"
    linting.add_argument("--profile", action="append", default=[], type=Path, metavar="FILE", help=described)
    linting.set_defaults(do=_lint)

    adding = commands.add_parser("new", help="write a scenario file that passes, to start from")
    adding.add_argument("name", metavar="NAME", help="the file becomes NAME.yaml")
    adding.add_argument("--networks", default="bridge", metavar="A,B", help="default: %(default)s")
    adding.add_argument("--directory", type=Path, default=Path("scenarios"), help="default: %(default)s")
    adding.add_argument("--profile", action="append", default=[], type=Path, metavar="FILE", help=described)
    adding.set_defaults(do=_new)

    checking = commands.add_parser("checks", help="every check and step that a scenario can have, with an example")
    checking.add_argument("names", nargs="*", help="only these")
    checking.set_defaults(do=_checks)

    schema = commands.add_parser(
        "schema", help="print the JSON Schema of scenario files (kept as scenarios/schema.json), or of a report"
    )
    what = "default: %(default)s; report: a run's report.json; conformance: a report of `harness conformance`"
    schema.add_argument("what", nargs="?", choices=("scenario", "report", "conformance"), default="scenario", help=what)
    schema.set_defaults(do=_schema)

    conformance = commands.add_parser(
        "conformance", help="test one CNI plugin against the specification: no cluster, no scenario, one report"
    )
    testing.add_arguments(conformance)
    conformance.set_defaults(do=testing.main)

    preflight.add_arguments(
        commands.add_parser("preflight", help="every node to every node on every network of a cluster, with figures")
    )

    profile = commands.add_parser("profile", help="a vendor's description of a network: init, check")
    profiling.add_arguments(profile.add_subparsers(metavar="COMMAND", required=True))

    _add_reports(commands)
    _add_job(commands.add_parser("job", help="the suite in pods of a cluster: an Indexed Job or a Sonobuoy plugin"))
    _add_cluster(commands.add_parser("cluster", help="a kind cluster to keep between runs: create, delete, status"))
    return parser


def _usual() -> list[Path]:
    """The folder scenarios/ in the current directory, else the project's."""
    return [Path("scenarios") if Path("scenarios").is_dir() else SCENARIOS]


def _add_reports(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    report = commands.add_parser("report", help="conformance reports: merge, diff, badge; scenario reports: page")
    kinds = report.add_subparsers(metavar="COMMAND", required=True)
    reporting.add_arguments(kinds)
    page = kinds.add_parser("page", help="make the HTML page of a scenario run again from its report.json")
    page.add_argument("directory", type=Path)
    page.set_defaults(do=reporting.page)

    summing = kinds.add_parser("summary", help="a scenario run in short, as Markdown for $GITHUB_STEP_SUMMARY")
    summing.add_argument("directory", type=Path, help="the run's report, or its directory")
    summing.add_argument("--outputs", action="store_true", help="NAME=VALUE lines for $GITHUB_OUTPUT instead")
    summing.set_defaults(do=_summary)

    filling = commands.add_parser("counterparts", help="fill results from report.json files into docs/counterparts.md")
    filling.add_argument("reports", nargs="+", type=Path, metavar="REPORT", help="one for each backend")
    filling.add_argument("--page", type=Path, default=Path("docs/counterparts.md"), help="default: %(default)s")
    filling.set_defaults(do=_counterparts)


def _add_job(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print a manifest for `kubectl apply -f -`: a Job with one pod for each shard. `job collect` makes one report."
    )
    parser.add_argument("--image", metavar="IMAGE", help="the suite's image, see harness.Dockerfile")
    parser.add_argument("--shards", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument("--genie-image", default="", metavar="IMAGE", help="for a cluster without genie")
    parser.add_argument("--deadline", type=int, default=0, metavar="SECONDS", help="of each shard")
    parser.add_argument("--scenarios", type=Path, action="append", default=[], metavar="FILE", help="in place of all")
    parser.add_argument("--profile", type=Path, action="append", default=[], metavar="FILE", help="a network of yours")
    parser.add_argument("--sonobuoy", action="store_true", help="a plugin's definition for `sonobuoy run --plugin`")
    parser.set_defaults(do=_job, verb="write")
    commands = parser.add_subparsers(metavar="COMMAND")
    collecting = commands.add_parser("collect", help="wait for the Job, and merge its reports; exits with their code")
    collecting.add_argument("--out", type=Path, default=Path("report"), help="default: %(default)s")
    collecting.add_argument("--wait", type=float, default=3600.0, metavar="SECONDS", help="default: %(default)s")
    collecting.set_defaults(verb="collect")
    running = commands.add_parser("run", help="what each pod does")
    running.add_argument("--shards", type=int, default=1)
    running.add_argument("--sonobuoy", action="store_true")
    running.set_defaults(verb="run")


def _job(options: argparse.Namespace) -> int:
    if options.verb == "write" and not (options.image and options.shards > 0):
        print("job: expected --image IMAGE, and --shards of at least 1", file=sys.stderr)
        return Exit.USAGE
    from harness.backends import jobs  # Kubernetes' client takes seconds to import

    status: int = getattr(jobs, options.verb)(options)
    return status


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    creating = commands.add_parser("create", help="create the cluster, continue an interrupted creation, or update it")
    creating.add_argument("--networks", default="", metavar="A,B", help="default: all that can share a cluster")
    creating.add_argument("--profile", type=Path, action="append", default=[], help="a vendor's network description")
    deleting = commands.add_parser("delete", help="delete the cluster; no error if there is none")
    looking = commands.add_parser("status", help="show what is on the cluster, and how to reach it")
    for verb, command in (("create", creating), ("delete", deleting), ("status", looking)):
        command.add_argument("--name", default=NAME, help="default: %(default)s")
        command.set_defaults(do=_cluster, verb=verb)


def _cluster(options: argparse.Namespace) -> int:
    from harness.backends import command  # Kubernetes' client takes seconds to import

    status: int = getattr(command, options.verb)(options)
    return status


def _found(paths: Sequence[Path]) -> list[Path]:
    """Scenario files among these paths.

    Raises Ended: one does not exist.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise Ended(Exit.USAGE, f"{path}: expected a scenario file or a folder")
        found += sorted(path.rglob("*.y*ml")) if path.is_dir() else [path]
    return found


def _list(options: argparse.Namespace) -> int:
    from harness.scenario.reading import read
    from harness.yamlfile import Mistakes

    scenarios: list[Scenario] = []
    status = 0
    for path in _found(options.paths):
        try:
            scenarios.append(read(path))
        except Mistakes as mistakes:
            print(mistakes, file=sys.stderr)
            status = 1
    if options.json:
        print(json.dumps([_described(scenario) for scenario in scenarios], indent=2))
        return status
    _print_table(scenarios)
    return status


def _described(scenario: Scenario) -> dict[str, Any]:
    return {
        "name": scenario.name,
        "file": scenario.file,
        "title": scenario.title,
        "networks": list(scenario.networks),
        "labels": list(scenario.spec.labels),
        "needs": sorted(ability.name for ability in scenario.needs),
        "checks": list(dict.fromkeys(check.key for check in scenario.checks)),
    }


def _print_table(scenarios: Sequence[Scenario]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("scenario", "networks", "labels", "checks", "description"):
        table.add_column(column, overflow="fold")
    for scenario in scenarios:
        described = _described(scenario)
        lists = (", ".join(described[key]) for key in ("networks", "labels", "checks"))
        table.add_row(scenario.name, *lists, scenario.title)
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)
    console.print(f"{len(scenarios)} scenarios")


def _lint(options: argparse.Namespace) -> int:
    from harness.scenario.lint import known_networks, mistakes

    known = known_networks(options.profile)
    found, wrong = _found(options.paths), 0
    for path in found:
        for mistake in mistakes(path, known):
            print(mistake)
            wrong += 1
    files = f"{len(found)} file{'s' * (len(found) != 1)}"
    print(f"{files}, {wrong} mistake{'s' * (wrong != 1)}" if wrong else f"{files}, no mistakes", file=sys.stderr)
    return Exit.FAILED if wrong else Exit.PASSED if found else Exit.NOTHING


def _new(options: argparse.Namespace) -> int:
    from harness.scenario.lint import known_networks
    from harness.scenario.skeleton import write

    path = write(options.directory, options.name, listed(options.networks), known_networks(options.profile))
    print(f"{path}: edit it while `pytest {path} --watch` runs")
    return 0


def _checks(options: argparse.Namespace) -> int:
    from harness.scenario.reference import reference

    print(reference(options.names))
    return 0


def _schema(options: argparse.Namespace) -> int:
    from harness.conformance import published as conformance
    from harness.report import published as report
    from harness.scenario import schema as scenario

    of = {"scenario": scenario.schema, "report": report.schema, "conformance": conformance.schema}
    print(json.dumps(of[options.what](), indent=2))
    return 0


def _summary(options: argparse.Namespace) -> int:
    from harness.report.published import read
    from harness.report.summary import markdown, outputs

    report = read(options.directory)
    print(outputs(report, options.directory) if options.outputs else markdown(report), end="")
    return 0


def _counterparts(options: argparse.Namespace) -> int:
    from harness.report.counterparts import refresh
    from harness.report.published import as_json, read

    reports = [as_json(read(path)) for path in options.reports]
    options.page.write_text(refresh(options.page.read_text(encoding="utf-8"), reports), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
