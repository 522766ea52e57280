"""Runs that share a cluster: who lives, and who may change what all of them use."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from harness.backends import kind
from harness.cluster import runs
from harness.cluster.state import NAME, hold
from harness.contract import Unavailable
from harness.objects import OF_SCENARIOS, Objects
from harness.progress import Progress
from harness.waiting import NotReady
from tests.rigs.fake_cluster import FakeCluster

LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/genie-harness"


def _ended() -> str:
    """The annotation of a process of this machine that has ended."""
    process = subprocess.Popen(["sleep", "60"])
    begun = runs._begun(process.pid)
    process.kill()
    process.wait()
    boot, space, *_ = runs._me().split()
    return f"{boot} {space} {process.pid} {begun}"


def _elsewhere() -> str:
    return "another-boot pid:[1] 1 1"


def _add(objects: Objects, run: str, holder: str, age: timedelta) -> None:
    thing = runs.namespace(run)
    thing["metadata"]["annotations"] = {runs.HOLDER: holder}
    thing["metadata"]["creationTimestamp"] = (datetime.now(UTC) - age).strftime("%Y-%m-%dT%H:%M:%SZ")
    objects.create(thing)


def test_a_run_sees_the_others_that_live_and_removes_those_that_were_killed() -> None:
    cluster, minute, week = FakeCluster(), timedelta(minutes=1), timedelta(days=7)
    objects = Objects(cluster.api())
    _add(objects, "mine", runs._me(), minute)
    _add(objects, "beside", runs._me(), week)
    _add(objects, "killed", _ended(), minute)
    _add(objects, "far", _elsewhere(), minute)
    _add(objects, "long-ago", _elsewhere(), week)
    assert runs.others(objects, "mine") == ["genie-harness-beside", "genie-harness-far"]
    assert {path.rpartition("/")[2] for path in cluster.store} == {
        f"genie-harness-{run}" for run in ("mine", "beside", "far")
    }


def test_namespaces_of_scenarios_that_a_run_kept_are_removed() -> None:
    cluster = FakeCluster()
    objects = Objects(cluster.api())
    labels = {"labels": OF_SCENARIOS}
    objects.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "genie-weave-1", **labels}})
    objects.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "genie-preflight-2", **labels}})
    assert runs.kept(objects) == ["genie-weave-1", "genie-preflight-2"]
    runs.remove_kept(objects, 1)
    assert cluster.store == {}


def _lease(holder: str) -> dict[str, Any]:
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = {"name": "genie-harness", "annotations": {runs.HOLDER: holder}, "creationTimestamp": created}
    return {"kind": "Lease", "metadata": metadata}


def test_two_runs_do_not_prepare_a_cluster_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster()
    objects = Objects(cluster.api())
    monkeypatch.setattr(runs, "PATIENCE", 0.1)
    with runs.exclusive(objects):
        assert LEASE in cluster.store
        with pytest.raises(NotReady, match="another run prepares"), runs.exclusive(objects):
            pass
        assert LEASE in cluster.store, "who waits in vain takes nothing away"
    assert cluster.store == {}


def test_a_run_that_was_killed_while_it_prepared_the_cluster_stops_nobody() -> None:
    cluster = FakeCluster()
    cluster.store[LEASE] = _lease(_ended())
    with runs.exclusive(Objects(cluster.api())):
        pass
    assert cluster.store == {}


def test_a_kind_cluster_has_one_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    name, held = kind._first_free(Progress())
    assert name == NAME
    second, other = kind._first_free(Progress())
    assert second == f"{NAME}-2"
    with pytest.raises(Unavailable, match="another run uses the cluster genie"):
        kind._claim(NAME)
    with pytest.raises(Unavailable, match="another run uses the cluster genie"):
        kind.delete(NAME)
    held.close()
    again = hold(NAME)
    assert again is not None
    again.close()
    other.close()
