"""Selection: what annotations and genie.conf come to. The table of docs/annotations.md, row by row, and properties."""

from __future__ import annotations

import json
from typing import Any

import pytest
from core_rig import names, network
from hypothesis import given
from hypothesis import strategies as st

from genie import config
from genie.cni.config import NetworkConfig, validate_ifname
from genie.cni.errors import CniError
from genie.config import Conf
from genie.kube import Pod
from genie.select import selection
from genie.select.annotations import ATTACHMENTS, CNI, DEFAULT, LOGICAL, Asked, SelectionError, asks
from genie.select.selection import assemble

CONF = Conf(name="k8s", cni_version="1.0.0")
ABLE = network(
    "able",
    {
        "type": "able",
        "capabilities": dict.fromkeys(["ips", "mac", "bandwidth", "portMappings", "infinibandGUID"], True),
        "args": {"cni": {"kept": "yes"}},
    },
)


def pod(annotations: dict[str, str]) -> Pod:
    return Pod(namespace="blue", name="web", annotations=annotations)


def ask(conf: Conf = CONF, **annotations: str) -> Asked:
    return asks(pod(annotations), conf)


def attachments(items: Any, conf: Conf = CONF, **annotations: str) -> Asked:
    text = items if isinstance(items, str) else json.dumps(items)
    return asks(pod({**annotations, ATTACHMENTS: text}), conf)


def told(asked: Asked) -> list[str]:
    return [one.name for one in asked.primary + asked.extra]


def ifnames(asked: Asked, ifname: str = "eth0") -> list[str]:
    return list(selection.interface_names(asked, ifname))


# --- precedence: docs/annotations.md has the same rows --------------------------------------------------------------

WITH_DEFAULT = Conf(name="k8s", cni_version="1.0.0", default_plugin=("flannel", "macvlan"))
PRECEDENCE: list[tuple[str, Conf, dict[str, str], list[str], str]] = [
    ("nothing", CONF, {}, [""], "first"),
    ("nothing, default_plugin", WITH_DEFAULT, {}, ["flannel", "macvlan"], "default"),
    ("cni", WITH_DEFAULT, {CNI: "calico,weave"}, ["calico", "weave"], "named"),
    ("networks", WITH_DEFAULT, {LOGICAL: "blue,green"}, ["blue", "green"], "logical"),
    ("networks, cni empty", CONF, {LOGICAL: "blue", CNI: ""}, ["blue"], "logical"),
    ("cni wins over networks", CONF, {LOGICAL: "blue", CNI: "calico"}, ["calico"], "named"),
    ("networks blank", WITH_DEFAULT, {LOGICAL: "  "}, ["flannel", "macvlan"], "default"),
    ("default-network", WITH_DEFAULT, {DEFAULT: "red"}, ["red"], "named"),
    ("default-network with its namespace", CONF, {DEFAULT: "ns/red"}, ["red"], "attachment"),
    ("default-network, cni empty", CONF, {DEFAULT: "red", CNI: ""}, ["red"], "named"),
    ("default-network as JSON", CONF, {DEFAULT: '[{"name": "red", "namespace": "ns"}]'}, ["red"], "attachment"),
]


@pytest.mark.parametrize(("conf", "annotations", "primary", "lookup"), [row[1:] for row in PRECEDENCE])
@pytest.mark.parametrize("extra", ["", "net-a"])
def test_precedence(conf: Conf, annotations: dict[str, str], primary: list[str], lookup: str, extra: str) -> None:
    asked = asks(pod({**annotations, ATTACHMENTS: extra}), conf)
    assert [one.name for one in asked.primary] == primary
    assert {one.lookup for one in asked.primary} == {lookup}
    assert [(one.name, one.lookup) for one in asked.extra] == ([("net-a", "attachment")] if extra else [])
    assert not asked.smart


def test_an_empty_cni_annotation_is_the_least_loaded() -> None:
    asked = attachments("net-a", WITH_DEFAULT, cni=" ")
    assert asked.smart and asked.primary == () and told(asked) == ["net-a"]


@pytest.mark.parametrize("other", [CNI, LOGICAL])
def test_two_default_networks_contradict_each_other(other: str) -> None:
    with pytest.raises(SelectionError, match=f"annotation {DEFAULT}: the annotation {other} names"):
        asks(pod({DEFAULT: "red", other: "calico"}), CONF)


