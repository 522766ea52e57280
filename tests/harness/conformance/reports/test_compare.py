"""The comparison of two reports."""

from __future__ import annotations

import pytest

from harness.conformance.reports.compare import compare, text
from tests.rigs.reports import checked, finding, made


@pytest.mark.parametrize(
    ("before", "after", "where", "status"),
    [
        ("passed", "failed", "new", 1),
        ("passed", "flaky", "new", 1),
        ("skipped", "failed", "new", 1),
        ("failed", "passed", "fixed", 0),
        ("failed", "failed", "known", 0),
        ("failed", "skipped", "lost", 1),
        ("passed", "blocked", "lost", 1),
        ("passed", "skipped", "lost", 1),
        ("skipped", "skipped", "", 0),
        ("passed", "passed", "", 0),
    ],
)
def test_a_check_before_and_after(before: str, after: str, where: str, status: int) -> None:
    found = compare(made(checked("a", before)), made(checked("a", after)))
    assert [name for name in ("new", "fixed", "known", "lost") if getattr(found, name)] == ([where] if where else [])
    assert found.status == status
    assert not where or "a: " in text(found)


def test_another_finding_of_a_check_that_failed_before_is_new() -> None:
    old = made(checked("a", "failed", findings=[finding("10.1.0.2 is left")]))
    new = made(checked("a", "failed", findings=[finding("10.9.0.7 is left"), finding("a route is left")]))
    found = compare(old, new)
    assert found.known == ("a: plugin: 10.9.0.7 is left",)
    assert found.new == ("a: plugin: a route is left",)


def test_a_report_that_tested_nothing_is_worse_than_one_that_did() -> None:
    assert compare(made(checked("a")), made()).lost == ("a: passed before, now not in the report",)


def test_a_check_that_breaks_has_no_verdict_any_more() -> None:
    found = compare(made(checked("a")), made(checked("a", "broken", reason="no namespaces")))
    assert found.lost == ("a: passed before, now broken",)
    assert found.new == ()
