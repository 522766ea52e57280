"""What real clusters' backends work out before they touch a cluster: patches, plans, inventories, manifests."""

from __future__ import annotations

import base64
import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import catalog
from harness.backends import container, existing, registry
from harness.cluster import deploy, inventory, ipam, kindtool, networks, software
from harness.cluster.software import Patch, Software
from harness.contract import Unavailable
from harness.download import Download, NotHad

NETWORKS = ("bridge", "calico", "canal", "flannel", "macvlan", "ptp", "weave")


@pytest.fixture(scope="module")
def known() -> dict[str, Software]:
    return software.known(catalog.load())


# --- software


def test_every_network_can_be_had_on_a_real_cluster(known: dict[str, Software]) -> None:
    assert set(NETWORKS) <= set(known)


def test_subnets_of_networks_that_stand_beside_each_other_do_not_overlap(known: dict[str, Software]) -> None:
    from ipaddress import ip_network
    from itertools import combinations

    for one, other in combinations(known, 2):
        if other in known[one].conflicts:
            continue
        for subnet in known[one].subnets:
            assert not any(ip_network(subnet).overlaps(ip_network(each)) for each in known[other].subnets), (one, other)


def test_conflicts_are_mutual_and_explained(known: dict[str, Software]) -> None:
    for name, network in known.items():
        for rival in network.conflicts:
            assert name in known[rival].conflicts
            assert network.conflict_reason


def test_no_configuration_of_a_network_comes_before_genie(known: dict[str, Software]) -> None:
    assert all(network.conf > "00-genie.conf" for network in known.values())


@pytest.mark.parametrize(
    ("into", "change", "result"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": [{"name": "x", "v": 1}]}, {"a": [{"name": "x", "w": 2}]}, {"a": [{"name": "x", "v": 1, "w": 2}]}),
        ({"a": [{"name": "x"}]}, {"a": [{"name": "y"}]}, {"a": [{"name": "x"}, {"name": "y"}]}),
        ({"a": [{"name": "x"}, {"name": "y"}]}, {"a": [{"name": "x", "$patch": "delete"}]}, {"a": [{"name": "y"}]}),
        ({"e": [{"name": "", "valueFrom": 1}]}, {"e": [{"name": "", "value": 2}]}, {"e": [{"name": "", "value": 2}]}),
        ({}, {"a": [{"name": "x"}]}, {"a": [{"name": "x"}]}),
        ({"m": [{"name": "x", "at": 1}, {"name": "x", "at": 2}]}, {"m": [{"name": "y"}]},
         {"m": [{"name": "x", "at": 1}, {"name": "x", "at": 2}, {"name": "y"}]}),
    ],
)  # fmt: skip
def test_merge(into: dict[str, Any], change: dict[str, Any], result: dict[str, Any]) -> None:
    assert software.merge(into, change) == result


def thing(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **more}


def test_a_patch_that_fits_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="Deployment gone: no such object"):
        software.patched([thing("Pod", "a")], (Patch(kind="Deployment", name="gone", why="", drop=True),))


def test_patches_change_copies() -> None:
    original = [thing("ConfigMap", "a", data={"conf": '{"x": {"y": 1}}'}), thing("Pod", "b")]
    patches = (
        Patch.model_validate({"kind": "ConfigMap", "why": "", "json-in": {"conf": {"x": {"z": 2}}}}),
        Patch(kind="Pod", name="b", why="", drop=True),
    )
    changed = software.patched(original, patches)
    assert yaml.safe_load(changed[0]["data"]["conf"]) == {"x": {"y": 1, "z": 2}}
    assert [each["metadata"]["name"] for each in changed] == ["a"]
    assert original[0]["data"]["conf"] == '{"x": {"y": 1}}'


def test_images_of_all_containers_each_once() -> None:
    pod = {"initContainers": [{"image": "one"}], "containers": [{"image": "two"}, {"image": "one"}]}
    assert software.images(
        [thing("DaemonSet", "a", spec={"template": {"spec": pod}}), thing("Pod", "b", spec=pod)]
    ) == (
        "one",
        "two",
    )


def test_a_node_has_its_own_version_of_a_configuration() -> None:
    assert software.for_node({"a": ["10.1.{n}.0/24", 7], "b": True}, 3) == {"a": ["10.1.3.0/24", 7], "b": True}


# --- plans


@pytest.fixture
def all_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "_had", lambda _: [])


