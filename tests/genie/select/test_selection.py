"""Selection from annotations and genie.conf: each row of the table in docs/annotations.md, and properties."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.cni.config import NetworkConfig, validate_ifname
from genie.config import Conf
from genie.kube import OWNERS, Default, Pod
from genie.select import selection
from genie.select.annotations import (
    ATTACHMENTS,
    CNI,
    DEFAULT,
    LOGICAL,
    Ask,
    Asked,
    SelectionError,
    asks,
    names_default,
)
from genie.select.selection import Choice, Found, assemble
from tests.rigs.core import names, network
from tests.rigs.counting import is_linear
from tests.rigs.selection import ABLE, CONF, JSON, ask, attachments, chosen, found, ifnames, names_of, pod

# --- claims of addresses -------------------------------------------------------------------------------------------

CLAIMING = network("ovn", {"type": "ovn-k8s-cni-overlay", "allowPersistentIPs": True})


def claim(by: NetworkConfig, **more: Any) -> Any:
    return chosen({"ipam-claim-reference": "vm-a.ovn", **more}, by)


def test_a_claim_is_granted_by_a_plugin_that_reads_it_itself() -> None:
    assert claim(CLAIMING).runtime_config == {}


@pytest.mark.parametrize(
    "by",
    [ABLE, network("ovn", {"type": "ovn-k8s-cni-overlay"}), network("x", {"type": "x", "allowPersistentIPs": "yes"})],
)
def test_a_claim_is_else_refused_by_name(by: NetworkConfig) -> None:
    with pytest.raises(SelectionError) as caught:
        claim(by)
    assert caught.value.msg == (
        f'annotation {ATTACHMENTS}, item 1 ("net-a"): ipam-claim-reference: genie cannot grant it: it does not know '
        f"IPAMClaim objects, and no plugin of {by.source} reads them itself (`allowPersistentIPs`)"
    )


def test_there_are_no_addresses_beside_a_claim() -> None:
    with pytest.raises(SelectionError, match=r'item 1 \("net-a"\): ips: expected none beside ipam-claim-reference'):
        claim(CLAIMING, ips=["10.1.0.2/24"])


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


@pytest.mark.parametrize(
    ("cni", "ifname", "expected"),
    [
        ("calico,weave", "eth1", ["eth1", "eth2"]),
        ("calico,weave,flannel", "eth2", ["eth2", "eth1", "eth3"]),
        ("calico@data,weave", "eth1", ["data", "eth2"]),
        ("calico,weave@eth1,flannel", "net5", ["net5", "eth1", "eth2"]),
    ],
)
def test_the_runtimes_interface_is_never_given_to_another_network(cni: str, ifname: str, expected: list[str]) -> None:
    assert ifnames(ask(cni=cni), ifname) == expected


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
        ("a@-1", r"interface name: expected one without '-' at its beginning"),
        ("a@--help", r"interface name: expected one without '-' at its beginning"),
        ("a@all", r"interface name: 'all' is the kernel's name"),
        (
            "a@net%d",
            r"^annotation cni, item 1 .*: interface name: expected one without '%', which the kernel counts up$",
        ),
    ],
)
def test_interface_names_that_cannot_be(cni: str, complaint: str) -> None:
    with pytest.raises(SelectionError, match=complaint) as caught:
        ifnames(ask(cni=cni))
    assert str(caught.value).startswith("annotation cni, item ")


def test_an_interface_that_is_the_default_networks_is_named_with_its_owner() -> None:
    with pytest.raises(SelectionError) as caught:
        ifnames(ask(cni="calico,weave@eth0"))
    assert caught.value.msg == (
        "annotation cni, item 2 (\"weave@eth0\"): interface eth0 is the pod's default network's, which annotation cni, "
        'item 1 ("calico") puts there'
    )


# --- the JSON form, field by field ----------------------------------------------------------------------------------


FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"ips": ["10.1.1.5/24"]}, {"ips": ["10.1.1.5/24"]}),
    ({"ips": ["10.1.1.5", "fd00::5"]}, {"ips": ["10.1.1.5", "fd00::5"]}),
    ({"mac": "02:00:00:00:00:01"}, {"mac": "02:00:00:00:00:01"}),
    ({"mac": "DE-AD-00-00-BE-AF"}, {"mac": "de:ad:00:00:be:af"}),
    ({"mac": "dead.0000.BEAF"}, {"mac": "de:ad:00:00:be:af"}),
    ({"infiniband-guid": "C211.2233.4455.6677"}, {"infinibandGUID": "c2:11:22:33:44:55:66:77"}),
    ({"bandwidth": {"ingressRate": 1000, "egressRate": None}}, {"bandwidth": {"ingressRate": 1000}}),
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


def test_a_selection_has_what_was_asked_and_found() -> None:
    """Without requested arguments, a network's configuration is unchanged."""
    asked = attachments([{"name": "net-a", "mac": "02:00:00:00:00:01", "ips": ["10.1.1.5/24"]}], cni="calico,weave")
    looked_up = [
        Found(network=network("calico"), label="calico"),
        Found(network=network("weave"), label="weave", length=7),
        Found(network=network("plain"), label="blue/net-a", resource="x.org/vf"),
    ]
    chosen = assemble(asked, looked_up, ifname="eth5", runtime_config={"dns": {}}, drop_undeclared=True, size=7)
    calico, weave, net_a = (*asked.primary, *asked.extra)
    assert chosen == selection.Selection(
        choices=(
            Choice(ask=calico, label="calico", network=network("calico"), ifname="eth5", runtime_config={"dns": {}}),
            Choice(ask=weave, label="weave", network=network("weave"), ifname="eth1"),
            Choice(
                ask=net_a,
                label="blue/net-a",
                network=network("plain"),
                ifname="net1",
                dropped=("ips", "mac"),
                resource="x.org/vf",
            ),
        ),
        primary=2,
        why="annotation cni",
        size=7,
    )
    assert assemble(asked, looked_up, drop_undeclared=True).size == 0
    with pytest.raises(ValueError):
        assemble(asked, looked_up[:2])


