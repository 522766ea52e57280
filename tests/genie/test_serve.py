"""A call from end to end, for every verb: versions, malformed input, the log."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from genie.cni.execute import Outcome, run_sync
from genie.cni.version import SUPPORTED
from genie.serve import serve
from tests.rigs.core import (
    CONTAINER,
    Node,
    addresses,
    failing,
    on,
    valid,
)


@pytest.mark.parametrize("delegate", SUPPORTED)
@pytest.mark.parametrize("runtime", SUPPORTED)
def test_every_version_at_the_edge_over_every_version_of_a_delegate(node: Node, runtime: str, delegate: str) -> None:
    node.install("calico", version=delegate)
    node.conf["cniVersion"] = runtime
    result = node.add("calico,flannel")
    assert result["cniVersion"] == runtime
    if runtime < "0.3.0":
        assert result["ip4"]["ip"] == "10.1.0.2/24"
    else:
        assert addresses(result) == ["10.1.0.2/24", "10.2.0.2/24"]
        assert on(result) == ["eth0", "eth1"]
        assert ("version" in result["ips"][0]) == (runtime < "1.0.0")
    assert node.executor.calls[0].stdin["cniVersion"] == delegate
    node.ok("DEL")
    assert node.left() == []


@pytest.mark.parametrize("stdin", [b"", b"{}", b"x", b"[" * 100_000, b'{"cniVersion": ["x"]}'])
def test_version(node: Node, stdin: bytes) -> None:
    reply = node.call("VERSION", stdin, CNI_PATH=None, CNI_CONTAINERID=None)
    assert json.loads(reply.stdout) == {"cniVersion": "1.1.0", "supportedVersions": list(SUPPORTED)}
    assert json.loads(node.call("VERSION").stdout)["cniVersion"] == "1.0.0"


@pytest.mark.parametrize(("verb", "below"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")])
def test_a_verb_of_a_later_version_is_refused(node: Node, verb: str, below: str) -> None:
    """As containernetworking's plugins answer: the runtime may not call it."""
    node.conf.update(cniVersion=below, **valid())
    error = node.fails(verb)
    assert (error["code"], error["cniVersion"]) == (1, below)
    assert error["msg"].startswith(f"CNI {below} has no {verb}")
    assert node.executor.calls == []


def test_an_add_behind_another_plugin_is_refused(node: Node) -> None:
    """Specification, section 5, code 2: with key and value."""
    node.conf["prevResult"] = {"cniVersion": "1.0.0", "ips": [{"address": "10.5.0.1/24"}]}
    error = node.fails("ADD")
    assert error["code"] == 2 and "prevResult" in error["msg"] and "10.5.0.1/24" in error["msg"]
    assert node.executor.calls == [] and node.left() == []


@pytest.mark.parametrize("override", ["", "1", "true"])
def test_the_hosts_own_namespace_is_no_pods(node: Node, override: str) -> None:
    """It would lose its routes; containernetworking's plugins refuse it, too, unless the runtime sets the override."""
    if not override:
        error = node.fails("ADD", CNI_NETNS="/proc/self/ns/net")
        assert error["code"] == 8 and "CNI_NETNS" in error["msg"]
        assert node.executor.calls == [] and node.left() == []
    else:
        node.ok("ADD", CNI_NETNS="/proc/self/ns/net", CNI_NETNS_OVERRIDE=override)
        assert [output.env["CNI_NETNS_OVERRIDE"] for output in node.executor.calls] == [override]


def test_nothing_is_deleted_in_the_hosts_own_namespace(node: Node) -> None:
    """A plugin would mistake the host's eth0 for the pod's."""
    assert node.fails("DEL", CNI_NETNS="/proc/self/ns/net")["code"] == 8
    node.add("calico")
    assert node.fails("DEL", CNI_NETNS="/proc/self/ns/net")["code"] == 8
    assert node.fails("CHECK", CNI_NETNS="/proc/self/ns/net")["code"] == 8
    assert node.executor.made("DEL") == []
    node.ok("DEL", CNI_NETNS="")


@pytest.mark.parametrize("name", ["", "-net", "a/b", "a b", "n\n"])
def test_a_name_that_no_network_can_have(node: Node, name: str) -> None:
    node.conf["name"] = name
    error = node.fails("ADD")
    assert error["code"] == 7 and "name" in error["msg"]


def test_an_unknown_container_is_one_that_needs_no_del(node: Node) -> None:
    """Specification, section 5, code 3: so it cannot be the answer if something is left."""
    unknown = failing("flannel", code=3, msg="unknown")
    stuck = failing("calico", "DEL", msg="stuck")
    node.executor.act = unknown
    node.kube.annotations = {"cni": "calico,flannel"}
    assert node.fails("ADD")["code"] == 3 and node.left() == []
    node.executor.act = lambda output: unknown(output) or stuck(output)
    error = node.fails("ADD")
    assert error["code"] == 999 and "unknown" in error["msg"] and "stuck" in error["details"]
    assert node.left() == [f"{CONTAINER}@eth0.json"]


