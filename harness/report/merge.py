"""Merges the reports of a run's shards into the report that one run would have written."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.exits import ORDER, Exit
from harness.report import junit, save
from harness.report.outcome import Outcome, counted
from harness.report.published import ExecutableOf, ExitOf, ScenarioReport, read
from harness.report.reading import BadReport, report_in

_Fact = Callable[[ScenarioReport], object]
_OF_RUN: dict[str, _Fact] = {
    "the backend": lambda report: report.cluster.backend,
    "the commit of genie": lambda report: report.project.commit,
    "the version of genie": lambda report: report.project.version,
    "the selected scenarios": lambda report: (report.suite.names, report.suite.sha256),
    "the number of shards": lambda report: report.shard.partition("/")[2],
}
_OF_CLUSTER: dict[str, _Fact] = {
    "genie's mode": lambda report: report.cluster.genie,
    "the networks": lambda report: {name: (each.kind, each.software) for name, each in report.networks.items()},
    "the plugins' files": lambda report: {each.name: each.sha256 for each in report.binaries if each.name != "genie"},
}
"""What the shards of one run have in common. `genie` in direct mode is a script that differs between machines."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A shard's report, and the file that it is from."""

    path: Path
    report: ScenarioReport

    @property
    def number(self) -> int:
        """The place of this shard among all, from 1."""
        return int(self.report.shard.partition("/")[0] or 1)

    @property
    def started(self) -> bool:
        """Whether it had a cluster: a shard without scenarios has none, and one that its environment stopped."""
        return bool(self.report.cluster.nodes)


def merge(paths: Sequence[Path], out: Path) -> ScenarioReport:
    """Write report.json, index.html, junit.xml and the evidence of all shards into a directory.

    Raises BadReport: a file is not a report, or the reports are not of shards of one run.
    """
    parts = [Part(path=path, report=read(path)) for path in map(report_in, paths)]
    for part in parts:
        if part.path.parent.resolve() == out.resolve():
            raise BadReport(f"{out}: expected another directory than that of {part.path}")
    report = merged(parts)
    suites = [junit.read(part.path.with_name("junit.xml")) for part in parts]
    shutil.rmtree(out / "evidence", ignore_errors=True)
    kept = {file for part in parts for file in _copied(part, out)}
    report = report.model_copy(update={"scenarios": tuple(_with(each, kept) for each in report.scenarios)})
    save(report, out)
    ran = {outcome.name for part in parts for outcome in part.report.scenarios}
    junit.write(suites, [each for each in report.scenarios if each.name not in ran], out / "junit.xml")
    return report


def merged(parts: Sequence[Part]) -> ScenarioReport:
    """The report of the whole run. Scenarios of a shard without a report are `not run`.

    Raises BadReport: the reports are not of shards of one run.
    """
    _refuse_strangers(parts)
    parts = sorted(parts, key=lambda part: part.number)
    reports = [part.report for part in parts]
    first = next((part.report for part in parts if part.started), reports[0])
    scenarios = [_of_shard(outcome, report.shard) for report in reports for outcome in report.scenarios]
    lacking = _lacking(first, [part.number for part in parts])
    there = {outcome.name for outcome in scenarios}
    scenarios += [_not_run(name, lacking) for name in first.suite.names if name not in there]
    left = tuple(line for report in reports for line in report.left_on_nodes)
    cluster = first.cluster.model_copy(
        update={
            "start_seconds": max(report.cluster.start_seconds for report in reports),
            "notes": tuple(dict.fromkeys(note for report in reports for note in report.cluster.notes)),
        }
    )
    return first.model_copy(
        update={
            "date": min(report.date for report in reports),
            "command": _without_shard(first.command),
            "shard": "",
            "cluster": cluster,
            "networks": {name: each for report in (*reports, first) for name, each in report.networks.items()},
            "binaries": _binaries(reports),
            "seconds": max(report.seconds for report in reports),
            "exit": _exit(reports, scenarios, lacking),
            "counts": counted(outcome.verdict for outcome in scenarios),
            "left_on_nodes": left,
            "scenarios": tuple(sorted(scenarios, key=lambda each: (each.file, each.name))),
        }
    )


