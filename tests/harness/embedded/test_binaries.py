"""The search for programs: places, order, and the message if they are not found."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.download import NotHad
from harness.embedded import archives, binaries


def test_given_directories_come_first_and_all_is_told_when_nothing_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _executable(tmp_path / "given" / "bridge")
    _executable(tmp_path / "installed" / "bridge")
    _executable(tmp_path / "installed" / "host-local")
    monkeypatch.setattr(binaries, "INSTALLED", (tmp_path / "installed",))
    found = binaries.plugins([tmp_path / "given"], ["bridge", "host-local"], ["bridge", "host-local"])
    assert found.paths == (str(tmp_path / "given" / "bridge"), str(tmp_path / "installed" / "host-local"))


def test_a_named_directory_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENIE_CNI_BIN", f"{tmp_path}:{tmp_path}/absent")
    with pytest.raises(binaries.NotFound, match=rf"^\$GENIE_CNI_BIN: {tmp_path}/absent: no such directory$"):
        binaries.given()
    monkeypatch.setenv("GENIE_CNI_BIN", f"{tmp_path}:")
    assert binaries.given() == [tmp_path]


def test_one_error_tells_all_that_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "INSTALLED", (tmp_path / "installed",))
    monkeypatch.setattr(archives, "programs", _raise(NotHad("no network")))
    monkeypatch.setattr(binaries, "debian", _raise(NotHad("no apt-get here")))
    monkeypatch.setattr(binaries, "built", _raise(subprocess.CalledProcessError(1, ["go"], stderr="no such module")))
    with pytest.raises(binaries.NotFound) as caught:
        binaries.plugins([tmp_path], ["bridge"], ["bridge"])
    output = str(caught.value)
    for part in (
        f"given: {tmp_path}",
        "installed",
        "no network",
        "no apt-get here",
        "no such module",
        "GENIE_CNI_BIN",
    ):
        assert part in output


def test_a_vendors_plugin_that_is_nowhere_is_lacking_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _executable(tmp_path / "bridge")
    monkeypatch.setattr(binaries, "_places", lambda given, tried, missing: iter([(given[0], "given")]))
    found = binaries.plugins([tmp_path], ["bridge", "acme"], ["bridge"])
    assert found.lacking == {"acme"}


@pytest.mark.parametrize(
    ("script", "version"),
    [
        ("echo v0.28.10 >&2", "v0.28.10"),
        ("echo 'thing version 1.2.3-rc.1, commit abc'", "1.2.3-rc.1"),
        ("echo dev\nexit\n\npath\tx\nmod\texample.com/thing\tv0.9.0\th1:abc=\n", "v0.9.0"),
        ("exit 1", "of unknown version"),
    ],
)
def test_a_programs_version_is_told_by_it_or_by_go(tmp_path: Path, script: str, version: str) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    assert binaries.version(program) == version


def _executable(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def _raise(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail
