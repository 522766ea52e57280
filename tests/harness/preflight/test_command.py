"""A preflight: on the cluster in memory with its faults, and one on real plugins."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.__main__ import main
from harness.contract import SERVICES, Backend, Unavailable
from harness.objects import ApiError
from harness.preflight import command
from harness.preflight.page import render, shade
from harness.preflight.result import Preflight
from harness.preflight.table import show
from tests.rigs.fake_cluster import ABILITIES, FakeCluster


def survey(cluster: FakeCluster, *networks: str) -> Preflight:
    console = Console(file=io.StringIO())
    left: list[str] = []
    found = command._survey(cluster, networks, 0.1, console, left)
    assert cluster.store == {}, "whatever was found, all is gone at the end"
    assert left == []
    return found


def text(found: Preflight) -> str:
    """What the terminal shows."""
    printed = io.StringIO()
    show(found, Console(file=printed, width=200))
    return printed.getvalue()


def test_figures_of_every_pair_are_in_all_reports() -> None:
    found = survey(FakeCluster(nodes=("one", "two", "three")))
    assert found.passed
    assert [network.name for network in found.networks] == ["calico", "weave", "flannel", "bridge"]
    assert found.missing == {"canal": "its image cannot be had"}
    for network in found.networks:
        assert {(way.one, way.other) for way in network.ways} == {
            (one, other) for one in found.nodes for other in found.nodes if one != other
        }
        assert all((way.mtu, way.bits_per_second, way.latency_ms) == (1500, 10**9, 0.1) for way in network.ways)
    shown, page, plain = text(found), render(found), json.dumps(found.to_json())
    assert "0.10 ms, 1500, 1 Gbit/s" in shown
    assert "✓ preflight passes: calico, weave, flannel, bridge" in shown
    assert "canal: not measured: its image cannot be had" in shown
    assert all(words in page for words in ("Preflight passes", "1 Gbit/s", "0.10 ms", ">1500<", 'class="s5"'))
    assert json.loads(plain)["networks"][0]["ways"][0]["bits_per_second"] == 10**9


@pytest.mark.parametrize(
    ("fault", "reported"),
    [
        ("unreachable", "one to two: tcp to 10.4.0.12: no answer within 2 s"),
        ("narrow", "two to one: the path takes 1400 bytes in one piece, the interface's MTU is 1500"),
        ("wrong-pod", "one to two: tcp to 10.4.0.12: somebody answers, expected bridge-2"),
        ("never-runs", "bridge-1 is Pending on one"),
        ("probe-away", "does not answer"),
    ],
)
def test_a_fault_is_found_and_shown(fault: str, reported: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.preflight.survey.PATIENCE", 0.05)
    monkeypatch.setattr("harness.steps.scene.GIVE_UP", 0.1)
    found = survey(FakeCluster(faults=(fault,)), "bridge")
    assert not found.passed
    assert any(reported in line for network in found.networks for line in network.wrong), found.networks
    assert reported in " ".join(text(found).split())
    assert 'class="failed"' in render(found)


def test_services_dns_and_hairpin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.preflight.survey.SETTLE", 0.05)
    found = survey(FakeCluster(abilities=ABILITIES | {SERVICES}), "bridge")
    [one, two] = found.networks[0].spots
    assert (one.node, two.node) == ("one", "two")
    assert one.dns == ""
    assert "10.96.0.1" in str(one.hairpin), "nothing in memory leads from a Service to its pod"
    assert any("hairpin on two: tcp to 10.96.0.1" in line for line in found.networks[0].wrong)


def test_a_sample_is_called_one() -> None:
    found = survey(FakeCluster(nodes=tuple(f"n{number}" for number in range(12))), "bridge")
    assert found.sampled
    assert len(found.networks[0].ways) < 12 * 11
    assert "a sample of the pairs" in text(found)
    assert "Only a sample of the pairs was measured" in render(found)


def test_an_interrupted_preflight_leaves_nothing() -> None:
    class Impatient(FakeCluster):
        def ask(self, namespace: str, pod: str, request: Mapping[str, Any]) -> dict[str, Any]:
            assert self.store
            raise KeyboardInterrupt

    cluster = Impatient()
    with pytest.raises(KeyboardInterrupt):
        survey(cluster, "bridge")
    assert cluster.store == {}


@pytest.mark.parametrize("networks", [("canal",), ("bridge", "canal")])
def test_a_cluster_without_a_network_that_was_asked_for_is_broken(networks: tuple[str, ...]) -> None:
    cluster = FakeCluster()
    with pytest.raises(Unavailable, match="canal: its image cannot be had"):
        survey(cluster, *networks)
    assert cluster.store == {}


class Backed(FakeCluster):
    """The cluster in memory, with a backend around it; `error` is raised by a probe, `closing` at the end."""

    def __init__(self, error: BaseException | None = None, closing: Exception | None = None, **made: Any) -> None:
        super().__init__(**made)
        self.error, self.closing = error, closing

    def ask(self, namespace: str, pod: str, request: Mapping[str, Any]) -> dict[str, Any]:
        if self.error:
            raise self.error
        return super().ask(namespace, pod, request)

    def close(self, keep: bool = False) -> None:
        super().close(keep)
        if self.closing:
            raise self.closing


@pytest.mark.parametrize(
    ("cluster", "status", "words"),
    [
        (Backed(), 0, "preflight passes"),
        (Backed(faults=("unreachable",)), 1, "preflight fails"),
        (Backed(error=ApiError(0, "the API server cannot be reached")), 1, "the API server cannot be reached"),
        (Backed(error=KeyboardInterrupt()), 130, "interrupted; everything that preflight made has been removed"),
        (Backed(closing=ValueError("no way")), 3, "preflight cannot remove what it made: no way"),
        (Backed(error=KeyboardInterrupt(), closing=ValueError("no way")), 130, "cannot remove what it made: no way"),
    ],
)
def test_the_cluster_is_closed_and_the_status_says_what_was_found(
    cluster: Backed, status: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.preflight.survey.PATIENCE", 0.05)
    backend = Backend(name="fake", start=lambda options: cluster, connect=lambda options: cluster)
    monkeypatch.setattr(command, "choose", lambda asked, environment: (backend, "a test"))
    assert main(["preflight", "--networks", "bridge"]) == status
    printed = capsys.readouterr()
    assert words in printed.out + printed.err
    assert "Traceback" not in printed.err
    assert cluster.closed is False
    assert cluster.store == {}


def test_a_report_that_cannot_be_written_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = Backend(name="fake", start=lambda options: Backed(), connect=lambda options: Backed())
    monkeypatch.setattr(command, "choose", lambda asked, environment: (backend, "a test"))
    (tmp_path / "file").touch()
    assert main(["preflight", "--networks", "bridge", "--report", str(tmp_path / "file")]) == 3
    assert "File exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["--networks", "brigde"], 4, "unknown network 'brigde'"),
        (["--seconds", "0"], 4, "--seconds 0: expected more than 0, at most 60"),
        (["--seconds", "nan"], 4, "--seconds nan: expected more than 0"),
        (["--backend", "existing"], 3, "there is no kubeconfig /nowhere"),
    ],
)
def test_what_cannot_be_done_has_a_status_of_its_own(
    argv: list[str],
    status: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    assert main(["preflight", *argv]) == status
    assert words in capsys.readouterr().err


JUMBO = """\
network: jumbo
embedded:
  kind: real
  software: bridge + host-local with an MTU that the way between nodes does not take
  plugins: [bridge, host-local]
  subnets: [10.77.0.0/16]
  file: 77-jumbo.conf
  setup: [{routes: "10.77.{{ peer.number }}.0/24"}]
  conf:
    name: jumbo
    cniVersion: 1.0.0
    type: bridge
    bridge: br-jumbo
    mtu: 4000
    isDefaultGateway: true
    ipam: {type: host-local, ranges: [[{subnet: "10.77.{{ node.number }}.0/24"}]]}
