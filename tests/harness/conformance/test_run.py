"""The order of checks: pure, over the plan alone."""

from __future__ import annotations

from pathlib import Path

from harness.conformance.checks.base import Check
from harness.conformance.findings import Verdict
from harness.conformance.run import Checked, Job, Plan, Trial
from harness.conformance.scene import Scene
from harness.conformance.spec import ADD
from harness.conformance.subject import Subject

SUBJECT = Subject(
    name="net",
    network={"name": "net", "plugins": [{"type": "mine"}]},
    position=0,
    binaries={"mine": Path("/mine")},
    supported=("0.4.0", "1.0.0", "1.1.0"),
)


def nothing(_: Scene) -> None: ...


def check(
    name: str, *after: str, batch: str = "", each: bool = False, ends: bool = False, should: bool = False
) -> Check:
    return Check(
        name=name,
        sentence=name,
        section=ADD,
        run=nothing,
        after=after,
        batch=batch,
        each=each,
        ends=ends,
        should=should,
        since="0.3.0",
    )


def plan(*checks: Check, again: int = 1) -> Plan:
    return Plan(SUBJECT, checks, again)


def end(of: Plan, job: Job, *verdicts: Verdict) -> None:
    of.started(job)
    of.finished(job, [Trial(version=job.version, verdict=verdict) for verdict in verdicts])


def decided(of: Plan, one: Check) -> Checked:
    result = of.result(one)
    assert result is not None
    return result


def names(jobs: list[Job]) -> list[tuple[str, str]]:
    return [(" ".join(each.name for each in job.checks), job.version) for job in jobs]


def test_versions_are_all_the_ends_or_the_newest() -> None:
    found = plan(check("all", each=True), check("ends", ends=True), check("newest"))
    assert names(found.ready()) == [
        ("all", "0.4.0"), ("all", "1.0.0"), ("all", "1.1.0"), ("ends", "0.4.0"), ("ends", "1.1.0"), ("newest", "1.1.0"),
    ]  # fmt: skip


def test_what_builds_on_a_failure_is_blocked_with_the_same_version_alone() -> None:
    first, second = check("first", each=True), check("second", "first", each=True)
    found = plan(first, second, again=0)
    for job, verdict in zip(found.ready(), (Verdict.PASSED, Verdict.FAILED, Verdict.PASSED), strict=True):
        end(found, job, verdict)
    assert names(found.ready()) == [("second", "0.4.0"), ("second", "1.1.0")]
    for job in found.ready():
        end(found, job, Verdict.PASSED)
    assert [(each.verdict, each.reason) for each in decided(found, second).trials] == [
        (Verdict.PASSED, ""), (Verdict.BLOCKED, "first failed"), (Verdict.PASSED, ""),
    ]  # fmt: skip


def test_a_warning_blocks_recommendations_alone_and_is_passed_on_to_demands() -> None:
    checks = [check("mild"), check("advice", "mild", should=True), check("demand", "advice"), check("next", "demand")]
    found = plan(*checks, again=0)
    end(found, found.ready()[0], Verdict.WARNED)
    assert decided(found, checks[1]).trials[0].reason == "mild warned"
    [demand] = found.ready()
    assert names([demand]) == [("demand", "1.1.0")]
    assert demand.warned == {"mild"}
    end(found, demand, Verdict.FAILED)
    assert decided(found, checks[3]).trials[0].reason == "demand failed"


def test_a_failure_blocks_more_than_a_warning_beside_it() -> None:
    mild, hard = check("mild"), check("hard")
    advice, demand = check("advice", "mild", "hard", should=True), check("demand", "advice")
    found = plan(mild, hard, advice, demand, again=0)
    first, second = found.ready()
    end(found, first, Verdict.WARNED)
    end(found, second, Verdict.FAILED)
    assert [decided(found, each).trials[0].reason for each in (advice, demand)] == ["hard failed", "advice blocked"]


def test_a_failure_that_does_not_come_again_is_flaky() -> None:
    one = check("one")
    found = plan(one)
    end(found, found.ready()[0], Verdict.FAILED)
    assert found.result(one) is None
    end(found, found.ready()[0], Verdict.PASSED)
    assert decided(found, one).verdict is Verdict.FLAKY


def test_a_batch_is_one_job_and_its_checks_are_made_again_one_by_one() -> None:
    first, second = check("first", batch="both"), check("second", "first", batch="both")
    found = plan(first, second)
    [job] = found.ready()
    assert names([job]) == [("first second", "1.1.0")]
    end(found, job, Verdict.PASSED, Verdict.FAILED)
    assert names(found.ready()) == [("second", "1.1.0")]
    end(found, found.ready()[0], Verdict.FAILED)
    assert decided(found, second).verdict is Verdict.FAILED


def test_in_a_batch_what_builds_on_its_own_failure_is_blocked() -> None:
    first, second = check("first", batch="both"), check("second", "first", batch="both")
    found = plan(first, second, again=0)
    end(found, found.ready()[0], Verdict.FAILED, Verdict.FAILED)
    assert found.ready() == []
    assert decided(found, second).verdict is Verdict.BLOCKED
