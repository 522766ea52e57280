"""Scenarios of tests, run on the cluster in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.report.outcome import Outcome
from harness.run.life import Options, run
from harness.scenario.reading import parse
from tests.rigs.fake_cluster import FakeCluster

PODS = """\
scenario: A pod on two networks
networks: [calico, weave]
pods:
  both: {annotations: {cni: "calico,weave"}}
  peer: {annotations: {cni: weave}, node: other}
"""


def two(*checks: str) -> str:
    """A scenario of a pod on two networks and one on the second, with these checks."""
    return PODS + "expect:\n" + "".join(f"  - {check}\n" for check in checks)


@dataclass(frozen=True)
class Runner:
    """Runs scenarios with short deadlines."""

    report: Path

    def __call__(
        self,
        text: str,
        *,
        shared: bool = False,
        keep: bool = False,
        cluster: FakeCluster | None = None,
        hurry: float = 0.02,
        **made: Any,
    ) -> tuple[Outcome, FakeCluster]:
        """Run a scenario on a cluster, or on one that is `made` for it; returns both."""
        cluster = cluster or FakeCluster(**made)
        options = Options(report=self.report, locks=self.report / "locks", shared=shared, keep=keep, hurry=hurry)
        outcome = run(parse(text, "scenarios/it.yaml"), cluster, options)
        assert Outcome.from_json(outcome.to_json()) == outcome
        return outcome, cluster

    def fails(self, text: str, **how: Any) -> str:
        """Run a scenario that must fail; returns the texts of its failures."""
        outcome, cluster = self(text, **how)
        assert cluster.store == {}, "whatever happens, all is gone at the end"
        return failures(outcome)


def failures(outcome: Outcome) -> str:
    """The texts of a scenario's failures; there must be some."""
    assert outcome.verdict == "failed", outcome
    return "\n".join(f"{where}: {what}" for where, what in outcome.failures)