def test_the_default_network_without_a_namespace_is_in_kube_system() -> None:
    assert [one.namespace for one in asks(pod({DEFAULT: "red"}), CONF).primary] == ["kube-system"]


# --- interfaces -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cni", "expected"),
    [
        ("calico", ["eth0"]),
        ("calico,weave", ["eth0", "eth1"]),
        (" calico , weave ", ["eth0", "eth1"]),
        ("weave,weave,weave", ["eth0", "eth1", "eth2"]),
        ("calico@net1,weave@net0", ["net1", "net0"]),
        ("calico @ net1", ["net1"]),
        ("calico,weave@eth1,flannel", ["eth0", "eth1", "eth2"]),
        ("calico,weave,flannel@eth1", ["eth0", "eth2", "eth1"]),
        ("calico@net1,weave@eth0", ["net1", "eth0"]),
        ("calico@eth0,weave", ["eth0", "eth1"]),
    ],
)
def test_interfaces_of_the_cni_annotation(cni: str, expected: list[str]) -> None:
    assert ifnames(ask(cni=cni)) == expected


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        ("a,b", ["eth0", "net1", "net2"]),
        ("a@x,b", ["eth0", "x", "net2"]),  # numbered by position, as Multus
        ("a@net2,b", ["eth0", "net2", "net3"]),
        ("a,a", ["eth0", "net1", "net2"]),
        ("ns/a@if-a , other/b", ["eth0", "if-a", "net2"]),
    ],
)
def test_interfaces_of_attachments(networks: str, expected: list[str]) -> None:
    assert ifnames(attachments(networks)) == expected


def test_interfaces_of_cni_and_attachments_together() -> None:
    assert ifnames(attachments("a,b", cni="calico,weave")) == ["eth0", "eth1", "net1", "net2"]


def test_the_runtimes_own_interface_name() -> None:
    assert ifnames(ask(cni="calico,weave"), "ens1") == ["ens1", "eth1"]


@pytest.mark.parametrize(
    ("cni", "complaint"),
    [
        ("calico,weave@eth0", r'annotation cni, item 2 \("weave@eth0"\): interface eth0 is the pod\'s default network'),
        ("a@x,b@x", r'annotation cni, item 2 \("b@x"\): interface x is taken already, by annotation cni, item 1'),
        ("a@0123456789abcdef", r"item 1 .*: interface name: .*1 to 15 bytes"),
        ("a@ääääääää", r"interface name: .*1 to 15 bytes"),
        ("a@x y", r"interface name: .*white space"),
        ("a@x/y", r"interface name: .*'/'"),
        ("a@lo", r"interface name: 'lo' is the pod's loopback"),
        ("a@all", r"interface name: 'all' is the kernel's word"),
        ("a@net%d", r"interface name: expected one without '%'"),
    ],
)
def test_interface_names_that_cannot_be(cni: str, complaint: str) -> None:
    with pytest.raises(SelectionError, match=complaint):
        ifnames(ask(cni=cni))


# --- errors name the annotation and the position --------------------------------------------------------------------

MALFORMED: list[tuple[str, str, str]] = [
    (CNI, ",", r'annotation cni, item 1 \(""\): expected the name of a network'),
    (CNI, "calico,", r'annotation cni, item 2 \(""\): expected the name of a network'),
    (CNI, "calico,@eth1", r'annotation cni, item 2 \("@eth1"\): expected the name of a network'),
    (CNI, "calico@", r'annotation cni, item 1 \("calico@"\): expected an interface name after \'@\''),
    (CNI, "../calico", r"annotation cni, item 1 .*'../calico' is not the name of a network"),
    (CNI, "ns/calico", r"annotation cni, item 1 .* is not the name of a network"),
    (LOGICAL, "blue,gr een", r"annotation networks, item 2 .*'gr een' is not the name of a network"),
    (ATTACHMENTS, "a,,b", r'networks, item 2 \(""\): expected the name of a network'),
    (ATTACHMENTS, "/a", r"item 1 .*expected the name of a namespace"),
    (ATTACHMENTS, "a/b/c", r"item 1 .*expected the name of a namespace, found 'a/b'"),
    (ATTACHMENTS, "a@", r"item 1 .*expected an interface name after '@'"),
    (ATTACHMENTS, "[", r"annotation k8s.v1.cni.cncf.io/networks: not valid JSON at character 2"),
    (ATTACHMENTS, '{"name": "a"}', r"expected a JSON list of networks"),
    (ATTACHMENTS, "[" * 100_000, r"not valid JSON: nested too deeply"),
    (ATTACHMENTS, "[" + "1" * 5000 + "]", r"not valid JSON: (?!nested)"),
    (ATTACHMENTS, '[{"name": "a", "cni-args": {"x": NaN}}]', r"not valid JSON: NaN is not JSON"),
    (ATTACHMENTS, '[{"name": "a"}, 5]', r'item 2: expected an object like \{"name": "net-a"\}'),
    (ATTACHMENTS, "[{}]", r"item 1: name: expected the name of a network, found ''"),
    (DEFAULT, "a,b", r"annotation v1.multus-cni.io/default-network: expected one network, found 2"),
    (DEFAULT, "[]", r"expected one network, found 0"),
    (DEFAULT, "a b", r"annotation v1.multus-cni.io/default-network, item 1 .*expected the name of a network"),
]


