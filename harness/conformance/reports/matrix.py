"""The matrix of implementations and features, the first part of the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.conformance.findings import Verdict
from harness.conformance.published import CheckOf, ConformanceReport
from harness.conformance.report import API_VERSION
from harness.conformance.reports.causes import FAILING
from harness.conformance.spec import number

# The core features, with the prefixes of their checks' names, by importance. A check without a matching prefix is in
# "more".
_CORE = {
    "profile": ("profile-",),
    "VERSION": ("version-",),
    "killed": ("add-killed", "del-killed"),
    "ipam": ("status-asks-", "gc-asks-", "check-asks-", "del-asks-", "del-gives-", "add-asks-", "add-ipam-",
             "add-gives-ipam", "result-has-ipam", "routes-as-ipam-gave", "ipam-"),
    "bad calls": ("add-netns-", "add-ifname-taken", "add-twice", "add-garbage", "add-unknown-", "error-", "missing-",
                  "unknown-", "large-", "args-", "cni-args-", "invalid-", "config-form"),
    "environs": ("netns-", "add-keeps-", "container-ids", "two-networks", "network-names", "any-",
                 "output-", "cni-path-"),
    "results": ("result-",),
    "ADD": ("add-", "interface-"),
    "DEL": ("del-", "two-interfaces"),
    "CHECK": ("check-",),
    "GC": ("gc-",),
    "STATUS": ("status-",),
    "chains": ("chain-",),
    "load": ("concurrent-", "deterministic"),
    "more": ("",),
}  # fmt: skip
_SHOWN = ("VERSION", "ADD", "results", "bad calls", "environs", "DEL", "CHECK", "GC", "STATUS", "ipam", "chains",
          "killed", "load", "profile", "more")  # fmt: skip


@dataclass(frozen=True, order=True, kw_only=True)
class Feature:
    """A column."""

    rank: int
    name: str
    core: bool


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The results of one feature's checks for one implementation."""

    counts: Counter[Verdict]

    @property
    def failed(self) -> int:
        return sum(self.counts[verdict] for verdict in FAILING)

    @property
    def warned(self) -> int:
        return self.counts[Verdict.WARNED]

    @property
    def tested(self) -> int:
        return self.failed + self.warned + self.counts[Verdict.PASSED]

    @property
    def verdict(self) -> str:
        """passed, failed, blocked, warned, skipped, or none: the report has no such check."""
        if self.failed:
            return "failed"
        if self.counts[Verdict.BLOCKED]:
            return "blocked"
        if self.warned:
            return "warned"
        return "passed" if self.tested else "skipped" if self.counts[Verdict.SKIPPED] else "none"

    @property
    def words(self) -> str:
        """The text for screen readers."""
        shown = [f"{self.counts[verdict]} {verdict.value}" for verdict in Verdict if self.counts[verdict]]
        return ", ".join(shown) or "no check"


def label(report: ConformanceReport) -> str:
    """A short name of an implementation: its plugin with the release, or with the start of its binary's checksum."""
    tested = report.implementation
    sums = [binary.sha256[:7] for binary in tested.binaries if binary.type == tested.type]
    return f"{tested.type} {tested.version or next(iter(sums), '')}".strip()


def labels(reports: Sequence[ConformanceReport]) -> list[str]:
    """A unique name for each; equal names get the network's name, then a number."""
    names = [label(report) for report in reports]
    names = _apart(names, [report.implementation.name for report in reports])
    return _apart(names, [str(names[: at + 1].count(name)) for at, name in enumerate(names)])


def _apart(names: Sequence[str], more: Sequence[str]) -> list[str]:
    """Names, with additions that make equal ones unique."""
    return [f"{name} ({added})" if names.count(name) > 1 else name for name, added in zip(names, more, strict=True)]


def feature(check: CheckOf) -> Feature:
    """The feature that a check belongs to."""
    if check.level == "core":
        name = next(name for name, starts in _CORE.items() if check.name.startswith(starts))
        return Feature(rank=_SHOWN.index(name), name=name, core=True)
    return Feature(
        rank=len(_SHOWN), name=check.level.removeprefix("extended: ").removeprefix("capability:"), core=False
    )


def features(reports: Sequence[ConformanceReport]) -> tuple[Feature, ...]:
    """All features that an implementation claims or was tested for."""
    return tuple(sorted({feature(check) for report in reports for check in report.checks}))


def cells(report: ConformanceReport, columns: Sequence[Feature]) -> tuple[Cell, ...]:
    """A row with only these columns."""
    by_feature: dict[Feature, Counter[Verdict]] = {column: Counter() for column in columns}
    for check in report.checks:
        if (found := feature(check)) in by_feature:
            by_feature[found][check.verdict] += 1
    return tuple(Cell(counts=by_feature[column]) for column in columns)


def whole(report: ConformanceReport) -> Cell:
    """All checks of an implementation."""
    return Cell(counts=Counter(check.verdict for check in report.checks))


def in_order(reports: Sequence[ConformanceReport]) -> list[ConformanceReport]:
    """By plugin, then release, then date."""
    return sorted(reports, key=lambda each: (each.implementation.type, _release(each), each.date))


def _release(report: ConformanceReport) -> tuple[object, ...]:
    text = report.implementation.version.lstrip("v")
    try:
        return (0, number(text))
    except ValueError:
        return (1, text)


def as_json(reports: Sequence[ConformanceReport]) -> dict[str, Any]:
    """The matrix as plain data."""
    columns = features(reports)
    return {
        "apiVersion": API_VERSION,
        "kind": "ConformanceMatrix",
        "features": [column.name for column in columns],
        "implementations": [
            {
                "label": name,
                "type": report.implementation.type,
                "version": report.implementation.version,
                "binaries": [binary.model_dump() for binary in report.implementation.binaries],
                "date": report.date,
                "summary": {verdict.value: count for verdict, count in report.summary.items()},
                "features": {
                    column.name: cell.verdict for column, cell in zip(columns, cells(report, columns), strict=True)
                },
                "checks": {check.name: check.verdict.value for check in report.checks},
            }
            for name, report in zip(labels(reports), reports, strict=True)
        ],
    }
