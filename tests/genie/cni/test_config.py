"""Configurations: valid ones are passed on unchanged, mistakes are reported with their place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from genie.cni import config as configs
from genie.cni.config import NetworkConfig
from genie.cni.errors import CniError, Code

BRIDGE: dict[str, Any] = {"type": "bridge", "bridge": "br0", "ipam": {"type": "host-local"}, "x": [1, {"y": None}]}


def parse(data: object, **more: Any) -> NetworkConfig:
    return configs.parse(json.dumps(data), "10-x.conf", **more)


def test_a_configuration_of_one_plugin_is_read() -> None:
    network = parse({"cniVersion": "0.4.0", "name": "blue", **BRIDGE})
    assert (network.name, network.cni_version, network.is_list) == ("blue", "0.4.0", False)
    assert network.types == ("bridge",)
    assert network.plugins[0]["x"] == BRIDGE["x"]
    assert network.plugins[0]["ipam"] == BRIDGE["ipam"]


def test_a_list_in_order() -> None:
    network = parse(
        {
            "cniVersion": "1.0.0",
            "name": "blue",
            "disableCheck": True,
            "disableGC": "True",
            "plugins": [BRIDGE, {"type": "portmap"}],
        }
    )
    assert network.types == ("bridge", "portmap")
    assert network.plugins[0] == BRIDGE
    assert network.is_list
    assert network.disable_check
    assert network.disable_gc


@pytest.mark.parametrize(
    ("declared", "chosen"),
    [
        ({}, "0.1.0"),
        ({"cniVersion": ""}, "0.1.0"),
        ({"cniVersion": "0.3.1"}, "0.3.1"),
        ({"cniVersion": "0.3.1", "cniVersions": ["1.0.0", "0.4.0"]}, "1.0.0"),
        ({"cniVersion": "1.1.0", "cniVersions": ["0.4.0"]}, "1.1.0"),
        ({"cniVersion": "2.0.0", "cniVersions": ["0.4.0", "1.2.0"]}, "0.4.0"),
    ],
)
def test_the_highest_version_that_both_speak(declared: dict[str, Any], chosen: str) -> None:
    assert parse({"name": "blue", "type": "x", **declared}).cni_version == chosen


def test_a_configuration_without_a_known_version_is_refused() -> None:
    with pytest.raises(CniError, match="cniVersion: expected one of") as caught:
        parse({"name": "blue", "type": "x", "cniVersion": "7.0.0"})
    assert caught.value.code == Code.INCOMPATIBLE_VERSION


def test_a_name_may_be_lent_but_never_overrides() -> None:
    assert parse({"type": "x"}, name="lent").name == "lent"
    assert parse({"type": "x", "name": "own"}, name="lent").name == "own"


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ([], "expected a JSON object, found []"),
        ({"type": "x"}, "name: expected letters"),
        ({"type": "x", "name": 3}, "name: expected letters"),
        ({"type": "x", "name": "-a"}, "name: expected letters"),
        ({"type": "x", "name": "a\n"}, "name: expected letters"),
        ({"type": "x", "name": "../a"}, "name: expected letters"),
        ({"name": "a"}, "plugins: expected at least one plugin"),
        ({"name": "a", "plugins": []}, "plugins: expected at least one plugin, found []"),
        ({"name": "a", "plugins": {}}, "plugins: expected a list"),
        ({"name": "a", "plugins": [1]}, "plugins[0]: expected an object, found 1"),
        ({"name": "a", "plugins": [BRIDGE, {}]}, "plugins[1]: type: expected the name of a plugin's executable"),
        ({"name": "a", "type": "../sh"}, "type: expected the name"),
        ({"name": "a", "type": "x", "capabilities": {"mac": 1}}, "capabilities: expected an object of booleans"),
        ({"name": "a", "type": "x", "ipam": "host-local"}, "ipam: expected an object"),
        ({"name": "a", "plugins": [{"type": "x", "ipam": {"type": "a/b"}}]}, "plugins[0]: ipam: type: expected"),
        (
            {"name": "a", "type": "x", "ipam": {"type": "tap"}},
            "ipam: type: expected an ipam plugin, not one that calls",
        ),
        ({"name": "a", "type": "flannel", "ipam": {"type": "bridge"}}, "ipam: type: expected an ipam plugin, not one"),
        ({"name": "a", "type": "x", "cniVersion": 1}, "cniVersion: expected a string"),
        ({"name": "a", "type": "x", "cniVersions": "1.0.0"}, "cniVersions: expected a list"),
        ({"name": "a", "type": "x", "disableCheck": "no"}, "disableCheck: expected true or false, found 'no'"),
        ({"name": "a", "loadOnlyInlinedPlugins": True}, "loadOnlyInlinedPlugins: expected false or nothing"),
    ],
)
def test_complaints_name_file_field_and_expectation(data: object, complaint: str) -> None:
    with pytest.raises(CniError) as caught:
        parse(data)
    assert str(caught.value).startswith("10-x.conf: ")
    assert complaint in str(caught.value)
    assert caught.value.code in (Code.INVALID_CONFIG, Code.DECODING_FAILURE)


keys = st.sampled_from(
    ["name", "type", "plugins", "cniVersion", "cniVersions", "ipam", "capabilities", "disableGC"]
) | st.text(max_size=6)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["blue", "bridge", "1.0.0"])
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(values.map(json.dumps) | st.text() | st.binary() | st.just("[" * 100_000))
@example('{"name": "a", "type": "\\ud800"}')
@example("9" * 5000)
def test_whatever_is_parsed_only_our_error_comes_out(text: str | bytes) -> None:
    try:
        network = configs.parse(text, "x")
    except CniError as error:
        assert str(error).startswith("x: ")
    else:
        assert network.plugins
        assert network.name


def test_plugins_in_the_folder_beside_the_file_are_appended(tmp_path: Path) -> None:
    (tmp_path / "blue").mkdir()
    (tmp_path / "blue" / "20-b.conf").write_text('{"type": "b"}')
    (tmp_path / "blue" / "10-a.conf").write_text('{"type": "a"}')
    (tmp_path / "blue" / "readme").write_text("no plugin")
    file = tmp_path / "10-blue.conflist"
    file.write_text('{"name": "blue", "cniVersion": "1.1.0", "plugins": [{"type": "bridge"}]}')
    assert configs.load(file).types == ("bridge", "a", "b")
    file.write_text('{"name": "blue", "cniVersion": "1.1.0"}')
    assert configs.load(file).types == ("a", "b")
    file.write_text('{"name": "blue", "loadOnlyInlinedPlugins": true, "plugins": [{"type": "bridge"}]}')
    assert configs.load(file).types == ("bridge",)
    with pytest.raises(CniError, match=r"10-red\.conf: cannot be read; No such file") as caught:
        configs.load(tmp_path / "10-red.conf")
    assert caught.value.code == Code.IO_FAILURE


@pytest.mark.parametrize("name", ["eth0", "net1.100", "a" * 15, "é" * 7])
def test_interface_names(name: str) -> None:
    configs.validate_ifname(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\0", "a" * 16, "é" * 8])
def test_invalid_interface_names_are_refused(name: str) -> None:
    with pytest.raises(CniError, match="CNI_IFNAME"):
        configs.validate_ifname(name)


@pytest.mark.parametrize("container", ["", "-a", "a/b", "a b", "a\n"])
def test_invalid_container_ids_are_refused(container: str) -> None:
    with pytest.raises(CniError, match="CNI_CONTAINERID"):
        configs.validate_container_id(container)
    configs.validate_container_id("0123abc_.-")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["FIFO", "device"])
def test_load_never_waits_for_a_fifo(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "10-red.conf")
    with pytest.raises(CniError, match=r"10-red\.conf: cannot be read; it is no file"):
        configs.load(tmp_path / "10-red.conf")
