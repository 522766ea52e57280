"""genie.conf: read, or refused by the name of the field."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie import config
from genie.cni.errors import CniError
from tests.rigs.selection import JSON

ORIGINAL = {  # as the original design shows it
    "name": "k8s-pod-network",
    "type": "genie",
    "log_level": "debug",
    "cniVersion": "0.3.0",
    "etcd_endpoints": "http://127.0.0.1:2379",
    "hostname": "node-1",
    "policy": {"type": "k8s", "k8s_api_root": "https://10.96.0.1:443", "k8s_auth_token": "secret"},
    "kubernetes": {"kubeconfig": "/etc/cni/net.d/genie-kubeconfig"},
    "default_plugin": "weave, flannel",
    "romana_root": "http://romana:9600",
    "segment_label_name": "romanaSegment",
    "cAdvisor_address": "http://127.0.0.1:4194",
}


def test_the_original_genie_conf() -> None:
    conf = config.parse(ORIGINAL)
    assert conf.default_plugin == ("weave", "flannel")
    assert conf.credentials.kubeconfig == "/etc/cni/net.d/genie-kubeconfig"
    assert (conf.credentials.api_root, conf.credentials.token) == ("https://10.96.0.1:443", "secret")
    assert conf.raw["cAdvisor_address"] == "http://127.0.0.1:4194"
    assert "secret" not in repr(conf), "what is logged of a configuration holds no token"


@pytest.mark.parametrize(
    ("kubernetes", "policy", "root"),
    [
        ("https://a", "https://b", "https://a"),
        ("", "https://b:443/api/v1/", "https://b:443"),
        ("", "https://b/k8s", "https://b/k8s"),
        ("https://a/api/v1", "", "https://a/api/v1"),
    ],
)
def test_the_api_root_that_counts(kubernetes: str, policy: str, root: str) -> None:
    """As CNI-Genie's code has it (client/client.go, buildKubeConfig)."""
    conf = {"name": "n", "kubernetes": {"k8s_api_root": kubernetes}, "policy": {"k8s_api_root": policy}}
    assert config.parse(conf).credentials.api_root == root


def test_undeclared_capabilities() -> None:
    values = [{}, {"undeclared_capabilities": "refuse"}, {"undeclared_capabilities": "drop"}]
    assert [config.parse({"name": "n", **each}).drop_undeclared for each in values] == [False, False, True]


WRONG_CONF: list[tuple[Any, str, int]] = [
    ([], "genie.conf: expected an object, found []", 7),
    ({"type": "genie"}, "genie.conf: name: expected a string, found nothing", 7),
    ({"name": 5}, "genie.conf: name: expected a string, found 5", 7),
    ({"name": "n", "cniVersion": "9.9"}, "cniVersion '9.9' is not one that genie speaks", 1),
    ({"name": "n", "default_plugin": {"a": 1}}, "default_plugin: expected a list of names", 7),
    ({"name": "n", "default_plugin": ["a", 1]}, "default_plugin: expected a list of names", 7),
    ({"name": "n", "policy": "k8s"}, "policy: expected an object, found 'k8s'", 7),
    ({"name": "n", "policy": {"k8s_auth_token": 5}}, "policy: k8s_auth_token: expected a string", 7),
    ({"name": "n", "max_networks": 0}, "max_networks: expected a whole number from 1 to 128, found 0", 7),
    ({"name": "n", "max_networks": 129}, "max_networks: expected a whole number from 1 to 128, found 129", 7),
    ({"name": "n", "max_networks": "9"}, "max_networks: expected a whole number from 1 to 128, found '9'", 7),
    ({"name": "n", "capabilities": {"ips": "yes"}}, "capabilities: expected an object of booleans, found an object", 7),
    ({"name": "n", "capabilities": ["ips"]}, "capabilities: expected an object, found a list", 7),
    ({"name": "n", "cniVersions": "1.0.0"}, "cniVersions: expected a list, found '1.0.0'", 7),
    ({"name": "n", "cniVersions": [1]}, "cniVersions: expected a list of strings", 7),
    ({"name": "n", "serial": "yes"}, "serial: expected true or false, found 'yes'", 7),
    (
        {"name": "n", "undeclared_capabilities": "pass"},
        'undeclared_capabilities: expected "refuse" or "drop", found',
        7,
    ),
    ({"name": "n", "undeclared_capabilities": True}, "undeclared_capabilities: expected a string, found true", 7),
    ({"name": "n", "events": 1}, "events: expected true or false, found 1", 7),
    ({"name": "n", "api_timeout": 0}, "api_timeout: expected a positive number of seconds, found 0", 7),
    ({"name": "n", "api_timeout": True}, "api_timeout: expected a positive number of seconds", 7),
    ({"name": "n", "api_timeout": float("nan")}, "api_timeout: expected a positive number of seconds", 7),
    ({"name": "n", "conf_dir": "/etc\0"}, "conf_dir: expected a string of printable", 7),
    ({"name": "n", "log_file": "\ud800"}, "log_file: expected a string of printable", 7),
]


