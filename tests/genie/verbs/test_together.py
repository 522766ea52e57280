"""Real plugins together in one pod: any of them twice, any two of them, and every address answers.

A host attaches a pod with genie and the reference plugins. A third namespace, behind a router, acts as another node,
which connects to each address of the pod.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from genie.cni.execute import SubprocessExecutor, run_sync
from genie.cni.result import Result
from genie.kernel import routes
from genie.kernel.netlink import Netlink
from genie.kernel.repair import repair
from genie.kube import Pod
from genie.records import Records
from genie.request import Request
from genie.serve import serve
from genie.verbs.context import placed
from harness.download import FIXTURES

pytestmark = pytest.mark.root

SINGLE = ("quiet", "one", "two")  # IPv4 alone, and no default route
EVERYWHERE = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
FAR = {socket.AF_INET: "192.0.2.9", socket.AF_INET6: "2001:db8::9"}


@dataclass
class Cluster:
    """The API server: one pod, and a NetworkAttachmentDefinition for each configuration on the node."""

    annotations: Mapping[str, str]
    written: dict[str, str] = field(default_factory=dict)

    async def pod(self, namespace: str, name: str, uid: str, given: Any = None) -> Pod:
        return Pod(namespace=namespace, name=name, uid=uid, annotations=self.annotations)

    async def network(self, kind: str, namespace: str, name: str, *, needed: bool = False) -> Mapping[str, Any] | None:
        return {"metadata": {"name": name}, "spec": {}} if kind == "NetworkAttachmentDefinition" else None

    async def defaults(self, namespace: str) -> None:
        return None

    async def event(self, pod: Pod, reason: str, message: str, *, warning: bool = False) -> None:
        pass

    async def annotate(self, pod: Pod, annotations: Mapping[str, str], shorter: Any) -> str:
        self.written.update(annotations)
        return ""


@dataclass
class Node:
    """A host with its networks, a pod, and another node's pod."""

    host: Any
    pod: Any
    far: Any
    bin: str
    place: Path
    written: dict[str, str] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)

    def network(self, name: str, kind: str, number: int, **more: Any) -> None:
        ranges = [[{"subnet": f"10.{number}.0.0/24"}], [{"subnet": f"fd0{number}::/64"}]]
        ipam = {"type": "host-local", "ranges": ranges, "routes": EVERYWHERE, "dataDir": str(self.place / "ipam")}
        plugin = {"type": kind, "ipam": ipam, **more}
        conf = {"cniVersion": "1.0.0", "name": name, "plugins": [plugin]}
        (self.place / "net.d" / f"10-{name}.conflist").write_text(json.dumps(conf))

    def call(self, verb: str, annotations: Mapping[str, str]) -> dict[str, Any]:
        env = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": self.pod.path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": f"{self.bin}:{self.place}",
            "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=blue;K8S_POD_NAME=web;K8S_POD_UID=u",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        place = {"conf_dir": str(self.place / "net.d"), "state_dir": str(self.place / "state")}
        conf: dict[str, Any] = {
            "cniVersion": "1.0.0",
            "name": "genie",
            "type": "genie",
            **place,
            "default_plugin": "ptp",
        }
        if verb in ("CHECK", "DEL"):
            conf["prevResult"] = self.kept
        request = Request(env=env, stdin=json.dumps(conf).encode())
        cluster = Cluster(annotations, self.written)
        executor = SubprocessExecutor()
        reply = self.host.run(lambda: run_sync(serve(request, cluster, executor)))
        executor.close()
        answer: dict[str, Any] = json.loads(reply.stdout or "{}")
        if reply.status:
            raise RuntimeError(f"{verb}: {answer['msg']} {answer.get('details', '')}")
        self.kept = answer if verb == "ADD" else self.kept
        return answer