@pytest.mark.parametrize(("annotation", "text", "complaint"), MALFORMED)
def test_malformed_annotations(annotation: str, text: str, complaint: str) -> None:
    with pytest.raises(SelectionError, match=complaint) as caught:
        asks(pod({annotation: text}), CONF)
    assert caught.value.code == 7


WRONG_FIELDS: list[tuple[str, Any, str]] = [
    ("name", 5, "name: expected a string, found 5"),
    ("namespace", "a b", "namespace: expected the name of a namespace, found 'a b'"),
    ("namespace", ["a"], "namespace: expected a string"),
    ("interface", 1, "interface: expected a string, found 1"),
    ("ips", "10.1.1.1", "ips: expected a list of addresses"),
    ("ips", ["10.1.1.1/33"], "ips: expected an IP address, found '10.1.1.1/33'"),
    ("ips", ["10.1.1.1/"], "ips: expected an IP address"),
    ("ips", ["10.1.1.1/" + "1" * 5000], "ips: expected an IP address"),
    ("ips", ["fd00::1/129"], "ips: expected an IP address"),
    ("ips", ["10.1.1"], "ips: expected an IP address"),
    ("ips", ["10.1.1.1\0"], "ips: expected an IP address"),
    ("ips", [None], "ips: expected an IP address, found None"),
    ("mac", "02:00:00:00:00", "mac: expected a hardware address like"),
    ("mac", 2, "mac: expected a string"),
    ("default-route", "10.1.1.1", "default-route: expected a list of addresses"),
    ("default-route", ["10.1.1.1/24"], "default-route: expected an IP address"),
    ("cni-args", "x", "cni-args: expected an object, found 'x'"),
    ("bandwidth", 5, "bandwidth: expected an object"),
    ("bandwidth", {"speed": 5}, "bandwidth: speed: expected ingressRate, "),
    ("bandwidth", {"ingressRate": "5M"}, "bandwidth: ingressRate: expected a whole number of bits, found '5M'"),
    ("bandwidth", {"ingressRate": True}, "bandwidth: ingressRate: expected a whole number"),
    ("bandwidth", {"ingressRate": -1}, "bandwidth: ingressRate: expected a whole number"),
    ("portMappings", {}, "portMappings: expected a list of objects"),
    ("portMappings", [{"hostPort": 80}], "portMappings: containerPort: expected a port, found None"),
    ("portMappings", [{"hostPort": 70000, "containerPort": 1}], "portMappings: hostPort: expected a port"),
    ("portMappings", [{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}], "portMappings: protocol: expected tcp"),
    ("portMappings", [{"hostPort": 1, "containerPort": 1, "hostIP": "x"}], "portMappings: hostIP: expected an IP"),
    ("infiniband-guid", 5, "infiniband-guid: expected a string"),
    ("infiniband-guid", "c2:11:22:33:44:55", "infiniband-guid: expected eight bytes like c2:11:22:33:44:55:66:77"),
    ("ipam-claim-reference", 5, "ipam-claim-reference: expected a string"),
]


@pytest.mark.parametrize(("key", "value", "complaint"), WRONG_FIELDS)
def test_wrong_fields_of_the_json_form(key: str, value: Any, complaint: str) -> None:
    with pytest.raises(SelectionError) as caught:
        attachments([{"name": "first"}, {"name": "second", key: value}])
    assert str(caught.value).startswith(f"annotation {ATTACHMENTS}, item 2")
    assert complaint in str(caught.value)


# --- the JSON form, field by field ----------------------------------------------------------------------------------


