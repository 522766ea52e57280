"""Commands for contributors: `nox -s e2e`, `nox -s tests`, `nox -s faults`, `nox -s lint`, `nox -s bench`.

The sessions install the packages of requirements.lock, and this project in editable mode, so changes apply at once.
Arguments after `--` go to the tool of the session: `nox -s e2e -- -k weave --backend kind`.
"""

import os
import shutil
import subprocess
import sys
from ast import literal_eval
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.options.sessions = ["lint", "tests", "e2e"]
nox.options.default_venv_backend = "uv|virtualenv"  # uv takes seconds where pip takes a minute
nox.options.reuse_venv = "yes"
nox.options.stop_on_first_error = True

LOCK = "requirements.lock"
PIP = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "cert": "SSL_CERT_FILE"}
"""pip's settings that uv does not read, and the variables that it reads."""


def _reach_packages_as_pip() -> None:
    """With a company's proxy or index, uv needs what pip is set to use."""
    os.environ.setdefault("UV_SYSTEM_CERTS", "true")
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        if variable := PIP.get(name.rpartition(".")[2]):
            os.environ.setdefault(variable, " ".join(literal_eval(value).split()))


def _install(session: nox.Session) -> None:
    _reach_packages_as_pip()
    session.install("-q", "--require-hashes", "-r", LOCK)
    session.install("-q", "--no-deps", "--no-build-isolation", "-e", ".")


@nox.session
def e2e(session: nox.Session) -> None:
    """Run scenarios/ with genie: on kind if a Docker engine and a node image are available, else embedded."""
    _install(session)
    asked = session.posargs
    # Only pytest knows which arguments are files and which are values of options; it uses `testpaths` if there are no
    # files.
    usual = ["-c", "pyproject.toml", "-o", "testpaths=scenarios"]
    alone = any(
        argument.startswith(("-k", "-n", "-s", "--pdb", "--co", "--step", "--watch")) or _is_file(argument)
        for argument in asked
    )
    workers = [] if alone else ["-n", "3"]  # more workers than cores, because workers mostly wait for pods
    report = [] if any(argument.startswith("--report") for argument in asked) else ["--report", "report"]
    _pass_on(session, "python", "-m", "pytest", *usual, *workers, *report, *asked)


def _pass_on(session: nox.Session, *command: str) -> None:
    """Run a command, and end with its exit code, where nox would end with 1. After Ctrl-C, it can write its reports."""
    try:
        session.run(*command, terminate_timeout=30)
    except CommandFailed as failed:
        sys.exit(failed.return_code)


def _is_file(argument: str) -> bool:
    """Whether an argument may be a scenario file; for one scenario, several workers take longer to start."""
    path = Path(argument.partition("::")[0])
    return path.is_file() and "scenario:" in path.read_text(encoding="utf-8", errors="replace")


@nox.session
def tests(session: nox.Session) -> None:
    """Unit, property and edge tests; with real plugins in network namespaces if available."""
    _install(session)
    session.run("python", "-m", "pytest", "-n", "4", *(session.posargs or ["tests"]))  # many tests wait for processes


@nox.session
def faults(session: nox.Session) -> None:
    """Storms, crash points, power cuts, full disks, plugins and API servers that misbehave; as root, in 3 minutes.

    `-- --seed 7 --seconds 600` runs another storm for ten minutes; `python -m tests.faults --help` shows how to run one
    part.
    """
    _install(session)
    session.run("python", "-m", "pytest", "-c", "pyproject.toml", "tests/faults", "-v", "-n", "2", *session.posargs)


@nox.session
def policies(session: nox.Session) -> None:
    """Try 2,000 generated network policies on nine pods, two networks and three protocols against an oracle, as root.

    Then 10,000 connections that are forbidden are tried while pods are created. Takes some minutes. GENIE_POLICIES and
    GENIE_ATTEMPTS set the numbers, GENIE_POLICIES_SEED the first seed.
    """
    _install(session)
    env = {"GENIE_POLICIES": "2000", "GENIE_ATTEMPTS": "10000"}
    proofs = ("tests/genie/policy/test_on_networks.py", "tests/genie/agent/test_first_packet.py")
    session.run("python", "-m", "pytest", "-s", *(session.posargs or proofs), env={**env, **os.environ})


@nox.session
def mutants(session: nox.Session) -> None:
    """Make small changes to the pure modules, one at a time; a test must fail for each. Takes half an hour.

    The session fails if no test notices a change and tests/mutants.toml does not explain it. `--
    "genie.select.selection*"` runs a part.
    """
    _install(session)
    session.install(
        "-q", "mutmut==3.8.1"
    )  # not in the lock, because of its thirty dependencies, which only this session needs
    session.run("python", "-m", "tests.mutate", *session.posargs, env={"GENIE_HYPOTHESIS": "mutants"})
    session.run("python", "-m", "tests.mutants", *session.posargs)


@nox.session
def defects(session: nox.Session) -> None:
    """Run all conformance checks on each seeded defect, as root; only the expected ones may fail. `-- NAME` for one."""
    _install(session)
    session.run("python", "-m", "tests.conformance", *session.posargs)


@nox.session
def conformance(session: nox.Session) -> None:
    """Test one CNI plugin against the specification: `nox -s conformance -- --plugin ./mynet --conf 10-mynet.conf`."""
    _install(session)
    _pass_on(session, "python", "-m", "harness", "conformance", *session.posargs)


@nox.session
def matrix(session: nox.Session) -> None:
    """Test released plugins, into reports/: `nox -s matrix -- --only bridge`, `--list`."""
    _install(session)
    _pass_on(session, "python", "-m", "harness.conformance.reports.released", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types, and that imports between rooms only go down."""
    _install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")
    session.run("python", "-m", "harness", "lint", silent=True)
    if shutil.which("actionlint"):
        session.run("actionlint", external=True)
    else:
        session.warn("the workflows were not checked: no actionlint on PATH (CONTRIBUTING.md)")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the cost of an ADD with genie, compared with the plugins alone in the same run.

    `-- policies` measures network policies: their cost for an ADD, the time of an agent's start, its memory.
    """
    _install(session)
    if session.posargs[:1] == ["policies"]:
        session.run("python", "-m", "benchmarks.policies", *session.posargs[1:])
    else:
        session.run("python", "-m", "benchmarks.add_cost", *session.posargs)


@nox.session
def lock(session: nox.Session) -> None:
    """Write requirements.lock for all supported platforms and Python versions."""
    _reach_packages_as_pip()
    session.install("-q", "uv")
    session.run(
        *("uv", "pip", "compile", "pyproject.toml", "--all-extras", "--universal", "--python-version", "3.11"),
        *("--generate-hashes", "--no-emit-index-url", "--quiet", "--output-file", LOCK, *session.posargs),
    )
