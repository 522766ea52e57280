"""A node to install genie on, and one where it is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genie.node.files import Node
from tests.rigs.api import Api, kubeconfig
from tests.rigs.core import Node as Installed


@pytest.fixture
def machine(tmp_path: Path) -> Node:
    for name in ("bin", "net.d", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "net.d" / "10-flannel.conflist").write_text("{}")
    return Node(bin_dir=str(tmp_path / "bin"), conf_dir=str(tmp_path / "net.d"), state_dir=str(tmp_path / "state"))


@pytest.fixture
def conf(node: Installed, api: Api) -> str:
    """The path of a genie.conf for the node and the API server."""
    (node.root / "kubeconfig").write_text(json.dumps(kubeconfig(api.url)))
    data = {
        "name": "k8s",
        "type": "genie",
        "cniVersion": "1.0.0",
        "conf_dir": str(node.net_d),
        "state_dir": str(node.root / "state"),
        "kubernetes": {"kubeconfig": str(node.root / "kubeconfig")},
    }
    node.write("00-genie.conf", data)
    return str(node.net_d / "00-genie.conf")