@pytest.fixture
def node(namespace: Callable[[], Any], cni_bin: str, tmp_path: Path) -> Node:
    host, pod, far = namespace(), namespace(), namespace()
    (tmp_path / "net.d").mkdir()
    host.ip("link add up0 type veth peer name eth0", "link set up0 up")
    host.run(lambda: _move("eth0", far))
    host.ip("addr add 192.0.2.1/24 dev up0", "-6 addr add 2001:db8::1/64 dev up0 nodad")
    far.ip("link set eth0 up", "addr add 192.0.2.9/24 dev eth0", "-6 addr add 2001:db8::9/64 dev eth0 nodad")
    far.ip("route add default via 192.0.2.1", "-6 route add default via 2001:db8::1")
    # Otherwise the bridge takes the MAC address of a port, and CHECK finds it changed by the next port.
    host.ip("link add br0 address 02:00:00:00:00:b0 type bridge", "link add br1 address 02:00:00:00:00:b1 type bridge")
    host.run(_forward)
    made = Node(host=host, pod=pod, far=far, bin=cni_bin, place=tmp_path)
    made.network("ptp", "ptp", 1)
    made.network("bridge", "bridge", 2, bridge="br0", isGateway=True)
    without = {"type": "host-local", "subnet": "10.3.0.0/24", "dataDir": str(tmp_path / "ipam")}
    made.network("quiet", "bridge", 3, bridge="br1", isGateway=True, ipam=without)
    made.network("one", "ptp", 5, ipam={**without, "subnet": "10.5.0.0/24"})
    made.network("two", "ptp", 6, ipam={**without, "subnet": "10.6.0.0/24"})
    return made


def _move(link: str, to: Any) -> None:
    import subprocess

    subprocess.run(["ip", "link", "set", link, "netns", str(to.path)], check=True)


def _forward() -> None:
    for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        Path(f"/proc/sys/net/{path}").write_text("1")


