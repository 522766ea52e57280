"""report.json: the committed schema matches the model, and holds for real reports."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from harness.report import origin
from harness.report.published import as_json, read, schema
from harness.report.reading import BadReport
from tests.rigs.runs import outcome, report, saved
from tests.rigs.schemas import schema_errors

ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "scenarios/report.schema.json"


def test_the_committed_schema_is_current() -> None:
    committed = json.loads(SCHEMA.read_text())
    assert committed == schema(), "make it anew: python -m harness schema report > scenarios/report.schema.json"


def test_the_schema_is_a_json_schema_and_a_written_report_is_valid_by_it(tmp_path: Path) -> None:
    saved(report(outcome("failed"), outcome("passed")), tmp_path)
    assert schema_errors("--check-metaschema", SCHEMA) == ""
    assert schema_errors("--schemafile", SCHEMA, tmp_path / "report.json") == ""
    assert read(tmp_path) == read(tmp_path / "report.json") == report(outcome("failed"), outcome("passed"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "Pod"}, "kind: Input should be 'ScenarioReport'"),
        ({"seconds": "long"}, "seconds: Input should be a valid number"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
        ({"scenarios": [{"name": "a"}]}, "scenarios.0.title: Field required"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_field(change: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(as_json(report(outcome("passed"))) | change))
    with pytest.raises(BadReport, match=f"{path}: .*{message}"):
        read(path)
    assert schema_errors("--schemafile", SCHEMA, path) != ""


def test_the_commit_is_that_of_the_checkout_and_of_no_repository_above_it(tmp_path: Path) -> None:
    def git(*args: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        return subprocess.run(
            ["git", "-C", tmp_path, *who, *args], capture_output=True, text=True, check=True
        ).stdout.strip()

    (tmp_path / "a").write_text("1")
    git("init", "-q")
    git("add", "a")
    git("commit", "-qm", "a")
    head = git("rev-parse", "HEAD")
    assert origin.commit(tmp_path) == head
    (tmp_path / "a").write_text("2")
    assert origin.commit(tmp_path) == f"{head}+changes"
    (tmp_path / "inside").mkdir()
    assert origin.commit(tmp_path / "inside") == ""
