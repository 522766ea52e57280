"""--watch: a scenario runs again on the same cluster when its file or genie changes."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import genie
from tests.rigs.folder import Folder

pytest_plugins = ["pytester"]


def _until(lines: Iterator[bytes], word: str) -> str:
    """The output up to a line with this word."""
    seen = ""
    for line in lines:
        seen += line.decode()
        if word in line.decode():
            return seen
    raise AssertionError(f"the run ended without {word!r}:\n{seen}")


@pytest.fixture
def watching(folder: Folder) -> Iterator[subprocess.Popen[bytes]]:
    """A run that waits for changes of two scenarios."""
    run = folder.begin("scenarios", "-k", "weave or calico", "--watch", "--report", "out")
    yield run
    run.kill()
    run.wait()


def test_changes_run_a_scenario_again_on_the_same_cluster(folder: Folder, watching: subprocess.Popen[bytes]) -> None:
    mine, other = folder.scenarios / "weave.yaml", folder.scenarios / "calico.yaml"
    good = mine.read_text()
    assert watching.stdout is not None
    lines = iter(watching.stdout)
    first = _until(lines, "watching ")
    assert (" ✓ weave " in first, " ✓ calico " in first) == (True, True)

    mine.write_text(f"{good}  - addresses: {{pods: a, network: weave, count: 2}}\n")
    again = _until(lines, "after the change")
    assert " ✗ weave " in again and "look at next:" in again and " ✓ calico " not in again
    mine.write_text("scenario: [")
    assert "weave.yaml:2:1: not YAML" in _until(lines, "after the change")
    mine.write_text(good)
    assert " ✓ weave " in _until(lines, "after the change")
    Path(genie.__file__).touch()
    whole = _until(lines, "after the change")
    assert "changed: __init__.py" in whole and " ✓ weave " in whole and " ✓ calico " in whole
    other.write_text(other.read_text().replace("eth0: calico", "eth1: calico"))
    assert " ✗ calico " in _until(lines, "after the change")

    watching.send_signal(signal.SIGINT)
    end, _ = watching.communicate(timeout=60)
    assert watching.returncode == 1, end.decode()
    assert "1 failed, 1 passed" in end.decode(), "the last run of each counts"
    assert "started for" not in again + whole, "one cluster for all"