@contextmanager
def answering(pod: Any, address: str) -> Iterator[int]:
    """A server in the pod on only this address, which it sends to each client; yields its port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = pod.run(lambda: socket.create_server((address, 0), family=family))

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(address.encode())

    server.settimeout(10)
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield server.getsockname()[1]
    thread.join(10)
    server.close()


def dial(address: str, port: int) -> str:
    with socket.create_connection((address, port), timeout=10) as connection:
        return connection.recv(64).decode()


def reach_all(node: Node, result: Mapping[str, Any]) -> list[str]:
    addresses = [ip["address"].partition("/")[0] for ip in result["ips"]]
    for address in addresses:
        with answering(node.pod, address) as port:
            assert node.far.run(lambda address=address, port=port: dial(address, port)) == address
        inside = next(ip["interface"] for ip in result["ips"] if ip["address"].startswith(f"{address}/"))
        far = FAR[socket.AF_INET6 if ":" in address else socket.AF_INET]
        v6 = "-6" if ":" in address else "-4"
        way = node.pod.ip(f"{v6} route get {far} from {address}")
        assert f"dev {result['interfaces'][inside]['name']} " in way
    return addresses


@pytest.mark.parametrize(
    "names",
    [
        ("ptp", "ptp"),
        ("ptp", "bridge", "ptp"),
        ("bridge", "bridge"),
        ("bridge", "ptp", "bridge"),
        ("quiet", "quiet", "ptp"),
        ("ptp", "quiet", "ptp", "quiet"),
        ("ptp", "one", "two"),
        ("one", "two", "one", "quiet", "ptp"),
    ],
    ids="+".join,
)
def test_every_address_answers(node: Node, names: Sequence[str]) -> None:
    asked = {"cni": ",".join(names)}
    result = node.call("ADD", asked)
    addresses = reach_all(node, result)
    assert len(addresses) == len(set(addresses)) == sum(1 if name in SINGLE else 2 for name in names)
    node.call("CHECK", asked)
    assert len(node.pod.ip("-4 route show default").splitlines()) == 1
    node.call("DEL", asked)
    assert "lookup 200" not in node.pod.ip("-4 rule") + node.pod.ip("-6 rule")
    assert node.pod.ip("-4 route show table all type unicast").splitlines() == []
    assert reach_all(node, node.call("ADD", asked)), "and again"


def test_the_default_route_can_be_at_the_second_of_one_network(node: Node) -> None:
    """The second network then uses the main table, because its default route needs its others; the first has a
    table."""
    elements = [{"name": "ptp", "default-route": ["10.1.0.1", "fd01::1"]}, {"name": "bridge"}]
    asked = {"k8s.v1.cni.cncf.io/networks": json.dumps(elements)}
    result = node.call("ADD", asked)
    assert len(reach_all(node, result)) == 6
    for v6, gateway in (("-4", "10.1.0.1"), ("-6", "fd01::1")):
        lines = node.pod.ip(f"{v6} route show default").splitlines()
        assert [line.split()[:5] for line in lines] == [["default", "via", gateway, "dev", "net1"]]
    node.call("CHECK", asked)


@pytest.mark.parametrize(
    ("default_network", "element", "gateway", "dev"),
    [
        ("ptp", {"name": "bridge", "default-route": []}, "10.2.0.1", "net1"),
        # it sets none itself
        ("ptp", {"name": "quiet", "default-route": []}, "10.3.0.1", "net1"),
        ("bridge", {"name": "ptp", "default-route": []}, "10.1.0.1", "net1"),
    ],
)
def test_an_empty_default_route_is_the_networks_own(
    node: Node, default_network: str, element: dict[str, Any], gateway: str, dev: str
) -> None:
    asked = {"cni": default_network, "k8s.v1.cni.cncf.io/networks": json.dumps([element])}
    result = node.call("ADD", asked)
    assert len(reach_all(node, result)) >= 3
    (line,) = node.pod.ip("-4 route show default").splitlines()
    assert line.split()[:5] == ["default", "via", gateway, "dev", dev]
    assert [route.get("gw", gateway) for route in result["routes"] if route["dst"] == "0.0.0.0/0"] == [gateway]
    first, second = json.loads(node.written["k8s.v1.cni.cncf.io/network-status"])
    assert gateway in second["default-route"] and gateway in second["gateway"] and "default-route" not in first
    node.call("CHECK", asked)


@pytest.mark.parametrize(("wanted", "gateway"), [(["10.1.0.9"], "10.1.0.9"), ([], "10.1.0.1")])
def test_a_pods_only_network_gets_the_asked_default_route(node: Node, wanted: list[str], gateway: str) -> None:
    """ptp's gateway is the host's end of the pair, with any address."""
    element = [{"name": "ptp", "namespace": "blue", "default-route": wanted}]
    asked = {"v1.multus-cni.io/default-network": json.dumps(element)}
    result = node.call("ADD", asked)
    (line,) = node.pod.ip("-4 route show default").splitlines()
    assert line.split()[:5] == ["default", "via", gateway, "dev", "eth0"]
    assert [route.get("gw", gateway) for route in result["routes"] if route["dst"] == "0.0.0.0/0"] == [gateway]
    node.call("CHECK", asked)


@pytest.mark.parametrize(
    ("network", "wanted", "why"),
    [
        (
            "quiet",
            ["10.3.0.1", "fd03::1"],
            "default-route: fd03::1 is of IPv6, and the network gave net1 no such address",
        ),
        ("quiet", ["fe80::1"], "default-route: fe80::1 is of IPv6"),
        ("bridge", ["192.168.99.1"], r"192.168.99.1 is in no subnet of the network \(10.2.0.2/24\)"),
        ("bridge", ["10.2.0.1", "fd01::1"], r"fd01::1 is in no subnet of the network \(fd02::2/64\)"),
        ("alone", [], "means the network's own gateway, and the network has none"),
    ],
)
def test_a_default_route_that_the_network_cannot_have(node: Node, network: str, wanted: list[str], why: str) -> None:
    static = {"type": "static", "addresses": [{"address": "10.9.0.5/24"}]}
    alone = {"cniVersion": "1.0.0", "name": "alone", "type": "macvlan", "master": "up0", "ipam": static}
    (node.place / "net.d" / "10-alone.conf").write_text(json.dumps(alone))
    asked = {"k8s.v1.cni.cncf.io/networks": json.dumps([{"name": network, "default-route": wanted}])}
    with pytest.raises(RuntimeError, match=rf'ADD: annotation .*networks, item 1 \("{network}"\): .*{why}'):
        node.call("ADD", asked)
    assert "net1" not in node.pod.ip("link") and "eth0" not in node.pod.ip("link"), "all of it is undone"
    assert not list((node.place / "state").glob("*.json"))


def test_an_address_without_a_prefix_is_the_networks_or_refused(node: Node) -> None:
    """host-local's subnet has the prefix; static has none and reports this. With /32, the pod would reach nothing."""
    node.network("asked", "bridge", 8, bridge="br8", isGateway=True, capabilities={"ips": True})
    element = [{"name": "asked", "ips": ["10.8.0.77", "fd08::77"]}]
    result = node.call("ADD", {"k8s.v1.cni.cncf.io/networks": json.dumps(element)})
    assert {"10.8.0.77/24", "fd08::77/64"} <= {ip["address"] for ip in result["ips"]}
    node.call("DEL", {})
    static = {"cniVersion": "1.0.0", "name": "st", "type": "bridge", "bridge": "br9", "capabilities": {"ips": True}}
    (node.place / "net.d" / "10-st.conf").write_text(json.dumps({**static, "ipam": {"type": "static"}}))
    element = [{"name": "st", "ips": ["10.9.0.77"]}]
    with pytest.raises(RuntimeError, match="an entry in the 'ips' field is NOT in CIDR notation, got: '10.9.0.77'"):
        node.call("ADD", {"k8s.v1.cni.cncf.io/networks": json.dumps(element)})


