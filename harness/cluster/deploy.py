"""Installs genie on a cluster: its image, and the manifests of genie/deploy with that image.

The image is built from this checkout. Its tag is a digest of its source files, so a kept cluster gets a new agent
exactly when a file changed. `$GENIE_IMAGE` names another image, for vendors without a checkout.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import ApiClient

from harness.cluster import engine
from harness.cluster.apply import Applier, Object, wait
from harness.cluster.software import merge
from harness.contract import Unavailable
from harness.download import FIXTURES
from harness.objects import Objects, selector
from harness.waiting import NotReady

NAMESPACE = "kube-system"
AGENT_LABEL = "app.kubernetes.io/name=genie"
HOPELESS = 5  # restarts of a failing container before the harness gives up
CONF_DIR = "/etc/cni/net.d"
CONF = f"{CONF_DIR}/00-genie.conflist"
ROOT = Path(__file__).resolve().parents[2]
#: The files that the Dockerfile copies; `.dockerignore` excludes all others.
SOURCES = (
    *("Dockerfile", "pyproject.toml", "README.md", "LICENSE", "hatch_build.py"),
    *("genie", "harness/__init__.py", "harness/flow.py", "harness/probe.py"),
)


def image() -> str:
    """The image to use: `$GENIE_IMAGE`, else one built from this checkout, unless the engine already has it.

    Raises Unavailable: neither is possible.
    """
    if named := os.environ.get("GENIE_IMAGE"):
        engine.have_image(named)
        return named
    if not (ROOT / "Dockerfile").is_file():
        raise Unavailable("genie's image: there is no checkout to build it from; name one in $GENIE_IMAGE")
    tag = f"genie:{digest()}"
    if not engine.image_id(tag):
        try:
            engine.build(ROOT, tag, ROOT / "Dockerfile", {"genie.harness": "image"})
        except engine.CommandFailed as error:
            raise Unavailable(f"genie's image cannot be built: {error}") from error
    return tag


def digest() -> str:
    """A digest of all source files of the image."""
    total = hashlib.sha256()
    for path in sorted(path for name in SOURCES for path in _files(ROOT / name)):
        total.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return total.hexdigest()[:12]


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    elif path.is_file():
        yield path


def objects(genie_image: str, *, policies: bool = False) -> list[Object]:
    """The objects of genie/deploy, as `kubectl apply -k` would apply them, with this image.

    policies: with the component for network policies.
    """
    base = resources.files("genie") / "deploy"
    things, _ = _kustomized(base)
    if policies:
        more, patches = _kustomized(base / "policy")
        for patch in patches:
            things = [merge(each, patch) if _names(patch) == _names(each) else each for each in things]
        things += more
    return [_with_image(thing, genie_image) if thing["kind"] == "DaemonSet" else thing for thing in things]


def _kustomized(folder: Traversable) -> tuple[list[Object], list[Object]]:
    """The objects of a kustomization, and its patches."""
    file = yaml.safe_load((folder / "kustomization.yaml").read_text())
    found = [yaml.safe_load_all(folder.joinpath(name).read_text()) for name in file["resources"]]
    patches = [yaml.safe_load(each["patch"]) for each in file.get("patches", ())]
    return [thing for documents in found for thing in documents if thing], patches


def _names(thing: Object) -> tuple[str, str]:
    return thing["kind"], thing["metadata"]["name"]


def crds() -> list[Object]:
    """The definitions of network objects that genie reads but does not install."""
    return [
        thing
        for path in sorted((FIXTURES / "crds").glob("*.yaml"))
        for thing in yaml.safe_load_all(path.read_text())
        if thing
    ]


def _with_image(daemonset: Object, genie_image: str) -> Object:
    containers = daemonset["spec"]["template"]["spec"]["containers"]
    images = [{"name": each["name"], "image": genie_image} for each in containers]
    return merge(daemonset, {"spec": {"template": {"spec": {"containers": images}}}})


def install(api: ApiClient, genie_image: str, timeout: float = 180.0) -> None:
    """Apply genie's manifests, with network policies, and wait until every node has a ready agent.

    Raises NotReady: some agents are not ready; the message has the last state.
    """
    Applier(api).apply(objects(genie_image, policies=True))
    wait("genie", lambda: rollout(Objects(api), "DaemonSet", NAMESPACE, "genie"), timeout)


def remove_pods(api: ApiClient, timeout: float = 90.0) -> None:
    """Delete genie's DaemonSet and wait until its pods are gone; they restore their nodes."""
    listed = Objects(api)
    Applier(api).delete([thing for thing in objects("") if thing["kind"] == "DaemonSet"])

    def still_there() -> str:
        pods = listed.get(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=AGENT_LABEL)["items"]
        return ", ".join(pod["metadata"]["name"] for pod in pods)

    wait("deletion of genie's pods", still_there, timeout)


def rollout(objects: Objects, kind: str, namespace: str, name: str) -> str:
    """The missing part of the rollout of a DaemonSet or Deployment; empty if it is complete.

    Raises NotReady: a container fails again and again, so there is no point in waiting.
    """
    thing = objects.get(f"/apis/apps/v1/namespaces/{namespace}/{kind.lower()}s/{name}")
    spec, status = thing["spec"], thing.get("status", {})
    if kind == "DaemonSet":
        wanted, keys = status.get("desiredNumberScheduled", 0), ("numberReady", "updatedNumberScheduled")
    else:
        wanted, keys = spec.get("replicas", 1), ("availableReplicas", "updatedReplicas")
    ready = min(status.get(key, 0) for key in keys)
    if status.get("observedGeneration", 0) < thing["metadata"]["generation"]:
        return f"{kind} {name}: the controller has not seen it yet"
    if not wanted or ready < wanted:
        trouble = _trouble(objects, namespace, spec["selector"]["matchLabels"])
        return f"{kind} {name}: {ready} of {wanted} ready{': ' + trouble if trouble else ''}"
    return ""


def _trouble(objects: Objects, namespace: str, labels: dict[str, str]) -> str:
    """Why pods do not start: the kubelet's reason, and the last line of an exited container."""
    reasons: dict[str, None] = {}
    for pod in objects.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector(labels))["items"]:
        for container in (*_containers(pod, "initContainerStatuses"), *_containers(pod, "containerStatuses")):
            waiting = container["state"].get("waiting", {})
            ended = container.get("lastState", {}).get("terminated", {})
            if waiting.get("reason", "PodInitializing") not in ("PodInitializing", "ContainerCreating"):
                message = ended.get("message") or waiting.get("message", "")
                reason = f"{container['name']}: {waiting['reason']} ({message.strip()[-400:]})"
                if container.get("restartCount", 0) >= HOPELESS:
                    raise NotReady(f"pod {pod['metadata']['name']}: {reason}")
                reasons[reason] = None
    return "; ".join(reasons)


def _containers(pod: dict[str, Any], key: str) -> list[dict[str, Any]]:
    return list(pod.get("status", {}).get(key) or [])
