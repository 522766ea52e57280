"""action.yml and the workflows: correct, and their steps run as a hosted runner runs them.

`python -m tests.harness.workflows` runs whole jobs in a fresh clone; these tests run the steps that take seconds.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rigs.actions_runner import Runner

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / ".github/workflows").glob("*.yaml"))
FOUND = {"actionlint": shutil.which("actionlint") or ""}


def _scripts() -> Iterator[tuple[str, str]]:
    """Every `run` with the file that it is in."""
    for path in [ROOT / "action.yml", *FILES]:
        data: Any = yaml.safe_load(path.read_text())
        jobs = [data["runs"]] if "runs" in data else list(data["jobs"].values())
        for step in [step for job in jobs for step in job["steps"] if "run" in step]:
            yield path.name, step["run"]


def _examples() -> list[str]:
    """The YAML of docs/ci.md."""
    return re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/ci.md").read_text(), re.DOTALL)


def test_actionlint_finds_nothing() -> None:
    if not FOUND["actionlint"]:
        pytest.skip("there is no actionlint on PATH: go install github.com/rhysd/actionlint/cmd/actionlint@latest")
    done = subprocess.run([FOUND["actionlint"], *FILES], capture_output=True, text=True, cwd=ROOT, check=False)
    assert FILES and done.returncode == 0, done.stdout


@pytest.mark.parametrize(("schema", "files"), [("actions", [ROOT / "action.yml"]), ("workflows", FILES)])
def test_the_files_have_the_form_that_github_wants(schema: str, files: list[Path]) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.github-{schema}"]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_example_for_gitlab_has_the_form_that_gitlab_wants(tmp_path: Path) -> None:
    [example] = [block for block in _examples() if "script:" in block]
    (tmp_path / ".gitlab-ci.yml").write_text(example)
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.gitlab-ci"]
    done = subprocess.run([*command, tmp_path / ".gitlab-ci.yml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_value_becomes_part_of_a_command() -> None:
    """`${{ … }}` in a script is text that the shell reads: an input could end the command and begin another."""
    assert [name for name, script in _scripts() if "${{" in script] == []


def test_sessions_and_files_that_scripts_name_are_there() -> None:
    sessions = set(re.findall(r"^@nox\.session\ndef (\w+)", (ROOT / "noxfile.py").read_text(), re.MULTILINE))
    named = {name for _, script in _scripts() for name in re.findall(r"nox[^|&\n]* -s (\w+)", script)}
    assert {"lint", "tests", "bench", "matrix"} <= named
    assert named <= sessions


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """A runner on which the suite is installed already, in the place where the action's first step installs it."""
    home = tmp_path / "home"
    programs = home / "cni-scenarios/bin"
    programs.mkdir(parents=True)
    for name in ("python", "harness"):
        command = f"{sys.executable} {'-m harness' if name == 'harness' else ''}"
        installed = 'case "$*" in "-m venv"*|*"pip install"*) exit 0;; esac'
        (programs / name).write_text(f'#!/bin/sh\n{installed}\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    return Runner(checkout=ROOT, home=home)


def _action(runner: Runner, **inputs: str) -> bool:
    python = str(runner.home / "cni-scenarios/bin/python")
    return runner.action({"python": python, "report": str(runner.home / "report"), **inputs})


@pytest.mark.root
def test_the_action_runs_scenarios_and_reports_them(runner: Runner, embedded_possible: None) -> None:
    given = "scenarios/ptp.yaml scenarios/bridge.yaml"
    went_well = _action(runner, scenarios=given, shard="1/1", deadline="600", args="-k ptp")
    assert went_well, runner.done
    assert runner.outputs["passed"] == "1" and runner.outputs["failed"] == "0"
    assert (runner.outputs["code"], runner.outputs["report"]) == ("0", str(runner.home / "report"))
    assert "### Scenarios on embedded, shard 1/1: 1 passed" in runner.summary


def test_the_action_fails_with_the_code_of_the_run(runner: Runner) -> None:
    report = runner.home / "report"
    report.mkdir()
    (report / "report.json").write_text('{"an": "earlier run"}')
    assert not _action(runner, scenarios="scenarios/ptp.yaml", swap="a; touch $HOME/never")
    assert (runner.outputs["code"], runner.outputs["passed"]) == ("4", "")
    assert runner.summary == "### Scenarios: no report, exit code 4\n"
    assert not (runner.home / "never").exists()


@pytest.mark.parametrize(("tag", "right"), [("v0.1.0", True), ("v9.9.9", False)])
def test_a_release_needs_the_tag_of_its_version(tag: str, right: bool, tmp_path: Path) -> None:
    runner = Runner(checkout=ROOT, home=tmp_path, environment={"GITHUB_REF_NAME": tag})
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None and version[1] == "0.1.0", "this test's tag follows the version"
    assert runner.job("release.yaml", "version") is right


def test_examples_use_inputs_that_are_there() -> None:
    examples = list(map(yaml.safe_load, _examples()))
    jobs = [job for each in examples for job in (each.get("jobs") or {}).values()]
    uses = [step for job in jobs for step in (job, *job.get("steps", ())) if "genie-cni/genie" in step.get("uses", "")]
    assert len(uses) == 2
    for use in uses:
        place = use["uses"].partition("@")[0].removeprefix("genie-cni/genie").strip("/") or "action.yml"
        about: Any = yaml.load((ROOT / place).read_text(), yaml.BaseLoader)
        inputs = about["inputs"] if "inputs" in about else about["on"]["workflow_call"]["inputs"]
        assert set(use["with"]) <= set(inputs), place
