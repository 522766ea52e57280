"""Combines failures with one cause to one finding, over checks, versions and implementations."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from harness.conformance.findings import Fault, Verdict
from harness.conformance.published import CallOf, CheckOf, ConformanceReport, FindingOf
from harness.report.alike import alike

FAILING = frozenset({Verdict.FAILED, Verdict.FLAKY, Verdict.BROKEN})
_LISTED = FAILING | {Verdict.WARNED}
_WITHOUT_FINDING = {
    Verdict.WARNED: "The report has no more about it.",
    Verdict.FLAKY: "It failed, and passed when it was run again.",
    Verdict.BROKEN: "The environment, or the check itself, made a verdict impossible.",
    Verdict.FAILED: "The report has no more about it.",
}
_LEFT = re.compile(r"(?P<what>(?P<kind>the [a-z]+(?: [a-z]+)?) .*) (?:is|stays|are) left (?P<when>.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A cause in one check of one report."""

    report: int  # its place among the reports
    check: CheckOf
    headline: str
    versions: tuple[str, ...]


_Found = tuple[Seen, FindingOf]


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One fault, in all places where it was found."""

    headline: str
    verdict: Verdict
    fault: Fault | None  # None: the report names none
    demand: str
    section: str
    url: str
    strength: str
    reproducer: str
    call: CallOf | None
    seen: tuple[Seen, ...]
    blocked: tuple[tuple[int, str], ...]  # checks that could not be made: the report's place, the check's name

    @property
    def others(self) -> tuple[str, ...]:
        """Other headlines of it."""
        by_text = {alike(each.headline): each.headline for each in reversed(self.seen)}
        return tuple(text for short, text in by_text.items() if short != alike(self.headline))

    @property
    def reports(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(each.report for each in self.seen))


def causes(reports: Sequence[ConformanceReport]) -> tuple[Cause, ...]:
    """All causes; those with the most dependent checks come first.

    Findings are combined if their headlines are equal apart from parts that differ between runs, if one plugin returned
    the same error to the same verb against the same section, or if a plugin leaves the same object behind.
    """
    groups: dict[Hashable, list[_Found]] = {}
    for seen, finding in _all(reports):
        keys = list(_keys(reports[seen.report], seen, finding))
        parts = {id(group): group for key in keys if (group := groups.get(key))}
        whole = [each for group in parts.values() for each in group] + [(seen, finding)]
        groups |= dict.fromkeys([*keys, *(key for key, group in groups.items() if id(group) in parts)], whole)
    found = [_cause(group, reports) for group in {id(group): group for group in groups.values()}.values()]
    return tuple(sorted(found, key=_rank))


def _rank(cause: Cause) -> tuple[int, bool, int, int, int, str]:
    order = [Verdict.FAILED, Verdict.FLAKY, Verdict.BROKEN, Verdict.WARNED]
    return (
        order.index(cause.verdict),
        cause.strength != "must",
        -len(cause.blocked),
        -len(cause.reports),
        -len(cause.seen),
        cause.headline,
    )


def _all(reports: Sequence[ConformanceReport]) -> Iterator[_Found]:
    for number, report in enumerate(reports):
        for check in report.checks:
            if check.verdict in _LISTED:
                for finding in check.findings or (_stand_in(check),):
                    yield (
                        Seen(report=number, check=check, headline=finding.headline, versions=finding.versions),
                        finding,
                    )


def _stand_in(check: CheckOf) -> FindingOf:
    """For a check that failed without a finding."""
    versions = tuple(version for version, verdict in check.versions.items() if verdict in _LISTED)
    fault = Fault.ENVIRONMENT if check.verdict == Verdict.BROKEN else Fault.UNKNOWN
    return FindingOf.model_validate(
        {
            "fault": fault,
            "headline": check.reason.strip().splitlines()[-1] if check.reason.strip() else check.sentence,
            "demand": _WITHOUT_FINDING[check.verdict],
            "section": {"title": check.section, "url": check.url},
            "reproducer": "",
            "versions": versions,
        }
    )


def _keys(report: ConformanceReport, seen: Seen, finding: FindingOf) -> Iterator[Hashable]:
    yield seen.check.verdict, finding.fault, alike(finding.headline)
    if finding.call and finding.call.status and (message := _error(finding.call)):
        verb = finding.call.env.get("CNI_COMMAND", "")
        yield report.implementation.type, finding.fault, verb, finding.section.title, alike(message)
    if left := _LEFT.match(finding.headline):
        plugin = report.implementation.type
        yield plugin, finding.fault, finding.demand, alike(left["what"]), "killed" in left["when"]
        yield plugin, finding.fault, seen.check.name, left["kind"]


def _error(call: CallOf) -> str:
    """The error that the plugin returned."""
    with suppress(ValueError):
        answer = json.loads(call.stdout)
        if isinstance(answer, dict):
            return f"{answer.get('msg', '')} {answer.get('details', '')}".strip()
    return call.stderr.strip()


def _cause(group: Sequence[_Found], reports: Sequence[ConformanceReport]) -> Cause:
    seen, finding = min(group, key=lambda each: (not each[1].reproducer, each[1].strength != "must"))
    failed = {(each.report, each.check.name) for each, _ in group}
    stand_in = seen.check.verdict not in (Verdict.FAILED, Verdict.WARNED)
    return Cause(
        headline=finding.headline,
        verdict=seen.check.verdict,
        fault=None if stand_in and not seen.check.findings else finding.fault,
        demand=finding.demand,
        section=finding.section.title,
        url=finding.section.url,
        strength="must" if any(found.strength == "must" for _, found in group) else "should",
        reproducer=finding.reproducer,
        call=finding.call,
        seen=tuple(each for each, _ in group),
        blocked=tuple(
            (number, check.name)
            for number in dict.fromkeys(place for place, _ in failed)
            for check in reports[number].checks
            if check.verdict == Verdict.BLOCKED and failed & {(number, root) for root in _roots(check, reports[number])}
        ),
    )


def _roots(check: CheckOf, report: ConformanceReport) -> set[str]:
    """The failed checks that block this one."""
    by_name = {each.name: each for each in report.checks}
    todo, found = [check.name], set[str]()
    while todo:
        name = todo.pop()
        if name in found or name not in by_name:
            continue
        found.add(name)
        if by_name[name].verdict == Verdict.BLOCKED:
            todo += re.findall(r"([\w-]+) (?:failed|warned|blocked|broken)\b", by_name[name].reason)
    return found - {check.name}
