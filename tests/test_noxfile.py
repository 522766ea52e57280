"""noxfile.py: the commands of a session for arguments after `--`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROFILE = """\
network: mynet
embedded:
  {kind: real, software: mynet, plugins: [mynet], subnets: [10.77.0.0/16], file: 10-mynet.conf,
   conf: {cniVersion: 1.0.0, name: mynet, type: mynet}}
"""
SCENARIO = """\
scenario: mine
networks: [mynet]
pods: {a: {annotations: {cni: mynet}}}
expect: [{interfaces: {pod: a, eth0: mynet}}]
"""


@pytest.fixture(scope="module")
def noxfile() -> ModuleType:
    spec = importlib.util.spec_from_file_location("noxfile_of_tests", ROOT / "noxfile.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def collected(noxfile: ModuleType, *asked: str) -> list[str]:
    """The names of the tests that `nox -s e2e -- ASKED` runs, as collected by pytest."""
    commands: list[tuple[str, ...]] = []
    session: Any = SimpleNamespace(
        posargs=list(asked), install=lambda *_: None, run=lambda *command, **_: commands.append(command)
    )
    noxfile.e2e.func(session)
    [[python, *rest]] = commands
    assert python == "python"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GENIE_", "PYTEST_"))}
    made = subprocess.run(
        [sys.executable, *rest, "--collect-only", "-q"], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    return [line.rpartition("::")[2] for line in made.stdout.splitlines() if "::" in line]


@pytest.mark.parametrize("form", ["--profile {}.yaml", "--profile={}.yml"])
def test_a_profile_is_not_taken_for_a_scenario(noxfile: ModuleType, tmp_path: Path, form: str) -> None:
    """The value of an option is not a file to test, even if it ends in .yaml: the vendor's network replaces ours."""
    asked = form.format(tmp_path / "mynet").split()
    Path(asked[-1].removeprefix("--profile=")).write_text(PROFILE)
    names = collected(noxfile, *asked, "--swap", "canal=mynet")
    assert {"mynet", "mynet-across-nodes"} <= set(names)
    assert all("mynet" in name for name in names)


def test_what_is_named_is_run_alone(noxfile: ModuleType, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(SCENARIO)
    assert collected(noxfile, "-x", str(mine)) == ["mine"]


def test_every_scenario_of_the_project_is_run(noxfile: ModuleType) -> None:
    """Also those in folders; scenarios/conformance is for `harness conformance --behind`."""
    files = [path for path in (ROOT / "scenarios").rglob("*.yaml") if path.parent.name != "conformance"]
    assert sorted(collected(noxfile)) == sorted(path.stem for path in files)


def test_uv_gets_pips_index_and_certificates(
    noxfile: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uv does not read pip's settings, and would not reach any package."""
    for name in ("PIP_CERT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_SYSTEM_CERTS", *noxfile.PIP.values()):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    settings = tmp_path / "pip.conf"
    settings.write_text("[global]\nindex-url = http://one/simple\nextra-index-url =\n  http://two\n  http://three\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    monkeypatch.setenv("PIP_CERT", "/company.pem")
    # as nox is installed; the session's own environment has no pip if uv made it
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv/bin/python"))
    noxfile._reach_packages_as_pip()
    assert [os.environ[name] for name in noxfile.PIP.values()] == [
        "http://one/simple", "http://two http://three", "/company.pem",
    ]  # fmt: skip
