"""The verbs with the real reference plugins, in network namespaces.

The plugins run in one private namespace, which acts as the host, and attach another, which acts as the pod.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from genie.cni import config as configs
from genie.cni import invoke
from genie.cni import result as results
from genie.cni.config import NetworkConfig
from genie.cni.errors import CniError, Code
from genie.cni.execute import SubprocessExecutor, run_sync
from genie.cni.invoke import Attachment
from genie.cni.version import SUPPORTED

pytestmark = pytest.mark.root
T = TypeVar("T")
EXECUTOR = SubprocessExecutor()


@dataclass
class Lab:
    """A host, a pod, and the way to call a verb on that host."""

    host: Any
    pod: Any
    bin: str
    data: Path

    @property
    def attachment(self) -> Attachment:
        return Attachment(
            container_id="c1",
            netns=self.pod.path,
            ifname="eth0",
            path=(self.bin,),
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            timeout=60,
        )

    def network(self, version: str = "1.0.0", *more: dict[str, Any], **bridge: Any) -> NetworkConfig:
        ranges = [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd07::/64"}]]
        ipam: dict[str, Any] = {"type": "host-local", "ranges": ranges, "dataDir": str(self.data)}
        ipam["routes"] = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
        plugin = {"type": "bridge", "bridge": "br0", "isGateway": True, "ipam": ipam, **bridge}
        raw = {"cniVersion": version, "name": "blue", "plugins": [plugin, *more]}
        return configs.parse(json.dumps(raw), "10-blue.conflist")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        outcome: T = self.host.run(lambda: run_sync(work))
        return outcome

    def leases(self) -> list[str]:
        return sorted(path.name for path in (self.data / "blue").glob("[0-9f]*"))


@pytest.fixture
def lab(namespace: Callable[[], Any], cni_bin: str, tmp_path: Path) -> Lab:
    return Lab(host=namespace(), pod=namespace(), bin=cni_bin, data=tmp_path)


TUNING = {"type": "tuning", "capabilities": {"mac": True}, "sysctl": {"net.ipv4.conf.eth0.log_martians": "1"}}


@pytest.mark.parametrize("version", SUPPORTED)
def test_an_attachment_works_in_every_version(lab: Lab, version: str) -> None:
    chained = () if version < "0.3.0" else (TUNING,)
    plan = lab.network(version, *chained)
    attachment = replace(lab.attachment, runtime_config={"mac": "02:00:00:00:00:07", "portMappings": []})
    result = lab.run(invoke.add(plan, attachment, EXECUTOR))
    assert [ip.address for ip in result.ips] == ["10.7.0.2/24", "fd07::2/64"]
    assert [ip.gateway for ip in result.ips] == ["10.7.0.1", "fd07::1"]
    assert lab.leases() == ["10.7.0.2", "fd07::2"]
    assert "10.7.0.2/24" in lab.pod.ip("addr show dev eth0")
    if chained:
        assert [one.name for one in result.interfaces][::2] == ["br0", "eth0"]
        assert [one.mac for one in result.interfaces][2] == "02:00:00:00:00:07"
        assert "02:00:00:00:00:07" in lab.pod.ip("link show dev eth0")
    if version >= "0.4.0":
        lab.run(invoke.check(plan, attachment, EXECUTOR, result))
    lab.run(invoke.delete(plan, attachment, EXECUTOR, result))
    assert lab.leases() == []
    assert "eth0" not in lab.pod.ip("link show")
    lab.run(invoke.delete(plan, attachment, EXECUTOR))


def test_a_result_survives_being_kept(lab: Lab) -> None:
    result = lab.run(invoke.add(lab.network(), lab.attachment, EXECUTOR))
    kept = json.dumps(results.to_json(result, "1.1.0"))
    assert results.parse(json.loads(kept)) == result


def test_check_finds_what_is_missing(lab: Lab) -> None:
    plan = lab.network()
    result = lab.run(invoke.add(plan, lab.attachment, EXECUTOR))
    lab.pod.ip("addr del 10.7.0.2/24 dev eth0")
    with pytest.raises(CniError, match=r"network 'blue': plugin 'bridge': CHECK: .*10\.7\.0\.2"):
        lab.run(invoke.check(plan, lab.attachment, EXECUTOR, result))


def test_a_failed_chain_is_deleted_as_a_whole_one(lab: Lab) -> None:
    plan = lab.network("1.0.0", {"type": "tuning", "sysctl": {"net.ipv4.no_such_thing": "1"}})
    with pytest.raises(CniError, match=r"network 'blue': plugin 'tuning': ADD: .*no_such_thing"):
        lab.run(invoke.add(plan, lab.attachment, EXECUTOR))
    lab.run(invoke.delete(plan, lab.attachment, EXECUTOR))
    assert lab.leases() == []
    assert "eth0" not in lab.pod.ip("link show")
    assert "veth" not in lab.host.ip("link show")


def test_a_plugins_own_code_and_message_are_kept(lab: Lab) -> None:
    with pytest.raises(CniError) as caught:
        lab.run(invoke.add(lab.network(vlan=-5), lab.attachment, EXECUTOR))
    assert caught.value.msg.startswith("network 'blue': plugin 'bridge': ADD: invalid VLAN")
    assert caught.value.code == Code.INTERNAL


def test_versions_are_told(lab: Lab) -> None:
    spoken = lab.run(invoke.supported_versions("host-local", Attachment(path=(lab.bin,), timeout=60), EXECUTOR))
    assert set(spoken) <= set(SUPPORTED)
    assert "1.0.0" in spoken


def test_gc_leaves_what_is_valid(lab: Lab) -> None:
    spoken = lab.run(invoke.supported_versions("bridge", Attachment(path=(lab.bin,), timeout=60), EXECUTOR))
    if "1.1.0" not in spoken:
        pytest.skip("GC: these plugins speak no 1.1.0")
    plan = lab.network("1.1.0")
    lab.run(invoke.add(plan, lab.attachment, EXECUTOR))
    stays = [{"containerID": "c1", "ifname": "eth0"}]
    lab.run(invoke.gc(plan, Attachment(path=(lab.bin,), timeout=60), EXECUTOR, stays))
    assert lab.leases() == ["10.7.0.2", "fd07::2"]
    lab.run(invoke.gc(plan, Attachment(path=(lab.bin,), timeout=60), EXECUTOR, []))  # host-local must free them


def test_status_is_the_network_s(lab: Lab) -> None:
    lab.run(invoke.status(lab.network("1.1.0"), Attachment(path=(lab.bin,), timeout=60), EXECUTOR))


def test_two_networks_that_each_set_a_default_route(lab: Lab) -> None:
    """A pod on two networks: no delegate finds an existing default route, and CHECK passes afterwards."""
    from genie.kernel import routes
    from genie.kernel.netlink import Netlink

    blue = lab.network()
    green = replace(
        blue, name="green", plugins=({**blue.plugins[0], "bridge": "br1", "ipam": GREEN | {"dataDir": str(lab.data)}},)
    )
    one, two = lab.attachment, replace(lab.attachment, ifname="eth1")
    first = lab.run(invoke.add(blue, one, EXECUTOR))
    with Netlink(lab.pod.path) as kernel:
        taken = routes.take_away(kernel)
        assert len([route for route in taken if route.is_default]) == 2
        second = lab.run(invoke.add(green, two, EXECUTOR))
        plan = [
            routes.Placed(ifname="eth0", result=first, taken=taken),
            routes.Placed(ifname="eth1", result=second),
        ]
        assert routes.arrange(kernel, plan).changes
        assert routes.arrange(kernel, plan).changes == []
    assert "via 10.7.0.1 dev eth0" in lab.pod.ip("route show default")
    assert "via 10.8.0.1 dev eth1" in lab.pod.ip("route get 192.0.2.1 from 10.8.0.2")
    assert "via fd08::1 dev eth1" in lab.pod.ip("-6 route get 2001:db8::1 from fd08::2")
    lab.run(invoke.check(blue, one, EXECUTOR, first))
    lab.run(invoke.check(green, two, EXECUTOR, second))


GREEN: dict[str, Any] = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.8.0.0/24"}], [{"subnet": "fd08::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
}
