"""What is refused when it is applied: the policies of genie/deploy/admission on a real API server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import genie
from genie.cni.errors import CniError
from genie.cni.execute import run_sync
from genie.select.preview import Given, Subject, Unseen, preview
from harness.download import FIXTURES
from tests.rigs.real_api import Cluster, create, started
from tests.rigs.selection import CONF

DEPLOY = Path(genie.__file__).parent / "deploy"
KEY, DEFAULT = "k8s.v1.cni.cncf.io/networks", "v1.multus-cni.io/default-network"
PODS = "/api/v1/namespaces/default/pods"

Case = tuple[dict[str, Any], str]
"""An object, and what the API server answers; "" if it accepts it."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("api")) as cluster:
        for path in sorted((DEPLOY / "crds").iterdir()) + sorted((FIXTURES / "crds").iterdir()):
            for thing in yaml.safe_load_all(path.read_text()):
                create(cluster, thing)
        for thing in yaml.safe_load_all((DEPLOY / "admission" / "policies.yaml").read_text()):
            create(cluster, thing)
        deadline = time.monotonic() + 30
        for bad in (pod(cni=","), definition("no"), logical(sub_subnet="1.2.3.4/77"), namespace(",")):
            while not refused(cluster, bad):
                assert time.monotonic() < deadline, bad
                time.sleep(0.1)
        yield cluster


