"""The runtime of an embedded node: the input of plugins, stored results and the log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import libcni
from harness.embedded import runtime


def test_changes_are_for_their_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "00-genie.conf").write_text('{"name": "g", "type": "genie", "cniVersion": "1.0.0"}')
    (tmp_path / "10-other.conf").write_text('{"name": "o", "type": "bridge"}')
    monkeypatch.setattr(runtime, "CONF_DIR", tmp_path)
    engine = runtime.Runtime()
    engine.override("k", "mine", {"default_plugin": "weave"})
    assert engine._network("mine")["plugins"][0]["default_plugin"] == "weave"
    assert "default_plugin" not in engine._network("other")["plugins"][0]
    engine.restore("k")
    assert engine._network("mine") == engine._network("other")


def test_add_keeps_the_result_for_del(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "output"
    plugin = tmp_path / "genie"
    plugin.write_text(
        f'#!/bin/sh\necho "$CNI_COMMAND $CNI_ARGS $(cat)" >>{output}\n'
        """[ $CNI_COMMAND = ADD ] && echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24"}]}'; true\n"""
    )
    plugin.chmod(0o755)
    (tmp_path / "net.d").mkdir()
    conf = {"name": "g", "type": "genie", "cniVersion": "1.0.0", "capabilities": {"portMappings": True}}
    (tmp_path / "net.d" / "00-genie.conf").write_text(json.dumps(conf))
    monkeypatch.setattr(runtime, "CONF_DIR", tmp_path / "net.d")
    monkeypatch.setattr(runtime, "CACHE", tmp_path / "results")
    monkeypatch.setattr(runtime, "BINARIES", str(tmp_path))
    engine = runtime.Runtime()
    attachment = libcni.Attachment(
        namespace="ns",
        pod="p",
        uid="u",
        sandbox="c" * 64,
        netns="/run/netns/x",
        capabilities={"portMappings": [{"hostPort": 80}], "dns": {}},
    )
    assert engine.add(attachment)["ips"][0]["address"] == "10.1.2.3/24"
    engine.delete(attachment)
    engine.delete(attachment)
    add, first, second = output.read_text().splitlines()
    assert f"IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID={'c' * 64}" in add
    assert '"runtimeConfig": {"portMappings": [{"hostPort": 80}]}' in add
    assert '"prevResult"' in first
    assert '"prevResult"' not in second
    assert [call.env["CNI_COMMAND"] for call in engine.calls_for("ns", "p")] == ["ADD", "DEL", "DEL"]


def test_a_token_is_not_in_the_record() -> None:
    assert "s3cret" not in json.dumps(
        runtime.masked({"policy": {"k8s_auth_token": "s3cret"}, "list": [{"token": "s3cret"}]})
    )
