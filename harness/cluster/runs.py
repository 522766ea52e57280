"""Runs that share somebody's cluster: each has a namespace of its own, and the last one removes what all of them use.

A run's namespace says that the run exists. While a run adds or removes shared objects, such as genie, it holds a Lease,
so that no run removes what another has just found. Runs may be on different machines. A run that was killed is noticed
on its own machine at once, on others after a day.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.cluster.apply import Applier, Object, wait
from harness.objects import OF_SCENARIOS, ApiError, Objects, selector

RUN = "genie-harness/run"  # a label: the run that a namespace belongs to
HOLDER = "genie-harness/holder"  # an annotation: the process of a run
ADDED = "genie-harness/added"  # an annotation of shared objects that runs added; others were there before
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
_LEASE = "genie-harness"
PATIENCE = 900.0  # seconds: another run may be waiting for its images meanwhile
_FORGOTTEN = 86400.0  # seconds after which a run on another machine counts as ended


def new() -> str:
    """An ID for a run."""
    return secrets.token_hex(3)


def namespace_of(run: str) -> str:
    """The name of a run's namespace."""
    return f"genie-harness-{run}"


def namespace(run: str) -> Object:
    """The manifest of a run's namespace."""
    labels = {"pod-security.kubernetes.io/enforce": "privileged", RUN: run}
    metadata = {"name": namespace_of(run), "labels": labels, "annotations": {HOLDER: _me()}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def others(objects: Objects, run: str) -> list[str]:
    """The namespaces of other runs. Those of runs that were killed are deleted."""
    living = []
    for each in objects.get("/api/v1/namespaces", labelSelector=RUN)["items"]:
        meta = each["metadata"]
        if meta["labels"][RUN] == run or meta.get("deletionTimestamp"):
            continue
        if _lives(meta, _FORGOTTEN):
            living.append(str(meta["name"]))
        else:
            objects.delete(f"/api/v1/namespaces/{meta['name']}")
    return living


def kept(objects: Objects) -> list[str]:
    """The namespaces of scenarios: if no run uses the cluster, those that a run kept, or left because it was killed."""
    found = objects.get("/api/v1/namespaces", labelSelector=selector(OF_SCENARIOS))
    return [each["metadata"]["name"] for each in found["items"]]


def remove_kept(objects: Objects, within: float) -> None:
    """Delete the namespaces of scenarios: their pods occupy host ports and addresses.

    Raises NotReady: some are still there.
    """
    for name in kept(objects):
        objects.delete(f"/api/v1/namespaces/{name}")
    wait("deletion of kept namespaces", lambda: ", ".join(kept(objects)), within)


@contextmanager
def exclusive(objects: Objects) -> Iterator[None]:
    """No other run adds or removes shared objects during the context.

    Raises NotReady: another run does for too long.
    """
    metadata = {"name": _LEASE, "namespace": "kube-system", "annotations": {HOLDER: _me()}}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}

    def held() -> str:
        try:
            objects.create(lease)
        except ApiError as error:
            if error.status != 409:
                raise
            found = objects.find(f"{_LEASES}/{_LEASE}")
            if found and not _lives(found["metadata"], PATIENCE):
                objects.delete(f"{_LEASES}/{_LEASE}")
            return "another run prepares the cluster"
        return ""

    wait("the cluster", held, PATIENCE)
    try:
        yield
    finally:
        objects.delete(f"{_LEASES}/{_LEASE}")


def add(applier: Applier, things: Iterable[Object]) -> None:
    """Apply shared objects; those that a run adds are marked."""
    for thing in things:
        there = applier.find(thing)
        applier.apply([thing if there is not None and not _added(there) else _marked(thing)])


def added(applier: Applier, things: Iterable[Object]) -> list[Object]:
    """Those of the objects that are on the cluster because a run added them."""
    found = ((thing, applier.find(thing)) for thing in things)
    return [thing for thing, there in found if there is not None and _added(there)]


def _added(thing: Mapping[str, Any]) -> bool:
    return bool((thing["metadata"].get("annotations") or {}).get(ADDED))


def _marked(thing: Object) -> Object:
    meta = thing["metadata"]
    return {**thing, "metadata": {**meta, "annotations": {**(meta.get("annotations") or {}), ADDED: "true"}}}


def _me() -> str:
    """This process, with what makes its number unique: the machine's boot, the pid namespace, its start."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()} {os.getpid()} {_begun(os.getpid())}"


def _lives(metadata: Mapping[str, Any], longest: float) -> bool:
    """Whether the process of an object's annotation lives; elsewhere, whether the object is young enough."""
    here, (boot, space, pid, begun) = _me().split(), (metadata["annotations"][HOLDER].split() + [""] * 4)[:4]
    if [boot, space] == here[:2]:
        return bool(pid.isdigit() and _begun(int(pid)) == begun)
    age = datetime.now(UTC) - datetime.fromisoformat(str(metadata["creationTimestamp"]))
    return age.total_seconds() < longest


def _begun(pid: int) -> str:
    """When a process began, in the kernel's clock ticks; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