def pod(**annotations: str) -> dict[str, Any]:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    meta = {"name": "p", "namespace": "default", "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def owned(kind: str, **annotations: str) -> dict[str, Any]:
    whole = pod(**annotations)
    template = {"metadata": {"annotations": annotations, "labels": {"a": "b"}}, "spec": whole["spec"]}
    meta = {"name": "d", "namespace": "default"}
    if kind == "CronJob":
        template["spec"]["restartPolicy"] = "Never"
        spec = {"schedule": "0 0 * * *", "jobTemplate": {"spec": {"template": template}}}
        return {"apiVersion": "batch/v1", "kind": kind, "metadata": meta, "spec": spec}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": meta, "spec": spec}


def definition(config: str) -> dict[str, Any]:
    meta = {"name": "n", "namespace": "default"}
    kind = {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition"}
    return {**kind, "metadata": meta, "spec": {"config": config}}


def logical(**spec: Any) -> dict[str, Any]:
    meta = {"name": "l", "namespace": "default"}
    kind = {"apiVersion": "alpha.network.k8s.io/v1", "kind": "Logicalnetwork"}
    return {**kind, "metadata": meta, "spec": {"plugin": "bridge", **spec}}


def physical(interface: str, subnet: str) -> dict[str, Any]:
    spec = {"refer_nic": interface, "sharedStatus": {"plugin": "macvlan", "subnet": subnet}}
    return {**logical(), "kind": "Physicalnetwork", "spec": spec}


def namespace(text: str, kind: str = "Namespace") -> dict[str, Any]:
    meta = {"name": "blue", "annotations": {"genie.io/default-networks": text}}
    return {"apiVersion": "v1", "kind": kind, "metadata": meta}


def refused(cluster: Cluster, thing: dict[str, Any]) -> str:
    """The API server's refusal of an object; empty if it would take it."""
    status, answer = cluster.ask("POST", f"{cluster.collection(thing)}?dryRun=All", thing)
    assert status in (201, 422), answer
    return "" if status == 201 else str(answer["message"])


LONG = "a" * 65537
NAMES, INTERFACE, SHORT = (
    "expected names with commas",
    "expected an interface name",
    "expected NAMESPACE/NAME@INTERFACE",
)
CASES: list[Case] = [
    *((pod(cni=text), "") for text in ("", " ", "calico", " calico , weave @ net1", "a@eth0,b", "A_b.c-d", "a@ü")),
    *((pod(cni=text), NAMES) for text in ("a,", ",", "a b", "a@b@c", "-a", "ä", "a" * 254, "a/b")),
    *((pod(cni=f"a@{name}"), INTERFACE) for name in ("", "a/b", "a b", "lo", "all", "-a", "a%d", "..", "a" * 16)),
    *(
        (pod(**{key: f"a@{name}"}), INTERFACE)
        for key in ("cni", KEY, DEFAULT)
        for name in ("ü" * 8, "x\u200by", "lo", "-")
    ),
    (pod(cni="a@x,b@ x "), "one interface is named twice"),
    (pod(cni="a@x", **{KEY: "b@x"}), "one interface is named twice"),
    (pod(cni="a@x", **{KEY: "a@ y\u3000,b@,ns/b@\x1fz"}), ""),
    *((pod(**{DEFAULT: text}), "expected one network") for text in ("a,b", "[ ]")),
    (pod(**{DEFAULT: '[{"name": "a", "namespace": "ns"}]'}), ""),
    (pod(cni=",".join(["a"] * 129)), "more networks than a pod can have"),
    *((pod(**{key: LONG}), "more than 65536 characters") for key in ("cni", "networks", KEY, DEFAULT)),
    (pod(networks="red@x, black", cni=""), ""),
    (pod(networks="red,"), NAMES),
    (pod(networks="red,", cni="calico"), ""),  # which genie ignores
    *((pod(**{KEY: text}), "") for text in ("a", "a , ns/b@x", "/a", "a@", '[{"name": "a"}]', " [ ] ", "")),
    *((pod(**{KEY: text}), SHORT) for text in ("a,", "a/b/c", "a@b@c", "a b", "a//b", "ns/", "n s/a", "ä/a")),
    *((pod(**{KEY: text}), "expected a JSON list of networks") for text in ('{"name": "a"}', "[", "[1,2")),
    (pod(**{DEFAULT: "ns/a"}), ""),
    (pod(**{DEFAULT: "ns/a", "cni": " "}), ""),
    (pod(**{DEFAULT: "a", "cni": "b"}), "both name a default network"),
    (pod(**{DEFAULT: "a", "networks": "b"}), "both name a default network"),
    (pod(**{DEFAULT: "a/"}), SHORT),
    *((owned(kind, cni="calico"), "") for kind in ("Deployment", "CronJob", "DaemonSet")),
    *((owned(kind, cni="calico,"), NAMES) for kind in ("Deployment", "CronJob", "DaemonSet", "ReplicaSet")),
    *((namespace(text, kind), "") for text in ("", "a, ns/b@x", " a @ x") for kind in ("Namespace", "Node")),
    *((namespace(text), "genie.io/default-networks: expected names") for text in ("a,", "a/b/c", "a@", "[]", "/a")),
    *(
        (namespace(f"a@{name}"), "expected names with commas")
        for name in ("lo", "a" * 16, "ü" * 8, "x\u200by", "..", "%")
    ),
    (namespace("a@x,b@x"), "one interface is named twice"),
    (namespace(LONG), "genie.io/default-networks: it is longer"),
    (definition(""), ""),
    (definition(' {"cniVersion": "1.0.0", "name": "n", "type": "bridge"}\n'), ""),
    *((definition(text), "spec.config: expected a JSON object") for text in ("bridge", "[]", '{"type": "bridge"')),
    (definition('{"type": "' + LONG + '"}'), "spec.config has more than 65536 characters"),
    *((logical(sub_subnet=text), "") for text in ("10.0.0.0/24", "10.0.0.1/24", "fd00::/64")),
    *(
        (logical(sub_subnet=text), "subnet")  # by the CRD or by the policy
        for text in ("10.0.0.5", "10.0.0.0/255.0.0.0", "10.0.0.0/024", "fe80::1%eth0/64", "x/24", "10.0.0.0/")
    ),
    (logical(sub_subnet="10.0.0.0/33"), "expected a subnet like 10.40.96.0/24, found 10.0.0.0/33"),
    (physical("eth1", "10.0.0.0/16"), ""),
    (physical("eth1", "10.0.0/16"), "expected a subnet"),
]


@pytest.mark.parametrize(("thing", "complaint"), CASES)
def test_what_is_refused_when_it_is_applied(cluster: Cluster, thing: dict[str, Any], complaint: str) -> None:
    answer = refused(cluster, thing)
    assert complaint in answer and bool(answer) == bool(complaint)


NAD = '{"cniVersion": "1.0.0", "name": "n", "type": "bridge"}'


@pytest.mark.parametrize(("thing", "complaint"), CASES)
def test_an_add_would_decide_the_same(thing: dict[str, Any], complaint: str) -> None:
    """What a policy refuses, no ADD grants; what it accepts here, an ADD grants, too, if the networks exist."""
    subject = Subject.of(thing)
    there = [
        {**definition(NAD), "metadata": {"name": name, "namespace": space}}
        for name in "ab"
        for space in ("default", "ns")
    ]
    reds = [{**logical(), "metadata": {"name": name, "namespace": "default"}} for name in ("red", "black")]
    given = Given(CONF, [*there, *reds, thing], offline=True)
    try:
        run_sync(preview(subject, CONF, given, Unseen()))
    except CniError:
        assert complaint
    else:
        assert not complaint


def test_a_pod_on_the_hosts_network_and_a_mirror_pod_are_let_through(cluster: Cluster) -> None:
    host = pod(cni="a,")
    host["spec"] = {**host["spec"], "hostNetwork": True}
    assert refused(cluster, host) == ""
    mirror = pod(**{"cni": "a,", "kubernetes.io/config.mirror": "x"})
    assert "expected names" not in refused(cluster, {**mirror, "spec": {**mirror["spec"], "nodeName": "n"}})


def test_policies_fail_open() -> None:
    things = list(yaml.safe_load_all((DEPLOY / "admission" / "policies.yaml").read_text()))
    policies = [thing for thing in things if thing["kind"] == "ValidatingAdmissionPolicy"]
    assert {thing["spec"]["failurePolicy"] for thing in policies} == {"Ignore"}
    bound = {thing["spec"]["policyName"] for thing in things if thing["kind"].endswith("Binding")}
    assert bound == {thing["metadata"]["name"] for thing in policies}
