"""`harness report` as people call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from harness.__main__ import main
from tests.rigs.reports import checked, report


def written(path: Path, *checks: dict[str, object], **more: str) -> Path:
    data = report(*checks, **more)
    path.write_text(json.dumps(data) if path.suffix == ".json" else yaml.safe_dump(data))
    return path


def test_merge_writes_a_page_and_a_matrix_of_json_and_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (
        written(tmp_path / "a.json", checked("a")),
        written(tmp_path / "b.yaml", checked("a", "failed"), version="v2"),
    )
    assert main(["report", "merge", str(one), str(two), "--out", str(tmp_path / "new" / "out")]) == 0
    assert capsys.readouterr().out == f"2 reports: {tmp_path}/new/out/index.html\n"
    assert "mynet v2" in (tmp_path / "new/out/index.html").read_text()
    assert len(json.loads((tmp_path / "new/out/matrix.json").read_text())["implementations"]) == 2


def test_diff_says_what_is_new_and_fails_by_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = written(tmp_path / "a.json", checked("a")), written(tmp_path / "b.json", checked("a", "failed"))
    assert main(["report", "diff", str(old), str(new)]) == 1
    assert "new failures (1)\n  a: plugin: a does not hold" in capsys.readouterr().out
    assert main(["report", "diff", str(new), str(old), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fixed"] == ["a: plugin: a does not hold"]


def test_badge(tmp_path: Path) -> None:
    picture = tmp_path / "badge.svg"
    assert main(["report", "badge", str(written(tmp_path / "a.json", checked("a"))), "--out", str(picture)]) == 0
    assert "CNI conformance: core" in picture.read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a report in JSON or YAML"),
        (b"", "expected a report in JSON or YAML"),
        (b"\xff\xfe\x00", "expected a report in JSON or YAML"),
        (b"[" * 100_000, "expected a report in JSON or YAML"),
        (b"[]", "the whole: Input should be a valid dictionary"),
        (b'{"name": "x"}', "apiVersion: Field required"),
        (json.dumps({**report(checked("a")), "apiVersion": "v9"}).encode(), "apiVersion: Input should be 'conformance"),
        (json.dumps({**report(checked("a")), "seconds": float("nan")}).encode(), "seconds: Input should be a finite"),
        (json.dumps(report(checked("a", "fine"))).encode(), "checks.0.verdict: Input should be 'passed'"),
    ],
)
@pytest.mark.parametrize("command", ["merge", "diff", "badge"])
def test_what_is_no_report_is_one_error_with_file_and_field(
    command: str, content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, good, out = tmp_path / "bad.json", written(tmp_path / "good.json", checked("a")), tmp_path / "out"
    if content is not None:
        file.write_bytes(content)
    words = {"merge": [str(good), str(file), "--out", str(out)], "diff": [str(file), str(good)],
             "badge": [str(file), "--out", str(out)]}  # fmt: skip
    assert main(["report", command, *words[command]]) == 4
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"{file}: ")
    assert message in output.err
    assert not out.exists()


def test_a_place_that_cannot_be_written_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = written(tmp_path / "good.json", checked("a"))
    assert main(["report", "merge", str(good), "--out", str(good / "x")]) == 4
    assert capsys.readouterr().err == f"{good}/x: Not a directory\n"