def test_cni_args_go_to_every_plugin_beside_its_own() -> None:
    net = network("able", dict(ABLE.plugins[0]), {"type": "tuning"})
    found = chosen({"cni-args": {"colour": "blue"}}, net).network.plugins
    assert [plugin["args"] for plugin in found] == [
        {"cni": {"kept": "yes", "colour": "blue"}},
        {"cni": {"colour": "blue"}},
    ]
    assert net.plugins[1] == {"type": "tuning"}, "the configuration is shared: it must not be written to"


# --- arguments from the runtime --------------------------------------------------------------------------------------


def test_the_runtimes_own_arguments_are_the_first_networks() -> None:
    runtime_config = {"portMappings": [{"hostPort": 1, "containerPort": 2}], "dns": {}}
    chosen = assemble(
        ask(cni="calico,weave"), found(network("calico"), network("weave")), runtime_config=runtime_config
    )
    assert [choice.runtime_config for choice in chosen.choices] == [runtime_config, {}]


@given(st.sets(st.sampled_from(["ips", "mac", "bandwidth", "portMappings", "infinibandGUID"])), st.booleans())
def test_undeclared_capabilities_are_refused_or_dropped(declared: set[str], drop: bool) -> None:
    """Refused by the specification; dropped as by libcni, for definitions that were made for Multus."""
    item = {
        "ips": ["10.1.1.5/24"],
        "mac": "02:00:00:00:00:01",
        "bandwidth": {"ingressRate": 5},
        "portMappings": [{"hostPort": 1, "containerPort": 1}],
        "infiniband-guid": "c2:11:22:33:44:55:66:77",
    }
    net = network("net-a", {"type": "x", "capabilities": dict.fromkeys(sorted(declared), True)})
    asked = attachments([{"name": "net-a", **item}])
    if len(declared) < 5 and not drop:
        with pytest.raises(SelectionError, match="no plugin of .* declares this capability"):
            assemble(asked, found(network("calico"), net))
        return
    choice = assemble(asked, found(network("calico"), net), drop_undeclared=drop).choices[1]
    assert set(choice.runtime_config) == declared
    assert {*choice.dropped} | declared == {"ips", "mac", "bandwidth", "portMappings", "infinibandGUID"}


def test_a_device_goes_to_the_plugins_that_declare_the_capability_alone() -> None:
    """Multus' `deviceID` in the configuration is there all the same; the capability is the CNI conventions' way."""
    device = "0000:03:02.1"
    declares = network("able", {"type": "sriov", "deviceID": device, "capabilities": {"deviceID": True}})
    silent = network("silent", {"type": "sriov", "deviceID": device, "capabilities": {"mac": True}})
    without = network("without", {"type": "sriov", "capabilities": {"deviceID": True}})
    off = network("off", {"type": "sriov", "deviceID": device, "capabilities": {"deviceID": False}})
    assert chosen({}, declares).runtime_config == {"deviceID": device}
    assert [chosen({}, one).runtime_config for one in (silent, without, off)] == [{}, {}, {}]
    assert [chosen({}, one).device_id for one in (declares, silent, without)] == [device, device, ""]


# --- addresses without a prefix length ------------------------------------------------------------------------------

