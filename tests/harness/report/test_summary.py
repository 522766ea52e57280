"""The short form of a report: counts, causes with their scenarios, and nothing that breaks a table."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report import of_run
from harness.report.outcome import VERDICTS, Outcome, Run, Stage, Verdict
from harness.report.published import ScenarioReport
from harness.report.summary import markdown, outputs
from tests.rigs.fake_cluster import facts


def _report(*outcomes: tuple[str, Verdict, str], left: tuple[str, ...] = ()) -> ScenarioReport:
    made = tuple(
        Outcome(
            name=name, title=name, file=f"scenarios/{name}.yaml", networks=(), group="other", verdict=verdict,
            seconds=1.0,
            reason="" if verdict == "failed" else cause,
            stages=(Stage(name="create a", seconds=1.0, failure=cause),) if verdict == "failed" else (),
        )
        for name, verdict, cause in outcomes
    )  # fmt: skip
    return of_run(Run(facts=facts(), outcomes=made, leaked=left, seconds=2.0, start_seconds=1.0))


def test_scenarios_with_one_cause_are_one_line_and_failures_come_first() -> None:
    text = markdown(
        _report(
            ("a", "passed", ""), ("b", "skipped", "no network x"), ("c", "failed", "eth0 is down\nmore"),
            ("d", "failed", "eth0 is down\nother"), ("e", "broken", "no disk"),
        )
    )  # fmt: skip
    assert "### Scenarios on fake: 2 failed, 1 broken, 1 passed, 1 skipped\n" in text
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert table[1:] == [
        "| failed | c, d | create a: eth0 is down |",
        "| broken | e | no disk |",
        "| skipped | b | no network x |",
    ]


@given(st.text())
def test_a_plugins_text_stays_in_its_cell(text: str) -> None:
    lines = markdown(_report(("a", "broken", text), left=(text,))).split("\n")
    [row] = [line for line in lines if line.startswith("| broken ")]
    assert row.replace("\\|", "").count("|") == 4
    assert "<" not in row and "@" not in row
    assert len([line for line in lines if line.startswith("- `")]) == 1


def test_outputs_have_a_line_for_each_verdict(tmp_path: Path) -> None:
    lines = outputs(_report(("a", "passed", ""), ("b", "not run", "late")), tmp_path).splitlines()
    values = dict(line.split("=", 1) for line in lines)
    assert values.keys() == {"report", "code", *(verdict.replace(" ", "-") for verdict in VERDICTS)}
    assert (values["report"], values["passed"], values["not-run"], values["failed"]) == (str(tmp_path), "1", "1", "0")


def test_a_file_that_is_no_report_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from harness.__main__ import main

    assert main(["report", "summary", str(tmp_path)]) not in (0, 1)
    assert len(capsys.readouterr().err.splitlines()) == 1
