"""The matrix of released plugins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.conformance import published
from harness.conformance.reports import released
from harness.conformance.subject import as_list
from harness.download import NotHad
from harness.exits import Exit

REPORTS = Path(__file__).parents[4] / "reports"


def test_the_newest_release_of_each_minor_version() -> None:
    given = ["v0.7.5", "v0.8.6", "v0.8.10", "v1.9.0", "v1.10.0", "v1.9.1", "v1.10.0-rc1", "nightly"]
    assert released.newest_of_minors(given) == ["v0.8.10", "v1.9.1", "v1.10.0"]
    assert released.newest_of_minors([]) == []


@pytest.mark.parametrize("plugin", released.CONFIGURATIONS)
def test_configurations_are_configurations(plugin: str) -> None:
    assert as_list({"name": "n", "plugins": [released.CONFIGURATIONS[plugin]]}, plugin)["plugins"][0]["type"] == plugin


def test_a_release_that_is_older_than_the_capabilities_does_not_declare_them() -> None:
    old, new = (released.Release(plugin="bridge", version=version, get=Path) for version in ("v0.9.1", "v1.0.1"))
    assert "capabilities" not in released.configuration(old)
    assert released.configuration(new) == released.CONFIGURATIONS["bridge"]


def test_where_go_is_missing_that_is_reported_and_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert released.main(["--list"]) == Exit.BROKEN
    output = capsys.readouterr()
    assert output.err == "NOT TESTED: reference plugins by go install: no go here\n"
    assert "bridge-debian" in output.out


def test_a_plugin_that_cannot_be_had_is_reported_with_the_reason(tmp_path: Path) -> None:
    def get() -> Path:
        raise NotHad("no such release")

    assert (
        released.test(released.Release(plugin="ptp", version="v9", get=get), tmp_path, []) == "ptp-v9: no such release"
    )
    assert list(tmp_path.iterdir()) == []


def test_what_tests_nothing_leaves_no_report(tmp_path: Path) -> None:
    release = released.Release(plugin="ptp", version="v9", get=lambda: tmp_path)
    assert "expected a plugin's executable" in released.test(release, tmp_path, [])
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_that_name_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(released, "_versions", lambda _: ["v1.9.1"])
    assert released.main(["--only", "nosuch"]) == Exit.USAGE
    assert "nothing begins with nosuch; there are bridge-v1.9.1, " in capsys.readouterr().err


def test_an_unknown_option_is_wrong_usage() -> None:
    assert released.main(["--nosuch"]) == Exit.USAGE
    assert released.main(["--help"]) == Exit.PASSED


def test_published_reports_are_reports_and_the_matrix_has_them_all() -> None:
    files = [path for path in sorted(REPORTS.glob("*.json")) if path.name != "matrix.json"]
    assert files
    for path in files:
        report = published.read(path)
        assert path.stem == f"{report.implementation.type}-{report.implementation.version}"
    matrix = json.loads((REPORTS / "matrix.json").read_text())
    assert len(matrix["implementations"]) == len(files)
