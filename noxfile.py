"""What a contributor runs: `nox -s e2e`, `nox -s tests`, `nox -s faults`, `nox -s lint`, `nox -s bench`.

The sessions install what requirements.lock pins and the project as it lies here, so a change is live at once.
What stands after `--` goes to the tool of the session: `nox -s e2e -- -k weave --backend kind`.
"""

from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests", "e2e"]
nox.options.reuse_venv = "yes"
nox.options.stop_on_first_error = True

LOCK = "requirements.lock"


def _install(session: nox.Session) -> None:
    session.install("-q", "--require-hashes", "-r", LOCK)
    session.install("-q", "--no-deps", "--no-build-isolation", "-e", ".")


@nox.session
def e2e(session: nox.Session) -> None:
    """Drive scenarios/ through genie: kind where a Docker engine and a node image are there, else embedded."""
    _install(session)
    asked = session.posargs
    # pytest alone knows which of the arguments are files and which are options' values: it takes `testpaths` for none.
    usual = ["-c", "pyproject.toml", "-o", "testpaths=scenarios"]
    alone = any(argument.startswith(("-k", "-n", "-s", "--pdb", "--co")) or _is_file(argument) for argument in asked)
    workers = [] if alone else ["-n", "3"]  # two cores mostly wait for one another's pods
    report = [] if any(argument.startswith("--report") for argument in asked) else ["--report", "report"]
    session.run("python", "-m", "pytest", *usual, *workers, *report, *asked)


def _is_file(argument: str) -> bool:
    """Whether an argument may be a scenario's file, for which several workers are not worth their start."""
    path = Path(argument.partition("::")[0])
    return path.is_file() and "scenario:" in path.read_text(encoding="utf-8", errors="replace")


@nox.session
def tests(session: nox.Session) -> None:
    """Unit, property and edge tests: real plugins in network namespaces where they can be had."""
    _install(session)
    session.run("python", "-m", "pytest", "-n", "2", *(session.posargs or ["tests"]))


@nox.session
def faults(session: nox.Session) -> None:
    """Storms, crash points, power cuts, full disks, plugins and API servers that misbehave; as root, in 6 minutes.

    `-- --seed 7 --seconds 600` for another storm, ten minutes of it; `python -m tests.faults --help` for one part.
    """
    _install(session)
    session.run("python", "-m", "pytest", "-c", "pyproject.toml", "tests/faults", "-v", "-n", "2", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Change the pure modules in each small way, one at a time, and have a test fail for each; takes half an hour.

    It fails where a change goes unnoticed that tests/mutants.toml does not explain. `-- "genie.select.selection*"` for
    some, whose results stand beside those of the last whole run.
    """
    _install(session)
    session.install("-q", "mutmut==3.8.1")  # apart from the lock: it brings thirty packages that nothing else needs
    session.run("python", "-m", "tests.mutate", *session.posargs, env={"GENIE_HYPOTHESIS": "mutants"})
    session.run("python", "-m", "tests.mutants")


@nox.session
def defects(session: nox.Session) -> None:
    """Run all conformance checks on each seeded defect, as root: only the right ones may fail; `-- NAME` for one."""
    _install(session)
    session.run("python", "-m", "tests.conformance", *session.posargs)


@nox.session
def conformance(session: nox.Session) -> None:
    """Test one CNI plugin against the specification: `nox -s conformance -- --plugin ./mynet --conf 10-mynet.conf`."""
    _install(session)
    session.run("python", "-m", "harness", "conformance", *session.posargs)


@nox.session
def matrix(session: nox.Session) -> None:
    """Test the plugins that package registries give, into reports/: `nox -s matrix -- --only bridge`, `--list`."""
    _install(session)
    session.run("python", "-m", "harness.conformance.reports.released", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, and that dependencies between rooms point down only."""
    _install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")
    session.run("python", "-m", "harness", "lint", silent=True)


@nox.session
def bench(session: nox.Session) -> None:
    """What an ADD costs through genie, beside the bare delegates in the same run."""
    _install(session)
    session.run("python", "-m", "benchmarks.add_cost", *session.posargs)


@nox.session
def lock(session: nox.Session) -> None:
    """Write requirements.lock anew, for every platform and Python that the project supports."""
    session.install("-q", "uv")
    session.run(
        *("uv", "pip", "compile", "pyproject.toml", "--all-extras", "--universal", "--python-version", "3.11"),
        *("--generate-hashes", "--no-emit-index-url", "--quiet", "--output-file", LOCK, *session.posargs),
    )
