"""`python -m harness`, as people call it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.__main__ import main

ROOT = Path(__file__).parents[2]


def test_the_examples_for_vendors_have_no_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile, scenario = tmp_path / "mynet.yaml", tmp_path / "mynet-and-flannel.yaml"
    for example in (ROOT / "docs/vendors.md").read_text().split("```yaml\n")[1:]:
        for path in (profile, scenario):
            if example.startswith(f"# {path.name}\n"):
                path.write_text(example.partition("```")[0])
    assert main(["lint", str(scenario)]) == 1
    assert "unknown network 'mynet'" in capsys.readouterr().out
    assert main(["lint", str(scenario), "--profile", str(profile)]) == 0
    assert main(["lint", str(scenario), "--profile", str(scenario)]) == 1
    assert f"{scenario}:3:1: network: is missing" in capsys.readouterr().err


def test_a_kind_command_that_cannot_be_had_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("platform.machine", lambda: "abacus")
    assert main(["cluster", "status"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("there is no kind on PATH, and no release is pinned for linux-abacus: install kind v")