SUBNETS = ["10.1.0.0/16", "10.1.2.0/24", "10.2.0.7/29", "fd00::/64", "fd00:1::1/112"]
IPAMS: list[Callable[[str, str], dict[str, Any]]] = [
    lambda one, other: {"type": "host-local", "subnet": one},
    lambda one, other: {"type": "host-local", "ranges": [[{"subnet": other}], [{"subnet": one}]]},
    lambda one, other: {"type": "static", "addresses": [{"address": other}, {"address": one, "gateway": "10.1.0.1"}]},
    lambda one, other: {"type": "whereabouts", "range": one},
    lambda one, other: {"type": "whereabouts", "ipRanges": [{"range": other}, {"range": one}]},
]


@given(st.sampled_from(SUBNETS), st.sampled_from(IPAMS), st.integers(0, 6))
def test_an_address_without_a_prefix_takes_its_networks(
    subnet: str, ipam: Callable[[str, str], dict[str, Any]], at: int
) -> None:
    """Multi-network specification, 4.1.2.1.3: plugins may demand a prefix length. /32 or /128 would reach nobody."""
    net = ip_network(subnet, strict=False)
    plugin = {"type": "bridge", "capabilities": {"ips": True}, "ipam": ipam(subnet, "192.0.2.0/24")}
    inside, outside = str(net[at]), "198.51.100.7"
    given = chosen({"ips": [inside, outside, f"{inside}/{net.max_prefixlen}"]}, network("able", plugin))
    expected = [f"{inside}/{net.prefixlen}", outside, f"{inside}/{net.max_prefixlen}"]
    assert given.runtime_config == {"ips": expected}


def test_the_narrowest_of_several_subnets_counts() -> None:
    ranges = [
        [{"subnet": "10.0.0.0/8"}],
        [{"subnet": "10.1.0.0/16"}],
        [{"subnet": "10.1.9.0/24"}],
        [{"subnet": "::/0"}],
    ]
    plugin = {"type": "bridge", "capabilities": {"ips": True}, "ipam": {"type": "host-local", "ranges": ranges}}
    given = chosen({"ips": ["10.1.1.5", "10.2.0.1", "10.1.9.3/32", "192.0.2.1", "fd00::5"]}, network("able", plugin))
    assert given.runtime_config == {"ips": ["10.1.1.5/16", "10.2.0.1/8", "10.1.9.3/32", "192.0.2.1", "fd00::5/0"]}


@pytest.mark.parametrize(
    ("ipam", "length"),
    [
        ({"range": "10.1.1.2-10.1.1.9/24"}, "/24"),
        ({"ipRanges": [{"range": "10.1.1.2-10.1.1.9/25"}, 5]}, "/25"),
        ({"subnet": "10.1.1.5/32"}, ""),
        ({"subnet": "10.1.1.0"}, ""),
        ({"subnet": "x/24", "range": "10.1.0.0/16"}, "/16"),
    ],
)
def test_subnets_in_other_forms_give_addresses_their_prefix(ipam: dict[str, Any], length: str) -> None:
    plugin = {"type": "x", "capabilities": {"ips": True}, "ipam": ipam}
    assert chosen({"ips": ["10.1.1.5"]}, network("able", plugin)).runtime_config == {"ips": [f"10.1.1.5{length}"]}


@given(JSON, st.sampled_from(["10.1.1.5", "fd00::5"]))
def test_an_ipam_without_subnets_leaves_the_address_as_it_is(junk: Any, ip: str) -> None:
    for ipam in (junk, {"ranges": junk, "subnet": junk}, {"addresses": [junk], "range": "10.1.1.1-10.1.1.9"}):
        plugin = {"type": "x", "capabilities": {"ips": True}, "ipam": ipam}
        net = NetworkConfig(name="n", cni_version="1.0.0", plugins=(plugin,), source="x")
        assert chosen({"ips": [ip]}, net).runtime_config == {"ips": [ip]}


# --- properties -----------------------------------------------------------------------------------------------------

NAME = st.from_regex(r"[a-z]([a-z0-9.-]{0,10}[a-z0-9])?", fullmatch=True)
IFNAME = st.from_regex(r"[a-z][a-z0-9]{0,14}", fullmatch=True).filter(
    lambda name: name not in selection.RESERVED_IFNAMES
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
    lambda keys: NetworkConfig(name="n", cni_version="1.0.0", plugins=({**keys, "type": "t"},), source="10-n.conf")
)


def check(chosen: selection.Selection, asked: Asked, ifname: str) -> None:
    given = names(chosen.choices)
    assert len(set(given)) == len(given)
    for name in given:
        validate_ifname(name)
    everything = asked.primary + asked.extra
    assert [choice.ask for choice in chosen.choices] == list(everything), "order kept"
    assert all(choice.ifname == choice.ask.ifname for choice in chosen.choices if choice.ask.ifname)
    if everything and not everything[0].ifname:
        assert given[0] == ifname


