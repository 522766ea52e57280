"""STATUS: whether an ADD can work now."""

from __future__ import annotations

import pytest

from genie.cni.errors import CniError, Code
from genie.kube import Default
from tests.rigs.core import Node, failing, full_disk

ENV = {"CNI_CONTAINERID": None, "CNI_NETNS": None, "CNI_IFNAME": None, "CNI_ARGS": None}


def test_status_is_of_the_nodes_default_networks_if_they_are_known(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.kube.default = Default(kind="Node", name="node-1", networks="weave-net")
    for name in ("calico", "weave-net"):
        node.install(name, version="1.1.0")
    node.ok("STATUS", **ENV)
    assert node.executor.made("STATUS") == [("weave-net", "")]

    async def away(namespace: str) -> Default | None:
        raise CniError(Code.TRY_AGAIN, "the API server cannot be reached")

    monkeypatch.setattr(node.kube, "defaults", away)
    node.ok("STATUS", **ENV)
    assert node.executor.made("STATUS")[1:] == [("calico", "")]


def test_status(node: Node) -> None:
    env = ENV
    node.install("calico", version="1.1.0")
    node.kube.away = True
    node.ok("STATUS", **env)
    assert node.executor.made("STATUS") == [("calico", "")]
    node.executor.act = failing("calico", "STATUS", code=51, msg="no address left")
    assert node.fails("STATUS", **env)["code"] == 51
    node.executor.act = failing("calico", "STATUS", code=7, msg="no")
    assert node.fails("STATUS", **env)["code"] == 50
    node.executor.act = lambda call: None
    node.conf["default_plugin"] = "flannel"
    node.ok("STATUS", **env)
    (node.root / "bin" / "flannel").unlink()
    error = node.fails("STATUS", **env)
    assert error["code"] == 50 and "no plugin 'flannel'" in error["msg"]
    node.conf.update(default_plugin="calico", state_dir=str(node.net_d / "10-calico.conf" / "x"))
    error = node.fails("STATUS", **env)
    assert error["code"] == 50 and "cannot keep records in" in error["msg"]


def test_status_fails_while_the_disk_takes_no_record(node: Node) -> None:
    node.ok("STATUS", **ENV)
    with full_disk():
        error = node.fails("STATUS", **ENV)
    assert (error["code"], error["msg"]) == (50, f"cannot keep records in {node.root}/state: File too large")
    assert node.left() == []
    node.ok("STATUS", **ENV)
    assert node.left() == []
