"""The suite as an Indexed Job: each pod runs one shard against the cluster that it is on, and saves its report in a
ConfigMap.

A ConfigMap outlives the pod, and needs no volume and no registry. The pods share a node, and there a directory, in
which they take turns: a scenario that disturbs others must not run beside another shard's.
"""

from __future__ import annotations

import base64
import io
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.cluster.apply import Object
from harness.objects import Objects, selector

NAMESPACE = "genie-suite"
FILES = "/suite-files"  # where the pods find the user's files
_NAME = {"app.kubernetes.io/name": "genie-suite"}
_JOB = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{NAMESPACE}"
_CONFIG_MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
_MOST = 900_000  # bytes in a ConfigMap, which may have 1 MiB
_SHARED = "/run/genie-suite"  # on the node; gone after a reboot
_LOG = 60_000  # characters of a pod's output that its ConfigMap keeps


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What to run."""

    image: str  # the suite's
    shards: int
    genie_image: str = ""  # for a cluster without genie
    deadline: int = 0  # seconds for each shard; 0: no limit
    arguments: tuple[str, ...] = ()  # of pytest
    files: Mapping[str, str] = field(default_factory=dict)  # names to texts, for FILES


@dataclass(frozen=True, kw_only=True)
class Shard:
    """What a pod saved."""

    number: int  # from 1
    code: int
    log: str
    archive: bytes  # of its report's directory; empty if it wrote no report


def objects(suite: Suite) -> list[Object]:
    """Everything that `kubectl apply` needs, in that order."""
    metadata = {"name": NAMESPACE, "namespace": NAMESPACE, "labels": _NAME}
    privileged = {"pod-security.kubernetes.io/enforce": "privileged"}  # for the shared directory
    account = {"kind": "ServiceAccount", "name": NAMESPACE, "namespace": NAMESPACE}
    rights = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    made: list[Object] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": _NAME | privileged}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        # It installs genie, creates definitions and privileged pods: no smaller role could do that.
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": NAMESPACE, "labels": _NAME}, "roleRef": rights, "subjects": [account],
        },
    ]  # fmt: skip
    if suite.files:
        files = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**metadata, "name": "files"}}
        made.append({**files, "data": dict(suite.files)})
    spec: Object = {
        "completionMode": "Indexed",
        "completions": suite.shards,
        "parallelism": suite.shards,
        "backoffLimit": suite.shards,  # a pod fails only if it could not save its report
        "template": {"metadata": {"labels": _NAME}, "spec": _pod(suite)},
    }
    if suite.deadline:
        spec["activeDeadlineSeconds"] = suite.deadline + 600  # for the start and the end of a shard
    return [*made, {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}]


def _pod(suite: Suite) -> Object:
    """The pods' common specification."""
    command = ["python", "-m", "harness", "job", "run", "--shards", str(suite.shards), "--", *suite.arguments]
    if suite.deadline:
        command += ["--deadline", str(suite.deadline)]
    environment = {"XDG_CACHE_HOME": "/shared", "HOME": "/tmp"} | (
        {"GENIE_IMAGE": suite.genie_image} if suite.genie_image else {}
    )
    mounts = [("shared", "/shared")]
    volumes: list[Object] = [{"name": "shared", "hostPath": {"path": _SHARED, "type": "DirectoryOrCreate"}}]
    if suite.files:
        mounts.append(("files", FILES))
        volumes.append({"name": "files", "configMap": {"name": "files"}})
    container = {
        "name": "suite", "image": suite.image, "command": command,
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts],
    }  # fmt: skip
    together = {"labelSelector": {"matchLabels": _NAME}, "topologyKey": "kubernetes.io/hostname"}
    return {
        "serviceAccountName": NAMESPACE,
        "restartPolicy": "Never",
        "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [together]}},
        "containers": [container],
        "volumes": volumes,
    }


def sonobuoy(image: str, genie_image: str, arguments: Sequence[str]) -> Object:
    """The definition of a Sonobuoy plugin: one pod that runs everything. Sonobuoy's account has all rights."""
    spec = {
        "name": "plugin",
        "image": image,
        "command": ["python", "-m", "harness", "job", "run", "--sonobuoy", "--", *arguments],
        "env": [{"name": "GENIE_IMAGE", "value": genie_image}] if genie_image else [],
        "volumeMounts": [{"name": "results", "mountPath": "/tmp/sonobuoy/results"}],
    }
    about = {"driver": "Job", "plugin-name": "genie-cni", "result-format": "junit"}
    return {"sonobuoy-config": about, "spec": spec}


def packed(report: Path) -> bytes:
    """A report's directory as an archive; without evidence if that would be too large."""
    for names in ((), ("evidence",)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for path in sorted(report.iterdir()):
                if path.name not in (*names, "index.html"):  # the page is made again of the merged report
                    archive.add(path, path.name)
        if buffer.tell() <= _MOST:
            break
    return buffer.getvalue()


def save(api: Objects, shard: Shard) -> None:
    """Write a shard's report into its ConfigMap, in place of one that an earlier attempt of its pod wrote."""
    name = f"report-{shard.number}"
    api.delete(f"{_CONFIG_MAPS}/{name}")
    metadata = {"name": name, "labels": _NAME}
    data = {"code": str(shard.code), "log": shard.log[-_LOG:]}
    binary = {"report.tar.gz": base64.b64encode(shard.archive).decode()} if shard.archive else {}
    thing = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data, "binaryData": binary}
    api.create(thing, NAMESPACE)


def saved(api: Objects) -> Iterator[Shard]:
    """The reports of shards that are there."""
    for each in api.get(_CONFIG_MAPS, labelSelector=selector(_NAME))["items"]:
        name = str(each["metadata"]["name"])
        if name.startswith("report-"):
            archive = base64.b64decode((each.get("binaryData") or {}).get("report.tar.gz", ""))
            data = each["data"]
            yield Shard(number=int(name[7:]), code=int(data["code"]), log=data["log"], archive=archive)


def unfinished(api: Objects) -> str:
    """What a collection still has to wait for; empty if the Job has ended.

    Raises ApiError: there is no Job.
    """
    job: Any = api.get(_JOB)
    status = job.get("status") or {}
    ended = {each["type"] for each in status.get("conditions") or [] if each["status"] == "True"}
    if ended & {"Complete", "Failed"}:
        return ""
    return f"{status.get('succeeded', 0)} of {job['spec']['completions']} shards have ended"


def shards(api: Objects) -> int:
    return int(api.get(_JOB)["spec"]["completions"])


def unpacked(shard: Shard, into: Path) -> Path:
    """Write a shard's report into a directory, and return its path."""
    into.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(shard.archive)) as archive:
        archive.extractall(into, filter="data")
    return into


def index() -> int:
    """The index of this pod in its Job."""
    return int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
