"""A folder with scenarios, and runs of pytest in it on a cluster in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CONFTEST = """
import sys
sys.path.insert(0, {root!r})
from tests.rigs.fake_cluster import FakeCluster
from harness import waiting
from harness.backends import registry
from harness.contract import Backend, Unavailable

waiting._MOST = 0.2  # whatever the fake cluster has, it has at once
CLUSTER = FakeCluster(faults={faults!r})

def start(wanted):
    print("started for", ",".join(wanted.networks), file=sys.stderr)
    if "no-cluster" in CLUSTER.faults:
        raise Unavailable("no image, and no engine that answers")
    return CLUSTER

registry.BACKENDS["fake"] = lambda: Backend(name="fake", start=start, connect=lambda wanted: CLUSTER)
"""

SCENARIO = """\
scenario: A pod on {network}
networks: [{network}]
labels: [one-network, {network}-only]
pods: {{a: {{annotations: {{cni: {network}}}}}, b: {{annotations: {{cni: {network}}}}}}}
expect:
  - interfaces: {{pod: a, eth0: {network}}}
  - reach: {{from: a, to: b, over: {network}}}
"""


class Folder:
    """Scenarios of three networks, one of them missing on the cluster."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester, self.path = pytester, pytester.path
        self.scenarios = pytester.mkdir("scenarios")
        for network in ("calico", "weave", "canal"):
            (self.scenarios / f"{network}.yaml").write_text(SCENARIO.format(network=network))
        (self.scenarios / "schema.json").write_text("{}")
        (self.path / "pytest.ini").write_text("[pytest]\naddopts = -p no:kmock -p no:asyncio --strict-markers\n")

    def run(self, *args: str, faults: tuple[str, ...] = ()) -> pytest.RunResult:
        """Run pytest there, as a separate process unless it only collects."""
        if "--collect-only" in args:
            return self._pytester.runpytest_inprocess("--backend", "fake", *args)
        self._prepare(faults)
        return self._pytester.runpytest_subprocess("--backend", "fake", *args)

    def begin(self, *args: str) -> subprocess.Popen[bytes]:
        """Begin a run that waits for somebody: for input, or for changes."""
        self._prepare(())
        usual = (
            "env",
            "--default-signal=INT",
        )  # shells start background jobs with SIGINT ignored, and children inherit it
        command = [*usual, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--backend", "fake", *args]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.path, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)

    def _prepare(self, faults: tuple[str, ...]) -> None:
        (self.path / "conftest.py").write_text(CONFTEST.format(root=str(ROOT), faults=faults))
