"""The choice of a backend for a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.backends import registry
from harness.cluster import engine
from harness.contract import Unavailable
from harness.download import Download, NotHad


def test_a_plain_run_is_embedded_where_kind_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Docker engine alone is not enough for a cluster; a run with `--backend kind` gets the reason."""

    def not_had(_: Download) -> Path:
        raise NotHad("no such host")

    monkeypatch.setattr(engine, "answers", lambda: "")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(Download, "get", not_had)
    monkeypatch.delenv("GENIE_NODE_IMAGE", raising=False)
    backend, why = registry.choose("auto", {})
    assert backend.name == "embedded"
    assert why.startswith("not kind: there is no kind on PATH, and v")
    with pytest.raises(Unavailable, match="--backend kind: there is no kind on PATH.*no such host.*install kind"):
        registry.choose("kind", {})
