"""`python -m harness`, as people call it."""

from __future__ import annotations

import subprocess
import sys
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
    assert main(["lint", str(scenario), "--profile", str(scenario)]) == 4
    assert f"{scenario}:3:1: network: is missing" in capsys.readouterr().err


def test_a_kind_command_that_cannot_be_had_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("platform.machine", lambda: "abacus")
    assert main(["cluster", "status"]) == 3
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("there is no kind on PATH, and no release is pinned for linux-abacus: install kind v")


def test_a_command_imports_only_what_it_needs() -> None:
    code = "import sys; import harness.__main__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"jinja2", "kubernetes", "pydantic", "rich", "yaml"} & set(loaded)


def inputs(folder: Path) -> list[Path]:
    """Files that no command can use."""
    (folder / "folder").mkdir()
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00: [}")
    (folder / "broken.json").write_text("{]")
    (folder / "list.json").write_text("[1]")
    (folder / "empty.yaml").write_text("")
    return [folder / name for name in ("missing", "folder", "binary.yaml", "broken.json", "list.json", "empty.yaml")]


COMMANDS = [
    "list FILE",
    "lint FILE",
    "lint FILE --profile FILE",
    "checks FILE",
    "conformance FILE",
    "conformance --plugin FILE --conf FILE",
    "profile check FILE",
    "profile init --plugin FILE --conf FILE --yes",
    "report page FILE",
    "report merge FILE --out OUT",
    "report diff FILE FILE",
    "report badge FILE --out OUT",
    "report durations FILE",
    "counterparts FILE --page FILE",
    "nothing FILE",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_input_that_cannot_be_used_is_an_error_of_usage_and_no_traceback(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in inputs(tmp_path):
        words = [
            str(path) if word == "FILE" else str(tmp_path / "out") if word == "OUT" else word
            for word in command.split()
        ]
        try:
            code = main(words)
        except SystemExit as ended:  # argparse
            code = int(str(ended.code))
        printed = capsys.readouterr()
        a_check_of_files = command.split(maxsplit=1)[0] in ("list", "lint") or command.startswith("profile check")
        if a_check_of_files and path.name != "missing" and code != 4:
            assert code == (0 if "list" in command else 5) if path.name == "folder" else code == 1
        else:
            assert code == 4, (words, printed)
            assert printed.err.strip(), words
