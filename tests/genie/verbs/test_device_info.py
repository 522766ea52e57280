"""The information about a network's device: from the device plugin's file, through the CNI plugin, to the pod."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.cni.errors import CniError
from genie.cni.execute import Outcome
from genie.select import devices
from genie.verbs import device_info
from genie.verbs.network_status import NETWORK_STATUS
from tests.rigs.core import CONTAINER, Node, SeenCall, failing, full_disk

RESOURCE = "nic.example/fast"
PCI = {"type": "pci", "version": "1.1.0", "pci": {"pci-address": "0000:03:02.1", "pf-pci-address": "0000:03:00.0"}}
VDPA = {
    "type": "vdpa",
    "version": "1.1.0",
    "vdpa": {"parent-device": "vdpa0", "driver": "vhost", "path": "/dev/vhost-vdpa-0", "pci-address": "0000:03:02.1"},
}
MEMIF = {"type": "memif", "version": "1.0.0", "memif": {"role": "master", "path": "/run/m.sock", "mode": "ethernet"}}
USER = {"type": "vhost-user", "version": "1.1.0", "vhost-user": {"mode": "client", "path": "/run/v.sock"}}
NETWORKS = "k8s.v1.cni.cncf.io/networks"


@pytest.fixture
def devinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of device information; not there yet."""
    monkeypatch.setattr(device_info, "ROOT", str(tmp_path / "devinfo"))
    return tmp_path / "devinfo"


