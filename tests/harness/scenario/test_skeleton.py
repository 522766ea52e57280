"""`harness new`: the file that it writes has no mistakes; a wish that cannot be granted writes nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.__main__ import main
from harness.scenario.lint import known_networks, mistakes
from harness.scenario.reading import read
from harness.scenario.skeleton import write
from tests.rigs.scenarios import Runner

NETWORKS = sorted(known_networks())


@given(
    st.lists(st.sampled_from(NETWORKS), min_size=1, unique=True),
    st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True),
)
def test_a_new_scenario_has_no_mistakes_for_any_networks(networks: list[str], name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), name, networks, NETWORKS)
        assert mistakes(path) == []
        scenario = read(path)
        assert (scenario.name, list(scenario.networks)) == (name, networks)


def test_a_new_scenario_passes(go: Runner, tmp_path: Path) -> None:
    path = write(tmp_path, "mine", ["calico", "weave"], NETWORKS)
    outcome, _ = go(path.read_text())
    assert outcome.verdict == "passed", outcome.failures


def test_the_editors_schema_is_named_where_there_is_one(tmp_path: Path) -> None:
    line = "# yaml-language-server: $schema=schema.json\n"
    assert not write(tmp_path, "before", ["bridge"], NETWORKS).read_text().startswith(line)
    (tmp_path / "schema.json").write_text("{}")
    assert write(tmp_path, "after", ["bridge"], NETWORKS).read_text().startswith(line)


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["there"], "there.yaml: File exists"),
        (["../out"], "'../out': expected a name of at most 40"),
        (["Name"], "'Name': expected a name of at most 40"),
        (["a", "--networks", "brigde"], "unknown network 'brigde'; did you mean 'bridge'?"),
        (["a", "--networks", " , "], "expected names of networks, each once"),
        (["a", "--networks", "bridge,bridge"], "expected names of networks, each once"),
        (["a", "--directory", "there.yaml"], "there.yaml/a.yaml: "),
    ],
)
def test_a_refused_wish_is_one_line_and_writes_nothing(
    args: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.yaml").write_text("mine")
    where = [] if "--directory" in args else ["--directory", "."]
    assert main(["new", *args, *where]) == 4
    [line] = capsys.readouterr().err.splitlines()
    assert reason in line
    assert [path.name for path in tmp_path.iterdir()] == ["there.yaml"]
    assert (tmp_path / "there.yaml").read_text() == "mine"
