"""Reports of shards become the report of one run, and reports that do not belong together are refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.__main__ import main
from harness.report.merge import Part, merged
from harness.report.outcome import VERDICTS, Outcome, Verdict, counted
from harness.report.published import ScenarioReport, read
from harness.report.reading import BadReport
from tests.rigs.runs import FACTS, outcome, report, saved
from tests.rigs.schemas import schema_errors

NAMES = ("a", "b", "c")
JUNIT = (
    '<?xml version="1.0"?><testsuites name="pytest tests"><testsuite name="pytest" errors="0" failures="0" skipped="0" '
    'tests="1" time="{time}" timestamp="2026-01-0{time}T00:00:00+00:00" hostname="h">{cases}</testsuite></testsuites>'
)


def part(shard: str, *outcomes: Outcome, **more: Any) -> ScenarioReport:
    return report(*outcomes, **{"shard": shard, "selected": NAMES, **more})


def placed(root: Path, *reports: ScenarioReport) -> list[Path]:
    """Each report in a directory of its own, with its JUnit XML and evidence."""
    places = []
    for number, made in enumerate(reports, 1):
        place = saved(made, root / str(number))
        cases = "".join(
            f'<testcase classname="s" name="{each.name}">{"<failure/>" if each.verdict == "failed" else ""}</testcase>'
            for each in made.scenarios
        )
        (place / "junit.xml").write_text(JUNIT.format(time=number, cases=cases))
        for name in (name for each in made.scenarios for name in each.evidence):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(f"evidence of {number}")
        places.append(place)
    return places


def whole(*reports: ScenarioReport) -> ScenarioReport:
    return merged([Part(path=Path(f"{number}/report.json"), report=each) for number, each in enumerate(reports, 1)])


def test_shards_become_what_one_run_would_have_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = outcome("failed", "b", evidence=("evidence/b/events.txt",))
    places = placed(
        tmp_path,
        part("2/2", failed, code=1, seconds=5.0, command=("pytest", "scenarios", "--shard", "2/2")),
        part("1/2", outcome("passed", "a"), outcome("skipped", "c"), command=("pytest", "--shard=1/2", "scenarios")),
    )
    out = tmp_path / "out"
    assert main(["report", "merge", *map(str, places), "-o", str(out)]) == 1
    assert capsys.readouterr().out == f"1 failed, 1 passed, 1 skipped: {out}/index.html\n"
    made = read(out)
    assert [each.name for each in made.scenarios] == ["a", "b", "c"]
    assert (made.shard, made.command, made.seconds) == ("", ("pytest", "scenarios"), 9.0)
    assert made.counts == {"failed": 1, "passed": 1, "skipped": 1}
    assert (out / "evidence/b/events.txt").read_text() == "evidence of 1"
    assert 'href="./evidence/b/events.txt"' in (out / "index.html").read_text()
    [suite] = ElementTree.parse(out / "junit.xml").getroot()
    assert sorted(case.get("name") or "" for case in suite) == ["a", "b", "c"]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "0")
    schema = Path(__file__).parents[3] / "scenarios/report.schema.json"
    assert schema_errors("--schemafile", schema, out / "report.json") == ""


def test_a_shard_without_a_report_leaves_its_scenarios_not_run(tmp_path: Path) -> None:
    [place] = placed(tmp_path, part("1/2", outcome("passed", "a")))
    (place.parent / "out/evidence/old").mkdir(parents=True)
    assert main(["report", "merge", str(place / "report.json"), "-o", str(tmp_path / "out")]) == 3
    made = read(tmp_path / "out")
    assert {each.name: each.verdict for each in made.scenarios} == {"a": "passed", "b": "not run", "c": "not run"}
    assert made.exit.why == "no report of shard 2/2"
    assert "no report of shard 2/2" in (tmp_path / "out/index.html").read_text()
    [suite] = ElementTree.parse(tmp_path / "out/junit.xml").getroot()
    assert (suite.get("tests"), suite.get("errors")) == ("3", "2")
    assert not (tmp_path / "out/evidence").exists(), "of an earlier merge"


@given(st.lists(st.sampled_from(VERDICTS), min_size=1, max_size=12), st.integers(1, 5))
def test_counts_and_the_exit_code_are_those_of_one_run(verdicts: Sequence[Verdict], count: int) -> None:
    codes = {"failed": 1, "blocked": 1, "broken": 3, "not run": 3, "passed": 0, "skipped": 0}
    outcomes = [outcome(verdict, f"s{number:02}") for number, verdict in enumerate(verdicts)]
    every = tuple(each.name for each in outcomes)

    def code(some: Sequence[Outcome]) -> int:
        found = {codes[each.verdict] for each in some} or {0}
        return 1 if 1 in found else 5 if all(each.verdict == "skipped" for each in some) else max(found)

    shards = [outcomes[number::count] for number in range(count)]
    made = whole(
        *(part(f"{number}/{count}", *some, selected=every, code=code(some)) for number, some in enumerate(shards, 1))
    )
    assert made.counts == counted(verdicts)
    assert made.exit.code == code(outcomes)
    assert [each.name for each in made.scenarios] == list(every)


def test_a_shard_that_had_no_cluster_does_not_change_that_of_the_others() -> None:
    nothing = part("1/2", outcome("not run", "a"), outcome("not run", "b"), code=3, why="no plugins")
    nothing = nothing.model_copy(
        update={"cluster": nothing.cluster.model_copy(update={"nodes": ()}), "networks": {}, "binaries": ()}
    )
    made = whole(nothing, part("2/2", outcome("passed", "c")))
    assert (made.cluster.nodes, made.exit.code, made.exit.why) == (FACTS.nodes, 3, "no plugins")


def test_shards_may_have_only_the_networks_and_plugins_that_their_scenarios_need() -> None:
    one, two = part("1/2", outcome("passed", "a")), part("2/2", outcome("passed", "b"))
    one = one.model_copy(update={"networks": {"weave": one.networks["weave"]}, "binaries": ()})
    two = two.model_copy(update={"networks": {"calico": two.networks["calico"]}})
    assert {*whole(one, two).networks} == {"weave", "calico"}
    assert whole(one, two).binaries == two.binaries


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (part("", outcome("passed", "b")), "2/report.json: shard: expected one of `pytest --shard I/N`"),
        (part("1/2", outcome("passed", "b")), "2/report.json: 1/2 is in 1/report.json, too"),
        (part("2/2", outcome("passed", "a")), "2/report.json: a is in 1/report.json, too"),
        (part("2/3", outcome("passed", "b")), "the number of shards: 3, not 2"),
        (part("2/2", outcome("passed", "b"), selected=("b",)), "the selected scenarios: they differ"),
        (part("2/2", outcome("passed", "b"), scenarios_sha256="00" * 32), "the selected scenarios: they differ"),
        (
            part("2/2", outcome("passed", "b"), binaries={("bridge", "00" * 32): ("one",)}),
            "the plugins' files: bridge differs",
        ),
    ],
)
def test_reports_that_do_not_belong_together_are_refused(other: ScenarioReport, message: str) -> None:
    with pytest.raises(BadReport) as refused:
        whole(part("1/2", outcome("passed", "a")), other)
    assert message in str(refused.value)


def test_the_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = outcome("failed", "b", evidence=("../../secret",))
    one, two = placed(tmp_path, part("1/2", outcome("passed", "a")), part("2/2", outcome("failed", "b")))
    saved(part("2/2", outside), two)
    (tmp_path / "conformance.json").write_text('{"kind": "ConformanceReport"}')
    refusals = {
        (one, two): "evidence: expected a file in the report's directory, not ../../secret",
        (
            one,
            tmp_path / "conformance.json",
        ): f"conformance.json: kind: expected that of {one}",
        (tmp_path,): f"{tmp_path}/report.json: expected a report in JSON or YAML",
    }
    for paths, message in refusals.items():
        assert main(["report", "merge", *map(str, paths), "-o", str(tmp_path / "out")]) == 4
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    (one / "junit.xml").unlink()
    assert main(["report", "merge", str(one), "-o", str(tmp_path / "out")]) == 4
    assert f"{one}/junit.xml: expected JUnit XML of pytest" in capsys.readouterr().err
    assert main(["report", "merge", str(one), "-o", str(one)]) == 4
    assert "expected another directory" in capsys.readouterr().err
