"""STATUS: whether an ADD can work now."""

from __future__ import annotations

from tests.rigs.core import Node, failing


def test_status(node: Node) -> None:
    env = {"CNI_CONTAINERID": None, "CNI_NETNS": None, "CNI_IFNAME": None, "CNI_ARGS": None}
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