@pytest.mark.usefixtures("all_to_be_had")
class TestPlan:
    def test_all_that_fit_beside_each_other(self, known: dict[str, Software]) -> None:
        plan = networks.plan(known, None)
        assert set(plan.chosen) == set(known) - {"canal"}
        assert "cannot be beside calico" in plan.missing["canal"]

    def test_what_is_on_request_gives_way_to_what_is_not(self, known: dict[str, Software]) -> None:
        assert set(networks.plan(known, ["canal", "flannel", "bridge"]).chosen) == {"flannel", "bridge"}

    def test_on_request(self, known: dict[str, Software]) -> None:
        plan = networks.plan(known, ["canal", "bridge"])
        assert set(plan.chosen) == {"canal", "bridge"}
        assert "cannot be beside canal" in plan.missing["flannel"]
        assert plan.missing["weave"] == "it was not asked for (--networks weave)"

    def test_every_known_network_is_an_offer(self, known: dict[str, Software]) -> None:
        offers = networks.plan(known, ["bridge"]).offers(known)
        assert set(offers) == set(known)
        assert [name for name, offer in offers.items() if not offer.missing] == ["bridge"]


def test_an_image_that_cannot_be_had_is_a_reason(known: dict[str, Software], monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(image: str) -> None:
        raise Unavailable(f"image {image} is not in the engine and cannot be pulled")

    monkeypatch.setattr(Software, "objects", lambda _: [thing("Pod", "a", spec={"containers": [{"image": "far"}]})])
    monkeypatch.setattr(networks.engine, "have_image", lacking)
    plan = networks.plan(known, ["flannel"])
    assert plan.missing["flannel"] == "image far is not in the engine and cannot be pulled"


def test_a_networks_own_objects_come_along_with_their_images() -> None:
    pod = thing("Pod", "etcd", spec={"containers": [{"image": "etcd:1"}]})
    data = {"software": "x", "conf": "10-x.conf", "subnets": ["10.1.0.0/16"], "objects": [pod]}
    found = Software.model_validate(data).objects()
    assert found == [pod]
    assert software.images(found) == ("etcd:1",)


def test_an_image_of_the_control_plane_is_borrowed_not_pulled() -> None:
    pods = [thing("Pod", "etcd", spec={"containers": [{"image": "{{ image of etcd }}"}, {"image": "other:1"}]})]
    assert software.images(pods) == ("other:1",)
    assert software.borrowed(pods) == {"etcd"}
    lent = software.with_borrowed(pods, {"etcd": "far/etcd:3", "kube-proxy": "far/proxy:1"})
    assert software.images(lent) == ("far/etcd:3", "other:1")


@pytest.mark.parametrize(
    ("datastore", "only"), [({"datastore_type": "kubernetes"}, True), ({"etcd_endpoints": "e"}, False)]
)
def test_a_clusters_calico_is_a_pods_first_network_only_if_its_datastore_is_kubernetes(
    datastore: dict[str, str], only: bool
) -> None:
    conf = {"plugins": [{"type": "calico", **datastore}, {"type": "portmap"}]}
    assert ("status.podIP" in existing.first_only(conf)) is only
    assert existing.first_only({"type": "bridge", "datastore_type": "kubernetes"}) == ""


# --- inventories

PRINTED = r"""
#### links
[{"ifname":"lo"},{"ifname":"eth0","linkinfo":{"info_kind":"veth"}},{"ifname":"cni0","linkinfo":{"info_kind":"bridge"}},
 {"ifname":"vethd1c2","linkinfo":{"info_kind":"veth"},"master":"cni0"},
 {"ifname":"flannel.1","linkinfo":{"info_kind":"vxlan"}}]

#### routes
default via 172.18.0.1 dev eth0
10.244.1.0/24 dev cni0 proto kernel scope link src 10.244.1.1 linkdown
10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink
10.50.2.7 dev veth77 scope host
local 10.244.1.1 dev cni0 table local proto kernel scope host src 10.244.1.1
fe80::/64 dev vethd1c2 proto kernel metric 256 pref medium
fc00:f853::/64 dev eth0 proto ra metric 1024 expires 1797sec pref medium

#### rules
0:	from all lookup local

#### iptables
iptables *nat
iptables :POSTROUTING ACCEPT [3:180]
iptables :KUBE-SVC-X - [0:0]
iptables :CNI-HOSTPORT-DNAT - [0:0]
iptables :CNI-7a1b - [0:0]
iptables -A WEAVE-NPC-DEFAULT -m set --match-set weave-2):mj dst -j ACCEPT
iptables -A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
iptables -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
iptables -A POSTROUTING -s 10.22.2.7/32 -m comment --comment "name: \"b\" id: \"abc\"" -j CNI-7a1b
iptables COMMIT

#### nft
table ip nat {
	chain POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "eth0" counter masquerade
	}
}
table inet cni_plugins_masquerade {
	chain masq_checks {
		ip saddr == 10.22.2.7 goto x comment "abc"
	}
}

#### ipsets
KUBE-CLUSTER-IP
weave-xyz
cali40xyz

#### namespaces
cni-1
cni-2

#### records
abc@eth0.json

#### host-local
cbr0/10.244.1.7 0123/eth0 eth0
cbr0/last_reserved_ip.0 10.244.1.7
cbr0/lock

#### weave
{"owned":[{"containerid":"weave:expose","addrs":["10.32.128.0/16"]},{"containerid":"0123","addrs":["10.32.128.7/16"]}]}

#### calico-ipam

#### calico-endpoints
"""


def test_inventory() -> None:
    found = inventory.parse(PRINTED, "w1")
    assert found.interfaces == {"eth0", "vethd1c2 (bridge cni0)"}
    assert found.addresses == {
        "cbr0 10.244.1.7 0123/eth0/eth0",
        "weave 10.32.128.0/16 weave:expose",
        "weave 10.32.128.7/16 0123",
    }
    assert found.namespaces == {"cni-1", "cni-2"}
    assert found.records == {"abc@eth0.json"}
    assert found.routes == {
        "default via 172.18.0.1 dev eth0",
        "10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink",
        "10.50.2.7 dev veth77 scope host",
        "fc00:f853::/64 dev eth0 proto ra metric 1024",
        "rule 0: from all lookup local",
    }
    assert found.netfilter == {
        "iptables nat :CNI-7a1b -",
        'iptables nat -A POSTROUTING -s 10.22.2.7/32 -m comment --comment "name: \\"b\\" id: \\"abc\\"" -j CNI-7a1b',
        'nft inet cni_plugins_masquerade chain masq_checks: ip saddr == 10.22.2.7 goto x comment "abc"',
        "ipset cali40xyz",
    }


def test_an_inventory_is_not_beyond_itself() -> None:
    assert inventory.parse(PRINTED, "w1").beyond(inventory.parse(PRINTED, "w1")) == []


BLOCK = {
    "cidr": "10.245.1.64/26",
    "allocations": [0, None, 1, 2],
    "attributes": [
        {"handle_id": "vxlan-tunnel-addr-w1", "secondary": {"node": "w1", "type": "vxlanTunnelAddress"}},
        {"handle_id": "k8s-pod-network.0123", "secondary": {"node": "w1", "namespace": "n", "pod": "p"}},
        {"handle_id": "k8s-pod-network.4567", "secondary": {"node": "w2", "namespace": "n", "pod": "q"}},
    ],
}
HANDLES = ("vxlan-tunnel-addr-w1", "k8s-pod-network.0123", "k8s-pod-network.4567", "k8s-pod-network.89ab")


def test_calicos_addresses_are_told_of_the_node_that_has_them() -> None:
    stray = "calico handle k8s-pod-network.89ab, of no address"
    assert set(ipam.calico([BLOCK], HANDLES, "w1")) == {"calico 10.245.1.66 k8s-pod-network.0123", stray}
    assert set(ipam.calico([BLOCK], HANDLES, "w2")) == {"calico 10.245.1.67 k8s-pod-network.4567", stray}


def test_calicos_addresses_and_endpoints_are_read_from_etcd() -> None:
    endpoint = {"metadata": {"name": "w1-k8s-p-eth1", "namespace": "n"}, "spec": {"node": "w1", "containerID": "0123"}}
    sections = {
        "calico-ipam": etcd_said(
            {"/calico/ipam/v2/assignment/ipv4/block/10.245.1.64-26": BLOCK}
            | {f"/calico/ipam/v2/handle/{handle}": {} for handle in HANDLES[:3]}
            | {"/calico/ipam/v2/host/w1/ipv4/block/10.245.1.64-26": {"state": "confirmed"}}
        ),
        "calico-endpoints": etcd_said({"/calico/…/workloadendpoints/n/w1-k8s-p-eth1": endpoint}),
    }
    mine = ["calico 10.245.1.66 k8s-pod-network.0123", "calico endpoint n/w1-k8s-p-eth1 0123"]
    assert list(ipam.printed(sections, "w1")) == mine
    assert list(ipam.printed(sections, "w2")) == ["calico 10.245.1.67 k8s-pod-network.4567"]


def etcd_said(pairs: dict[str, Any]) -> str:
    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    return json.dumps({"kvs": [{"key": encoded(key), "value": encoded(json.dumps(it))} for key, it in pairs.items()]})


@pytest.mark.parametrize("etcd", ["http://127.0.0.1:{port}", "http://127.0.0.1:{port},http://10.0.0.2:2379"])
def test_a_node_is_asked_with_nothing_but_bash(tmp_path: Path, etcd: str) -> None:
    with answering({"kvs": []}) as (port, asked):
        (tmp_path / "10-calico.conflist").write_text(
            json.dumps({"plugins": [{"type": "calico", "etcd_endpoints": etcd.format(port=port)}]}, indent=1)
        )
        script = 'section() { echo; echo "#### $1"; }\n' + ipam.SCRIPT.replace("/etc/cni/net.d", str(tmp_path))
        said = subprocess.check_output(["sh", "-c", script + "exit 0", "sh", *ipam.arguments()], text=True)
    assert asked == [json.loads(argument) for argument in ipam.arguments()]
    assert said.count('{"kvs": []}') == 2


@contextmanager
def answering(answer: Any) -> Iterator[tuple[int, list[Any]]]:
    """An HTTP server, its port, and what it was sent so far."""
    asked: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: Any) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port, asked
        server.shutdown()
        thread.join()