"""


@pytest.mark.root
@pytest.mark.usefixtures("cni_bin")
def test_on_real_plugins_a_path_that_loses_large_packets_fails(tmp_path: Path) -> None:
    profile = tmp_path / "jumbo.yaml"
    profile.write_text(JUMBO)
    argv = ["--backend", "embedded", "--networks", "jumbo,macvlan", "--profile", profile, "--seconds", "0.1", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "harness", "preflight", *map(str, argv), "--report", str(tmp_path)],
        capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "GENIE_API": "kmock"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert json.loads((tmp_path / "preflight.json").read_text()) == found
    assert "macvlan: 2 pairs of nodes" in done.stderr, "progress is shown while it runs"
    jumbo, macvlan = sorted(found["networks"], key=lambda network: str(network["name"]))
    for way in jumbo["ways"]:
        assert way["mtu"] == 1500
        assert way["wrong"] == ["the path takes 1500 bytes in one piece, the interface's MTU is 4000"]
    assert macvlan["wrong"] == []
    assert len(macvlan["ways"]) == 2
    assert all(way["bits_per_second"] > 0 and way["latency_ms"] > 0 and way["mtu"] == 1500 for way in macvlan["ways"])
    assert "✗ 1500" in (tmp_path / "preflight.html").read_text()


@pytest.mark.parametrize(
    ("number", "values", "lower", "expected"),
    [
        (5.0, [5.0, 5.2], False, 5),
        (1.0, [1.0, 10.0], False, 1),
        (10.0, [1.0, 10.0], False, 5),
        (1.0, [1.0, 10.0], True, 5),
        (10.0, [1.0, 10.0], True, 1),
        (5.5, [1.0, 10.0], False, 3),
    ],
)
def test_the_best_value_has_the_deepest_shade(number: float, values: list[float], lower: bool, expected: int) -> None:
    assert shade(number, values, lower=lower) == expected
