"""The inventory of an embedded node, without entries of living sandboxes."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.embedded import inventory
from harness.embedded.inventory import Owned


def test_what_a_living_sandbox_has_is_no_leak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "weave"
    store.mkdir()
    (store / "10.32.0.2").write_text("alive\r\neth0")
    (store / "10.32.0.3").write_text("dead\r\neth0")
    (store / "10.32.0.4").write_text("derived\r\neth1")  # genie's, of a plugin that knows a container's ID alone
    (store / "last_reserved_ip.0").write_text("10.32.0.3")
    (store / "lock").touch()
    monkeypatch.setattr(inventory, "STORES", tmp_path)
    owned = Owned(words=frozenset({"alive", "10.32.0.2", "10.32.0.4"}))
    assert list(inventory._addresses(owned)) == ["weave 10.32.0.3 dead/eth0"]
