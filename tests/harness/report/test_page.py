"""The page of a run: one finding for one cause, links that lead somewhere, nothing from outside, and a limited size."""

from __future__ import annotations

import re
from typing import Any

import pytest

from harness.report.findings import causes, headline, ranked
from harness.report.outcome import VERDICTS, Finding, Outcome, Stage
from harness.report.page import render
from tests.rigs.pages import Outline
from tests.rigs.runs import outcome, report

BEFORE = 'Warning FailedCreatePodSandBox (×4): failed to setup network for sandbox "0a1b": '
ERROR = f'{BEFORE}plugin type="genie" failed (add): network weave: open /run/weave.env: no such file'


def failing(name: str, pod: str, failure: str = ERROR, **more: Any) -> Outcome:
    text = f"{pod} is Pending on worker-1:\n  {failure} in genie-{name}-0a1b2c"
    stages = (Stage(name=f"create {pod}, other", seconds=40.0, failure=text),)
    return outcome("failed", name, namespace=f"genie-{name}-0a1b2c", stages=stages, **more)


def test_scenarios_that_failed_in_the_same_way_are_one_finding_and_others_are_not() -> None:
    same = [failing(f"s{number}", f"pod-{number}") for number in range(23)]
    assert headline(same[0]).startswith("pod-0 is Pending on worker-1: network weave: open ")
    found = causes(
        [*same, failing("weave", "a"), failing("x", "a", "no address"), outcome("broken"), outcome("passed")]
    )
    assert [(each.verdict, len(each.outcomes)) for each in found] == [("failed", 24), ("failed", 1), ("broken", 1)]
    page = render(report(*same, outcome("passed")))
    assert page.count('<details id="cause-') == 1
    assert page.index('id="cause-1"') < page.index('id="matrix"') < page.index('id="scenarios"')
    assert '<a href="#cause-1"><span aria-hidden="true">✗' in page, "the cell leads to the finding"


def test_known_failures_come_last() -> None:
    known = failing("a", "a", "no address", known="known failure of ann")
    assert [each.first.name for each in causes([known, outcome("not run"), failing("b", "a")])] == ["b", "not-run", "a"]


@pytest.mark.parametrize(
    ("failure", "first"),
    [
        (ERROR, "evidence/s/a/a-one-cni-calls.txt"),
        ("its image is not there", "evidence/s/events.txt"),
    ],
)
def test_the_evidence_that_explains_a_failure_is_first(failure: str, first: str) -> None:
    files = ("evidence/s/a/a-one-cni-calls.txt", "evidence/s/a/seen.txt", "evidence/s/b/a-one-cni-calls.txt",
             "evidence/s/events.txt", "evidence/s/pods.json")  # fmt: skip
    found = ranked(failing("s", "a", failure, evidence=files))
    assert found[0] == first
    assert sorted(found) == sorted(files)
    check = Finding(check="interfaces pod: b", seconds=1.0, failure="b has no eth1")
    seen = ("evidence/s/a/seen.txt", "evidence/s/b/seen.txt")
    stages = (Stage(name="expect", seconds=1.0, findings=(check,)),)
    assert ranked(outcome("failed", "s", stages=stages, evidence=seen))[0] == seen[1]


def test_links_lead_somewhere_and_nothing_comes_from_outside() -> None:
    timed = {"began": 1.8e9, "waited": 2.0, "calls": {"weave": {"ADD": (0.02, 0.03), "DEL": (0.01,)}}}
    some = [outcome(verdict, f"v{at}", **timed, worker=f"gw{at % 2}") for at, verdict in enumerate(VERDICTS)]
    page = render(report(*some, outcome("passed", "stand", networks=("calico",)), leaked=("interfaces: veth1",)))
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    assert {link[1:] for link in outline.links if link.startswith("#")} <= set(outline.ids)
    assert all(link.startswith(("#", "./")) for link in outline.links)
    assert outline.loads == []
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", page)
    assert page.count('class="lane"') == 2
    assert "Longest waits:" in page
    assert "weave: 12 calls of ADD from 20 ms to 30 ms" in page
    assert 'class="passed stripes"' in page


def test_what_a_plugin_wrote_is_shown_and_not_obeyed() -> None:
    evil = "</pre><script>alert(1)</script>\"'"
    page = render(
        report(
            failing("s", "a", evil, title=evil, evidence=("javascript:alert(1)", f"evidence/{evil}")),
            outcome("skipped", "t", reason=evil, networks=(evil,), group=evil, began=1.0, waited=1.0, worker=evil),
            command=(evil,),
        )
    )
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    assert all(link.startswith(("#", "./")) for link in Outline(page).links)


@pytest.mark.parametrize("failed", [23, 500])
def test_five_hundred_scenarios_are_under_a_megabyte(failed: int) -> None:
    checks = tuple(Finding(check=f"reach from: a, to: b, over: net-{at}", seconds=0.1) for at in range(20))

    def one(number: int) -> Outcome:
        name = f"scenario-{number:03}"
        stages = (Stage(name="create a, b", seconds=1.0), Stage(name="expect", seconds=2.0, findings=checks))
        if number < failed:
            return failing(name, "a", f"wrong in {'<x>' * (number + 9) * 5}", began=1.8e9 + number)
        return outcome("passed", name, stages=stages, began=1.8e9 + number, worker=f"gw{number % 4}")

    page = render(report(*map(one, range(500))))
    assert len(page.encode()) < 1_000_000
    assert all(f'id="scenario-{number:03}"' in page for number in range(500))
