"""Commands of an administrator: `genie --help`, `genie status`, `genie explain pod NS/NAME`, and mistakes."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genie import __main__, __version__, cli
from tests.rigs.cli import printed


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--help")
    for name, (_, sentence) in cli.COMMANDS.items():
        assert name in text and sentence.split(";")[0][:40] in " ".join(text.split())
    assert "docs/annotations.md" in text


def test_a_files_name_that_is_no_text_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.d").mkdir()
    Path(os.fsdecode(bytes(tmp_path) + b"/net.d/50-\xff.conf")).write_text("{")
    conf = {"name": "k8s", "type": "genie", "conf_dir": f"{tmp_path}/net.d", "state_dir": f"{tmp_path}/state"}
    (tmp_path / "genie.conf").write_text(json.dumps(conf))
    assert cli.main(["status", "--conf", f"{tmp_path}/genie.conf", "--socket", f"{tmp_path}/none"]) == 0
    assert "50-\\udcff.conf: not valid JSON" in capsys.readouterr().out


def test_every_command_is_there() -> None:
    for module, _ in cli.COMMANDS.values():
        assert callable(importlib.import_module(module).main)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--version").strip() == f"genie {__version__}"


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        ([], "One CNI plugin in front of all the others"),
        (["play"], "invalid choice: 'play'"),
        (["status", "--colour"], "unrecognized arguments: --colour"),
        (["explain"], "expected `pod NAMESPACE/NAME` or -f FILE"),
        (["explain", "node", "x"], "invalid choice: 'node'"),
    ],
)
def test_bad_arguments_exit_with_2(capsys: pytest.CaptureFixture[str], argv: list[str], complaint: str) -> None:
    assert complaint in printed(capsys, *argv, status=2)


def test_arguments_win_over_cni_command_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNI_COMMAND", "ADD")
    assert __main__.main(["status", "--conf", "/nowhere"]) == 1


def test_python_m_genie_prints_the_help() -> None:
    root = str(Path(cli.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "genie"], cwd=root, env={"PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "usage: genie" in done.stderr
