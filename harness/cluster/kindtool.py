"""The `kind` command, found on PATH or downloaded in a pinned version, and calls of it."""

from __future__ import annotations

import platform
import re
import shutil
from pathlib import Path

import yaml

from harness.cluster import engine
from harness.contract import Unavailable
from harness.download import Download, NotHad

OLDEST = (0, 30)
PINNED = "v0.30.0"
SHA256 = {
    "linux-amd64": "517ab7fc89ddeed5fa65abf71530d90648d9638ef0c4cde22c2c11f8097b8889",
    "linux-arm64": "7ea2de9d2d190022ed4a8a4e3ac0636c8a455e460b9a13ccf19f15d07f4f00eb",
    "darwin-amd64": "4f0b6e3b88bdc66d922c08469f05ef507d4903dd236e6319199bb9c868eed274",
    "darwin-arm64": "ceaf40df1d1551c481fb50e3deb5c3deecad5fd599df5469626b70ddf52a1518",
}
POD_SUBNET = "10.244.0.0/16"  # the range of the nodes' pod subnets, which flannel and canal use


class Kind:
    """The command and one cluster's name."""

    def __init__(self, name: str, binary: str = "") -> None:
        self.name, self.binary = name, binary or find()

    def exists(self) -> bool:
        """Whether a cluster of this name exists, in any state."""
        return self.name in engine.run(self.binary, "get", "clusters").split()

    def nodes(self) -> tuple[str, ...]:
        """The cluster's nodes, the control plane first."""
        found = engine.run(self.binary, "get", "nodes", "--name", self.name).split()
        return tuple(sorted(found, key=lambda node: ("control-plane" not in node, node)))

    def create(self, kubeconfig: Path, image: str = "") -> None:
        """Create the cluster: one control plane and two workers, without a pod network."""
        config = {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "networking": {"disableDefaultCNI": True, "podSubnet": POD_SUBNET},
            "nodes": [{"role": role} for role in ("control-plane", "worker", "worker")],
        }
        chosen = ["--image", image] if image else []
        engine.run(
            self.binary, "create", "cluster", "--name", self.name, "--config", "-", "--kubeconfig", str(kubeconfig),
            *chosen, stdin=yaml.safe_dump(config).encode(), timeout=900,
        )  # fmt: skip

    def kubeconfig(self, path: Path) -> None:
        """Write the cluster's kubeconfig."""
        path.write_text(engine.run(self.binary, "get", "kubeconfig", "--name", self.name))
        path.chmod(0o600)

    def load(self, images: tuple[str, ...]) -> None:
        """Load images from the engine onto the nodes that lack them."""
        if images:
            engine.run(self.binary, "load", "docker-image", "--name", self.name, *images, timeout=900)

    def delete(self) -> None:
        """Delete the cluster; no error if there is none."""
        engine.run(self.binary, "delete", "cluster", "--name", self.name, timeout=300)


def find() -> str:
    """The kind command: the one on PATH if it is new enough, else the pinned release, downloaded once.

    Raises Unavailable: kind is not on PATH and cannot be downloaded.
    """
    seen = ""
    if there := shutil.which("kind"):
        seen = engine.run(there, "version")
        if version(seen) >= OLDEST:
            return there
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    target = f"{platform.system().lower()}-{machine}"
    reason = f"the kind on PATH is too old ({seen.strip()})" if seen else "there is no kind on PATH"
    if target not in SHA256:
        raise Unavailable(f"{reason}, and no release is pinned for {target}: install kind {PINNED} or later")
    url = f"https://github.com/kubernetes-sigs/kind/releases/download/{PINNED}/kind-{target}"
    try:
        path = Download(urls=(url,), checksum=f"sha256:{SHA256[target]}").get()
    except NotHad as error:
        advice = f"install kind {PINNED} or later"
        raise Unavailable(f"{reason}, and {PINNED} cannot be downloaded ({error}): {advice}") from error
    path.chmod(0o755)
    return str(path)


def version(text: str) -> tuple[int, int]:
    """kind's version, from the output of `kind version`."""
    found = re.search(r"v(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
