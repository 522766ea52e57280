"""Networks' files: the fixtures, and mistakes in others."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest

from harness import catalog

ONE = catalog.Place(number=1, name="one", address="172.30.0.11")
TWO = catalog.Place(number=2, name="two", address="172.30.0.12")


def test_every_network_of_the_fixtures_is_valid_on_both_nodes() -> None:
    for network in catalog.load().values():
        if network.embedded:
            for here, other in ((ONE, TWO), (TWO, ONE)):
                assert catalog.conf(network.embedded, here)["name"]
                catalog.setup(network.embedded, here, [other])


def test_subnets_of_the_fixtures_do_not_overlap() -> None:
    subnets = [
        ipaddress.ip_network(subnet)
        for network in catalog.load().values()
        if network.embedded
        for subnet in network.embedded.subnets
    ]
    clashes = [
        (a, b) for n, a in enumerate(subnets) for b in subnets[n + 1 :] if a.version == b.version and a.overlaps(b)
    ]
    assert not clashes


def test_expressions_are_of_the_node_and_its_peers() -> None:
    network = catalog.load()["canal"].embedded
    assert network is not None
    vxlan, route = catalog.setup(network, TWO, [ONE])
    assert vxlan["address"] == "10.56.2.0/32"
    assert vxlan["peers"] == ["172.30.0.11"]
    assert (route["routes"], route["via"], route["over"]) == ("10.56.1.0/24", "10.56.1.0", "canal.1")


def test_an_unknown_expression_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = _profile(tmp_path, subnet="{{ node.colour }}")
    with pytest.raises(catalog.ProfileError, match=r"mine\.yaml:1:\d+: embedded\.conf\.ipam\.subnet: .*colour"):
        catalog.read(path)


def test_a_mistake_names_file_and_field(tmp_path: Path) -> None:
    path = _profile(tmp_path, file="no-suffix")
    with pytest.raises(catalog.ProfileError, match=r"mine\.yaml:1:\d+: embedded\.file"):
        catalog.read(path)


DOCS = """\
network: mynet
embedded:
  kind: real
  software: mynet 1.2
  plugins: [mynet, host-local]
  subnets: [10.77.0.0/16]
  file: 10-mynet.conf
  conf: {cniVersion: 1.0.0, name: mynet, type: mynet, ipam: {type: host-local, subnet: "10.77.{{ node.number }}.0/24"}}
"""


def test_nodes_have_routes_to_each_other_s_subnets_where_a_profile_has_no_setup(tmp_path: Path) -> None:
    path = tmp_path / "mynet.yaml"
    path.write_text(DOCS)
    network = catalog.read(path).embedded
    assert network is not None
    [route] = catalog.setup(network, ONE, [TWO])
    assert (route["routes"], route["via"], route["over"]) == ("10.77.2.0/24", "172.30.0.12", "")
    four, six = '{subnet: "10.77.{{ node.number }}.0/24"}', '{subnet: "fd77:0:0:{{ node.number }}::/64"}'
    both = f"{{type: host-local, ranges: [[{four}], [{six}]]}}"
    path.write_text(DOCS.replace('{type: host-local, subnet: "10.77.{{ node.number }}.0/24"}', both))
    dual = catalog.read(path).embedded
    assert dual is not None
    ways = [(route["routes"], route["via"]) for route in catalog.setup(dual, ONE, [TWO])]
    assert ways == [("10.77.2.0/24", "172.30.0.12"), ("fd77:0:0:2::/64", "fd00::ac1e:c")]
    path.write_text(DOCS + "  setup: []\n")
    without = catalog.read(path).embedded
    assert without is not None
    assert catalog.setup(without, ONE, [TWO]) == []


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("10.77.0.0/16]", "10.77.0.0/33]", r":6:\d+: embedded\.subnets.*expected subnets such as 10.77.0.0/16: .*/33"),
        ("10.77.0.0/16]", "banana]", r":6:\d+: embedded\.subnets.*'banana'"),
        ("kind: real", "kind: reel", r":3:\d+: embedded\.kind"),
        ("software:", "softwear:", r":4:\d+: embedded\.softwear: unknown key"),
        ("network: mynet\n", "network: My Net\n", r":1:\d+: network"),
        ("node.number", "node.numbr", r":8:\d+: embedded\.conf\.ipam\.subnet"),
        ("real", "[", r":\d+:\d+: not YAML"),
    ],
)
def test_every_mistake_of_a_profile_has_its_place(tmp_path: Path, old: str, new: str, place: str) -> None:
    path = tmp_path / "mynet.yaml"
    path.write_text(DOCS.replace(old, new))
    with pytest.raises(catalog.ProfileError, match=r"mynet\.yaml" + place):
        catalog.load([path])


def test_a_profile_replaces_a_fixture_of_its_name(tmp_path: Path) -> None:
    path = _profile(tmp_path, network="weave")
    replaced = catalog.load([path])["weave"].embedded
    assert replaced is not None
    assert replaced.software == "mine"


def _profile(
    tmp_path: Path, *, network: str = "mine", subnet: str = "10.99.0.0/24", file: str = "50-mine.conf"
) -> Path:
    path = tmp_path / "mine.yaml"
    conf = {"name": "mine", "cniVersion": "1.0.0", "type": "bridge", "ipam": {"type": "host-local", "subnet": subnet}}
    section = {"kind": "real", "software": "mine", "plugins": ["bridge"], "subnets": ["10.99.0.0/24"], "file": file}
    path.write_text(json.dumps({"network": network, "embedded": {**section, "conf": conf}}))
    return path
