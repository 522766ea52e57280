"""Compares two reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.conformance.findings import Verdict
from harness.conformance.published import CheckOf, ConformanceReport
from harness.report.alike import alike


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The failures as lines of text: new, fixed and known ones."""

    new: tuple[str, ...]
    fixed: tuple[str, ...]
    known: tuple[str, ...]
    lost: tuple[str, ...]  # checks with a verdict only in the old report

    @property
    def status(self) -> int:
        """1 if something became worse: a new failure, or a check that lost its verdict."""
        return 1 if self.new or self.lost else 0


_FAILURES = (Verdict.FAILED, Verdict.FLAKY)
Key = tuple[str, str]  # a check's name and its finding, without parts that differ between runs


def compare(old: ConformanceReport, new: ConformanceReport) -> Comparison:
    """Compare a report with an earlier one.

    A failure is known if the same check had the same finding before. A failure that the new report did not test is not
    fixed.
    """
    before, after = _failures(old), _failures(new)
    verdicts = {check.name: check.verdict for check in new.checks}
    lost = [
        f"{check.name}: {check.verdict.value} before, now {_now(verdicts, check.name)}"
        for check in old.checks
        if _is_verdict(check.verdict) and not _is_verdict(verdicts.get(check.name))
    ]
    return Comparison(
        new=tuple(line for key, line in after.items() if key not in before),
        fixed=tuple(line for key, line in before.items() if key not in after and _is_verdict(verdicts.get(key[0]))),
        known=tuple(line for key, line in after.items() if key in before),
        lost=tuple(lost),
    )


def _now(verdicts: Mapping[str, Verdict], name: str) -> str:
    return verdicts[name].value if name in verdicts else "not in the report"


def _is_verdict(verdict: Verdict | None) -> bool:
    """Whether it is a verdict about the plugin; blocked, skipped and broken checks have none."""
    return verdict in (Verdict.PASSED, Verdict.WARNED, *_FAILURES)


def _failures(report: ConformanceReport) -> dict[Key, str]:
    return dict(pair for check in report.checks if check.verdict in _FAILURES for pair in _found(check))


def _found(check: CheckOf) -> Iterator[tuple[Key, str]]:
    for finding in check.findings:
        yield (check.name, alike(finding.headline)), f"{check.name}: {finding.fault.value}: {finding.headline}"
    if not check.findings:
        reason = check.reason.strip().splitlines()[-1:]
        yield (check.name, check.verdict.value), ": ".join([check.name, check.verdict.value, *reason])


def text(found: Comparison) -> str:
    named = (
        ("new failures", found.new),
        ("no verdict any more", found.lost),
        ("fixed", found.fixed),
        ("known failures", found.known),
    )
    parts = [f"{title} ({len(lines)})\n" + "".join(f"  {line}\n" for line in lines) for title, lines in named if lines]
    return "\n".join(parts) or "no failure in either report\n"
