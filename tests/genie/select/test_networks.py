"""Look-up of configurations by name: places, their order, and changes of the configuration."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.cni import config as cni_config
from genie.cni.config import NetworkConfig
from genie.cni.errors import CniError
from genie.cni.execute import run_sync
from genie.select import networks
from genie.select.annotations import SelectionError
from genie.select.networks import Directory
from genie.verbs.footprint import footprint
from tests.rigs.core import FakeKube, Node
from tests.rigs.networks import ask, conf, labels, one, refused

# --- the order of the look-up ---------------------------------------------------------------------------------------


def test_the_order_of_the_look_up(node: Node) -> None:
    node.kube.define("bridge", conf("", "definition"))
    node.write("20-other.conf", conf("bridge", "inside"))
    node.write("10-bridge.conf", conf("foreign", "file"))
    node.binary("bridge")
    assert one(node, "bridge").types == ("definition",)
    node.kube.objects.clear()
    assert one(node, "bridge").types == ("inside",)
    (node.net_d / "20-other.conf").unlink()
    assert one(node, "bridge").types == ("file",)
    (node.net_d / "10-bridge.conf").unlink()
    assert one(node, "bridge").source == "the configuration that genie makes for bridge"
    (node.root / "bin" / "bridge").unlink()
    assert "no network 'bridge'" in refused(node, "bridge")


def test_default_plugin_asks_no_api_server(node: Node) -> None:
    node.kube.away = True
    node.write("10-calico.conf", conf("k8s"))
    node.binary("bridge")
    assert one(node, "calico", "default").name == "k8s"
    assert one(node, "", "first").name == "k8s"
    assert node.kube.asked == []


def test_an_api_server_that_is_away_may_be_tried_again(node: Node) -> None:
    node.write("10-calico.conf", conf("calico"))
    node.kube.away = True
    assert "cannot be reached" in refused(node, "calico", code=11)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("10-weave.conf", "weave"),
        ("10-calico.conflist", "calico"),
        ("flannel.conf", "flannel"),
        ("005-a-b.json", "a-b"),
        ("canal-1.conf", "canal-1"),
        ("10-10-x.conf", "10-x"),
    ],
)
def test_the_network_that_a_file_is_named_after(file: str, name: str) -> None:
    assert networks.file_network(file) == name


@pytest.mark.parametrize("file", ["10-x.conf.bak", "10-x.yaml", "x", ".10-x.conf.swp"])
def test_files_that_are_no_configurations(node: Node, file: str) -> None:
    node.write(file, conf("x"))
    assert "which has: none" in refused(node, "x")


def test_the_first_of_two_files_with_one_name_inside(node: Node) -> None:
    node.write("20-b.conf", conf("x", "second"))
    node.write("10-a.conf", conf("x", "first"))
    assert one(node, "x").types == ("first",)
    assert one(node, "b").types == ("second",), "the other is there by its file's name"


def test_an_error_tells_where_it_looked_and_what_there_is(node: Node) -> None:
    node.write("10-weave.conf", conf("weave-net"))
    node.write("20-bad.conf", {"name": "bad name", "type": "x"})
    output = refused(node, "calico")
    assert "no NetworkAttachmentDefinition of that name" in output
    assert (
        f"no configuration in {node.net_d} (which has: weave-net, weave; broken: {node.net_d}/20-bad.conf: name"
        in output
    )


# --- genie is never found -------------------------------------------------------------------------------------------


def test_genies_own_configuration_is_never_found(node: Node) -> None:
    node.write("01-genie.conflist", {"cniVersion": "1.0.0", "name": "g", "plugins": [{"type": "genie"}, {"type": "x"}]})
    for name in ("genie", "k8s", "g"):
        assert "no network" in refused(node, name)
    assert "has no valid configuration but genie's own" in refused(node, "", "first", 11)
    node.write("90-calico.conf", conf("calico"))
    node.binary("bridge")
    assert one(node, "", "first").name == "calico"


@pytest.mark.parametrize("config", [conf("x", "genie"), {"plugins": [{"type": "bridge"}, {"type": "genie"}]}])
def test_a_definition_that_would_have_genie_call_itself(node: Node, config: dict[str, Any]) -> None:
    node.kube.define("loop", config)
    assert "NetworkAttachmentDefinition blue/loop: a plugin of type genie" in refused(node, "loop")


# --- broken files ---------------------------------------------------------------------------------------------------


def test_a_broken_file_is_told_when_its_network_is_asked_for(node: Node) -> None:
    node.write("10-weave.conf", "{")
    node.write("20-calico.conf", conf("calico"))
    assert f"{node.net_d}/10-weave.conf: not valid JSON" in refused(node, "weave", code=6)
    assert one(node, "calico").name == "calico"
    assert "10-weave.conf: not valid JSON" in refused(node, "", "first", 11), "as with containerd, never the next one"


WHOLE = json.dumps({"cniVersion": "1.0.0", "name": "weave", "plugins": [{"type": "bridge"}]}, indent=1)


@given(st.integers(0, len(WHOLE) - 1), st.sampled_from(["10-weave.conflist", "10-weave.conf", "10-weave.json"]))
def test_a_first_file_that_is_cut_off_is_never_the_next_network(at: int, file: str) -> None:
    with TemporaryDirectory() as place:
        node = Node(Path(place))
        node.binary("bridge")
        node.write(file, WHOLE[:at])
        node.write("20-calico.conf", conf("calico"))
        output = refused(node, "", "first", 11)
        assert f"{file}: not valid JSON at character " in output and "repair or remove it" in output
        node.write("10-weave.conflist", WHOLE)
        (node.net_d / file).unlink() if file != "10-weave.conflist" else None
        assert one(node, "", "first").name == "weave"


@pytest.mark.parametrize(
    "text", ["{}", '{"plugins": []}', '{"name": "weave"}', '{"type": "bridge", "name": "a b"}', "[]"]
)
def test_a_first_file_that_is_wrong_is_never_the_next_network(node: Node, text: str) -> None:
    node.binary("bridge")
    node.write("10-weave.conflist", text)
    node.write("20-calico.conf", conf("calico"))
    assert "10-weave.conflist: " in refused(node, "", "first", 11)
    assert one(node, "calico", "default").name == "calico", "whoever names another gets it"


def test_another_programs_json_is_passed_over(node: Node) -> None:
    """flannel's net-conf.json."""
    node.binary("bridge")
    node.write("net-conf.json", {"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}})
    node.write("z-calico.conf", conf("calico"))
    assert one(node, "", "first").name == "calico"
    (node.net_d / "z-calico.conf").unlink()
    assert "net-conf.json: not a CNI configuration" in refused(node, "", "first", 11)


@given(st.lists(st.sampled_from(["gone", "loopback", "tuning", "bridge", "multus"]), min_size=1, max_size=5))
def test_the_first_configuration_that_can_be_a_pods_network(kinds: list[str]) -> None:
    """A configuration without its plugin on the node is skipped, as by the kubelet and CRI-O."""
    with TemporaryDirectory() as place:
        node = Node(Path(place))
        node.binary("bridge", "loopback", "tuning", "multus")
        for number, kind in enumerate(kinds):
            node.write(f"{number}0-net.conf", conf(f"net{number}", kind))
        if "bridge" in kinds:
            assert one(node, "", "first").name == f"net{kinds.index('bridge')}"
        else:
            output = refused(node, "", "first", 11)
            assert all(f"{number}0-net.conf" in output for number in range(len(kinds)))


def test_a_net_d_of_broken_files_is_an_error(node: Node) -> None:
    node.write("10-weave.conf", "{")
    assert "10-weave.conf: not valid JSON" in refused(node, "", "first", 11)


def test_a_folder_and_a_dangling_link_are_passed_over(node: Node) -> None:
    (node.net_d / "10-x.conf").mkdir()
    (node.net_d / "11-y.conf").symlink_to("nowhere")
    node.binary("bridge")
    node.write("20-calico.conf", conf("calico"))
    assert one(node, "", "first").name == "calico"
    assert "no network 'x'" in refused(node, "x"), "libcni's ConfFiles sees no folders, either"
    assert "no network 'y'" in refused(node, "y")


def test_a_missing_net_d_is_an_error(node: Node) -> None:
    directory = Directory(str(node.root / "none"))
    with pytest.raises(CniError, match="cannot read the configurations in .*/none: No such file") as caught:
        directory.networks()
    assert caught.value.code == 5


# --- other meta-plugins ----------------------------------------------------------------------------------

MULTUS: list[dict[str, Any]] = [
    {"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus", "clusterNetwork": "/etc/x.conf"},
    {"cniVersion": "1.1.0", "name": "multus-cni-network", "type": "multus-shim", "logLevel": "verbose"},
    {"cniVersion": "1.0.0", "name": "multus-cni-network", "plugins": [{"type": "multus"}, {"type": "portmap"}]},
]


@pytest.mark.parametrize("left", MULTUS)
def test_multus_configuration_is_nobodys_network(node: Node, left: dict[str, Any]) -> None:
    node.write("00-multus.conf", left)
    message = f"00-multus.conf is Multus' own configuration: .* remove Multus {re.escape('(docs/migration.md)')}"
    assert re.search(message, refused(node, "", "first", 11)), "alone, it is what the error names"
    node.write("10-calico.conf", conf("calico"))
    node.binary("bridge")
    assert one(node, "", "first").name == "calico"
    for name in ("multus-cni-network", "multus"):
        assert re.search(message, refused(node, name))
        assert re.search(message, refused(node, name, "default"))
    (multus,) = [each for each in Directory(str(node.net_d)).networks() if each.name == "multus-cni-network"]
    assert re.search(message, networks.unusable(multus, ())), "nor is it ever the least loaded one"
    assert refused(node, "y").endswith("(which has: calico)")


@pytest.mark.parametrize("left", MULTUS)
def test_a_definition_of_multus_itself_is_refused(node: Node, left: dict[str, Any]) -> None:
    node.kube.define("blue", left)
    assert "NetworkAttachmentDefinition blue/blue is Multus' own configuration" in refused(node, "blue", "attachment")


# --- files are cached until they change -------------------------------------------------------------------------


def test_a_file_is_read_again_when_it_changes(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    load = cni_config.load

    def counted(path: Any) -> NetworkConfig:
        read.append(Path(path).name)
        return load(path)

    monkeypatch.setattr(cni_config, "load", counted)
    node.write("10-x.conf", conf("x"))
    directory = Directory(str(node.net_d))
    assert [found.name for found in directory.networks()] == ["x"]
    assert directory.find("x") and read == ["00-genie.conf", "10-x.conf"]
    node.write("10-x.conf", conf("green"))
    assert [found.name for found in directory.networks()] == ["green"]
    assert read[2:] == ["10-x.conf"]


def test_names_follow_files_that_come_change_and_go(node: Node) -> None:
    directory = Directory(str(node.net_d))

    def files(name: str) -> str:
        found = directory.find(name)
        return Path(found.source).name if found else ""

    node.write("10-x.conf", conf("red"))
    assert files("red") == files("x") == "10-x.conf"
    node.write("10-x.conf", conf("green"))
    assert (files("red"), files("green")) == ("", "10-x.conf")
    node.write("05-y.conf", conf("green"))
    assert files("green") == "05-y.conf"
    (node.net_d / "05-y.conf").unlink()
    assert files("green") == "10-x.conf"
    (node.net_d / "10-x.conf").unlink()
    assert files("green") == files("x") == ""


def test_plugins_in_the_folder_of_a_network_are_seen_when_they_change(node: Node) -> None:
    node.write("10-x.conflist", {"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "bridge"}]})
    directory = Directory(str(node.net_d))

    def types() -> tuple[str, ...]:
        (found,) = directory.networks()
        return found.types

    assert types() == ("bridge",)
    (node.net_d / "x").mkdir()
    (node.net_d / "x" / "50-tuning.conf").write_text('{"type": "tuning"}')
    assert types() == ("bridge", "tuning")
    (node.net_d / "x" / "50-tuning.conf").write_text('{"type": "bandwidth"}')
    assert types() == ("bridge", "bandwidth")
    (node.net_d / "x" / "50-tuning.conf").unlink()
    assert types() == ("bridge",)


# --- NetworkAttachmentDefinitions -----------------------------------------------------------------------------------


def test_definitions_lend_their_name(node: Node) -> None:
    node.kube.define("net-a", {"type": "macvlan"})
    found = one(node, "net-a", "attachment")
    assert (found.name, found.types, found.source) == ("net-a", ("macvlan",), "NetworkAttachmentDefinition blue/net-a")


def test_networks_are_titled_by_their_files(node: Node) -> None:
    """A definition's name has its namespace, for every annotation; other networks have the requested name."""
    node.write("10-weave.conf", conf("weave-net"))
    node.binary("bridge")
    node.kube.define("nad", {"type": "bridge"})
    node.kube.define("weave", namespace="green")
    asks = [ask("weave"), ask("nad"), ask("nad", "attachment"), ask("weave", "attachment", "green"), ask("", "first")]
    assert labels(node, *asks) == ["weave", "blue/nad", "blue/nad", "green/weave", "weave-net"]


def test_definitions_of_another_namespace(node: Node) -> None:
    node.kube.define("net-a", {"type": "macvlan"}, namespace="other")
    assert one(node, "net-a", "attachment", "other").source == "NetworkAttachmentDefinition other/net-a"
    assert "there is no NetworkAttachmentDefinition blue/net-a" in refused(node, "net-a", "attachment")


@pytest.mark.parametrize("spec", [{}, {"config": ""}, {"config": "  "}])
def test_definitions_without_a_configuration_are_looked_up_on_the_node(node: Node, spec: dict[str, str]) -> None:
    node.kube.objects["NetworkAttachmentDefinition", "blue", "weave"] = {"spec": spec}
    assert "spec.config is empty and" in refused(node, "weave", "attachment")
    node.write("10-weave.conf", conf("w"))
    assert one(node, "weave", "attachment").name == "w"


@pytest.mark.parametrize(
    ("spec", "complaint", "code"),
    [
        ({"config": 5}, "spec.config: expected a string that holds a CNI configuration", 7),
        ({"config": "{"}, "not valid JSON", 6),
        ({"config": "{}"}, "plugins: expected", 7),
        ({"config": '{"type": "../x"}'}, "type: expected", 7),
        (5, "spec.config is empty", 7),
    ],
)
def test_broken_definitions_are_refused(node: Node, spec: Any, complaint: str, code: int) -> None:
    node.kube.objects["NetworkAttachmentDefinition", "blue", "net-a"] = {"spec": spec}
    output = refused(node, "net-a", "attachment", code)
    assert "NetworkAttachmentDefinition blue/net-a" in output and complaint in output


def test_definitions_longer_than_the_limits_are_refused(node: Node) -> None:
    """The limits for one definition and for all of a pod's; one more character is too many."""
    plugin = {"type": "plug"}

    def define(name: str, *, length: int = 0, plugins: int = 1) -> None:
        text = json.dumps({"cniVersion": "1.0.0", "plugins": [plugin] * plugins})
        node.kube.objects["NetworkAttachmentDefinition", "blue", name] = {"spec": {"config": text.ljust(length)}}

    define("long", length=networks.CONFIG_MAX)
    define("chain", plugins=networks.PLUGINS_MAX)
    define("longer", length=networks.CONFIG_MAX + 1)
    define("chained", plugins=networks.PLUGINS_MAX + 1)
    directory = Directory(str(node.net_d))

    def find(*names: str) -> list[Any]:
        asks = [ask(name, "attachment") for name in names]
        return run_sync(networks.find(asks, node.kube, directory, "blue", ()))

    assert len(find("long", "long", "long", "long")) == 4 and len(find("chain")[0].network.plugins) == 16
    for names, complaint in (
        (["longer"], "spec.config has more than 65536 characters, the most that genie reads"),
        (["chained"], "plugins: 17 plugins, of at most 16"),
        (["long", "chain", "long", "long", "long"], "pod's networks come to more than 262144 characters"),
    ):
        with pytest.raises(SelectionError, match=complaint):
            find(*names)


def test_definitions_over_devices(node: Node) -> None:
    for name in ("fast-a", "fast-b"):
        node.kube.define(name, {"type": "sriov"})
        definition = dict(node.kube.objects["NetworkAttachmentDefinition", "blue", name])
        definition["metadata"] = {"annotations": {networks.RESOURCE: "nic.example/fast"}}
        node.kube.objects["NetworkAttachmentDefinition", "blue", name] = definition
    asks = [ask("fast-a", "attachment"), ask("fast-b", "attachment")]
    directory = Directory(str(node.net_d))

    def given_devices(*devices: str) -> list[Any]:
        async def the_pods() -> dict[str, list[str]]:
            return {"nic.example/fast": list(devices)}

        found = run_sync(networks.find(asks, node.kube, directory, "blue", (), devices=the_pods))
        return [each.network.plugins[0]["deviceID"] for each in found]

    assert given_devices("0000:01:00.1", "0000:01:00.2") == ["0000:01:00.1", "0000:01:00.2"]
    with pytest.raises(
        SelectionError, match=r'item 1 \("fast-b"\): the network runs over a device of nic.example/fast'
    ):
        given_devices("0000:01:00.1")


# --- logical and physical networks ----------------------------------------------------------------------------------


# --- generated ------------------------------------------------------------------------------------------------------


def test_generated_configurations(node: Node) -> None:
    node.binary("bridge", "macvlan", "ptp")
    path = (str(node.root / "bin"),)
    bridge, macvlan = networks.generated("bridge", path), networks.generated("macvlan", path)
    assert bridge and bridge.plugins[0]["ipam"]["subnet"] == "10.10.0.0/16" and bridge.plugins[0]["isGateway"]
    assert macvlan and macvlan.plugins[0]["master"] == networks.default_interface()
    assert networks.generated("ptp", path) is None
    assert networks.generated("bridge", ("/none",)) is None


# --- any contents of net.d -----------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["bridge", "genie", "1.0.0"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "type", "plugins", "ipam", "cniVersion", "routes"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(JSON.map(json.dumps) | st.text(max_size=20), st.sampled_from(["named", "attachment", "logical", "first"]))
def test_whatever_is_configured_nothing_but_a_selection_error(text: str, lookup: str) -> None:
    kube = FakeKube()
    data = json.loads(text) if text[:1] in "[{" and text[-1:] in "]}" and _is_json(text) else text
    kube.objects["NetworkAttachmentDefinition", "blue", "x"] = {"spec": {"config": text}}
    kube.objects["LogicalNetwork", "blue", "x"] = {"spec": data}
    kube.objects["PhysicalNetwork", "blue", "x"] = {"spec": data}
    directory = Directory("/dev/fd")
    try:
        (found,) = run_sync(networks.find([ask("x", lookup)], kube, directory, "blue", ()))
    except SelectionError:
        return
    assert "genie" not in found.network.types
    footprint(found.network)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
