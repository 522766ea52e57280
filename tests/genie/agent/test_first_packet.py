"""There is no moment in which a forbidden packet passes: others try to reach a pod, and it them, while it is created.
`nox -s policies` tries it 10,000 times.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.rigs.agent import until
from tests.rigs.agent_node import Node
from tests.rigs.fake_api import FakeApi
from tests.rigs.first_packet import Caller, End

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not there (Debian's package nftables)"),
]
ATTEMPTS = int(os.environ.get("GENIE_ATTEMPTS", "300"))
MOST_OF_A_POD = 200
"""Of those that are counted as needed; a slow machine makes more during one ADD."""
MULTI = "/apis/k8s.cni.cncf.io/v1beta1/multi-networkpolicies"
FRIEND, STRANGER = "10.83.200.1", "10.83.200.2"


class Segment:
    """A bridge with a friend and a stranger, and a node that attaches its pods to it by the plugin `bridge`."""

    def __init__(self, node: Node, plugins: Path, stack: ExitStack) -> None:
        self.node, self.count = node, 0
        self.hub, self.friend, self.stranger = ends = (self.end(stack), self.end(stack), self.end(stack))
        self.hub.namespace.ip("link add br0 type bridge", "link set br0 up")
        for end, address in zip(ends[1:], (FRIEND, STRANGER), strict=True):
            name = f"to-{address.rpartition('.')[2]}"
            self.hub.namespace.ip(f"link add {name} type veth peer name net1 netns {end.namespace.path}")
            self.hub.namespace.ip(f"link set {name} master br0 up")
            end.namespace.ip(
                f"addr add {address}/16 dev net1", "link set net1 up",
                # what waits for a pod's address is sent as soon as the pod answers
                "ntable change name arp_cache dev net1 retrans 2 mcast_probes 10000 queue 1000",
            )  # fmt: skip
        ipam = {"type": "host-local", "subnet": "10.83.0.0/16", "dataDir": str(node.place / "ipam")}
        net = {"cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "br0", "ipam": ipam}
        (node.place / "net.d" / "10-net.conf").write_text(json.dumps(net))
        for name in ("bridge", "host-local"):
            (node.place / "bin" / name).symlink_to(plugins / name)

    @staticmethod
    def end(stack: ExitStack) -> End:
        made = End()
        stack.callback(made.close)
        return made

    async def pod(self) -> tuple[int, int]:
        """Create a pod while all try. Returns the forbidden attempts, and how many of them were answered."""
        self.count += 1
        name, address = f"p{self.count}", f"10.83.{(self.count + 1) >> 8}.{(self.count + 1) & 255}"
        self.node.api.pod(name, annotations={"cni": "net"}, labels={"app": "web"})
        with ExitStack() as stack:
            pod = self.end(stack)
            friend, *forbidden = [
                Caller(self.friend, address), Caller(self.stranger, address), Caller(pod, STRANGER)
            ]  # fmt: skip
            for each in (friend, *forbidden):
                stack.callback(each.stop)
            added = json.loads(await asyncio.to_thread(self.call, "ADD", name, pod))
            assert added["ips"][0]["address"] == f"{address}/16"
            await until(lambda: friend.answers > 3)
            await asyncio.to_thread(self.call, "DEL", name, pod)
        return sum(each.tries for each in forbidden), sum(each.answers for each in forbidden)

    def call(self, verb: str, name: str, pod: End) -> bytes:
        """One call of the runtime on the node, whose network namespace is the hub's."""
        env = self.node.env(verb, name, f"c-{name}", pod.namespace.path) | {
            "CNI_IFNAME": "eth0", "GENIE_SOCKET": str(self.node.socket), "PATH": os.environ["PATH"],
        }  # fmt: skip
        done = self.hub.namespace.run(
            lambda: subprocess.run([self.node.binary], env=env, input=self.node.stdin, capture_output=True, check=False)
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture
def segment(place: Path, binary: Path, api: FakeApi, cni_bin: str) -> Iterator[Segment]:
    node = Node(place, binary, api)
    node.conf = {**node.conf, "agent": {"policy": True}}
    status = [{"name": "net", "interface": "net1", "ips": [FRIEND]}]
    notes = {"k8s.v1.cni.cncf.io/network-status": json.dumps(status)}
    api.pod("friend", annotations=notes, labels={"role": "friend"})
    with ExitStack() as stack:
        yield Segment(node, Path(cni_bin), stack)


def test_no_forbidden_packet_passes_while_a_pod_is_created(segment: Segment) -> None:
    friends = [{"podSelector": {"matchLabels": {"role": "friend"}}}]
    spec = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": friends}], "egress": [{"to": friends}]}
    notes = {"k8s.v1.cni.cncf.io/policy-for": "net"}
    segment.node.api.put(MULTI, "default", "p", annotations=notes, spec={**spec, "policyTypes": ["Ingress", "Egress"]})

    async def go() -> tuple[int, int]:
        tries = answers = 0
        async with segment.node.agent():
            while tries < ATTEMPTS or segment.count < ATTEMPTS // MOST_OF_A_POD:
                more = await segment.pod()
                tries, answers = tries + more[0], answers + more[1]
        return tries, answers

    tries, answers = asyncio.run(go())
    print(f"{tries} forbidden attempts at {segment.count} pods, {answers} answered")
    assert answers == 0


def test_without_a_policy_they_are_answered(segment: Segment) -> None:
    async def go() -> tuple[int, int]:
        async with segment.node.agent():
            return await segment.pod()

    assert asyncio.run(go())[1] > 0