@pytest.mark.parametrize(("data", "complaint", "code"), WRONG_CONF)
def test_a_wrong_genie_conf_is_refused_by_field(data: Any, complaint: str, code: int) -> None:
    with pytest.raises(CniError) as caught:
        config.parse(data)
    assert complaint in str(caught.value)
    assert caught.value.code == code


@given(st.dictionaries(st.sampled_from([*ORIGINAL, "serial", "conf_dir", "global_namespaces", "runtimeConfig"]), JSON))
def test_any_genie_conf_is_read_or_refused(data: dict[str, Any]) -> None:
    try:
        config.parse({"name": "n", **data})
    except CniError as error:
        assert error.code in (1, 7)


def test_genie_in_a_list_has_the_lists_name_and_version_as_a_runtime_hands_them_over(tmp_path: Path) -> None:
    alone = {"type": "genie", "name": "mine", "cniVersion": "0.3.1", "conf_dir": "/there"}
    path = tmp_path / "00-genie.conflist"
    path.write_text(json.dumps({"name": "k8s", "cniVersion": "1.0.0", "plugins": [{"type": "x"}, alone]}))
    conf = config.load(str(path))
    assert (conf.name, conf.cni_version, conf.conf_dir) == ("k8s", "1.0.0", "/there")


@pytest.mark.parametrize("text", ["{", "[]", "5", '{"plugins": 5}', '{"plugins": [5]}', "[" * 100_000, "\0", ""])
def test_a_file_of_another_type_is_not_taken_for_genie_conf(tmp_path: Path, text: str) -> None:
    (tmp_path / "00-genie.conf").write_text(text)
    assert config.find(str(tmp_path)) is None
    with pytest.raises(CniError, match=f"{tmp_path}/00-genie.conf: "):
        config.load(str(tmp_path / "00-genie.conf"))


def test_genies_own_configuration_is_found_by_its_type_where_a_runtime_looks(tmp_path: Path) -> None:
    mine = json.dumps({"name": "k8s", "type": "genie"})
    for name in ("00-genie.conf.cilium_bak", "01-genie.conf~", ".02-genie.conf.swp", "03-genie.txt"):
        (tmp_path / name).write_text(mine)
    (tmp_path / "04-broken.conf").write_text("{")
    (tmp_path / "05-other.conf").write_text('{"name": "genie", "type": "bridge"}')
    (tmp_path / "06-folder.conf").mkdir()
    os.mkfifo(tmp_path / "07-fifo.conf")
    (tmp_path / "08-nothing.conf").symlink_to("nowhere")
    assert config.find(str(tmp_path)) is None
    for name in ("30-genie.conf", "20-genie.json", "10-genie.conflist"):
        text = json.dumps({"name": "k8s", "plugins": [json.loads(mine)]}) if name.endswith("list") else mine
        (tmp_path / name).write_text(text)
        assert config.find(str(tmp_path)) == str(tmp_path / name)


def test_a_directory_that_is_not_there_has_no_genie_conf(tmp_path: Path) -> None:
    assert config.find(str(tmp_path / "none")) is None
    with pytest.raises(CniError, match=f"cannot read {tmp_path}/none: No such file") as caught:
        config.load(str(tmp_path / "none"))
    assert caught.value.code == 5
