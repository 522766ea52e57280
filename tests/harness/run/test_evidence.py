"""Evidence of an earlier run is removed, and nothing that the harness did not write."""

from __future__ import annotations

from pathlib import Path

from harness.run.evidence import remove_old
from tests.rigs.scenarios import Runner, two


def test_only_what_the_harness_wrote_is_removed(go: Runner, tmp_path: Path) -> None:
    outcome, _ = go(two("default-route: {pod: both, network: weave}"))
    evidence = tmp_path / "evidence" / outcome.name
    assert (evidence / "pods.json").exists()
    mine = tmp_path / "evidence" / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("x")
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "index.html").write_text("mine")
    remove_old(tmp_path, reports=True)
    assert not evidence.exists()
    assert (mine / "notes.txt").exists()
    assert (tmp_path / "index.html").read_text() == "mine"
    (tmp_path / "report.json").write_text('{"apiVersion": "scenarios.genie.dev/v1alpha1", "scenarios": []}')
    remove_old(tmp_path, reports=False)
    assert (tmp_path / "index.html").exists()
    remove_old(tmp_path, reports=True)
    assert not (tmp_path / "index.html").exists()
    remove_old(tmp_path / "nothing", reports=True)