@pytest.fixture
def fast(node: Node, devinfo: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node with the networks `calico` and `blue/fast`, which needs a device; the pod has "0000:03:02.1"."""
    node.install("calico")
    node.binary("sriov")
    over(node, "0000:03:02.1", monkeypatch)
    return node


def over(
    node: Node, device: str, monkeypatch: pytest.MonkeyPatch, *, declared: bool = True, resource: bool = True
) -> None:
    capabilities = {"capabilities": {"CNIDeviceInfoFile": True}} if declared else {}
    node.kube.define("fast", json.dumps({"cniVersion": "1.0.0", "type": "sriov", **capabilities}))
    notes = {"metadata": {"annotations": {"k8s.v1.cni.cncf.io/resourceName": RESOURCE}}} if resource else {}
    key = ("NetworkAttachmentDefinition", "blue", "fast")
    node.kube.objects[key] = {**node.kube.objects[key], **notes}
    monkeypatch.setattr(devices, "of_pod", lambda *_, **__: {RESOURCE: [device]})


def device_plugin_wrote(devinfo: Path, content: str, device: str = "0000:03:02.1") -> None:
    (devinfo / "dp").mkdir(parents=True, exist_ok=True)
    name = f"nic.example-fast-{device.replace('/', '-')}-device.json"
    (devinfo / "dp" / name).write_text(content)


def shown(node: Node) -> Any:
    """The device-info of the second network."""
    return json.loads(node.kube.written[NETWORK_STATUS])[1].get("device-info")


@pytest.mark.parametrize("info", [PCI, VDPA, MEMIF, USER])
def test_the_device_plugins_file_reaches_the_plugin_and_the_pod(fast: Node, devinfo: Path, info: Any) -> None:
    device_plugin_wrote(devinfo, json.dumps(info))
    read: list[Any] = []

    def reads(call: SeenCall) -> Outcome | None:
        if call.plugin == "sriov" and call.verb == "ADD":
            read.append(json.loads(Path(call.stdin["runtimeConfig"]["CNIDeviceInfoFile"]).read_text()))
        return None

    fast.executor.act = reads
    fast.add("calico", **{NETWORKS: "fast"})
    assert read == [info]
    assert shown(fast) == info
    assert [path.name for path in (devinfo / "cni").iterdir()] == [f"{CONTAINER}@net1.json"]
    assert "runtimeConfig" not in fast.executor.calls[0].stdin, "calico declares nothing"
    fast.ok("DEL")
    given = [call.stdin["runtimeConfig"]["CNIDeviceInfoFile"] for call in fast.executor.calls if call.plugin == "sriov"]
    assert given == [str(devinfo / "cni" / f"{CONTAINER}@net1.json")] * 2, "the same at DEL"
    assert list((devinfo / "cni").iterdir()) == []
    assert len(list((devinfo / "dp").iterdir())) == 1, "the device plugin's own"


@pytest.mark.parametrize("resource", [True, False])
def test_the_plugins_file_reaches_the_pod(
    fast: Node, devinfo: Path, monkeypatch: pytest.MonkeyPatch, resource: bool
) -> None:
    over(fast, "x0", monkeypatch, resource=resource)
    if resource:
        device_plugin_wrote(devinfo, json.dumps(PCI), "x0")
    (devinfo / "cni").mkdir(parents=True, exist_ok=True)
    (devinfo / "cni" / f"{CONTAINER}@net1.json").write_text("an earlier container's")

    def writes(call: SeenCall) -> Outcome | None:
        if call.plugin == "sriov" and call.verb == "ADD":
            file = Path(call.stdin["runtimeConfig"]["CNIDeviceInfoFile"])
            assert file.exists() == resource, "nothing old"
            file.write_text(json.dumps(USER))
        return None

    fast.executor.act = writes
    fast.add("calico", **{NETWORKS: "fast"})
    assert shown(fast) == USER
    fast.ok("DEL")
    assert list((devinfo / "cni").iterdir()) == []


def test_a_plugin_that_does_not_declare_it_is_not_given_it(
    fast: Node, devinfo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over(fast, "mlx5_core.sf.4", monkeypatch, declared=False)
    device_plugin_wrote(devinfo, json.dumps(VDPA), "mlx5_core.sf.4")
    fast.add("calico", **{NETWORKS: "fast"})
    assert all("runtimeConfig" not in call.stdin for call in fast.executor.calls)
    assert shown(fast) == VDPA, "it is the pod's all the same"
    fast.ok("DEL")
    assert list((devinfo / "cni").iterdir()) == []


@pytest.mark.parametrize(
    ("device", "info"),
    [
        ("0000:03:02.1", {"type": "pci", "version": "1.1.0", "pci": {"pci-address": "0000:03:02.1"}}),
        ("10000:E1:00.7", {"type": "pci", "version": "1.1.0", "pci": {"pci-address": "10000:E1:00.7"}}),
        ("mlx5_core.sf.4", None),
        ("ens3f0", None),
        ("GPU-0d0f4f5a", None),
        ("0000:03:02.8", None),
        ("0000:03:02.1\n", None),
        ("x/0000:03:02.1", None),
    ],
)
def test_without_a_file_only_a_pci_address_is_one(
    fast: Node, monkeypatch: pytest.MonkeyPatch, device: str, info: Any
) -> None:
    over(fast, device, monkeypatch)
    fast.add("calico", **{NETWORKS: "fast"})
    assert shown(fast) == info


@pytest.mark.parametrize("plugin", ["sriov", "calico"])
def test_a_failed_add_leaves_no_device_file(fast: Node, devinfo: Path, plugin: str) -> None:
    device_plugin_wrote(devinfo, json.dumps(PCI))
    fast.executor.act = failing(plugin)
    fast.kube.annotations = {"cni": "calico", NETWORKS: "fast"}
    fast.fails("ADD")
    assert not (devinfo / "cni").exists() or list((devinfo / "cni").iterdir()) == []


WRONG = {
    "no JSON": "{",
    "a list": "[]",
    "nothing": "",
    "no type": json.dumps({"version": "1.1.0", "pci": {"pci-address": "x"}}),
    "a type that is none": json.dumps({"type": "gpu", "version": "1.1.0", "gpu": {}}),
    "a type that is no string": json.dumps({"type": ["pci"], "version": "1.1.0"}),
    "another type's": json.dumps({**PCI, "type": "vdpa"}),
    "no version": json.dumps({"type": "pci", "pci": {"pci-address": "x"}}),
    "no address": json.dumps({"type": "pci", "version": "1.1.0", "pci": {}}),
    "an address that is no string": json.dumps({"type": "pci", "version": "1.1.0", "pci": {"pci-address": 3}}),
    "nested too deeply": "[" * 20_000,
    "a constant that is no JSON": '{"type": "pci", "version": "1.1.0", "pci": {"pci-address": "x", "n": NaN}}',
    "more than its length": json.dumps({**PCI, "more": "x" * device_info.LIMIT}),
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_malformed_device_information_is_not_shown(fast: Node, devinfo: Path, content: str) -> None:
    """And the pod still comes up."""
    device_plugin_wrote(devinfo, content)
    fast.add("calico", **{NETWORKS: "fast"})
    assert shown(fast) == {"type": "pci", "version": "1.1.0", "pci": {"pci-address": "0000:03:02.1"}}
    fast.ok("DEL")
    assert list((devinfo / "cni").iterdir()) == []


def test_a_directory_that_cannot_be_made_keeps_no_pod_from_coming_up(fast: Node, devinfo: Path) -> None:
    devinfo.write_text("a file")
    fast.add("calico", **{NETWORKS: "fast"})
    fast.ok("DEL")


def test_a_file_that_is_not_an_attachments_stays(devinfo: Path) -> None:
    (devinfo / "dp").mkdir(parents=True)
    own = devinfo / "dp" / "x.json"
    own.write_text("{}")
    device_info.remove(str(own))
    assert own.exists()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
of_types = st.sampled_from([*device_info.REQUIRED])


@given(
    st.dictionaries(
        st.sampled_from(["type", "version", *device_info.REQUIRED]),
        values | of_types | st.dictionaries(st.sampled_from(["path", "mode", "role", "driver", "pci-address"]), values),
    )
)
def test_only_what_the_specification_has_is_device_information(info: dict[str, Any]) -> None:
    try:
        found = device_info.checked(info)
    except CniError as error:
        assert error.code == 6 and error.msg.startswith("device information: ")
        return
    assert found == info
    assert isinstance(info["version"], str)
    assert all(isinstance(info[info["type"]][key], str) for key in device_info.REQUIRED[info["type"]])


def test_a_file_that_the_disk_does_not_take_is_not_offered_by_halves(devinfo: Path) -> None:
    device_plugin_wrote(devinfo, json.dumps(PCI))
    file = device_info.path(CONTAINER, "net1")
    with full_disk(), pytest.raises(OSError, match=f"File too large: '{file}'"):
        device_info.offer(file, RESOURCE, "0000:03:02.1")
    assert device_info.read(file) is None and list((devinfo / "cni").iterdir()) == []