def test_a_link_local_gateway_is_taken(node: Node) -> None:
    """Like calico's 169.254.1.1, or a router with only a link-local address."""
    element = [{"name": "bridge", "default-route": ["169.254.1.1", "fe80::1"]}]
    result = node.call("ADD", {"k8s.v1.cni.cncf.io/networks": json.dumps(element)})
    for v6, gateway in (("-4", "169.254.1.1"), ("-6", "fe80::1")):
        (line,) = node.pod.ip(f"{v6} route show default").splitlines()
        assert line.split()[:5] == ["default", "via", gateway, "dev", "net1"]
    assert [route["gw"] for route in result["routes"] if route["dst"].endswith("/0")] == ["169.254.1.1", "fe80::1"]


BROKEN = [
    "rule del from 10.1.0.3",
    "-6 rule del from fd01::3",
    "route del 10.1.0.1 dev eth1 table 2001",
    "route del default table 2001",
    "route del default",
    "route del 10.1.0.0/24",
    "-6 route del fd01::1 dev eth0",
    "route add default dev eth1 metric 7",
    "route add 10.9.0.0/16 dev eth1 table 2001",
]


@pytest.mark.parametrize("change", BROKEN)
def test_check_finds_changed_routes(node: Node, change: str) -> None:
    asked = {"cni": "ptp,ptp"}
    node.call("ADD", asked)
    node.pod.ip("route add 10.99.0.0/16 dev eth0", "rule add from 10.99.0.1 lookup 77")  # of no other network
    node.call("CHECK", asked)
    node.pod.ip(change)
    with pytest.raises(RuntimeError, match="CHECK: "):
        node.call("CHECK", asked)


def lose(node: Node, what: str, ifname: str) -> None:
    """Take something from an interface of the pod, with all that the kernel takes with it."""
    if what == "routes":
        node.pod.ip(f"route flush table all dev {ifname}", f"-6 route flush table all dev {ifname}")
    elif what == "addresses":
        node.pod.ip(f"addr flush dev {ifname}")
    else:
        node.pod.ip(f"link del {ifname}")


@pytest.mark.parametrize(
    ("asked", "position", "what"),
    [
        ("veth,bridge", 0, "routes"),
        ("veth,bridge", 1, "routes"),
        ("bridge,veth", 1, "link"),
        ("bridge,veth", 1, "addresses"),
        ("ptp,two", 1, "routes"),
    ],
)
def test_the_network_that_lost_something_is_blamed(node: Node, asked: str, position: int, what: str) -> None:
    (node.place / "example-veth").symlink_to(FIXTURES / "plugins" / "example_veth.py")
    node.network("veth", "example-veth", 4)
    node.call("ADD", {"cni": asked})
    lose(node, what, f"eth{position}")
    with pytest.raises(RuntimeError, match="CHECK: ") as caught:
        node.call("CHECK", {"cni": asked})
    name = asked.split(",")[position]
    assert str(caught.value).startswith(f"CHECK: network '{name}': ")


