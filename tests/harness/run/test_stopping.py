"""What stops a scenario: its own limit, an interrupt, the deadline of the run; each is in its outcome."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.report.outcome import Outcome
from harness.run import stopping
from harness.run.life import Options, run
from harness.run.stopping import Stop, Stopped
from harness.scenario.reading import parse
from tests.rigs.fake_cluster import FakeCluster
from tests.rigs.scenarios import two

HANDLED = (signal.SIGALRM, signal.SIGTERM, signal.SIGINT)


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stop]:
    monkeypatch.setattr(stopping, "CLOSING", 2.0)
    before = {number: signal.getsignal(number) for number in HANDLED}
    stop = Stop()
    stop.listen(worker=False)
    yield stop
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


def lived(stop: Stop, into: Path, *, limit: float = 0.0, ask: Any = None) -> tuple[Outcome, FakeCluster]:
    """Run a scenario with a check that asks the cluster something else."""
    cluster = FakeCluster()
    cluster.ask = ask or cluster.ask  # type: ignore[method-assign]
    options = Options(report=into, locks=into / "locks", limit=limit, stop=stop)
    scenario = parse(two("interfaces: {pod: both, eth0: calico, eth1: weave}"), "scenarios/it.yaml")
    return run(scenario, cluster, options), cluster


def hang(*_: Any) -> Any:
    time.sleep(60)


def test_a_scenario_that_hangs_fails_when_its_limit_is_over_and_leaves_nothing(stop: Stop, tmp_path: Path) -> None:
    outcome, cluster = lived(stop, tmp_path, limit=0.3, ask=hang)
    assert outcome.verdict == "failed"
    [(_, text)] = [(where, text) for where, text in outcome.failures if where == "limit"]
    assert re.match(r"the scenario's limit of [\d.]+ s is over, during: interfaces", text), "it grows on a busy machine"
    assert cluster.store == {}


def test_an_interrupted_scenario_is_not_run_and_leaves_nothing(stop: Stop, tmp_path: Path) -> None:
    def interrupted(*_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        hang()

    outcome, cluster = lived(stop, tmp_path, ask=interrupted)
    assert (outcome.verdict, outcome.reason.partition(": ")[0]) == ("not run", "interrupted, during")
    assert cluster.store == {}
    outcome, cluster = lived(stop, tmp_path)
    assert (outcome.verdict, outcome.reason) == ("not run", "interrupted")


def test_nothing_begins_after_the_deadline(stop: Stop, tmp_path: Path) -> None:
    stop.deadline, stop.seconds = time.monotonic() - 1, 5.0
    assert stop.reason() == "the run's deadline of 5 s was over"


def test_what_cleans_up_is_not_stopped_by_an_interrupt_but_by_its_time(
    stop: Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.run.stopping.HASTY", 0.3)
    done = []
    with pytest.raises(Stopped, match="cleaning up took too long"), stop.closing():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("after the interrupt")
        hang()
    assert done == ["after the interrupt"]
    assert stop.interrupted


def test_one_press_that_arrives_twice_is_one(stop: Stop) -> None:
    """A process above this one passes on what the terminal sent to both."""
    stop.second = lambda: pytest.fail("it was one press")
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.interrupted
