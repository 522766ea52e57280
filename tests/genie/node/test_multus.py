"""Multus' configurations as genie.conf: equal keys, warnings, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie import config
from genie.cni.errors import CniError
from genie.cni.fields import Fields
from genie.node import files, multus
from genie.node.files import Node
from tests.rigs.install import main, tree
from tests.rigs.selection import JSON

DOCUMENTED = {  # the example of Multus' docs/configuration.md
    "cniVersion": "0.3.1",
    "name": "node-cni-network",
    "type": "multus",
    "kubeconfig": "/etc/kubernetes/node-kubeconfig.yaml",
    "confDir": "/etc/cni/multus/net.d",
    "cniDir": "/var/lib/cni/multus",
    "binDir": "/opt/cni/bin",
    "logFile": "/var/log/multus.log",
    "logLevel": "debug",
    "logOptions": {"maxAge": 5},
    "capabilities": {"portMappings": True},
    "namespaceIsolation": False,
    "clusterNetwork": "/etc/cni/net.d/99-flannel.conf",
    "defaultNetworks": ["sidecar", "example"],
    "systemNamespaces": ["kube-system", "admin"],
    "multusNamespace": "networks",
    "auxiliaryCNIChainName": "cni-chain-config",
}
HERE = {"/etc/cni/net.d/99-flannel.conf": "cbr0", "flannel": "cbr0", "sidecar": "sidecar", "example": "example"}


def of(data: Any) -> multus.Migrated:
    return multus.migrated(Fields(data, "00-multus.conf"), lambda name: HERE.get(name, ""))


def notes(data: Any) -> dict[str, str]:
    return dict(note.split(": ", 1) for note in of(data).notes)


def test_the_documented_configuration_is_converted() -> None:
    assert of(DOCUMENTED).conf == {
        "cniVersion": "1.0.0",
        "name": "genie",
        "type": "genie",
        "default_plugin": ["cbr0", "sidecar", "example"],
        "capabilities": {"portMappings": True},
        "kubernetes": {"kubeconfig": "/etc/kubernetes/node-kubeconfig.yaml"},
        "log_file": "/var/log/multus.log",
        "log_level": "debug",
    }
    noted = notes(DOCUMENTED)
    assert list(noted) == [
        *("confDir", "binDir", "logOptions", "systemNamespaces", "auxiliaryCNIChainName", "defaultNetworks"),
        *("multusNamespace", "kubeconfig"),
    ]
    assert "on eth1, eth2, …, with Multus on net1" in noted["defaultNetworks"]
    assert "unless their annotation cni names another network (cni: 'cbr0')" in noted["defaultNetworks"]
    assert "in kube-system with genie, not in networks" in noted["multusNamespace"]


def test_the_configuration_of_the_thick_plugins_daemon_is_converted() -> None:
    written = {
        "capabilities": {"bandwidth": True, "portMappings": True}, "cniVersion": "0.3.1", "logLevel": "verbose",
        "logToStderr": True, "name": "multus-cni-network", "clusterNetwork": "/host/etc/cni/net.d/99-flannel.conf",
        "type": "multus-shim", "namespaceIsolation": True, "globalNamespaces": "default, shared,",
        "daemonSocketDir": "/host/run/multus",
    }  # fmt: skip
    assert of(written).conf == {
        "cniVersion": "1.0.0",
        "name": "genie",
        "type": "genie",
        "default_plugin": ["cbr0"],
        "namespace_isolation": True,
        "global_namespaces": ["default", "shared"],
        "capabilities": {"bandwidth": True, "portMappings": True},
        "log_level": "info",
    }
    assert of(written).notes == ()
    assert of({"name": "m", "cniVersion": "0.3.1", "plugins": [written, {"type": "portmap"}]}).conf == of(written).conf


def test_inline_delegates_become_files() -> None:
    weave, macvlan = {"type": "weave-net", "hairpinMode": True}, {"name": "lan", "plugins": [{"type": "macvlan"}]}
    known = {"name": "example", "type": "bridge"}
    found = of({"type": "multus", "delegates": [weave, macvlan, known]})
    assert found.conf["default_plugin"] == ["weave-net", "lan", "example"]
    assert found.networks == {"10-weave-net.conf": {**weave, "name": "weave-net"}, "11-lan.conflist": macvlan}
    assert found.notes[-1] == "delegates: example is in net.d already: that configuration counts"
    found = of({"type": "multus", "delegates": [weave], "clusterNetwork": "example"})
    assert found.networks == {}, "as Multus has it"
    assert found.notes == ("delegates: ignored, as by Multus, because there is clusterNetwork",)


def test_a_definition_is_the_default_of_every_pod() -> None:
    found = of({"type": "multus", "clusterNetwork": "nad", "multusNamespace": "nets"})
    assert found.conf["default_plugin"] == ["nets/nad"]
    assert [note for note in found.notes if note.startswith("nets/nad: not in net.d")]
    assert of({"type": "multus", "clusterNetwork": "nad"}).conf["default_plugin"] == ["kube-system/nad"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"type": "bridge"}, "type: expected a configuration of Multus (multus or multus-shim), found 'bridge'"),
    ({}, "clusterNetwork: expected a network, or at least one of `delegates`, found nothing"),
    ({"clusterNetwork": 5}, "clusterNetwork: expected a string, found 5"),
    ({"clusterNetwork": "/nad"}, "clusterNetwork: expected a network in the node's net.d, found '/nad'"),
    ({"clusterNetwork": "example", "defaultNetworks": ["a/b"]}, "defaultNetworks: expected a network in the node's"),
    ({"clusterNetwork": "example", "defaultNetworks": "nad"}, "defaultNetworks: expected a list, found 'nad'"),
    ({"clusterNetwork": "example", "namespaceIsolation": "yes"}, "namespaceIsolation: expected true or false"),
    ({"clusterNetwork": "example", "logLevel": "loud"}, "logLevel: expected one of debug, verbose, error, panic"),
    ({"clusterNetwork": "example", "capabilities": {"ips": 1}}, "capabilities: expected an object of booleans"),
    ({"delegates": [{"name": "x"}]}, "00-multus.conf: delegates[0]: plugins: expected at least one plugin"),
    ({"delegates": [{"name": "a b", "type": "x"}]}, "delegates[0]: name: expected letters"),
    (
        {"delegates": [{"type": "ipvlan"}, {"type": "ipvlan", "master": "b"}]},
        "delegates[1]: name: expected another than",
    ),
    (
        {"delegates": [{"type": "multus", "delegates": []}]},
        "delegates[0]: type: expected the plugin of a network, found",
    ),
    (
        {"delegates": [{"name": "g", "plugins": [{"type": "genie"}]}]},
        "delegates[0]: type: expected the plugin of a net",
    ),
    ({"delegates": [{"name": "flannel", "type": "x"}]}, "no file of net.d has, where 'flannel' is 'cbr0'"),
]


@pytest.mark.parametrize(("data", "complaint"), WRONG)
def test_a_setting_that_genie_does_not_support_is_refused_by_field(data: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CniError) as caught:
        of({"type": "multus", **data})
    assert complaint in str(caught.value) and "00-multus.conf" in str(caught.value)
    assert caught.value.code == 7


@given(st.dictionaries(st.sampled_from([*DOCUMENTED, "delegates", "globalNamespaces", "readinessindicatorfile"]), JSON))
def test_any_configuration_becomes_a_genie_conf_or_is_refused(data: dict[str, Any]) -> None:
    try:
        found = of({"type": "multus", "clusterNetwork": "example", **data})
    except CniError as error:
        assert error.code in (1, 6, 7)
    else:
        config.parse(dict(found.conf))


@given(st.text(min_size=1), st.sampled_from([1, True, "x", [1], {"a": 1}]))
def test_a_key_that_nobody_knows_is_named(key: str, value: Any) -> None:
    noted = of({"type": "multus", "clusterNetwork": "example", key: value} if key not in multus._KNOWN else DOCUMENTED)
    named = [note for note in noted.notes if note == f"{key}: unknown to Multus and to genie, ignored"]
    assert len(named) == (key not in multus._KNOWN)


# --- on a node --------------------------------------------------------------------------------------------------


@pytest.fixture
def left(machine: Node, tmp_path: Path) -> Path:
    """A node with Multus."""
    net_d = Path(machine.conf_dir)
    flannel = {"cniVersion": "0.3.1", "name": "cbr0", "plugins": [{"type": "flannel"}]}
    (net_d / "10-flannel.conflist").write_text(json.dumps(flannel))
    path = net_d / "00-multus.conf"
    path.write_text(json.dumps({
        "cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus", "kubeconfig": str(tmp_path / "none"),
        "clusterNetwork": str(net_d / "10-flannel.conflist"), "speed": 5,
    }))  # fmt: skip
    return path


def test_print_shows_what_would_be_installed(machine: Node, left: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = tree(machine)
    assert main(machine, "--print", "--from-multus", str(left)) == 0
    out, err = capfd.readouterr()
    shown = json.loads(out)
    assert shown["default_plugin"] == ["cbr0"] and shown["conf_dir"] == machine.conf_dir
    assert "speed: unknown to Multus and to genie, ignored" in err
    assert tree(machine) == before
    (left.parent.parent / "my.conf").write_text(out)
    assert main(machine, "--direct", "--no-kubeconfig", "--conf", str(left.parent.parent / "my.conf")) == 0
    assert files.confs(machine.conf_dir) == ["00-genie.conflist", "00-multus.conf", "10-flannel.conflist"]


@pytest.mark.parametrize("network", ["cbr0", "{net_d}/10-flannel.conflist", "{net_d}", "{net_d}/"])
def test_a_network_as_multus_names_it(machine: Node, left: Path, network: str) -> None:
    left.write_text(json.dumps({"type": "multus", "clusterNetwork": network.format(net_d=machine.conf_dir)}))
    Path(machine.conf_dir, "05-empty").mkdir()
    left = left.rename(left.with_suffix(".old"))
    assert multus.read(str(left), machine.conf_dir).conf["default_plugin"] == ["cbr0"]


def test_inline_delegates_are_written_and_stay(machine: Node, left: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lan = {"cniVersion": "1.0.0", "name": "lan", "type": "macvlan"}
    left.write_text(json.dumps({"type": "multus", "delegates": [lan]}))
    assert main(machine, "--print", "--from-multus", str(left)) == 0
    assert "needs this file, too" in capfd.readouterr().err
    before = tree(machine)
    assert main(machine, "--direct", "--no-kubeconfig", "--from-multus", str(left)) == 0
    file = Path(machine.conf_dir, "10-lan.conf")
    assert json.loads(file.read_text()) == lan
    installed = json.loads(Path(machine.conf_dir, "00-genie.conflist").read_text())
    assert installed["plugins"][0]["default_plugin"] == ["lan"]
    assert main(machine, "--remove") == 0
    assert tree(machine) == {**before, "net.d/10-lan.conf": file.read_text()}


@pytest.mark.parametrize("option", ["--keep", "--remove", "--conf=x"])
def test_options_that_do_not_go_together(machine: Node, left: Path, option: str) -> None:
    with pytest.raises(SystemExit):
        main(machine, option, "--from-multus", str(left))


def test_multus_configuration_that_cannot_be_read(machine: Node, left: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = tree(machine)
    for path, complaint in ((f"{left}.none", "No such file"), (f"{machine.conf_dir}/10-flannel.conflist", "of Multus")):
        assert main(machine, "--from-multus", path) == 1
        assert complaint in capfd.readouterr().err
    assert tree(machine) == before