def test_routes_that_a_plugin_does_not_miss_are_named_with_their_interface(node: Node) -> None:
    """They are in the network's own table, of which example-veth knows nothing."""
    (node.place / "example-veth").symlink_to(FIXTURES / "plugins" / "example_veth.py")
    node.network("veth", "example-veth", 4)
    node.call("ADD", {"cni": "bridge,veth"})
    lose(node, "routes", "eth1")
    with pytest.raises(RuntimeError) as caught:
        node.call("CHECK", {"cni": "bridge,veth"})
    assert str(caught.value).startswith("CHECK: somebody changed the routes that genie arranged in ")
    assert "missing: route default via 10.4.0.1 dev eth1 table 2001; " in str(caught.value)
    assert "dev eth0" not in str(caught.value) and "lookup" not in str(caught.value)


REPLACED = ["route replace default via 10.1.0.3", "-6 route replace default dev eth1"]


@pytest.mark.parametrize("change", BROKEN + REPLACED)
def test_repair_restores_removals_and_leaves_additions(node: Node, change: str) -> None:
    asked = {"cni": "ptp,ptp"}
    node.call("ADD", asked)
    foreign = ["10.99.0.0/16 dev eth0 scope link", "99: from 10.99.0.1 lookup 77"]
    node.pod.ip("route add 10.99.0.0/16 dev eth0", "rule add priority 99 from 10.99.0.1 lookup 77")
    (record,) = Records(str(node.place / "state"))
    places = [placed(attached, attached.result or Result()) for attached in record.attached]
    before = everything(node.pod)
    node.pod.ip(change)
    with Netlink(node.pod.path) as kernel:
        done = repair(kernel, places, record.arranged)
        assert not repair(kernel, places, record.arranged), "there is nothing to do twice"
        still = routes.drift(places, routes.look(kernel), record.arranged)
    if "route add" in change:
        assert done == [] and len(still) == 1 and still[0].startswith("unexpected: route")
        return
    assert len(done) == 1 and still == []
    assert everything(node.pod) == before
    assert all(line in "\n".join(sorted(before)) for line in foreign)
    node.call("CHECK", asked)
    node.call("DEL", asked)


def everything(pod: Any) -> set[str]:
    """Routes and rules, without their protocol and without the source address, which the kernel chooses."""
    lines = pod.ip("route show table all", "-6 route show table all", "rule", "-6 rule").splitlines()
    return {re.sub(r" proto \w+| pref medium| metric 1024| src \S+", "", " ".join(line.split())) for line in lines}


#: A plugin like weave's: the real bridge, but its result has only the addresses, or everything except the MAC.
TACITURN = """#!/bin/sh
result=$({bin}/bridge) || {{ echo "$result"; exit 1; }}
[ "$CNI_COMMAND" = ADD ] || exit 0
echo "$result" | {python} -c '
import json, sys
result = json.load(sys.stdin)
{edit}
print(json.dumps(result))'
"""
NO_MAC = 'for each in result["interfaces"]: del each["mac"]'
ADDRESSES_ALONE = 'del result["interfaces"]; [ip.pop("interface") for ip in result["ips"]]'


