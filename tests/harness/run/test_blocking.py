"""A network with which no ADD succeeds blocks its other scenarios; anything else does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.report.outcome import Outcome, Stage, Verdict
from harness.run.blocking import Blocking, failing
from harness.run.ending import without_run
from harness.scenario.reading import parse

SCENARIO = parse("scenario: x\nnetworks: [weave]\npods: {a: }\n", "scenarios/x.yaml")
EVENT = (
    "a is Pending on one\n  Warning FailedCreatePodSandBox (×4): Failed to create pod sandbox: rpc error:"
    ' code = Unknown desc = failed to setup network for sandbox "{id}": {words}'
)


def outcome(words: str, name: str, *, networks: tuple[str, ...] = ("weave",), verdict: Verdict = "failed") -> Outcome:
    """The outcome of a scenario in which creating a pod failed with these words; with none, it succeeded."""
    failure = EVENT.format(id="ab12" * 16, words=words) if words else ""
    one = replace(without_run(SCENARIO, verdict, ""), name=name, networks=networks)
    return replace(one, stages=(Stage(name="create a", seconds=1.0, failure=failure),))


def reason(into: Path, *outcomes: Outcome, may_fail: bool = False) -> str:
    for each in outcomes:
        Blocking(into).note(each, may_fail=may_fail)
    return Blocking(into).reason(["bridge", "weave"])


def test_the_same_failure_twice_blocks_the_rest(tmp_path: Path) -> None:
    one, two = (
        outcome("no lease for pod 10.1.2.3 in /run/x", "one"),
        outcome("no lease for pod 10.9.8.7 in /run/y", "two"),
    )
    assert failing(one) == failing(two)
    assert failing(one)[0] == "weave"
    found = reason(tmp_path, one, two)
    assert found.startswith("every ADD of weave failed in the same way, in one and two: no lease for pod")
    assert Blocking(tmp_path).reason(["bridge"]) == ""


def test_genie_names_the_network_of_a_pod_on_several(tmp_path: Path) -> None:
    words, two = "network 'weave': plugin 'w': ADD: no lease", ("bridge", "weave")
    found = reason(tmp_path, outcome(words, "one", networks=two), outcome(words, "two"))
    assert found == f"every ADD of weave failed in the same way, in one and two: {words}"
    assert Blocking(tmp_path).reason(["bridge"]) == ""


@pytest.mark.parametrize(
    "outcomes",
    [
        [outcome("boom", "one")],
        [outcome("boom", "one"), outcome("boom", "one")],
        [outcome("boom", "one"), outcome("bang", "two")],
        [outcome("boom", "one"), outcome("boom", "two"), outcome("", "three", verdict="passed")],
        [outcome("", "zero", networks=("bridge", "weave")), outcome("boom", "one"), outcome("boom", "two")],
        [outcome("boom", "one", networks=("bridge", "weave")), outcome("boom", "two", networks=("bridge", "weave"))],
        [outcome("network 'blue': boom", name, networks=("bridge", "weave")) for name in ("one", "two")],
        [
            outcome(f"network '{name}1': b\n  sandbox x network '{name}2': b", name, networks=("bridge", "a1"))
            for name in "ab"
        ],
        [outcome("boom", "one", verdict="broken"), outcome("boom", "two", verdict="broken")],
    ],
    ids=[
        "one scenario",
        "one twice",
        "other words",
        "a pod ran later",
        "a pod ran before",
        "two networks",
        "another network",
        "two definitions",
        "broken",
    ],
)
def test_nothing_else_blocks(tmp_path: Path, outcomes: list[Outcome]) -> None:
    assert reason(tmp_path, *outcomes) == ""


def test_scenarios_that_expect_a_failure_show_nothing_about_a_network(tmp_path: Path) -> None:
    assert reason(tmp_path, outcome("", "zero", verdict="passed"), may_fail=True) == ""
    assert reason(tmp_path, outcome("boom", "one"), outcome("boom", "two"))
