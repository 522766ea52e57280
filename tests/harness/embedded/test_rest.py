"""Access to an API server, from one process to the next."""

from __future__ import annotations

from pathlib import Path

from harness.embedded.rest import Access


def test_a_kubeconfig_holds_no_empty_token() -> None:
    assert Access(server="http://x").kubeconfig()["users"][0]["user"] == {}


def test_access_comes_back_from_its_file(tmp_path: Path) -> None:
    access = Access(server="https://x", token="t", ca="c")
    access.write(tmp_path / "access.json")
    assert Access.read(tmp_path / "access.json") == access
    assert [path.name for path in tmp_path.iterdir()] == ["access.json"]