@pytest.mark.parametrize("edit", [NO_MAC, ADDRESSES_ALONE])
@pytest.mark.parametrize("asked", ["taciturn", "ptp,taciturn"])
def test_missing_fields_of_results_come_from_the_kernel(node: Node, edit: str, asked: str) -> None:
    (node.place / "taciturn").write_text(TACITURN.format(bin=node.bin, python=sys.executable, edit=edit))
    (node.place / "taciturn").chmod(0o755)
    node.network("taciturn", "taciturn", 4, bridge="br0", isGateway=True, mtu=1337)
    result = node.call("ADD", {"cni": asked})
    ifname = "eth1" if "," in asked else "eth0"
    (link,) = json.loads(node.pod.ip(f"-j link show {ifname}"))
    (reported,) = [each for each in result["interfaces"] if each["name"] == ifname]
    assert reported == {"name": ifname, "mac": link["address"], "mtu": 1337, "sandbox": node.pod.path}
    assert all(result["interfaces"][ip["interface"]]["sandbox"] for ip in result["ips"])
    shown = json.loads(node.written["k8s.v1.cni.cncf.io/network-status"])
    assert [(each["interface"], bool(each["mac"]), each["mtu"]) for each in shown][-1] == (ifname, True, 1337)
    assert shown[-1]["mac"] == link["address"] and all(each["mac"] for each in shown)
    if edit == NO_MAC:  # bridge itself requires its interfaces
        node.call("CHECK", {"cni": asked})
    node.call("DEL", {"cni": asked})


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of networks that were attached at the same time, for each group."""
    sizes: list[int] = []
    gather = SubprocessExecutor.gather

    async def noted(self: SubprocessExecutor, *work: Any) -> Any:
        sizes.append(len(work))
        return await gather(self, *work)

    monkeypatch.setattr(SubprocessExecutor, "gather", noted)
    return sizes


def left(node: Node) -> dict[str, list[str]]:
    """Everything of a pod: interfaces, rules, addresses, records."""
    stores = node.place / "ipam"
    of_links = json.loads(node.host.ip("-json link")) + json.loads(node.pod.ip("-json link"))
    links = [link["ifname"] for link in of_links]
    return {
        "links": [name for name in links if name not in ("lo", "up0", "br0", "br1")],
        "rules": [line for line in node.pod.ip("rule", "-6 rule").splitlines() if "lookup 2" in line],
        "leases": [path.name for path in stores.rglob("*") if path.name[:1].isdigit()] if stores.exists() else [],
        "records": [path.name for path in node.place.glob("state/*.json*")],
    }


@pytest.mark.parametrize("bad", range(4))
@pytest.mark.parametrize("asked", ["cni", "k8s.v1.cni.cncf.io/networks"])
def test_a_failure_in_the_middle_of_what_goes_on_at_once_undoes_all_of_it(
    node: Node, groups: list[int], asked: str, bad: int
) -> None:
    """The chain fails at its second plugin, after the first attached the pod; the other networks are attached
    meanwhile."""
    for n in range(4):
        key = "net.ipv4.conf.IFNAME.no_such_thing" if n == bad else "net.ipv4.conf.IFNAME.arp_filter"
        ipam = {"type": "host-local", "subnet": f"10.{20 + n}.0.0/24", "dataDir": str(node.place / "ipam")}
        plugins = [{"type": "bridge", "bridge": "br1", "ipam": ipam}, {"type": "tuning", "sysctl": {key: "1"}}]
        conf = {"cniVersion": "1.0.0", "name": f"n{n}", "plugins": plugins}
        (node.place / "net.d" / f"20-n{n}.conflist").write_text(json.dumps(conf))
    names = "n0,n1,n2,n3"
    annotations = {"cni": names} if asked == "cni" else {"cni": "quiet", asked: names}
    nothing = left(node)
    with pytest.raises(RuntimeError, match=rf"network '(blue/)?n{bad}': plugin 'tuning'.*no_such_thing"):
        node.call("ADD", annotations)
    assert groups == [4], "they were attached at the same time"
    assert left(node) == nothing == {"links": [], "rules": [], "leases": [], "records": []}
    node.call("DEL", annotations)
    good = json.loads((node.place / "net.d" / f"20-n{bad}.conflist").read_text())
    good["plugins"][1]["sysctl"] = {"net.ipv4.conf.IFNAME.arp_filter": "1"}
    (node.place / "net.d" / f"20-n{bad}.conflist").write_text(json.dumps(good))
    node.call("ADD", annotations)
    assert groups == [4, 4] and len(left(node)["leases"]) == (4 if asked == "cni" else 5)
    node.call("DEL", annotations)
    assert left(node) == nothing
