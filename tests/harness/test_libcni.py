"""A runtime's messages to plugins and its stored results, with examples from the specification and from libcni."""

from __future__ import annotations

import pytest

from harness import libcni
from harness.libcni import Attachment, Kept

POD = Attachment(namespace="ns", pod="p", uid="u", sandbox="c" * 64, netns="/run/netns/x", capabilities={"dns": {}})
CONF = {"name": "g", "type": "genie", "cniVersion": "1.0.0", "capabilities": {"dns": True}}
RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24"}]}


def test_what_is_kept_is_read_as_it_was() -> None:
    kept = Kept(attachment=POD, network=libcni.as_list(CONF), result=RESULT)
    assert Kept.of(kept.text()) == kept
    assert kept.name == f"g-{'c' * 64}-eth0"


def test_libcnis_own_file_is_understood() -> None:
    """As containerd 2 writes it; `config` is the whole list, in Base64."""
    text = (
        '{"kind":"cniCacheV1","containerId":"c1","config":"eyJuYW1lIjoiZyIsImNuaVZlcnNpb24iOiIxLjAuMCIsInBsdWdpbnMiOlt7I'
        'nR5cGUiOiJnZW5pZSJ9XX0=","ifName":"eth0","networkName":"g","netns":"/var/run/netns/cni-1","cniArgs":[["K8S_POD_N'
        'AMESPACE","ns"],["K8S_POD_NAME","p"],["K8S_POD_UID","u"]],"capabilityArgs":null,"result":{"cniVersion":"1.0.0"}}'
    )
    kept = Kept.of(text)
    assert (kept.attachment.namespace, kept.attachment.pod, kept.attachment.uid) == ("ns", "p", "u")
    assert kept.network["plugins"] == [{"type": "genie"}]


def test_gc_is_told_of_every_valid_attachment_by_both_names() -> None:
    stdin = libcni.configuration(libcni.as_list(CONF), CONF, valid=[POD])
    valid = [{"containerID": "c" * 64, "ifname": "eth0"}]
    assert stdin["cni.dev/valid-attachments"] == stdin["cni.dev/attachments"] == valid
    assert "runtimeConfig" not in stdin


def test_gc_and_status_are_about_no_container() -> None:
    env = libcni.environment("STATUS", None)
    assert (env["CNI_COMMAND"], env["CNI_CONTAINERID"], env["CNI_ARGS"]) == ("STATUS", "", "")


def test_an_error_is_worded_as_libcni_words_it() -> None:
    error = libcni.failure("genie", "ADD", 1, '{"code": 7, "msg": "no network", "details": "blue"}')
    assert str(error) == 'plugin type="genie" failed (add): no network: blue'
    assert error.code == 7


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        (["1.0.0", "1.1.0"], "1.1.0"),
        (["1.1.0", "0.4.0"], "1.1.0"),
        (["9.0.0"], "1.0.0"),
        ([], "1.0.0"),
        (["0.3.1"], "1.0.0"),
    ],
)
def test_the_highest_known_version_that_a_list_offers_is_taken(offered: list[str], taken: str) -> None:
    """As in libcni's NetworkConfFromBytes, since 1.2.0."""
    conf = {"cniVersion": "1.0.0", "cniVersions": offered, "name": "n", "plugins": [{"type": "genie"}]}
    assert libcni.as_list(conf) == {"cniVersion": taken, "name": "n", "plugins": [{"type": "genie"}]}


def test_settings_go_to_the_plugin_and_the_lists_own_to_the_list() -> None:
    conf = {
        "cniVersion": "1.0.0",
        "cniVersions": ["1.1.0"],
        "name": "n",
        "plugins": [{"type": "genie"}, {"type": "mesh"}],
    }
    changed = libcni.with_settings(conf, "genie", {"cniVersion": "0.4.0", "serial": True})
    assert libcni.as_list(changed) == {
        "cniVersion": "0.4.0", "name": "n", "plugins": [{"type": "genie", "serial": True}, {"type": "mesh"}]
    }  # fmt: skip
    assert libcni.with_settings({"type": "genie"}, "genie", {"serial": True}) == {"type": "genie", "serial": True}
