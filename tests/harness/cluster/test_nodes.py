"""What the harness does to kind's nodes, on a real one; needs a Docker engine with kind's image."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from harness.cluster import engine
from harness.cluster.nodes import DockerNodes, allow_ipv6


@pytest.fixture
def node() -> Iterator[str]:
    """A container of kind's image in which nothing runs, as an engine without IPv6 starts it."""
    image = os.environ.get("GENIE_NODE_IMAGE", "")
    if not image or engine.answers():
        pytest.skip(f"kind's nodes: {engine.answers() or 'no image of a node is named in GENIE_NODE_IMAGE'}")
    off = ("--sysctl", "net.ipv6.conf.all.disable_ipv6=1", "--network", "none")
    name = engine.docker("run", "-d", "--rm", "--privileged", *off, "--entrypoint", "sleep", image, "600").strip()
    yield name
    engine.docker("rm", "-f", name)


def test_a_bridge_of_a_node_takes_ipv6_addresses_after_each_start(node: str) -> None:
    def add(bridge: str) -> str:
        script = f"ip link add {bridge} type bridge && ip address add fd00:86::1/64 dev {bridge} && echo added"
        return DockerNodes().run(node, "sh", "-c", script, check=False).strip()

    assert add("before") == ""
    allow_ipv6(DockerNodes(), node)
    assert add("after") == "added"
