"""The requests in a pod's annotations."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.config import Conf
from genie.kube import Default
from genie.select.annotations import (
    ANNOTATION_MAX,
    ATTACHMENTS,
    CNI,
    DEFAULT,
    LOGICAL,
    READ,
    Ask,
    Asked,
    SelectionError,
    asks,
    names_default,
    size_of,
)
from tests.rigs.counting import lines_run
from tests.rigs.selection import CONF, JSON, attachments, chosen, names_of, pod

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
def test_the_annotations_take_precedence_as_documented(
    conf: Conf, annotations: dict[str, str], primary: list[str], lookup: str, extra: str
) -> None:
    asked = asks(pod({**annotations, ATTACHMENTS: extra}), conf)
    assert [one.name for one in asked.primary] == primary
    assert {one.lookup for one in asked.primary} == {lookup}
    assert [(one.name, one.lookup) for one in asked.extra] == ([("net-a", "attachment")] if extra else [])
    assert not asked.smart


FIRST = Ask(name="", where="the configurations in /etc/cni/net.d", lookup="first")
WHOLE: list[tuple[Conf, dict[str, str], Asked]] = [
    (CONF, {}, Asked(primary=(FIRST,), why="no annotation, no default_plugin: the first in /etc/cni/net.d")),
    (
        WITH_DEFAULT,
        {},
        Asked(
            primary=(
                Ask(name="flannel", where='genie.conf: default_plugin, item 1 ("flannel")', lookup="default"),
                Ask(name="macvlan", where='genie.conf: default_plugin, item 2 ("macvlan")', lookup="default"),
            ),
            trusted=True,
            why="no annotation: default_plugin of genie.conf",
        ),
    ),
    (
        CONF,
        {CNI: " calico , weave @ net1", ATTACHMENTS: " a , ns/b@x "},
        Asked(
            primary=(
                Ask(name="calico", where='annotation cni, item 1 ("calico")'),
                Ask(name="weave", where='annotation cni, item 2 ("weave @ net1")', ifname="net1"),
            ),
            extra=(
                Ask(name="a", where=f'annotation {ATTACHMENTS}, item 1 ("a")', lookup="attachment"),
                Ask(
                    name="b",
                    where=f'annotation {ATTACHMENTS}, item 2 ("ns/b@x")',
                    lookup="attachment",
                    namespace="ns",
                    ifname="x",
                ),
            ),
            why="annotation cni",
        ),
    ),
    (
        CONF,
        {LOGICAL: "blue", ATTACHMENTS: '[{"name": "a"}]'},
        Asked(
            primary=(Ask(name="blue", where='annotation networks, item 1 ("blue")', lookup="logical"),),
            extra=(Ask(name="a", where=f'annotation {ATTACHMENTS}, item 1 ("a")', lookup="attachment"),),
            why="annotation networks",
        ),
    ),
    (
        CONF,
        {CNI: "", ATTACHMENTS: "a"},
        Asked(
            primary=(),
            extra=(Ask(name="a", where=f'annotation {ATTACHMENTS}, item 1 ("a")', lookup="attachment"),),
            smart=True,
            why='annotation cni is "": the least loaded network',
        ),
    ),
    (
        CONF,
        {DEFAULT: "red@data", ATTACHMENTS: "a"},
        Asked(
            primary=(
                Ask(
                    name="red",
                    where=f'annotation {DEFAULT}, item 1 ("red@data")',
                    namespace="kube-system",
                    ifname="data",
                ),
            ),
            extra=(Ask(name="a", where=f'annotation {ATTACHMENTS}, item 1 ("a")', lookup="attachment"),),
            why=f"annotation {DEFAULT}",
        ),
    ),
]


@pytest.mark.parametrize(("conf", "notes", "asked"), WHOLE)
def test_all_that_is_asked_for(conf: Conf, notes: dict[str, str], asked: Asked) -> None:
    assert asks(pod(notes), conf) == asked


def test_all_fields_of_the_json_form_are_read() -> None:
    ports = {"hostPort": 65535, "containerPort": 1, "protocol": "sctp", "hostIP": ""}
    item = {
        "name": " a ",
        "namespace": " ns ",
        "interface": " x ",
        "ips": ["10.1.1.5/24"] * 64,
        "mac": "02-00-00-00-00-AB",
        "default-route": ["10.1.1.1"],
        "cni-args": {"k": [1]},
        "bandwidth": {"ingressRate": 2**63 - 1, "ingressBurst": 1, "egressRate": None},
        "portMappings": [ports],
        "infiniband-guid": "c2:11:22:33:44:55:66:AB",
        "ipam-claim-reference": " claim ",
    }
    assert attachments([item]).extra == (
        Ask(
            name="a",
            where=f'annotation {ATTACHMENTS}, item 1 ("a")',
            lookup="attachment",
            namespace="ns",
            ifname="x",
            ips=("10.1.1.5/24",) * 64,
            mac="02:00:00:00:00:ab",
            default_route=("10.1.1.1",),
            cni_args={"k": [1]},
            bandwidth={"ingressRate": 2**63 - 1, "ingressBurst": 1},
            port_mappings=(ports,),
            infiniband_guid="c2:11:22:33:44:55:66:ab",
            ipam_claim="claim",
        ),
    )


def test_an_error_has_a_code_and_details() -> None:
    error = SelectionError("annotation cni", "no", 11, "more")
    assert (error.code, error.msg, error.details) == (11, "annotation cni: no", "more")
    assert (SelectionError("x", "y").code, SelectionError("x", "y").details) == (7, "")


def test_an_empty_cni_annotation_is_the_least_loaded() -> None:
    asked = attachments("net-a", WITH_DEFAULT, cni=" ")
    assert asked.smart and asked.primary == () and names_of(asked) == ["net-a"]


@pytest.mark.parametrize("other", [CNI, LOGICAL])
def test_two_default_networks_contradict_each_other(other: str) -> None:
    with pytest.raises(SelectionError, match=f"annotation {DEFAULT}: the annotation {other} names"):
        asks(pod({DEFAULT: "red", other: "calico"}), CONF)


def test_the_default_network_without_a_namespace_is_in_kube_system() -> None:
    assert [one.namespace for one in asks(pod({DEFAULT: "red"}), CONF).primary] == ["kube-system"]


MALFORMED: list[tuple[str, str, str]] = [
    (CNI, ",", r'annotation cni, item 1 \(""\): expected the name of a network'),
    (CNI, "calico,", r'annotation cni, item 2 \(""\): expected the name of a network'),
    (CNI, "calico,@eth1", r'annotation cni, item 2 \("@eth1"\): expected the name of a network'),
    (CNI, "calico@", r'annotation cni, item 1 \("calico@"\): expected an interface name after \'@\''),
    (CNI, "calico@x@y", r"annotation cni, item 1 .*: expected one '@'"),
    (CNI, "../calico", r"annotation cni, item 1 .*'../calico' is not the name of a network"),
    (CNI, "ns/calico", r"annotation cni, item 1 .* is not the name of a network"),
    (LOGICAL, "blue,gr een", r"annotation networks, item 2 .*'gr een' is not the name of a network"),
    (ATTACHMENTS, "a,,b", r'networks, item 2 \(""\): expected the name of a network'),
    (ATTACHMENTS, "/", r"item 1 .*expected the name of a network, found ''"),
    (ATTACHMENTS, "/@x", r"item 1 .*expected the name of a network, found ''"),
    (ATTACHMENTS, "a//b", r"item 1 .*expected the name of a namespace, found 'a/'"),
    (ATTACHMENTS, "a@b@c", r"item 1 .*: expected one '@'$"),
    (ATTACHMENTS, "a/b/c", r"item 1 .*expected the name of a namespace, found 'a/b'"),
    (ATTACHMENTS, "[", r"annotation k8s.v1.cni.cncf.io/networks: not valid JSON at character 2"),
    (ATTACHMENTS, '{"name": "a"}', r": expected a JSON list of networks$"),
    (ATTACHMENTS, "[" * 60_000, r"nested too deeply: more than 100 levels"),
    (ATTACHMENTS, "[" + "1" * 5000 + "]", r"not valid JSON at character 2 \(line 1, column 2\): Exceeds"),
    (
        ATTACHMENTS,
        '[{"name": "a", "cni-args": {"x": NaN}}]',
        r"not valid JSON at character 34 \(line 1, column 34\): NaN is not JSON",
    ),
    (ATTACHMENTS, '[{"name": "a"}, 5]', r'item 2: expected an object like \{"name": "net-a"\}'),
    (ATTACHMENTS, "[{}]", r"item 1: name: expected the name of a network, found nothing"),
    (DEFAULT, "a,b", r"annotation v1.multus-cni.io/default-network: expected one network, found 2"),
    (DEFAULT, "[]", r"expected one network, found 0"),
    (DEFAULT, "a b", r"annotation v1.multus-cni.io/default-network, item 1 .*expected the name of a network"),
]


@pytest.mark.parametrize(("annotation", "text", "complaint"), MALFORMED)
def test_malformed_annotations_are_refused_by_name(annotation: str, text: str, complaint: str) -> None:
    with pytest.raises(SelectionError, match=complaint) as caught:
        asks(pod({annotation: text}), CONF)
    assert caught.value.code == 7
    assert str(caught.value).startswith(f"annotation {annotation}")


WRONG_FIELDS: list[tuple[str, Any, str]] = [
    ("portMappings", [{"hostPort": 65536, "containerPort": 1}], "portMappings[0]: hostPort: expected a port"),
    ("portMappings", [{"hostPort": 1, "containerPort": 0}], "portMappings[0]: containerPort: expected a port"),
    ("portMappings", [{"hostPort": 1, "containerPort": -1}], "portMappings[0]: containerPort: expected a port"),
    ("portMappings", [{"hostPort": 1, "containerPort": "x"}], "portMappings[0]: containerPort: expected a port, found"),
    ("portMappings", [{"hostPort": 1, "containerPort": 1, "hostIP": 5}], "portMappings[0]: hostIP: expected an IP"),
    ("bandwidth", {"ingressBurst": 5}, "bandwidth: ingressRate: expected one, because there is ingressBurst"),
    ("name", 5, "name: expected a string, found 5"),
    ("namespace", "a b", "namespace: expected the name of a namespace, found 'a b'"),
    ("namespace", ["a"], "namespace: expected a string"),
    ("interface", 1, "interface: expected a string, found 1"),
    ("mac", "01:00:5e:00:00:01", "mac: expected one interface's address, not a group's and not zero, found"),
    ("mac", "ff-ff-ff-ff-ff-ff", "mac: expected one interface's address, not a group's"),
    ("mac", "0000.0000.0000", "mac: expected one interface's address, not a group's and not zero"),
    ("ips", "10.1.1.1", "ips: expected a list of addresses"),
    ("ips", ["10.1.1.1/33"], "ips: expected an IP address, found '10.1.1.1/33'"),
    ("ips", ["10.1.1.1/"], "ips: expected an IP address"),
    ("ips", ["10.1.1.1/" + "1" * 5000], "ips: expected an IP address"),
    ("ips", ["fd00::1/129"], "ips: expected an IP address"),
    ("ips", ["10.1.1"], "ips: expected an IP address"),
    ("ips", ["10.1.1.1\0"], "ips: expected an IP address"),
    ("ips", ["10.1.1.1"] * 65, "ips: 65 addresses, and a network gives at most 64"),
    (
        "portMappings",
        [{"hostPort": n, "containerPort": 1} for n in range(1, 66)],
        "portMappings: 65 ports, and a network gives at most 64",
    ),
    ("ips", [None], "ips: expected an IP address, found nothing"),
    ("mac", "02:00:00:00:00", "mac: expected an Ethernet address of six bytes like"),
    ("mac", "02:00:00:00:00:00:00:01", "mac: expected an Ethernet address of six bytes"),
    ("mac", "02-00:00:00:00:01", "mac: expected an Ethernet address of six bytes"),
    ("mac", 2, "mac: expected a string"),
    ("default-route", "10.1.1.1", "default-route: expected a list of addresses"),
    ("default-route", ["10.1.1.1/24"], "default-route: expected an IP address"),
    ("cni-args", "x", "cni-args: expected an object, found 'x'"),
    ("bandwidth", 5, "bandwidth: expected an object"),
    ("bandwidth", {"speed": 5}, "bandwidth: 'speed': no such key: expected ingressRate, "),
    ("bandwidth", {"ingressrate": 5}, "bandwidth: 'ingressrate': no such key: did you mean ingressRate?"),
    ("bandwidth", {}, "bandwidth: expected at least one of ingressRate, "),
    ("bandwidth", {"ingressRate": None}, "bandwidth: expected at least one of ingressRate, "),
    ("bandwidth", {"ingressRate": 0}, "bandwidth: ingressRate: expected a whole number of bits from 1, found 0"),
    ("bandwidth", {"egressRate": 2**63}, "bandwidth: egressRate: expected at most 9223372036854775807 bits"),
    (
        "bandwidth",
        {"ingressRate": 5, "egressBurst": 5},
        "bandwidth: egressRate: expected one, because there is egressB",
    ),
    ("bandwidth", {"ingressRate": "5M"}, "bandwidth: ingressRate: expected a whole number of bits from 1, found '5M'"),
    ("bandwidth", {"ingressRate": True}, "bandwidth: ingressRate: expected a whole number"),
    ("bandwidth", {"ingressRate": -1}, "bandwidth: ingressRate: expected a whole number"),
    ("portMappings", {}, "portMappings: expected a list"),
    ("portMappings", [{"hostPort": 80}], "portMappings[0]: containerPort: expected a port, found nothing"),
    ("portMappings", [{"hostPort": 70000, "containerPort": 1}], "portMappings[0]: hostPort: expected a port"),
    (
        "portMappings",
        [{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}],
        "portMappings[0]: protocol: expected tcp",
    ),
    ("portMappings", [{"hostPort": 1, "containerPort": 1, "hostIP": "x"}], "portMappings[0]: hostIP: expected an IP"),
    ("infiniband-guid", 5, "infiniband-guid: expected a string"),
    (
        "infiniband-guid",
        "c2:11:22:33:44:55",
        "infiniband-guid: expected a GUID of eight bytes like c2:11:22:33:44:55:66:77",
    ),
    ("ipam-claim-reference", 5, "ipam-claim-reference: expected a string"),
    ("gatway", "10.1.1.1", "'gatway': no such key: did you mean default-route?"),
    ("Interface", "x", "'Interface': no such key: did you mean interface?"),
    ("default_route", [], "'default_route': no such key: did you mean default-route?"),
    (
        "vlan",
        5,
        "'vlan': no such key: expected name, namespace, interface, interfaceRequest, ips, mac, default-route, ",
    ),
    ("", 5, "'': no such key: expected name"),
    (
        "portMappings",
        [{"hostPort": 1, "containerPort": 1, "hostIp": "::"}],
        "'hostIp': no such key: did you mean hostIP",
    ),
]


@pytest.mark.parametrize(("key", "value", "complaint"), WRONG_FIELDS)
def test_wrong_fields_of_the_json_form(key: str, value: Any, complaint: str) -> None:
    with pytest.raises(SelectionError) as caught:
        attachments([{"name": "first"}, {"name": "second", key: value}])
    assert str(caught.value).startswith(f"annotation {ATTACHMENTS}, item 2")
    assert complaint in str(caught.value)


def test_fields_of_names() -> None:
    choice = chosen({"namespace": "other", "interface": "data0"})
    assert (choice.ask.name, choice.ask.namespace, choice.ifname) == ("net-a", "other", "data0")
    assert chosen({}).ask.namespace == ""


@pytest.mark.parametrize("protocol", ["tcp", "TCP", "udp", "Udp", "sctp"])
def test_a_ports_protocol_may_be_in_any_case(protocol: str) -> None:
    mapping = {"hostPort": 1, "containerPort": 1, "protocol": protocol}
    assert chosen({"portMappings": [mapping]}).ask.port_mappings == (mapping,)


@pytest.mark.parametrize("protocol", [{}, {"protocol": None}, {"protocol": ""}])
def test_a_port_without_a_protocol_is_of_tcp(protocol: dict[str, Any]) -> None:
    """portmap would call iptables with an empty protocol, and its error would not name the annotation."""
    mapping = {"hostPort": 1, "containerPort": 1}
    assert chosen({"portMappings": [{**mapping, **protocol}]}).ask.port_mappings == ({**mapping, "protocol": "tcp"},)


PORT = {"hostPort": 80, "containerPort": 1}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"protocol": "TCP", "containerPort": 2}),
        ({"hostIP": ""}, {"protocol": "tcp", "hostIP": None}),
        ({"hostIP": "fd00::1", "protocol": "udp"}, {"hostIP": "FD00:0::1", "protocol": "UDP"}),
    ],
)
def test_a_port_of_the_host_is_mapped_once(first: dict[str, Any], second: dict[str, Any]) -> None:
    with pytest.raises(
        SelectionError, match=r"portMappings\[1\]: hostPort: expected a port that no mapping before has"
    ):
        chosen({"portMappings": [{**PORT, **first}, {**PORT, **second}]})
    for other in ({"hostPort": 81}, {"protocol": "sctp"}, {"hostIP": "10.0.0.1"}):
        assert len(chosen({"portMappings": [{**PORT, **first}, {**PORT, **second, **other}]}).ask.port_mappings) == 2


def test_the_former_name_of_interface() -> None:
    assert chosen({"interfaceRequest": "data0"}).ifname == "data0"
    assert chosen({"interfaceRequest": "data0", "interface": "data0"}).ifname == "data0"
    assert chosen({"interfaceRequest": "data0", "interface": ""}).ifname == "data0"
    with pytest.raises(SelectionError, match="interfaceRequest: expected none beside interface, which is 'x'"):
        chosen({"interfaceRequest": "data0", "interface": "x"})


KNOWN = ["name", "namespace", "interface", "ips", "mac", "default-route", "cni-args", "bandwidth", "portMappings"]


@given(st.text(max_size=12), st.none() | st.integers() | st.text(max_size=5))
def test_an_element_has_no_keys_but_the_specifications(key: str, value: Any) -> None:
    """Multi-network specification, 4.1.2.1: keys without a period are reserved; unknown ones are refused."""
    asked = {"name": "a", key: value}
    if "." in key or value is None:
        assert names_of(attachments([{"name": "a", key: value}])) == ["", "a"]
    elif key not in (*KNOWN, "interfaceRequest", "infiniband-guid", "ipam-claim-reference"):
        with pytest.raises(SelectionError, match="item 1: ") as caught:
            attachments([asked])
        assert repr(key)[:40] in str(caught.value)


@given(st.sampled_from(KNOWN), st.data())
def test_the_error_for_a_misspelt_key_suggests_the_right_one(key: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(key) - 1))
    slip = data.draw(
        st.sampled_from(
            [key[:at] + key[at + 1 :], key[: at + 1] + key[at:], key.upper(), key.replace("-", "_").title()]
        )
    )
    if len(key) > 3 and slip not in KNOWN:
        with pytest.raises(SelectionError, match=f"'{slip}': no such key: did you mean {key}"):
            attachments([{slip: "x"}])


RATES = ["ingressRate", "ingressBurst", "egressRate", "egressBurst"]


@given(st.dictionaries(st.sampled_from(RATES), st.integers(-1, 3) | st.integers(2**62, 2**64)))
def test_a_bandwidth_within_bounds_is_granted(bandwidth: dict[str, int]) -> None:
    """Multi-network specification, 4.1.2.1.8."""
    bursts = all(f"{way}Rate" in bandwidth for way in ("ingress", "egress") if f"{way}Burst" in bandwidth)
    if bandwidth and bursts and all(0 < each < 2**63 for each in bandwidth.values()):
        assert chosen({"bandwidth": bandwidth}).runtime_config == {"bandwidth": bandwidth}
    else:
        with pytest.raises(SelectionError, match="item 1: bandwidth: "):
            attachments([{"name": "a", "bandwidth": bandwidth}])


BLANKS = st.sampled_from(["", " ", "\t"])


@given(st.sampled_from(["", "ns"]), st.sampled_from(["", "x1"]), st.booleans(), st.booleans(), BLANKS)
def test_an_empty_part_of_the_short_form_is_an_absent_one(
    namespace: str, ifname: str, slash: bool, at: bool, blank: str
) -> None:
    """As Multus' parsePodNetworkObjectName reads it: `/name` is the pod's namespace, `name@` is numbered."""
    before = f"{namespace}{blank}/{blank}" if slash or namespace else ""
    after = f"{blank}@{blank}{ifname}" if at or ifname else ""
    (ask,) = attachments(f"{blank}{before}a{after}").extra
    assert (ask.namespace, ask.name, ask.ifname) == (namespace, "a", ifname)


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
    assert names_of(attachments(items[:2])) == ["", "a", "b"]
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
def test_default_routes_that_contradict_each_other_are_refused(first: Any, second: Any, complaint: str) -> None:
    with pytest.raises(SelectionError, match=complaint):
        attachments([{"name": "a", "default-route": first}, {"name": "b", "default-route": second}])


def test_the_default_network_counts_among_the_default_routes() -> None:
    override = json.dumps([{"name": "red", "default-route": ["10.9.9.9"]}])
    with pytest.raises(SelectionError, match=r"item 1 .*: default-route: annotation v1.multus-cni.io/default-network"):
        attachments([{"name": "a", "default-route": ["10.1.1.1"]}], **{DEFAULT: override})


ISOLATED = Conf(name="k8s", cni_version="1.0.0", namespace_isolation=True, global_namespaces=("default", "shared"))


@pytest.mark.parametrize("allowed", ["a", "blue/a", "default/a", "shared/a"])
def test_namespaces_within_isolation(allowed: str) -> None:
    assert names_of(attachments(allowed, ISOLATED)) == ["", "a"]


@pytest.mark.parametrize("annotation", [ATTACHMENTS, DEFAULT])
def test_isolation_keeps_to_the_pods_namespace(annotation: str) -> None:
    assert asks(pod({annotation: "other/a"}), CONF)
    with pytest.raises(
        SelectionError, match=r"item 1 .*: namespace other is not this pod's \(blue\) .*default, shared"
    ):
        asks(pod({annotation: "other/a"}), ISOLATED)


def test_isolation_leaves_the_default_networks_namespace() -> None:
    assert names_of(asks(pod({DEFAULT: "red"}), ISOLATED)) == ["red"]
    with pytest.raises(SelectionError):
        attachments("kube-system/red", ISOLATED)
    with pytest.raises(SelectionError, match="namespace other is not this pod's"):
        asks(pod({DEFAULT: "red", ATTACHMENTS: "other/a"}), ISOLATED)


@pytest.mark.parametrize("key", [CNI, LOGICAL, ATTACHMENTS, DEFAULT])
def test_an_annotation_that_is_no_string(key: str) -> None:
    notes: dict[str, Any] = {key: 5}
    with pytest.raises(SelectionError, match=f"^annotation {key}: expected a string$"):
        asks(pod(notes), CONF)
    asks(pod({key: " " * 65536}), CONF)  # as long as an annotation may be


@given(st.dictionaries(st.sampled_from([CNI, LOGICAL, ATTACHMENTS, DEFAULT]), JSON))
def test_annotations_that_are_no_strings(annotations: dict[str, Any]) -> None:
    try:
        asks(pod(annotations), CONF)
    except SelectionError as error:
        assert str(error).startswith("annotation ")


# --- limits ---------------------------------------------------------------------------------------------------------

MANY = "net," * 40 + "net"


@pytest.mark.parametrize(
    ("notes", "where"),
    [
        ({CNI: MANY}, "annotation cni"),
        ({LOGICAL: MANY}, "annotation networks"),
        ({ATTACHMENTS: MANY}, f"annotation {ATTACHMENTS}"),
        ({ATTACHMENTS: json.dumps([{"name": "net"}] * 41)}, f"annotation {ATTACHMENTS}"),
        ({CNI: "," * 40}, "annotation cni"),
    ],
)
def test_more_networks_than_a_pod_may_have(notes: dict[str, str], where: str) -> None:
    with pytest.raises(SelectionError) as refused:
        asks(pod(notes), CONF)
    assert str(refused.value) == f"{where}: 41 networks, and a pod may have at most 32 (max_networks in genie.conf)"


def test_the_annotations_together_count() -> None:
    notes = {CNI: ",".join(["a"] * 20), ATTACHMENTS: ",".join(["b"] * 12)}
    assert len(names_of(asks(pod(notes), CONF))) == 32
    more = {**notes, CNI: notes[CNI] + ",a"}
    with pytest.raises(SelectionError, match="^the pod's annotations: 33 networks, and a pod may have at most 32"):
        asks(pod(more), CONF)
    assert len(names_of(asks(pod(more), replace(CONF, max_networks=33)))) == 33
    with pytest.raises(SelectionError, match="3 networks, and a pod may have at most 2"):
        asks(pod({CNI: "", ATTACHMENTS: "a,b"}), replace(CONF, max_networks=2))


BLUE = Default(kind="Namespace", name="blue", networks=" calico , apps/side@x ")
NODE = Default(kind="Node", name="node-1", networks="calico, apps/side")
OF_OWNERS: list[tuple[Default, dict[str, str], list[tuple[str, str, str]]]] = [
    (BLUE, {}, [("", "calico", "named"), ("apps", "side", "attachment")]),
    (NODE, {}, [("", "calico", "default"), ("apps", "side", "attachment")]),
    *((owner, {CNI: "weave"}, [("", "weave", "named")]) for owner in (BLUE, NODE)),
    *((owner, {LOGICAL: "red"}, [("", "red", "logical")]) for owner in (BLUE, NODE)),
    *((owner, {DEFAULT: "ns/red"}, [("ns", "red", "attachment")]) for owner in (BLUE, NODE)),
    *((owner, {CNI: ""}, []) for owner in (BLUE, NODE)),
]


@pytest.mark.parametrize(("owner", "notes", "primary"), OF_OWNERS)
@pytest.mark.parametrize("extra", ["", "net-a"])
@pytest.mark.parametrize("conf", [CONF, WITH_DEFAULT])
def test_a_namespaces_or_a_nodes_default_is_below_the_pods_annotations_and_above_genie_conf(
    owner: Default, notes: dict[str, str], primary: list[tuple[str, str, str]], extra: str, conf: Conf
) -> None:
    whole = pod({**notes, ATTACHMENTS: extra})
    asked = asks(whole, conf, owner)
    assert [(one.namespace, one.name, one.lookup) for one in asked.primary] == primary
    assert [one.name for one in asked.extra] == ([extra] if extra else [])
    assert names_default(whole) is bool(notes)
    assert asked.why.startswith(f"annotation {next(iter(notes))}" if notes else "no annotation: genie.io/default-netw")


@pytest.mark.parametrize("owner", [BLUE, NODE])
def test_a_namespaces_or_a_nodes_default_as_a_whole(owner: Default) -> None:
    on_node = owner is NODE
    named = "node node-1" if on_node else "namespace blue"
    second = "apps/side" if on_node else "apps/side@x"
    where = f"{named}: annotation genie.io/default-networks, item"
    assert asks(pod({}), CONF, owner) == Asked(
        primary=(
            Ask(name="calico", where=f'{where} 1 ("calico")', lookup="default" if on_node else "named"),
            Ask(
                name="side", where=f'{where} 2 ("{second}")', lookup="attachment", namespace="apps",
                ifname="" if on_node else "x",
            ),
        ),
        trusted=on_node,
        why=f"no annotation: genie.io/default-networks of {named}",
    )  # fmt: skip


def test_blank_annotations_name_no_default() -> None:
    assert not names_default(pod({LOGICAL: " ", DEFAULT: "\t", ATTACHMENTS: "a"}))
    assert names_default(pod({LOGICAL: " ", DEFAULT: " a"})) and names_default(pod({LOGICAL: "a", DEFAULT: ""}))


def test_the_size_of_annotations_counts_what_is_read() -> None:
    whole = pod({CNI: "ab", LOGICAL: "c", ATTACHMENTS: "12345", "other": "x" * 100})
    assert (size_of(pod({})), size_of(whole)) == (0, 8)
    assert size_of(whole, BLUE) == 8 + len(BLUE.networks)
    no_text: Any = {CNI: ["a"], LOGICAL: None}
    assert size_of(pod(no_text), NODE) == len(NODE.networks)


def test_default_plugin_can_name_a_definition_of_any_namespace() -> None:
    conf = replace(CONF, default_plugin=("apps/side@eth7", "calico"), namespace_isolation=True)
    side, calico = asks(pod({}), conf).primary
    assert (side.namespace, side.name, side.ifname, side.lookup) == ("apps", "side", "eth7", "attachment")
    assert (calico.namespace, calico.lookup) == ("", "default")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a,,b", 'item 2 (""): expected the name of a network'),
        ("a/b/c", "item 1 (\"a/b/c\"): expected the name of a namespace, found 'a/b'"),
        ("/b", "item 1 (\"/b\"): expected the name of a namespace, found ''"),
        ("a/", 'item 1 ("a/"): expected the name of a network'),
        ('[{"name": "a"}]', "is not the name of a network"),
        (",".join(["a"] * 33), "33 networks, and a pod may have at most 32"),
        ("a" * (ANNOTATION_MAX + 1), "it has more than 65536 characters"),
    ],
)
def test_a_namespaces_default_cannot_name_these(text: str, complaint: str) -> None:
    with pytest.raises(SelectionError) as caught:
        asks(pod({}), CONF, Default(kind="Namespace", name="blue", networks=text))
    assert caught.value.msg.startswith("namespace blue: annotation genie.io/default-networks") and complaint in str(
        caught.value
    )


def test_isolation_holds_for_a_namespaces_default_and_not_for_a_nodes() -> None:
    with pytest.raises(SelectionError, match="namespace apps is not this pod's"):
        asks(pod({}), ISOLATED, BLUE)
    assert names_of(asks(pod({}), ISOLATED, NODE)) == ["calico", "side"]
    assert names_of(asks(pod({}), ISOLATED, Default(kind="Namespace", name="blue", networks="kube-system/side"))) == [
        "side"
    ]
    with pytest.raises(SelectionError, match="namespace other is not this pod's"):
        asks(pod({ATTACHMENTS: "other/a"}), ISOLATED, NODE)


@pytest.mark.parametrize("key", READ)
def test_an_annotation_longer_than_genie_reads(key: str) -> None:
    complaint = f"^annotation {key}: it has more than 65536 characters, the most that genie reads$"
    with pytest.raises(SelectionError, match=complaint):
        asks(pod({key: "a" * (ANNOTATION_MAX + 1)}), CONF)


@pytest.mark.parametrize("form", ["names", "short", "json"])
def test_to_refuse_too_many_takes_no_more_steps_for_more(form: str) -> None:
    def make(count: int) -> Callable[[], object]:
        text = ",".join(["net"] * count)
        if form == "json":
            text = json.dumps([{"name": "net", "ips": ["10.0.0.1"]}] * count)
        notes = pod({CNI if form == "names" else ATTACHMENTS: text})

        def refuse() -> None:
            with pytest.raises(SelectionError, match=f"{count} networks"):
                asks(notes, CONF)

        return refuse

    few, many = (lines_run(make(count)) for count in (100, 1000))
    assert many <= few + 50