def test_a_store_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "10-calico.conflist").write_text('{"type": "calico", "etcd_endpoints": "http://127.0.0.1:1"}')
    script = "section() { :; }\n" + ipam.SCRIPT.replace("/etc/cni/net.d", str(tmp_path))
    done = subprocess.run(["sh", "-c", script, "sh", "", ""], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "127.0.0.1:1 /v3/kv/range, where addresses are kept, does not answer" in done.stderr


# --- genie's manifests


def test_every_container_of_genie_has_the_image() -> None:
    daemonset = next(each for each in deploy.objects("genie:test") if each["kind"] == "DaemonSet")
    assert set(software.images([daemonset])) == {"genie:test"}


def test_genie_is_not_privileged() -> None:
    daemonset = next(each for each in deploy.objects("genie:test") if each["kind"] == "DaemonSet")
    pod = daemonset["spec"]["template"]["spec"]
    for each in pod["containers"]:
        context = each["securityContext"]
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert "privileged" not in context


def test_an_update_of_genie_leaves_no_node_without_an_agent() -> None:
    """Two agents are on a node for a moment: nothing of the pod may be there only once, such as a port of the host."""
    daemonset = next(each for each in deploy.objects("genie:test") if each["kind"] == "DaemonSet")
    assert daemonset["spec"]["updateStrategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    for each in daemonset["spec"]["template"]["spec"]["containers"]:
        assert "ports" not in each
        assert "exec" in each["startupProbe"], "over HTTP on the host's network, the other agent might answer"


def test_genie_may_do_no_more_than_it_must() -> None:
    role = next(each for each in deploy.objects("genie:test") if each["kind"] == "ClusterRole")
    verbs = {resource: rule["verbs"] for rule in role["rules"] for resource in rule["resources"]}
    assert verbs.pop("pods") == ["get", "list", "watch", "patch"]
    assert all(set(each) <= {"get", "list", "watch"} for each in verbs.values())


def test_all_of_genie_bears_its_label_but_its_kinds() -> None:
    things = [each for each in deploy.objects("genie:test") if each["kind"] != "CustomResourceDefinition"]
    assert all(each["metadata"]["labels"]["app.kubernetes.io/name"] == "genie" for each in things)


# --- kind and the container


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("kind v0.33.0 go1.26.8 linux/amd64", (0, 33)),
        ("kind version 0.9", (0, 0)),
        ("kind v1.2.3-alpha", (1, 2)),
        ("", (0, 0)),
    ],
)
def test_kinds_version(said: str, version: tuple[int, int]) -> None:
    assert kindtool.version(said) == version


