"""The counter of genie's removals is read as it was written, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from genie import removals
from genie.removals import Removals


def test_what_was_noted_last_is_read(tmp_path: Path) -> None:
    (tmp_path / "install").mkdir()
    for count in (1, 2):
        noted = Removals(count=count, why="it is gone", at=1.5, wait=2.0)
        removals.write(str(tmp_path), noted)
        assert removals.read(str(tmp_path)) == noted
    assert [path.name for path in (tmp_path / "install").iterdir()] == ["removals.json"]


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"count": 1, "more": 2}', "\0"])
def test_what_cannot_be_read_is_nothing(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "install").mkdir()
    if text is not None:
        Path(removals.path(str(tmp_path))).write_text(text)
    assert removals.read(str(tmp_path)) is None
