"""`genie explain`: of a pod on this node, and of objects in files before anything is applied."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from genie.cni.errors import CniError
from genie.cni.execute import run_sync
from genie.node.explain import main
from genie.select.choose import choose
from genie.select.networks import Directory
from genie.select.preview import Subject, preview
from tests.rigs.api import POD, Api, kubeconfig
from tests.rigs.cli import printed
from tests.rigs.core import Node
from tests.rigs.selection import CONF

NAD = {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition"}
SIDE = {"cniVersion": "1.0.0", "type": "bridge", "capabilities": {"ips": True}}


def explained(capsys: pytest.CaptureFixture[str], conf: str, status: int = 0) -> str:
    return printed(capsys, "explain", "pod", "blue/web", "--conf", conf, status=status)


def annotate(api: Api, **annotations: str) -> None:
    meta: dict[str, Any] = {"namespace": "blue", "name": "web", "uid": "u-1", "annotations": annotations}
    api.answers[POD] = (200, {"metadata": meta})


def test_explain(capsys: pytest.CaptureFixture[str], node: Node, conf: str, api: Api) -> None:
    annotate(api, cni="calico, weave-net@data0", other="x")
    assert explained(capsys, conf) == (
        "cni: 'calico, weave-net@data0'\n"
        "why: annotation cni\n"
        f"  eth0            calico                   calico, from {node.net_d}/10-calico.conf\n"
        f"  data0           weave-net                weave-net, from {node.net_d}/10-weave-net.conf\n"
    )
    assert node.left() == [], "nothing is carried out"
    assert {request[0] for request in api.requests} == {"GET"}


def test_explain_the_least_loaded(capsys: pytest.CaptureFixture[str], node: Node, conf: str, api: Api) -> None:
    annotate(api, cni="")
    for name in ("calico", "weave-net"):
        node.binary(name)
    text = printed(capsys, "explain", "pod", "blue/web", "--conf", conf, "--bin-dir", str(node.root / "bin"))
    assert (
        'why: annotation cni is "": the least loaded network: calico\n  calico 0 B/s received, 0 B/s sent, 0 at' in text
    )
    assert "\n  weave-net 0 B/s received, 0 B/s sent, 0 attachments\n" in text


def test_explain_what_cannot_be(capsys: pytest.CaptureFixture[str], conf: str, api: Api) -> None:
    annotate(api, cni="calico,")
    assert explained(capsys, conf, status=1).startswith("genie explain: annotation cni, item 2")
    del api.answers[POD]
    assert "pod blue/web: no such pod on the API server" in explained(capsys, conf, status=1)


@pytest.mark.parametrize("name", ["web", "/web", "blue/", "a/b/c"])
def test_explain_what_is_no_pods_name(capsys: pytest.CaptureFixture[str], conf: str, name: str) -> None:
    text = printed(capsys, "explain", "pod", name, "--conf", conf, status=1)
    assert text == f"genie explain: expected NAMESPACE/NAME, found {name!r}\n"


# --- files ------------------------------------------------------------------------------------------------------


def definition(name: str, config: Any, **meta: Any) -> dict[str, Any]:
    text = config if isinstance(config, str) else json.dumps(config)
    return {**NAD, "metadata": {"name": name, **meta}, "spec": {"config": text}}


def template(limits: dict[str, str] | None = None, /, **annotations: str) -> dict[str, Any]:
    containers = [{"name": "c", "image": "x", "resources": {"limits": limits or {}}}]
    return {"metadata": {"annotations": annotations}, "spec": {"containers": containers}}


def pod(name: str, limits: dict[str, str] | None = None, /, **annotations: str) -> dict[str, Any]:
    made = template(limits, **annotations)
    return {"apiVersion": "v1", "kind": "Pod", **made, "metadata": {"name": name, **made["metadata"]}}


def of_files(
    capsys: pytest.CaptureFixture[str], path: Path, *documents: Any, status: int = 0, more: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    path.write_text(yaml.safe_dump_all(documents))
    assert main(["-f", str(path), "--offline", "--json", *more]) == status
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, list)
    return found


def interfaces(report: dict[str, Any]) -> dict[str, str]:
    return {one["interface"]: one["network"] for one in report["networks"]}


KEY = "k8s.v1.cni.cncf.io/networks"


def test_explain_reports_all_kinds_of_objects_in_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    job = {"jobTemplate": {"spec": {"template": template(**{KEY: "side"})}}}
    reports = of_files(
        capsys,
        tmp_path / "all.yaml",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "blue", "annotations": {
            "genie.io/default-networks": "weave,side"}}},
        definition("side", SIDE, namespace="blue"),
        {"kind": "Physicalnetwork", "metadata": {"name": "phys", "namespace": "blue"},
         "spec": {"refer_nic": "eth1", "sharedStatus": {"plugin": "macvlan", "subnet": "10.40.0.0/16"}}},
        {"kind": "Logicalnetwork", "metadata": {"name": "red", "namespace": "blue"},
         "spec": {"physicalNet": "phys", "sub_subnet": "10.40.96.0/24"}},
        {"kind": "Service", "metadata": {"name": "s"}, "spec": {}},
        {"kind": "List", "items": [pod("named", cni="calico, weave@x"), pod("logical", networks="red")]},
        {"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": template()}},
        {"kind": "CronJob", "metadata": {"name": "j"}, "spec": job},
        pod("least", cni="", **{KEY: "side"}),
        {**pod("host", cni="calico"), "spec": {"hostNetwork": True, "containers": []}},
        more=("-n", "blue"),
    )  # fmt: skip
    assert [(one["kind"], one["name"]) for one in reports] == [
        *(("Namespace", "blue"), ("NetworkAttachmentDefinition", "side"), ("Physicalnetwork", "phys")),
        *(("Logicalnetwork", "red"), ("Pod", "named"), ("Pod", "logical"), ("Deployment", "d"), ("CronJob", "j")),
        *(("Pod", "least"), ("Pod", "host")),
    ]
    assert not [one for one in reports if "error" in one]
    assert [interfaces(one) for one in reports[4:]] == [
        {"eth0": "calico", "x": "weave"},
        {"eth0": "red"},
        {"eth0": "weave", "eth1": "blue/side"},
        {"eth0": "weave", "eth1": "blue/side", "net1": "blue/side"},
        {"eth0": "the least loaded", "net1": "blue/side"},
        {},
    ]
    assert reports[6]["why"] == "no annotation: genie.io/default-networks of namespace blue"


WRONG: list[tuple[dict[str, Any], str]] = [
    (pod("p", cni="calico,"), 'annotation cni, item 2 (""): expected the name of a network'),
    (pod("p", **{KEY: "nowhere"}), "there is no NetworkAttachmentDefinition default/nowhere"),
    (pod("p", **{KEY: '[{"name": "side", "mac": "02:00:00:00:00:01"}]'}), "mac: no plugin of NetworkAttachment"),
    (pod("p", **{KEY: "fast"}), "the network runs over a device of nic.example/fast, and the pod has no (further) one"),
    (pod("p", networks="nowhere"), "there is no Logicalnetwork default/nowhere"),
    (definition("x", "{"), "NetworkAttachmentDefinition default/x: not valid JSON"),
    (definition("x", {"type": "genie"}), "a plugin of type genie: genie would call itself"),
    ({"kind": "Logicalnetwork", "metadata": {"name": "l"}, "spec": {}}, "expected plugin, or physicalNet"),
    ({"kind": "Logicalnetwork", "metadata": {"name": "l"}, "spec": {"plugin": "x", "sub_subnet": "10.0.0.0/33"}},
     "Logicalnetwork default/l: subnet: '10.0.0.0/33' does not appear to be an IPv4 or IPv6 network"),
    ({"kind": "Node", "metadata": {"name": "n", "annotations": {"genie.io/default-networks": "a,,b"}}},
     "node n: annotation genie.io/default-networks, item 2"),
    *(({"kind": "Namespace", "metadata": {"name": "n", "annotations": {"genie.io/default-networks": odd}}},
       "namespace n: annotation genie.io/default-networks: expected a string") for odd in (5, ["a"], {"a": 1}, True)),
    ({"kind": "MultiNetworkPolicy", "metadata": {"name": "p"}, "spec": {"podSelector": {}}},
     "MultiNetworkPolicy default/p: annotation k8s.v1.cni.cncf.io/policy-for: expected 1 to 32 networks"),
    ({"kind": "NetworkPolicy", "metadata": {"name": "p", "annotations": {"genieNetworkPolicy": "[{}]"}}},
     "NetworkPolicy default/p: genieNetworkPolicy[0]: networkSelector: expected"),
    ({"kind": "Namespace", "metadata": {"name": "n", "labels": {"genie.io/default-networks": "a@lo"}}},
     "namespace n: label genie.io/default-networks, item 1 (\"a@lo\"): interface name: 'lo' is"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "complaint"), WRONG)
def test_a_mistake_is_one_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, document: dict[str, Any], complaint: str
) -> None:
    fast = definition("fast", {"type": "sriov"}, annotations={"k8s.v1.cni.cncf.io/resourceName": "nic.example/fast"})
    *rest, report = of_files(capsys, tmp_path / "a.yaml", definition("side", SIDE), fast, document, status=1)
    assert complaint in report["error"]["msg"]
    assert not [one for one in rest if "error" in one]
    assert main(["-f", str(tmp_path / "a.yaml"), "--offline"]) == 1
    text = capsys.readouterr().out
    assert "WRONG\n  " in text and complaint in text


def test_a_pod_with_a_device_gets_the_network_over_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    fast = definition("fast", {"type": "sriov"}, annotations={"k8s.v1.cni.cncf.io/resourceName": "nic.example/fast"})
    able = pod("p", {"nic.example/fast": "1", "cpu": "500m"}, **{KEY: "fast"})
    _, report = of_files(capsys, tmp_path / "a.yaml", fast, able)
    assert interfaces(report) == {"eth0": "the first of net.d", "net1": "default/fast"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [", "not valid YAML: while parsing"),
        ("[1]", "metadata: expected an object"),
        ("kind: Namespace\nmetadata: {name: n, annotations: [a]}", "annotations: expected an object"),
        ("kind: List\nitems:\n- {kind: Pod}\n- 5", "a.yaml, item 2: object: metadata: expected an object"),
        ("{metadata: {}}", "expected a kind"),
        ("{kind: Pod, metadata: [], spec: {}}", "metadata: expected an object"),
        ("{kind: Pod, metadata: {annotations: 5}, spec: {containers: []}}", "annotations: expected an object"),
    ],
)
def test_a_file_that_holds_no_objects(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, complaint: str
) -> None:
    (tmp_path / "a.yaml").write_text(text)
    answer = printed(capsys, "explain", "-f", str(tmp_path / "a.yaml"), "--offline", status=1)
    assert answer.startswith(f"genie explain: {tmp_path}/a.yaml") and complaint in answer
    assert "cannot read" in printed(capsys, "explain", "-f", str(tmp_path / "none"), "--offline", status=1)


def test_without_a_cluster_the_file_is_read_first(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "pod.yaml"
    for text, complaint in (("a: [", "not valid YAML"), ("{kind: Pod, metadata: {name: web}}", "no cluster: give")):
        file.write_text(text)
        assert complaint in printed(capsys, "explain", "-f", str(file), "--conf-dir", str(tmp_path), status=1)


def test_with_a_cluster_its_objects_and_its_genie_conf_count(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(json.dumps(kubeconfig(api.url, {"token": "t"})))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    conf = json.dumps({"name": "genie", "type": "genie", "default_plugin": "flannel"})
    api.answers["/api/v1/namespaces/kube-system/configmaps/genie"] = (200, {"data": {"genie.conf": conf}})
    path = "/apis/k8s.cni.cncf.io/v1/namespaces/blue/network-attachment-definitions/side"
    api.answers[path] = (200, definition("side", SIDE))
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(pod("p", **{KEY: "side"})))
    text = printed(capsys, "explain", "-f", str(tmp_path / "a.yaml"), "-n", "blue")
    assert [line.split()[:2] for line in text.splitlines()[1:]] == [["eth0", "flannel"], ["net1", "blue/side"]]


ASKED = [
    *({"cni": text} for text in ("calico", "calico,weave-net@x", "nowhere", "a,,", "calico@lo")),
    *({KEY: text} for text in ("side", "other/side", "side@eth0", '[{"name": "side", "ips": ["10.0.0.1"]}]', "[")),
    {KEY: '[{"name": "side", "mac": "02:00:00:00:00:01"}]'}, {}, {"networks": "red"},
]  # fmt: skip


@pytest.mark.parametrize("annotations", ASKED)
def test_a_preview_is_what_an_add_selects(node: Node, annotations: dict[str, str]) -> None:
    node.write("10-calico.conf", {"cniVersion": "1.0.0", "name": "calico", "type": "calico"})
    node.write("20-weave-net.conf", {"cniVersion": "1.0.0", "name": "weave-net", "type": "weave-net"})
    for name in ("calico", "weave-net"):
        node.binary(name)
    node.kube.define("side", SIDE, namespace="blue")
    path = (str(node.root / "bin"),)
    subject = Subject.of(pod("web", **annotations), "blue")
    assert subject.pod

    def outcome(work: Any) -> Any:
        try:
            found = run_sync(work)
        except CniError as error:
            return error.code, error.msg
        chosen = found[0] if isinstance(found, tuple) else found
        return chosen.choices, chosen.why

    conf = replace(CONF, conf_dir=str(node.net_d))
    before = outcome(preview(subject, conf, node.kube, Directory(conf.conf_dir), path))
    assert before == outcome(choose(subject.pod, conf, node.kube, node.executor, path=path))


def test_network_policies_are_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    multi = {
        "kind": "MultiNetworkPolicy",
        "spec": {"podSelector": {}},
        "metadata": {"name": "m", "annotations": {"k8s.v1.cni.cncf.io/policy-for": "blue, apps/side"}},
    }
    notes = {"genieNetworkPolicy": '[{"networkSelector": "red"}, {"networkSelector": "black"}]'}
    genies = {"kind": "NetworkPolicy", "metadata": {"name": "g", "annotations": notes}, "spec": {"podSelector": {}}}
    not_genies = {"kind": "NetworkPolicy", "metadata": {"name": "k"}, "spec": {"podSelector": {}}}
    reports = of_files(capsys, tmp_path / "a.yaml", multi, genies, not_genies)
    assert [(one["name"], one["why"]) for one in reports] == [("m", "for blue, apps/side"), ("g", "for red, black")]