def test_pytest_is_started_again_in_the_container(tmp_path: Path) -> None:
    argv = ["/venv/bin/python", "-m", "pytest", "scenarios", "--backend", "container"]
    script = container.command(argv, tmp_path)
    assert script[:2] == ["sh", "-c"]
    assert script[4:] == [
        *("python", "-m", "pytest", "-p", "harness.plugin", "scenarios", "--backend", "container"),
        *("--backend", "embedded", "-p", "no:cacheprovider"),
    ]


@pytest.mark.parametrize(
    ("argv", "report"),
    [([], "report"), (["--report=out"], "out"), (["--report", "out"], "out"), (["--report=/tmp/x"], "/tmp/x")],
)
def test_where_the_container_writes_its_report(argv: list[str], report: str) -> None:
    assert container.report_of(argv) == Path.cwd() / report


def test_a_plain_run_is_embedded_where_kind_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Docker engine alone does not make a cluster; a run that asks for kind by name is told why not."""

    def not_had(_: Download) -> Path:
        raise NotHad("no such host")

    monkeypatch.setattr(kindtool.engine, "answers", lambda: "")
    monkeypatch.setattr(kindtool.shutil, "which", lambda _: None)
    monkeypatch.setattr(kindtool.Download, "get", not_had)
    monkeypatch.delenv("GENIE_NODE_IMAGE", raising=False)
    door, why = registry.choose("auto", {})
    assert door.name == "embedded"
    assert why.startswith("not kind: there is no kind on PATH, and v")
    with pytest.raises(Unavailable, match="--backend kind: there is no kind on PATH.*no such host.*install kind"):
        registry.choose("kind", {})