def _refuse_strangers(parts: Sequence[Part]) -> None:
    seen = dict[str, Path]()
    for part in parts:
        if not part.report.shard and len(parts) > 1:
            raise BadReport(f"{part.path}: shard: expected one of `pytest --shard I/N`, not of a whole run")
        _compare(part, parts[0], _OF_RUN)
        if part.started:
            _compare(part, next(each for each in parts if each.started), _OF_CLUSTER)
        for name in [part.report.shard, *(outcome.name for outcome in part.report.scenarios)]:
            if name in seen:
                raise BadReport(f"{part.path}: {name} is in {seen[name]}, too: expected every shard once")
            seen[name] = part.path


def _compare(part: Part, first: Part, facts: Mapping[str, _Fact]) -> None:
    for what, of in facts.items():
        here, there = of(part.report), of(first.report)
        if isinstance(here, dict) and isinstance(there, dict):  # a shard may have only what its scenarios need
            common = here.keys() & there.keys()
            here, there = ({name: each[name] for name in each if name in common} for each in (here, there))
        if here != there:
            raise BadReport(f"{part.path}: not of the same run as {first.path}: {what}: {_differs(here, there)}")


def _differs(here: object, there: object) -> str:
    """The first difference, in few words."""
    if isinstance(here, dict) and isinstance(there, dict):
        name = next(key for key in [*here, *there] if here.get(key) != there.get(key))
        return f"{name} differs"
    if isinstance(here, tuple):
        return "they differ"
    return f"{here or 'unknown'}, not {there or 'unknown'}"


def _lacking(report: ScenarioReport, numbers: Sequence[int]) -> str:
    """The shards without a report, in words; empty if there are none."""
    count = int(report.shard.partition("/")[2] or 1)
    missing = [f"{number}/{count}" for number in range(1, count + 1) if number not in numbers]
    return f"no report of shard {', '.join(missing)}" if missing else ""


def _not_run(name: str, lacking: str) -> Outcome:
    return Outcome(
        name=name,
        title=name,
        file="",
        networks=(),
        group="",
        verdict="not run",
        seconds=0.0,
        reason=lacking or "in no shard's report",
    )


def _of_shard(outcome: Outcome, shard: str) -> Outcome:
    """An outcome with its shard in the name of its worker."""
    return replace(outcome, worker=f"{shard} {outcome.worker}".strip())


def _without_shard(command: Sequence[str]) -> tuple[str, ...]:
    kept = list(command)
    while "--shard" in kept:
        at = kept.index("--shard")
        del kept[at : at + 2]
    return tuple(word for word in kept if not word.startswith("--shard="))


def _binaries(reports: Iterable[ScenarioReport]) -> tuple[ExecutableOf, ...]:
    nodes: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for report in reports:
        for each in report.binaries:
            nodes[each.name, each.sha256] |= dict.fromkeys(each.nodes)
    return tuple(
        ExecutableOf(name=name, sha256=checksum, nodes=tuple(found))
        for (name, checksum), found in sorted(nodes.items())
    )


def _exit(reports: Sequence[ScenarioReport], outcomes: Sequence[Outcome], lacking: str) -> ExitOf:
    """The first exit code in the order of exits; that nothing was tested is a question to the whole, not to a shard."""
    codes = {Exit(report.exit.code): report.exit.why for report in reversed(reports)}
    codes.pop(Exit.NOTHING, None)
    if any(outcome.verdict == "not run" for outcome in outcomes):
        codes.setdefault(Exit.BROKEN, lacking or "a scenario is in no shard's report")
    if all(outcome.verdict == "skipped" for outcome in outcomes):
        codes[Exit.NOTHING] = "nothing was tested: all scenarios are skipped"
    code = min(codes, key=ORDER.index, default=Exit.PASSED)
    return ExitOf(code=code, why=codes.get(code, ""))


def _copied(part: Part, out: Path) -> Iterable[str]:
    """Copy the evidence of a shard; yields the files that are there.

    Raises BadReport: the report names a file outside of its directory.
    """
    here = part.path.parent.resolve()
    for name in (name for outcome in part.report.scenarios for name in outcome.evidence):
        if not (here / name).resolve().is_relative_to(here):
            raise BadReport(f"{part.path}: evidence: expected a file in the report's directory, not {name}")
        if (here / name).is_file():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(here / name, out / name)
            yield name


def _with(outcome: Outcome, kept: set[str]) -> Outcome:
    """An outcome with only the evidence that was copied."""
    return replace(outcome, evidence=tuple(name for name in outcome.evidence if name in kept))
