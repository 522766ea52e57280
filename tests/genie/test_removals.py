"""The counter of genie's removals is read as it was written, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from genie import removals
from genie.removals import Removals


def test_removals_are_read_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "install").mkdir()
    for count in (1, 2):
        noted = Removals(count=count, why="it is gone", at=1.5, wait=2.0)
        removals.write(str(tmp_path), noted)
        assert removals.read(str(tmp_path)) == noted
    assert [path.name for path in (tmp_path / "install").iterdir()] == ["removals.json"]


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"count": 1, "more": 2}', "\0"])
def test_an_unreadable_file_of_removals_is_none(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "install").mkdir()
    if text is not None:
        Path(removals.path(str(tmp_path))).write_text(text)
    assert removals.read(str(tmp_path)) is None
