"""`cni: ""`: networks without a free address or with a failed ADD are chosen only if there is no other."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from genie.cni.config import NetworkConfig
from genie.cni.result import IP, Result
from genie.records import Record, RecordedAttachment
from genie.select import spent
from tests.rigs.core import Node, failing, network


def with_ipam(name: str, **ipam: Any) -> Any:
    return network(name, {"type": "bridge", "ipam": {"type": "host-local", **ipam}})


def is_exhausted(net: NetworkConfig) -> bool:
    """Whether the network is taken last, as one without pods on this node."""
    return spent.reasons([net], spent.pools([net], ()), "/none") == {net.name: "no free address"}


SUBNET = st.sampled_from(
    ["10.7.0.0/29", "10.7.0.8/30", "10.7.0.128/28", "10.7.0.3/29", "fd00:7::/125", "fd00:7::8/124"]
)


@st.composite
def ranges(draw: Any) -> dict[str, Any]:
    """One of host-local's ranges; host-local chooses missing values."""
    subnet = draw(SUBNET)
    inside = [str(each) for each in ip_network(subnet, strict=False)]
    at, to = sorted(draw(st.tuples(st.integers(0, len(inside) - 1), st.integers(0, len(inside) - 1))))
    whole = {
        "subnet": subnet,
        "rangeStart": inside[at],
        "rangeEnd": inside[to],
        "gateway": draw(st.sampled_from(inside)),
    }
    left_out = draw(st.sets(st.sampled_from(["rangeStart", "rangeEnd", "gateway"])))
    return {key: value for key, value in whole.items() if key not in left_out}


@given(st.lists(ranges(), min_size=1, max_size=3), st.data())
def test_free_addresses_counted_one_by_one(several: list[dict[str, Any]], data: st.DataObject) -> None:
    networks = [ip_network(each["subnet"], strict=False) for each in several]
    assume(not any(a != b and a.overlaps(b) for a in networks for b in networks if a.version == b.version))
    assume(len(set(networks)) == len(networks))
    usable = []
    for one, subnet in zip(several, networks, strict=True):
        everything = list(subnet)
        default_end = everything[-2] if subnet.version == 4 else everything[-1]
        start = ip_address(one.get("rangeStart", str(everything[1])))
        end = ip_address(one.get("rangeEnd", str(default_end)))
        gateway = ip_address(one.get("gateway", str(everything[1])))
        assume(int(start) <= int(end))
        usable += [str(each) for each in everything if int(start) <= int(each) <= int(end) and each != gateway]
    taken = data.draw(st.sets(st.sampled_from([*usable, "lock", "last_reserved_ip.0", "192.0.2.7"])))
    assert spent.free(several, taken) == len(set(usable) - taken)


@pytest.mark.parametrize("subnet", ["10.7.0.0/29", "fd00:7::/125"])
def test_exhausted_is_what_host_local_refuses(subnet: str, tmp_path: Path, cni_bin: str) -> None:
    net = with_ipam("blue", subnet=subnet, dataDir=str(tmp_path))
    for number in range(12):
        conf = {"cniVersion": "1.0.0", "name": "blue", "type": "bridge", "ipam": net.plugins[0]["ipam"]}
        env = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": f"c{number}", "CNI_IFNAME": "eth0", "CNI_NETNS": "/n"}
        was_exhausted = is_exhausted(net)
        done = subprocess.run(
            [f"{cni_bin}/host-local"], input=json.dumps(conf).encode(), capture_output=True, check=False,
            env={**env, "CNI_PATH": cni_bin},
        )  # fmt: skip
        assert was_exhausted == (done.returncode != 0), (number, done.stdout)
    assert was_exhausted