OWNER = st.none() | st.builds(Default, kind=st.sampled_from(sorted(OWNERS)), name=NAME, networks=TEXT)


@given(ANNOTATIONS, CONFS, NETWORKS, OWNER)
def test_selection_raises_nothing_but_its_own_error(
    annotations: dict[str, str], conf: Conf, net: NetworkConfig, owner: Default | None
) -> None:
    try:
        asked = asks(pod(annotations), conf, owner)
        assert not names_default(pod(annotations)) or asked == asks(pod(annotations), conf), "nobody else decides"
        everything = asked.primary + asked.extra
        chosen = assemble(asked, found(*[net] * len(everything)))
    except SelectionError as error:
        where = str(error)
        assert where.startswith(
            ("annotation ", "genie.conf: default_plugin", f"{owner.kind.lower()} {owner.name}: " if owner else "annot")
        )
        json.dumps(error.to_json("1.0.0"))
    else:
        check(chosen, asked, "eth0")
        json.dumps([[choice.network.plugins, choice.runtime_config] for choice in chosen.choices])


BLANK = st.sampled_from(["", " ", "  ", "\t", "\n"])


@given(st.lists(st.tuples(NAME, st.none() | IFNAME, BLANK), min_size=1, max_size=6), st.lists(NAME, max_size=3), IFNAME)
def test_names_are_given_and_kept(items: list[tuple[str, str | None, str]], extra: list[str], ifname: str) -> None:
    text = ",".join(f"{blank}{name}{blank}@{blank}{at}" if at else f"{blank}{name}{blank}" for name, at, blank in items)
    asked = asks(pod({CNI: text, ATTACHMENTS: ",".join(extra)}), CONF)
    assert names_of(asked) == [*(name for name, _, _ in items), *extra]
    wanted = [at for _, at, _ in items if at]
    clash = len(set(wanted)) < len(wanted) or (not items[0][1] and ifname in wanted)
    try:
        chosen = assemble(asked, found(*[network(one.name) for one in asked.primary + asked.extra]), ifname=ifname)
    except SelectionError as error:
        assert clash, error
    else:
        assert not clash
        check(chosen, asked, ifname)


@given(
    st.lists(st.none() | st.sampled_from(["eth1", "eth2", "eth4", "net1", "net2", "net3", "net5", "x"]), max_size=12),
    st.integers(0, 12),
    st.sampled_from(["eth0", "eth1", "net2"]),
)
def test_each_number_is_the_lowest_that_is_free(asked: list[str | None], primary: int, ifname: str) -> None:
    """The documented rule, one network after the other; the code tries no number twice."""
    asks_ = tuple(Ask(name="n", where="w", ifname=name or "") for name in asked)
    whole = Asked(primary=asks_[:primary], extra=asks_[primary:])
    try:
        names = selection.interface_names(whole, ifname)
    except SelectionError:
        return
    given = {ifname, *filter(None, asked)}
    for index, (one, name) in enumerate(zip(asks_, names, strict=True)):
        extra = index - len(whole.primary) + 1
        if one.ifname or index == 0:
            assert name == (one.ifname or ifname)
        else:
            prefix, start = ("net", extra) if extra > 0 else ("eth", 1)
            assert name == next(free for i in range(99) if (free := f"{prefix}{start + i}") not in given)
        given.add(name)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("primary", [False, True])
def test_to_number_interfaces_takes_as_many_steps_as_there_are(named: bool, primary: bool) -> None:
    """A pod that asked for 20,000 networks once kept the agent, and with it the node, busy for minutes."""

    def make(count: int) -> Callable[[], object]:
        prefix = "eth" if primary else "net"
        asks_ = [Ask(name="n", where="w", ifname=f"{prefix}{n}" if named else "") for n in range(1, count)]
        asks_ += [Ask(name="n", where="w")] * count
        asked = Asked(primary=tuple(asks_) if primary else (), extra=() if primary else tuple(asks_))
        return lambda: selection.interface_names(asked, "eth0")

    assert is_linear(make, 300)


# --- plugins that know a pod once -----------------------------------------------------------------------------------


def test_calico_is_attached_once() -> None:
    """Its second ADD of a pod takes the first one's interface away: better one clear error than a pod without eth0."""
    calico = network("k8s-pod-network", {"type": "calico"})
    asked = asks(Pod(namespace="blue", name="a", annotations={"cni": "calico,calico"}), CONF)
    with pytest.raises(SelectionError) as refused:
        assemble(asked, found(calico, calico))
    assert refused.value.msg == (
        'annotation cni, item 2 ("calico"): calico knows an endpoint by its pod alone and gives it one interface, '
        'which annotation cni, item 1 ("calico") has already: ask for it once'
    )