WRONG_ENV: list[tuple[dict[str, str | None], str]] = [
    ({"CNI_COMMAND": "PLAY"}, "CNI_COMMAND: expected one of ADD, DEL,"),
    ({"CNI_COMMAND": ""}, "CNI_COMMAND: expected one of"),
    ({"CNI_CONTAINERID": None}, "ADD needs CNI_CONTAINERID in the environment"),
    ({"CNI_NETNS": "", "CNI_PATH": None}, "ADD needs CNI_NETNS, CNI_PATH in the environment"),
    ({"CNI_CONTAINERID": "../../etc"}, "CNI_CONTAINERID '../../etc': expected"),
    ({"CNI_IFNAME": "a/b"}, "CNI_IFNAME 'a/b': expected"),
    ({"CNI_IFNAME": "0123456789abcdef"}, "CNI_IFNAME '0123456789abcdef': expected"),
    ({"CNI_IFNAME": "\udcff"}, "CNI_IFNAME '\\udcff': expected"),
]


@pytest.mark.parametrize(("env", "complaint"), WRONG_ENV)
def test_malformed_environments_are_refused(node: Node, env: dict[str, str | None], complaint: str) -> None:
    error = node.fails("ADD", **env)
    assert error["code"] == 4 and complaint in error["msg"]
    assert node.left() == [] and node.executor.calls == []


WRONG_STDIN: list[tuple[bytes, int]] = [
    (b"", 6),
    (b"{", 6),
    (b"\xff\xfe", 6),
    (b"[" * 100_000, 6),
    (b"[]", 7),
    (b"null", 7),
    (b"{}", 7),
    (b'{"name": 5}', 7),
    (b'{"name": "n", "cniVersion": "7.0.0"}', 1),
    (b'{"name": "n", "default_plugin": 5}', 7),
]


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize(("stdin", "code"), WRONG_STDIN)
def test_malformed_input_is_refused(node: Node, verb: str, stdin: bytes, code: int) -> None:
    assert node.fails(verb, stdin)["code"] == code
    assert node.left() == [] and node.executor.calls == []


def test_an_error_is_told_in_the_version_that_was_spoken(node: Node) -> None:
    assert node.fails("ADD", b'{"cniVersion": "0.3.1", "name": 5}')["cniVersion"] == "0.3.1"
    assert node.fails("ADD", b'{"cniVersion": "7", "name": "n"}')["cniVersion"] == "1.1.0"


def test_a_bug_is_one_error_object(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genie.select.choose.asks", lambda *_: 1 / 0)
    error = node.fails("ADD")
    assert error["code"] == 999 and error["msg"] == "genie failed: ZeroDivisionError: division by zero"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)
CONF_KEYS = ["name", "cniVersion", "default_plugin", "log_level", "policy", "kubernetes", "serial", "runtimeConfig"]
VERBS = st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "", "add"])
NETWORK = st.dictionaries(st.sampled_from(["name", "type", "cniVersion", "plugins", "ipam", "capabilities"]), JSON)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    verb=VERBS,
    env=st.dictionaries(
        st.sampled_from(["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS", "CNI_PATH"]),
        st.none() | st.text(max_size=20),
    ),
    conf=st.dictionaries(st.sampled_from([*CONF_KEYS, "cni.dev/valid-attachments"]), JSON),
    stdin=st.none() | st.binary(max_size=20),
    network=NETWORK,
    annotations=st.dictionaries(
        st.sampled_from(["cni", "networks", "k8s.v1.cni.cncf.io/networks"]), st.text(max_size=9)
    ),
    outcome=st.none()
    | st.builds(
        Outcome, status=st.integers(-9, 2), stdout=st.binary(max_size=9) | JSON.map(json.dumps).map(str.encode)
    ),
)
@example(verb="ADD", env={}, conf={}, stdin=None, network={}, annotations={"cni": "x,calico"}, outcome=None)
def test_serve_never_raises_and_a_failed_add_leaves_nothing(  # noqa: PLR0917
    node: Node,
    verb: str,
    env: dict[str, str | None],
    conf: dict[str, Any],
    stdin: bytes | None,
    network: dict[str, Any],
    annotations: dict[str, str],
    outcome: Outcome | None,
) -> None:
    node.conf = conf
    node.write("20-x.conf", {"name": "x", "type": "calico", **network})
    node.kube.annotations = annotations
    node.executor.act = lambda output: outcome if output.verb == "ADD" else None
    reply = node.call(verb, stdin, **env)
    answer = json.loads(reply.stdout) if reply.stdout else {}
    if reply.status:
        assert answer["code"] != 999 or "genie failed" not in answer["msg"], answer
        assert answer["code"] > 0 and answer["msg"]
    if reply.status or verb != "ADD":
        assert node.left() == []
    for record in node.records:
        node.records.remove(record.container_id, record.ifname)


def test_the_story_of_a_call(node: Node) -> None:
    node.kube.annotations = {"cni": "calico,flannel"}
    story = node.call("ADD").story
    assert (story["verb"], story["pod"], story["container"]) == ("ADD", "blue/web", CONTAINER)
    assert story["selection"] == [["calico", "eth0"], ["flannel", "eth1"]] and story["why"] == "annotation cni"
    assert [(one["plugin"], one["verb"], one["status"]) for one in story["delegates"]] == [
        ("calico", "ADD", 0),
        ("flannel", "ADD", 0),
    ]
    json.dumps(story)


def test_direct_mode_never_waits(node: Node) -> None:
    assert run_sync(serve(node.request("STATUS"), node.kube, node.executor)).status == 0