def test_each_set_of_ranges_has_to_give_an_address(tmp_path: Path) -> None:
    (tmp_path / "blue").mkdir()
    (tmp_path / "blue" / "fd00::2").write_text("c1")
    two = [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd00::/64", "rangeStart": "fd00::2", "rangeEnd": "fd00::2"}]]
    assert is_exhausted(with_ipam("blue", ranges=two, dataDir=str(tmp_path)))
    assert not is_exhausted(with_ipam("blue", ranges=two[:1], dataDir=str(tmp_path)))


def test_addresses_in_records_count_where_the_store_cannot_be_seen(tmp_path: Path) -> None:
    net = with_ipam("blue", subnet="10.7.0.0/30", dataDir=str(tmp_path / "elsewhere"))
    result = Result(ips=(IP(address="10.7.0.2/30"),))
    one = RecordedAttachment(label="blue", network=net, container_id="c", ifname="eth0", result=result)
    record = Record(container_id="c", ifname="eth0", netns="/n", attached=(one,))
    green = with_ipam("green", subnet="10.7.0.0/30", dataDir="/none")
    assert spent.pools([net, green], []) == {"blue": (0, 1), "green": (0, 1)}
    assert spent.pools([net, green], [record]) == {"blue": (1, 1), "green": (0, 1)}
    assert spent.reasons([net, green], spent.pools([net, green], []), str(tmp_path)) == {}
    known = spent.pools([net, green], [record])
    assert spent.reasons([net, green], known, str(tmp_path)) == {"blue": "no free address"}


JUNK = st.none() | st.text(max_size=5) | st.integers() | st.lists(st.text(max_size=3) | st.none(), max_size=2)


@given(st.dictionaries(st.sampled_from(["subnet", "ranges", "rangeStart", "gateway"]), JUNK))
def test_a_malformed_range_is_not_exhausted(ipam: dict[str, Any]) -> None:
    """`usePodCidr` of calico's, and mistakes: the ADD shows what they are."""
    net = network("blue", {"type": "x", "ipam": {"type": "host-local", **ipam, "dataDir": "/none"}})
    assert not is_exhausted(net)
    assert not is_exhausted(with_ipam("blue", subnet="usePodCidr"))


# --- with pods ------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(node: Node) -> Node:
    node.install("aaa", ipam={"type": "host-local", "subnet": "10.7.0.0/29", "dataDir": str(node.root / "leases")})
    node.install("bbb")
    node.kube.annotations = {"cni": ""}
    return node


def test_an_exhausted_network_goes_last(two: Node) -> None:
    two.ok("ADD")
    assert two.kube.written["cni"] == "aaa"
    two.ok("DEL")
    (two.root / "leases" / "aaa").mkdir(parents=True)
    for last in range(2, 7):
        (two.root / "leases" / "aaa" / f"10.7.0.{last}").write_text("another runtime's")
    for number in range(3):
        reply = two.call("ADD", CNI_CONTAINERID=f"c{number}")
        assert reply.status == 0 and two.kube.written["cni"] == "bbb"
        assert "goes last: no free address; bbb" in reply.story["why"]
    (two.net_d / "10-bbb.conf").unlink()
    two.ok("ADD", CNI_CONTAINERID="c9")
    assert two.kube.written["cni"] == "aaa", "there is no other"


def test_a_failed_add_counts_for_a_while(two: Node) -> None:
    two.executor.act = failing("aaa")
    assert "no more addresses" in two.fails("ADD")["msg"]
    reply = two.call("ADD")
    assert reply.status == 0 and two.kube.written["cni"] == "bbb"
    assert "goes last: an ADD failed there a moment ago; bbb" in reply.story["why"]
    two.ok("DEL")
    assert two.left() == ["aaa.failed"]
    (two.net_d / "10-bbb.conf").unlink()
    two.executor.act = lambda output: None
    two.ok("ADD")
    two.ok("DEL")
    assert two.kube.written["cni"] == "aaa", "there is no other"
    two.install("bbb")
    past = time.time() - spent.WHILE - 1
    os.utime(two.root / "state" / "aaa.failed", (past, past))
    two.ok("ADD")
    assert two.kube.written["cni"] == "aaa"
    two.ok("DEL")
    assert two.left() == []


def test_an_add_that_the_runtime_gave_up_counts(two: Node) -> None:
    def hang(output: Any) -> None:
        if (output.plugin, output.verb) == ("aaa", "ADD"):
            raise asyncio.CancelledError

    two.executor.act = hang
    with pytest.raises(asyncio.CancelledError):
        two.call("ADD")
    two.ok("ADD")
    assert two.kube.written["cni"] == "bbb"


def test_the_failure_of_another_network_does_not_count(two: Node) -> None:
    two.kube.define("ccc", {"cniVersion": "1.0.0", "type": "ccc"})
    two.binary("ccc")
    two.kube.annotations = {"cni": "", "k8s.v1.cni.cncf.io/networks": "ccc"}
    two.executor.act = failing("ccc")
    two.fails("ADD")
    two.kube.annotations = {"cni": "aaa"}
    two.executor.act = failing("aaa")
    two.fails("ADD")
    assert two.left() == []
