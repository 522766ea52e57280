"""The matrix of released plugins."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.conformance.reports import released
from harness.conformance.subject import as_list
from harness.download import NotHad


def test_the_newest_release_of_each_minor_version() -> None:
    given = ["v0.7.5", "v0.8.6", "v0.8.10", "v1.9.0", "v1.10.0", "v1.9.1", "v1.10.0-rc1", "nightly"]
    assert released.newest_of_minors(given) == ["v0.8.10", "v1.9.1", "v1.10.0"]
    assert released.newest_of_minors([]) == []


@pytest.mark.parametrize("plugin", released.CONFIGURATIONS)
def test_configurations_are_configurations(plugin: str) -> None:
    assert as_list({"name": "n", "plugins": [released.CONFIGURATIONS[plugin]]}, plugin)["plugins"][0]["type"] == plugin


def test_where_go_is_missing_that_is_reported_and_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert released.main(["--list"]) == 2
    said = capsys.readouterr()
    assert said.err == "NOT TESTED: reference plugins by go install: no go here\n"
    assert "bridge-debian" in said.out


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
    assert released.main(["--only", "nosuch"]) == 2
    assert "nothing begins with nosuch; there are bridge-v1.9.1, " in capsys.readouterr().err
