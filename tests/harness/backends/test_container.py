"""How pytest starts again in a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.backends import container


def test_pytest_is_started_again_in_the_container(tmp_path: Path) -> None:
    argv = ["/venv/bin/python", "-m", "pytest", "scenarios", "--backend", "container"]
    script = container.command(argv, tmp_path)
    assert script[:2] == ["sh", "-c"]
    assert script[4:] == [
        *("python", "-m", "pytest", "-p", "harness.plugin", "scenarios", "--backend", "container"),
        *("--backend", "embedded", "-p", "no:cacheprovider"),
    ]


@pytest.mark.parametrize(
    ("argv", "report"),
    [([], "report"), (["--report=out"], "out"), (["--report", "out"], "out"), (["--report=/tmp/x"], "/tmp/x")],
)
def test_where_the_container_writes_its_report(argv: list[str], report: str) -> None:
    assert container.report_of(argv) == Path.cwd() / report
