"""Runs `genie` commands."""

from __future__ import annotations

import pytest

from genie import cli


def printed(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> str:
    try:
        found = cli.main(list(argv))
    except SystemExit as stopped:
        found = int(stopped.code or 0)
    out, err = capsys.readouterr()
    assert found == status, (out, err)
    return err if status else out