def chosen(item: dict[str, Any], net: NetworkConfig = ABLE) -> selection.Choice:
    asked = attachments([{"name": "net-a", **item}])
    return assemble(asked, [network("calico"), net], pod_namespace="blue").choices[1]


FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"ips": ["10.1.1.5/24"]}, {"ips": ["10.1.1.5/24"]}),
    ({"ips": ["10.1.1.5", "fd00::5"]}, {"ips": ["10.1.1.5/32", "fd00::5/128"]}),
    ({"mac": "02:00:00:00:00:01"}, {"mac": "02:00:00:00:00:01"}),
    ({"bandwidth": {"ingressRate": 1000, "egressBurst": 0}}, {"bandwidth": {"ingressRate": 1000, "egressBurst": 0}}),
    (
        {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": "10.0.0.1"}]},
        {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": "10.0.0.1"}]},
    ),
    ({"infiniband-guid": "c2:11:22:33:44:55:66:77"}, {"infinibandGUID": "c2:11:22:33:44:55:66:77"}),
    ({"ips": None, "mac": None, "bandwidth": None, "portMappings": None, "default-route": None}, {}),
]


@pytest.mark.parametrize(("item", "runtime_config"), FIELDS)
def test_fields_that_are_capabilities(item: dict[str, Any], runtime_config: dict[str, Any]) -> None:
    assert chosen(item).runtime_config == runtime_config
    for capability in runtime_config:
        with pytest.raises(SelectionError, match=rf'item 1 \("net-a"\): {capability}: no plugin of .* declares'):
            chosen(item, network("plain"))


def test_fields_of_names() -> None:
    choice = chosen({"namespace": "other", "interface": "data0"})
    assert (choice.label, choice.ifname) == ("other/net-a", "data0")
    assert chosen({}).label == "blue/net-a"


def test_the_former_name_of_interface() -> None:
    assert chosen({"interfaceRequest": "data0"}).ifname == "data0"


def test_cni_args_go_to_every_plugin_beside_its_own() -> None:
    net = network("able", dict(ABLE.plugins[0]), {"type": "tuning"})
    found = chosen({"cni-args": {"colour": "blue"}}, net).network.plugins
    assert [plugin["args"] for plugin in found] == [
        {"cni": {"kept": "yes", "colour": "blue"}},
        {"cni": {"colour": "blue"}},
    ]
    assert net.plugins[1] == {"type": "tuning"}, "the configuration is shared: it must not be written to"


def test_addresses_and_a_claim_of_addresses_contradict_each_other() -> None:
    """Multi-network specification 1.3, 4.1.2.1.11; the claim itself is between the network's plugin and its claims."""
    attachments([{"name": "a", "ipam-claim-reference": "vm1"}])
    with pytest.raises(SelectionError, match="ipam-claim-reference: the element has ips too"):
        attachments([{"name": "a", "ipam-claim-reference": "vm1", "ips": ["10.1.1.1"]}])


def test_default_route() -> None:
    assert chosen({"default-route": ["10.1.1.1", "fd00::1"]}).ask.default_route == ("10.1.1.1", "fd00::1")
    assert chosen({"default-route": []}).ask.default_route == ()
    assert chosen({"default-route": None}).ask.default_route is None


def test_two_default_routes_of_one_family() -> None:
    items = [
        {"name": "a", "default-route": ["10.1.1.1"]},
        {"name": "b", "default-route": ["fd00::1"]},
        {"name": "c", "default-route": ["10.2.2.1"]},
    ]
    assert told(attachments(items[:2])) == ["", "a", "b"]
    with pytest.raises(SelectionError, match=r'item 3 \("c"\): default-route: .*item 1 \("a"\) has the IPv4'):
        attachments(items)


@pytest.mark.parametrize(
    ("first", "second", "complaint"),
    [
        (
            ["10.1.1.1", "10.1.1.2"],
            None,
            r'item 1 .*: default-route: .*item 1 \("a"\) has the IPv4 default route already',
        ),
        ([], [], r'item 2 .*: default-route: .*item 1 \("a"\) has the IPv4'),
        ([], ["fd00::1"], r'item 2 .*: default-route: .*item 1 \("a"\) has the IPv6'),
        (["10.1.1.1"], [], r'item 2 .*: default-route: .*item 1 \("a"\) has the IPv4'),
    ],
)
def test_default_routes_that_contradict_each_other(first: Any, second: Any, complaint: str) -> None:
    with pytest.raises(SelectionError, match=complaint):
        attachments([{"name": "a", "default-route": first}, {"name": "b", "default-route": second}])


def test_the_default_network_counts_among_the_default_routes() -> None:
    override = json.dumps([{"name": "red", "default-route": ["10.9.9.9"]}])
    with pytest.raises(SelectionError, match=r"item 1 .*: default-route: annotation v1.multus-cni.io/default-network"):
        attachments([{"name": "a", "default-route": ["10.1.1.1"]}], **{DEFAULT: override})


# --- namespaces -----------------------------------------------------------------------------------------------------

ISOLATED = Conf(name="k8s", cni_version="1.0.0", namespace_isolation=True, global_namespaces=("default", "shared"))


@pytest.mark.parametrize("allowed", ["a", "blue/a", "default/a", "shared/a"])
def test_namespaces_within_isolation(allowed: str) -> None:
    assert told(attachments(allowed, ISOLATED)) == ["", "a"]


@pytest.mark.parametrize("annotation", [ATTACHMENTS, DEFAULT])
def test_isolation_keeps_to_the_pods_namespace(annotation: str) -> None:
    assert asks(pod({annotation: "other/a"}), CONF)
    with pytest.raises(SelectionError, match=r"item 1 .*: namespace other is not this pod's \(blue\)"):
        asks(pod({annotation: "other/a"}), ISOLATED)


def test_isolation_leaves_the_default_networks_namespace() -> None:
    assert told(asks(pod({DEFAULT: "red"}), ISOLATED)) == ["red"]
    with pytest.raises(SelectionError):
        attachments("kube-system/red", ISOLATED)


# --- what the runtime passes ----------------------------------------------------------------------------------------


def test_the_runtimes_own_arguments_are_the_first_networks() -> None:
    runtime_config = {"portMappings": [{"hostPort": 1, "containerPort": 2}], "dns": {}}
    chosen = assemble(ask(cni="calico,weave"), [network("calico"), network("weave")], runtime_config=runtime_config)
    assert [choice.runtime_config for choice in chosen.choices] == [runtime_config, {}]


def test_labels() -> None:
    asked = ask(cni="calico,weave")
    found = [network("k8s-pod-network"), network("w", source="NetworkAttachmentDefinition blue/weave")]
    assert [choice.label for choice in assemble(asked, found, pod_namespace="blue").choices] == ["calico", "blue/weave"]
    first = assemble(ask(), [network("cbr0")], pod_namespace="blue")
    assert [choice.label for choice in first.choices] == ["cbr0"]


# --- properties -----------------------------------------------------------------------------------------------------

NAME = st.from_regex(r"[a-z]([a-z0-9.-]{0,10}[a-z0-9])?", fullmatch=True)
IFNAME = st.from_regex(r"[a-z][a-z0-9]{0,14}", fullmatch=True).filter(
    lambda name: name not in selection.RESERVED_IFNAMES
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["name", "namespace", "interface", "ips", "mac", "default-route", "cni-args", "bandwidth", "portMappings"]
ELEMENT = st.dictionaries(st.sampled_from([*KEYS, "infiniband-guid", "interfaceRequest"]), JSON, max_size=4)
NEARLY = st.builds(lambda item, name: {**item, "name": name}, ELEMENT, NAME)
TEXT = (
    st.text()
    | st.text(alphabet='ab,@/ \t\n[]{}":%.0', max_size=20)
    | JSON.map(json.dumps)
    | st.lists(ELEMENT | NEARLY | JSON, max_size=4).map(json.dumps)
)
ANNOTATIONS = st.dictionaries(st.sampled_from([CNI, LOGICAL, ATTACHMENTS, DEFAULT, "other"]), TEXT)
CONFS = st.builds(
    Conf,
    name=st.just("k8s"),
    cni_version=st.just("1.0.0"),
    default_plugin=st.lists(st.text(max_size=6), max_size=3).map(tuple),
    namespace_isolation=st.booleans(),
)
NETWORKS = st.dictionaries(st.sampled_from(["capabilities", "args", "ipam", "x"]), JSON).map(
    lambda keys: NetworkConfig(
        name="n", cni_version="1.0.0", plugins=({**keys, "type": "t"},), source="10-n.conf", raw={}
    )
)


def check(chosen: selection.Selection, asked: Asked, ifname: str) -> None:
    found = names(chosen.choices)
    assert len(set(found)) == len(found)
    for name in found:
        validate_ifname(name)
    everything = asked.primary + asked.extra
    assert [choice.ask for choice in chosen.choices] == list(everything), "order kept"
    assert all(choice.ifname == choice.ask.ifname for choice in chosen.choices if choice.ask.ifname)
    if everything and not everything[0].ifname:
        assert found[0] == ifname


@given(ANNOTATIONS, CONFS, NETWORKS, JSON, st.data())
def test_selection_raises_nothing_but_its_own_error(
    annotations: dict[str, str], conf: Conf, net: NetworkConfig, item: Any, data: st.DataObject
) -> None:
    try:
        asked = asks(pod(annotations), conf)
        everything = asked.primary + asked.extra
        chosen = assemble(asked, [net] * len(everything), pod_namespace="blue")
    except SelectionError as error:
        where = str(error)
        assert where.startswith(("annotation ", "genie.conf: default_plugin"))
        json.dumps(error.to_json("1.0.0"))
    else:
        check(chosen, asked, "eth0")
        json.dumps([[choice.network.plugins, choice.runtime_config] for choice in chosen.choices])


@given(st.dictionaries(st.sampled_from([CNI, LOGICAL, ATTACHMENTS, DEFAULT]), JSON))
def test_annotations_that_are_no_strings(annotations: dict[str, Any]) -> None:
    try:
        asks(pod(annotations), CONF)
    except SelectionError as error:
        assert str(error).startswith("annotation ")


BLANK = st.sampled_from(["", " ", "  ", "\t", "\n"])


@given(st.lists(st.tuples(NAME, st.none() | IFNAME, BLANK), min_size=1, max_size=6), st.lists(NAME, max_size=3), IFNAME)
def test_names_are_given_and_kept(items: list[tuple[str, str | None, str]], extra: list[str], ifname: str) -> None:
    text = ",".join(f"{blank}{name}{blank}@{blank}{at}" if at else f"{blank}{name}{blank}" for name, at, blank in items)
    asked = asks(pod({CNI: text, ATTACHMENTS: ",".join(extra)}), CONF)
    assert told(asked) == [*(name for name, _, _ in items), *extra]
    wanted = [at for _, at, _ in items if at]
    clash = len(set(wanted)) < len(wanted) or (not items[0][1] and ifname in wanted)
    try:
        chosen = assemble(asked, [network(one.name) for one in asked.primary + asked.extra], ifname=ifname)
    except SelectionError as error:
        assert clash, error
    else:
        assert not clash
        check(chosen, asked, ifname)


# --- genie.conf -----------------------------------------------------------------------------------------------------

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
    assert conf.cadvisor_address == "http://127.0.0.1:4194"
    assert "secret" not in repr(conf), "what is logged of a configuration holds no token"


WRONG_CONF: list[tuple[Any, str, int]] = [
    ([], "genie.conf: expected a JSON object, found a list", 7),
    ({"type": "genie"}, "genie.conf: name: expected a string, found nothing", 7),
    ({"name": 5}, "genie.conf: name: expected a string, found the number 5", 7),
    ({"name": "n", "cniVersion": "9.9"}, "cniVersion '9.9' is not one that genie speaks", 1),
    ({"name": "n", "default_plugin": {"a": 1}}, "default_plugin: expected a list of names", 7),
    ({"name": "n", "default_plugin": ["a", 1]}, "default_plugin: expected a list of names", 7),
    ({"name": "n", "policy": "k8s"}, "policy: expected an object, found the string 'k8s'", 7),
    ({"name": "n", "policy": {"k8s_auth_token": 5}}, "policy: k8s_auth_token: expected a string", 7),
    ({"name": "n", "serial": "yes"}, "serial: expected true or false, found the string 'yes'", 7),
    ({"name": "n", "api_timeout": 0}, "api_timeout: expected a positive number of seconds, found the number 0", 7),
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


def test_calico_is_attached_once() -> None:
    """Its second ADD of a pod takes the first one's interface away: better one clear error than a pod without eth0."""
    calico = network("k8s-pod-network", {"type": "calico"})
    asked = asks(Pod(namespace="blue", name="a", annotations={"cni": "calico,calico"}), CONF)
    with pytest.raises(SelectionError, match=r"annotation cni, item 2 .*calico knows an endpoint by its pod alone"):
        assemble(asked, [calico, calico])
