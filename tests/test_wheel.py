"""The wheel: it contains the complete harness, which works from any directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the unpacked wheel."""
    if shutil.which("cc") is None:
        pytest.skip("the wheel has a compiled file, and there is no C compiler `cc`")
    made = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(made)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "GENIE_SHIM_CC": "cc"}, check=True, capture_output=True)
    [wheel] = made.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(made / "site")
    return made / "site"


def run(installed: Path, elsewhere: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a module of the wheel from a directory without the checkout."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GENIE_", "PYTEST_"))}
    command = [sys.executable, "-P", "-m", *args]
    return subprocess.run(
        command, cwd=elsewhere, env={**environment, "PYTHONPATH": str(installed)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_everything_that_the_harness_reads_is_in_the_wheel(installed: Path) -> None:
    for folder in ("fixtures", "scenarios"):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]
        assert files
        assert [path for path in files if not (installed / "harness" / path.relative_to(ROOT)).is_file()] == []


def test_list_and_lint_are_about_the_wheel_s_scenarios(installed: Path, tmp_path: Path) -> None:
    listed = run(installed, tmp_path, "harness", "list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "calico-across-nodes" in listed.stdout
    linted = run(installed, tmp_path, "harness", "lint")
    assert (linted.returncode, "no mistakes" in linted.stderr) == (0, True), linted.stderr


def test_a_vendor_s_swap_runs_the_wheel_s_scenarios(installed: Path, tmp_path: Path) -> None:
    """--swap is enough: pytest needs no path in a directory without scenarios."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:kmock -p no:asyncio\n")
    made = run(installed, tmp_path, "pytest", "--swap", "calico=mynet", "--collect-only", "-q")
    assert "::mynet-across-nodes" in made.stdout, made.stdout + made.stderr
