"""Policies as people write them: what is read, and one clear error for what is not."""

from __future__ import annotations

from typing import Any

import pytest

from genie.kube import FAIL, POLICY_FOR
from genie.policy import model
from genie.policy.model import Peer, Port, Rule, Selector


def policy(spec: Any, **notes: str) -> model.Policy:
    annotations = {POLICY_FOR: "blue", **notes}
    return model.multi({"metadata": {"namespace": "n", "name": "p", "annotations": annotations}, "spec": spec})


def test_every_field() -> None:
    read = policy(
        {
            "podSelector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]},
            "ingress": [{"from": [{"namespaceSelector": {}}],
                         "ports": [{"port": 80}, {"port": "web", "protocol": "UDP"}]}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/30", "except": ["10.0.0.1/32"]}}],
                        "ports": [{"protocol": "SCTP"}, {"port": 5, "endPort": 9}]}],
        }
    )  # fmt: skip
    assert not read.error
    assert read.selector == Selector((("a", "In", frozenset("b")), ("c", "Exists", frozenset())))
    assert read.ingress == (
        Rule(
            peers=(Peer(namespaces=Selector(())),),
            ports=(Port(protocol="TCP", ports=(80, 80)), Port(protocol="UDP", name="web")),
        ),
    )
    first = 10 << 24
    assert read.egress == (
        Rule(
            peers=(Peer(block=((first, first), (first + 2, first + 3))),),
            ports=(Port(protocol="SCTP"), Port(protocol="TCP", ports=(5, 9))),
        ),
    )


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ({}, (), None),
        ({"egress": []}, (), None),
        ({"egress": [{}]}, (), (Rule(peers=None, ports=None),)),
        ({"policyTypes": ["Egress"], "ingress": [{}]}, None, ()),
        ({"policyTypes": ["Ingress", "Egress"]}, (), ()),
        ({"ingress": [{"from": [], "ports": []}]}, (Rule(peers=None, ports=None),), None),
    ],
)
def test_directions(spec: dict[str, Any], ingress: Any, egress: Any) -> None:
    read = policy({"podSelector": {}, **spec})
    assert (read.error, read.ingress, read.egress) == ("", ingress, egress)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (None, "spec: expected an object, found nothing"),
        ({}, "podSelector: expected a label selector"),
        ({"ingres": []}, "podSelector"),
        ({"podSelector": {}, "ingres": []}, "'ingres': no such field"),
        ({"podSelector": {"matchLabel": {}}}, "'matchLabel': no such field"),
        ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}, "values: expected at least one"),
        ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}, "operator: expected In, NotIn"),
        ({"podSelector": {}, "policyTypes": ["ingress"]}, "policyTypes: expected Ingress, Egress, or both"),
        ({"podSelector": {}, "ingress": [{"to": []}]}, "ingress[0]: 'to': no such field"),
        ({"podSelector": {}, "ingress": [{"from": [{}]}]}, "ingress[0]: from[0]: expected podSelector"),
        ({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.1"}}]}]}, "expected a subnet such as"),
        (
            {"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.1.0.0/24"]}}]}]},
            "except: expected subnets of 10.0.0.0/24, found '10.1.0.0/24'",
        ),
        ({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "::/0"}, "podSelector": {}}]}]}, "found both"),
        ({"podSelector": {}, "egress": [{"ports": [{"port": 0}]}]}, "egress[0]: ports[0]: port: expected a number"),
        ({"podSelector": {}, "egress": [{"ports": [{"port": 9, "endPort": 8}]}]}, "endPort: expected a number from 9"),
        ({"podSelector": {}, "egress": [{"ports": [{"port": "web", "endPort": 8}]}]}, "endPort: expected none"),
        ({"podSelector": {}, "egress": [{"ports": [{"protocol": "ICMP"}]}]}, "protocol: expected TCP, UDP, SCTP"),
        ({"podSelector": {}, "egress": [{"ports": [{}] * 1001}]}, "expected at most 1000"),
        *(
            ({"podSelector": {}, "egress": [{"ports": [{"port": port}]}]}, "port: expected a number")
            for port in (65536, -1, True, 80.5, "80", "Web", "a--b", "-a", "a b", "a" * 16, "9-9", "web\n")
        ),
        *(
            ({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": cidr}}]}]}, says)
            for cidr, says in (
                ("::ffff:10.0.0.0/104", "expected an IPv4 subnet"), ("10.0.0.0/33", "expected a subnet"),
                ("010.0.0.0/8", "expected a subnet"), ("fe80::1%eth0/64", "expected a subnet"),
            )
        ),
        *(
            ({"podSelector": {"matchExpressions": [{"key": key, "operator": operator, **more}]}}, says)
            for key, operator, more, says in (
                ("a" * 64, "Exists", {}, "expected the key of a label"),
                ("a/b/c", "Exists", {}, "expected the key of a label"),
                ("a", "NotIn", {"values": ["b" * 64]}, "expected the value of a label"),
                ("a", "In", {"values": ["b/c"]}, "expected the value of a label"),
                ("a", "In", {"values": [1]}, "values: expected"),
                ("a", "Exists", {"values": ["b"]}, "values: expected none with Exists"),
                ("a", "in", {"values": ["b"]}, "operator: expected In, NotIn"),
            )
        ),
        ({"podSelector": {"matchLabels": {"a b": ""}}}, "expected the key of a label"),
        ({"podSelector": {"matchLabels": {"a": "ä"}}}, "expected the value of a label"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_and_has_no_effect_unless_the_policy_fails_closed(spec: Any, says: str) -> None:
    read = policy(spec)
    assert says in read.error and read.error.startswith("MultiNetworkPolicy n/p: ")
    assert (read.ingress, read.egress) == (None, None)
    closed = policy(spec, **{FAIL: "closed"})
    assert (closed.ingress, closed.egress, closed.networks) == ((), (), ("blue",))


def test_a_policy_for_no_network_is_an_error() -> None:
    read = model.multi({"metadata": {"namespace": "n", "name": "p"}, "spec": {"podSelector": {}}})
    assert "expected 1 to 32 networks" in read.error and read.networks == ()


@pytest.mark.parametrize(
    "names", ["blue green", "a/b/c", "/blue", "blue/", "blue@net1", '["blue"]', "blue, a\tb", "Apps/blue", "-blue"]
)
def test_a_name_that_no_network_can_have_is_an_error(names: str) -> None:
    read = policy({"podSelector": {}}, **{POLICY_FOR: names})
    assert f"annotation {POLICY_FOR}: expected names of networks" in read.error


def test_labels_and_ports_names_that_kubernetes_allows() -> None:
    labels = {"a" * 63: "b" * 63, "example.com/A_b.c-1": "", "0": "1.2"}
    ports = [{"port": "a"}, {"port": "1-a-2"}, {"port": "a" * 15}, {"port": "123456789012-ab"}]
    read = policy({"podSelector": {"matchLabels": labels}, "ingress": [{"ports": ports}]})
    assert not read.error and len(read.selector.requirements) == 3


def test_names_of_networks() -> None:
    read = policy({"podSelector": {}}, **{POLICY_FOR: "blue, other/green,"})
    assert [read.is_for(label) for label in ("n/blue", "blue", "other/green", "m/blue", "green")] == [
        True, True, True, False, False,
    ]  # fmt: skip


AS_DOCUMENTED = """[
  {
    networkSelector: net1
    peerNetworks: net2
  },
  {
    networkSelector: net4
    peerNetworks: net3,net5
  }
]"""


@pytest.mark.parametrize(
    "text",
    [
        AS_DOCUMENTED,
        '[{"networkSelector":"net1","peerNetworks":"net2"},{"networkSelector":"net4","peerNetworks":"net3, net5"}]',
        '[{networkSelector: "net1", peerNetworks: net2}, {"networkSelector": "net4", "peerNetworks": "net3,net5"}]',
        '[{"networkSelector":"net4","peerNetworks":"net3"},{"networkSelector":"net4","peerNetworks":"net5"},'
        '{"networkSelector":"net1","peerNetworks":"net2"}]',
    ],
)
@pytest.mark.parametrize("key", ["genieNetworkPolicy", "genieNetworkpolicy"])
def test_genies_annotation(text: str, key: str) -> None:
    found = model.genie({"metadata": {"namespace": "n", "name": "p", "annotations": {key: text}}})
    assert not any(each.error for each in found)
    peers = {each.networks: [peer.network for peer in (each.ingress or ())[0].peers or ()] for each in found}
    assert peers == {("net1",): ["net1", "net2"], ("net4",): ["net4", "net3", "net5"]}
    assert all(each.ingress == each.egress and each.selector == Selector(()) for each in found)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        "net1",
        '[{"peerNetworks": "a"}]',
        '[{"networkSelector": "a", "peers": "b"}]',
        "[{net1}]",
        '[{"networkSelector": "a, b"}]',
        '[{"networkSelector": "a", "peerNetworks": "b c"}]',
    ],
)
def test_a_mistake_in_genies_annotation(text: str) -> None:
    (found,) = model.genie({"metadata": {"namespace": "n", "name": "p", "annotations": {"genieNetworkPolicy": text}}})
    assert found.error.startswith("NetworkPolicy n/p: genieNetworkPolicy") and found.ingress is None


def test_a_network_policy_of_kubernetes_is_not_genies() -> None:
    assert model.genie({"metadata": {"namespace": "n", "name": "p"}, "spec": {"podSelector": {}}}) == ()
