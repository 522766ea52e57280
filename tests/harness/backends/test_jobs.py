"""`harness job`: its manifest, what a pod runs and saves, and the report that a collection makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from harness.__main__ import main
from harness.backends import existing, jobs
from harness.cluster import suite_job
from harness.cluster.real import client
from harness.exits import Exit
from harness.report.outcome import Verdict
from harness.report.published import read
from tests.rigs.fake_cluster import FakeCluster
from tests.rigs.runs import outcome, report, saved

NAMES = ("a", "b", "c", "d")
JOB = "/apis/batch/v1/namespaces/genie-suite/jobs/genie-suite"


def _report(into: Path, shard: str, verdicts: Mapping[str, Verdict], code: int = 0) -> None:
    outcomes = [outcome(verdict, name) for name, verdict in verdicts.items()]
    saved(report(*outcomes, selected=NAMES, code=Exit(code), shard=shard), into)
    (into / "junit.xml").write_text('<testsuites><testsuite name="pytest"/></testsuites>')


@dataclass
class Pods:
    """Runs `harness job run` as pods do, with a pytest that only writes reports."""

    cluster: FakeCluster
    place: Path
    patch: pytest.MonkeyPatch
    commands: list[Sequence[str]] = field(default_factory=list)

    def run(self, index: int, verdicts: Mapping[str, Verdict], code: int = 0, args: Sequence[str] = ()) -> None:
        def pytest_of_pod(command: Sequence[str]) -> tuple[int, str]:
            self.commands.append(command)
            if code != Exit.USAGE:
                into = Path(command[command.index("--report") + 1])
                _report(into, command[command.index("--shard") + 1], verdicts, code)
            return code, "the output\n"

        self.patch.setattr(jobs, "_shown", pytest_of_pod)
        self.patch.setattr(jobs, "REPORT", self.place / f"pod-{index}")
        self.patch.setenv("JOB_COMPLETION_INDEX", str(index))
        assert main(["job", "run", "--shards", "2", "--", *args]) == 0


@pytest.fixture
def pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pods:
    cluster = FakeCluster()
    status = {"conditions": [{"type": "Complete", "status": "True"}]}
    cluster.store[JOB] = {"spec": {"completions": 2}, "status": status}
    monkeypatch.setattr(jobs, "client", lambda _: cluster.api())
    return Pods(cluster=cluster, place=tmp_path, patch=monkeypatch)


def _collect(out: Path) -> int:
    return main(["job", "collect", "--out", str(out), "--wait", "0.1"])


def test_the_shards_reports_become_one(pods: Pods, tmp_path: Path) -> None:
    pods.run(0, {"a": "passed", "b": "passed"}, args=["-k", "x"])
    pods.run(1, {"c": "failed", "d": "skipped"}, code=1)
    assert _collect(tmp_path / "out") == 1
    scenarios = read(tmp_path / "out").scenarios
    assert {each.name: each.verdict for each in scenarios} == {
        "a": "passed", "b": "passed", "c": "failed", "d": "skipped",
    }  # fmt: skip
    first, second = pods.commands
    assert first[-8:-4] != second[-8:-4]
    assert [each[each.index("--shard") + 1] for each in pods.commands] == ["1/2", "2/2"]
    assert "existing" in first and "-k" in first


def test_a_shard_without_a_report_is_broken_and_its_scenarios_did_not_run(
    pods: Pods, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pods.run(0, {"a": "passed", "b": "passed"})
    pods.cluster.store[JOB]["status"] = {"conditions": [{"type": "Failed", "status": "True"}]}
    assert _collect(tmp_path / "out") == 3
    assert "shard 2/2 has saved nothing" in capsys.readouterr().err
    assert read(tmp_path / "out").counts == {"passed": 2, "not run": 2}


def test_a_mistake_in_the_options_is_shown_with_the_pods_output(
    pods: Pods, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in (0, 1):
        pods.run(index, {}, code=4)
    assert _collect(tmp_path / "out") == 4
    assert "shard 2/2 wrote no report:\nthe output" in capsys.readouterr().err


def test_a_collection_that_waits_too_long_or_finds_no_job_is_broken(
    pods: Pods, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pods.cluster.store[JOB]["status"] = {"succeeded": 1}
    assert _collect(tmp_path / "out") == 3
    assert "1 of 2 shards have ended" in capsys.readouterr().err
    del pods.cluster.store[JOB]
    assert _collect(tmp_path / "out") == 3
    assert "jobs/genie-suite not found" in capsys.readouterr().err


def test_evidence_that_is_too_large_is_left_out(tmp_path: Path) -> None:
    import random

    _report(tmp_path, "1/2", {"a": "passed"})
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence/small").write_bytes(b"x")
    shard = suite_job.Shard(number=1, code=0, log="", archive=suite_job.packed(tmp_path))
    assert (suite_job.unpacked(shard, tmp_path / "all") / "evidence/small").exists()
    (tmp_path / "evidence/large").write_bytes(random.Random(1).randbytes(1_000_000))
    shard = suite_job.Shard(number=1, code=0, log="", archive=suite_job.packed(tmp_path))
    assert not (suite_job.unpacked(shard, tmp_path / "less") / "evidence").exists()
    assert (tmp_path / "less/report.json").exists()


def test_the_manifest_has_a_pod_for_each_shard_with_the_users_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("scenario: x\n")
    args = ["--scenarios", str(tmp_path / "mine.yaml"), "--deadline", "60", "--genie-image", "genie:1"]
    assert main(["job", "--image", "suite:1", "--shards", "8", *args, "--", "-k", "a b"]) == 0
    text = capsys.readouterr().out
    things = {thing["kind"]: thing for thing in yaml.safe_load_all(text)}
    assert "*id" not in text
    spec = things["Job"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["activeDeadlineSeconds"]) == ("Indexed", 8, 660)
    [container] = spec["template"]["spec"]["containers"]
    assert container["command"][-5:] == ["/suite-files/mine.yaml", "-k", "a b", "--deadline", "60"]
    assert {"name": "GENIE_IMAGE", "value": "genie:1"} in container["env"]
    assert things["ConfigMap"]["data"] == {"mine.yaml": "scenario: x\n"}
    assert things["ClusterRoleBinding"]["subjects"][0]["namespace"] == things["Namespace"]["metadata"]["name"]


def test_a_sonobuoy_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["job", "--image", "suite:1", "--sonobuoy", "--", "-k", "ptp"]) == 0
    made = yaml.safe_load(capsys.readouterr().out)
    assert made["sonobuoy-config"] == {"driver": "Job", "plugin-name": "genie-cni", "result-format": "junit"}
    assert made["spec"]["command"][-4:] == ["--sonobuoy", "--", "-k", "ptp"]


@pytest.mark.parametrize(
    "args", [[], ["--image", "x", "--shards", "0"], ["--image", "x", "--scenarios", "/nonexistent.yaml"]]
)
def test_a_refused_wish_prints_no_manifest(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["job", *args]) == 4
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("host", "server"), [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
def test_in_a_pod_the_cluster_is_its_own(
    host: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("token", "secret"), ("ca.crt", "")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(existing, "_ACCOUNT", tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    loaded = client(existing.kubeconfig()).configuration
    assert loaded.host == server
    assert loaded.auth_settings()["BearerToken"]["value"] == "Bearer secret"
    monkeypatch.setenv("KUBECONFIG", "/mine")
    assert existing.kubeconfig() == Path("/mine")
