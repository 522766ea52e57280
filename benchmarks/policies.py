"""Measures network policies: what they cost an ADD, how long an agent takes to apply them at its start, and its memory.

    GENIE_CNI_BIN=/opt/cni/bin python -m benchmarks.policies [add] [start] [memory] [--rounds 100] [--gate]

- add: ADDs of one network, interleaved: by an agent without policies, by one with policies of which none selects the
  pod, and by the same with one that does. The figure is the median of the rounds' differences.
- start: 500 policies and 110 pods on the node, each in a network namespace, with rules that `nft` really sets: the time
  from the start of the agent's process until the last pod has its rules; then the same for a change of all pods.
- memory: the resident memory of such an agent in a cluster of 20,000 pods, all of them with an address in the policies'
  network, at its start and after changes of all rules.

The API server is a stand-in. Needs root and nft. With `--gate`, the exit status shows whether the goals were met.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.add_cost import NAMES, PRIVATE, SHIM, Bench, run
from genie.records import Record, RecordedAttachment, Records
from tests.rigs.core import network
from tests.rigs.fake_api import FakeApi, Object
from tests.rigs.netns import Namespace

MULTI = "/apis/k8s.cni.cncf.io/v1beta1/multi-networkpolicies"
STATUS = "k8s.v1.cni.cncf.io/network-status"
NODE, NETWORK = "bench", NAMES[0]
LISTEN = "127.0.0.1:19465"
APPS, POLICIES, HERE = 50, 500, 110
GOAL_ADD, GOAL_NONE, GOAL_START, GOAL_MEMORY = 10.0, 0.5, 5.0, 60.0


class Api(FakeApi):
    """Lists only a node's pods if that is asked for."""

    def list(self, path: str, query: dict[str, list[str]]) -> tuple[int, Object]:
        wanted = "".join(query.get("fieldSelector", [])).partition(f"spec.nodeName={NODE}")[1]
        if not wanted or path != "/api/v1/pods":
            return super().list(path, query)
        here = [item for (where, _, _), item in self.objects.items() if where == path and "spec" in item]
        return 200, {"metadata": {"resourceVersion": str(self._version)}, "items": here}

    def policy(self, name: str, app: str, *peers: str) -> None:
        """Allow these apps, and a block, to connect to the pods of an app; "": to all."""
        allowed = [{"podSelector": {"matchLabels": {"app": peer}}} for peer in peers]
        block = {"ipBlock": {"cidr": "10.200.0.0/16", "except": ["10.200.7.0/24"]}}
        ports = [{"port": 8000, "endPort": 8080}, {"protocol": "UDP", "port": 53}]
        selector = {"matchLabels": {"app": app}} if app else {}
        spec = {"podSelector": selector, "ingress": [{"from": [*allowed, block], "ports": ports}]}
        self.put(MULTI, "default", name, annotations={"k8s.v1.cni.cncf.io/policy-for": NETWORK}, spec=spec)

    def peer(self, number: int, **rest: Any) -> None:
        """A pod with an address in the network, and with what pods usually have."""
        address = f"10.{91 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
        entries = [
            {"name": "cluster", "interface": "eth0", "ips": ["10.1.2.3"], "mac": "02:00:00:00:00:01", "default": True},
            {"name": NETWORK, "interface": "net1", "ips": [address], "mac": "02:00:00:00:00:02", "dns": {}},
        ]
        labels = {"app": f"a{number % APPS}", "pod-template-hash": "7d9c6f5b4", "tier": "front", "release": "stable"}
        notes = {"cni": NETWORK, STATUS: json.dumps(entries), "prometheus.io/scrape": "true", "other": "x" * 1000}
        self.pod(f"app-{number % APPS}-7d9c6f5b4-{number:05}", annotations=notes, labels=labels, **rest)


class Node(Bench):
    """A node with an agent."""

    def __init__(self, place: Path, api: Api, *, policy: bool = True) -> None:
        place.mkdir(parents=True)
        plugins = os.environ.get("GENIE_CNI_BIN", "/opt/cni/bin")
        super().__init__(plugins, "bridge", place, api.url, agent={"policy": policy})

    def call(self, verb: str, pod: str, container: str, netns: str) -> None:
        """One call of the runtime for a pod of the stand-in."""
        env = self.env(verb, container, netns, "eth0", 1)
        env["CNI_ARGS"] = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod};K8S_POD_UID=uid-{pod}"
        run([str(SHIM)], env, self.conf["agent"])


def add(place: Path, rounds: int) -> bool:
    """The cost for an ADD."""
    api = Api()
    for pod, app in (("plain", "none"), ("web", "a1")):
        api.pod(pod, annotations={"cni": NETWORK}, labels={"app": app}, spec={"nodeName": NODE})
    for number in range(1000):
        api.peer(number)
    for number in range(20):
        api.policy(f"p{number}", f"a{number}", "a2", "a3")
    off, on = Node(place / "off", api, policy=False), Node(place / "on", api)
    ways = {"off": (off, "plain"), "none": (on, "plain"), "one": (on, "web")}
    names, times = list(ways), {way: list[float]() for way in ways}
    with off.running_agent(), on.running_agent(LISTEN):
        for turn in range(rounds + 3):
            for way in names[turn % 3 :] + names[: turn % 3]:
                node, pod = ways[way]
                container, netns = f"{way}{turn}", Namespace()
                began = time.perf_counter()
                node.call("ADD", pod, container, netns.path)
                times[way].append((time.perf_counter() - began) * 1000)
                node.call("DEL", pod, container, netns.path)
                netns.close()
        good = applied()
    assert good >= rounds, f"the rules were set for {good} of {rounds} pods"
    more = {
        way: statistics.median(mine - bare for mine, bare in zip(times[way][3:], times["off"][3:], strict=True))
        for way in ways
    }
    for way, what in (("off", "no policies"), ("none", "none selects the pod"), ("one", "one selects the pod")):
        median, most = statistics.median(times[way][3:]), statistics.quantiles(times[way][3:], n=20)[-1]
        print(f"ADD, {what:<21} median {median:6.2f} ms, p95 {most:6.2f} ms, more than without {more[way]:+6.2f} ms")
    return more["none"] <= GOAL_NONE and more["one"] <= GOAL_ADD


def cluster(place: Path, pods: int, api: Api) -> tuple[Node, list[Namespace]]:
    """500 policies and this number of pods, 110 of them on the node, with their namespaces and records."""
    for number in range(pods):
        api.peer(number, **({"spec": {"nodeName": NODE}} if number < HERE else {}))
    for number in range(POLICIES):
        api.policy(f"p{number}", f"a{number % APPS}", f"a{number // APPS}", f"a{number * 7 % APPS}")
    node, spaces = Node(place / "node", api), [Namespace() for _ in range(HERE)]
    records = Records(str(node.place / "records-agent"))
    here = [item["metadata"] for item in api.objects.values() if item.get("spec", {}).get("nodeName")]
    for meta, space in zip(here, spaces, strict=True):
        attached = RecordedAttachment(label=NETWORK, network=network(NETWORK), container_id=meta["name"], ifname="net1")
        records.write(
            Record(
                container_id=meta["name"], ifname="eth0", netns=space.path, namespace="default", pod=meta["name"],
                uid=meta["uid"], attached=(attached,), complete=True,
            )
        )  # fmt: skip
    return node, spaces


def start(place: Path, _: int) -> bool:
    """The time until all pods have their rules."""
    api = Api()
    node, spaces = cluster(place, 2000, api)
    began = time.monotonic()
    with node.running_agent(LISTEN):
        until(lambda: applied() >= HERE)
        first = time.monotonic() - began
        began = time.monotonic()
        api.policy("all", "", "a30", "a31")
        until(lambda: applied() >= 2 * HERE)
        change = time.monotonic() - began
    rules = [len(space.run(_listed).splitlines()) for space in spaces]
    print(f"{POLICIES} policies, {HERE} pods: {first:.2f} s from the agent's start, {change:.2f} s for a change of all")
    print(f"({min(rules)} to {max(rules)} lines of rules in a pod)")
    return min(rules) > 10 and first <= GOAL_START


def _listed() -> str:
    return subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout


def memory(place: Path, _: int) -> bool:
    """The agent's resident memory."""
    api, count = Api(), 20_000
    node, spaces = cluster(place, count - 10, api)
    began = time.monotonic()
    with node.running_agent(LISTEN) as process:
        until(lambda: applied() >= HERE)
        first, shown = time.monotonic() - began, [resident(process.pid)]
        for change in range(10):  # one for all pods on the node, then one for none
            before = applied()
            api.policy("all", "", "a30", *(["a31"] if change % 2 else []))
            api.peer(count - 10 + change)
            until(lambda before=before: applied() >= before + HERE - HERE // APPS)  # type: ignore[misc]
            shown.append(resident(process.pid))
    size = max(len(space.run(_listed)) for space in spaces) >> 10
    peak = max(most for _, most in shown)
    print(f"{count} pods: {shown[0][0]:.1f} MB, {shown[-1][0]:.1f} MB after ten changes, {peak:.1f} MB at most")
    print(f"(rules after {first:.1f} s, {size} KiB of them in a pod)")
    return peak <= GOAL_MEMORY


def resident(pid: int) -> tuple[float, float]:
    """The memory of a process, and its most so far, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    now, most = (int(status.partition(key)[2].split()[0]) / 1000 for key in ("VmRSS:", "VmHWM:"))
    return now, most


def applied() -> float:
    """How often the agent with `LISTEN` has set a pod's rules; 0 while it does not answer."""
    wanted = 'genie_policy_rules_total{result="ok"} '
    try:
        with urllib.request.urlopen(f"http://{LISTEN}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return 0.0
    return next((float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted)), 0.0)


def until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise SystemExit("the agent did not get there")
        time.sleep(0.05)


PARTS = {"add": add, "start": start, "memory": memory}


def main() -> int:
    """Measure and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="add, start, memory (default: all)")
    parser.add_argument("--rounds", type=int, default=100, help="ADDs of each kind (default: 100)")
    parser.add_argument("--gate", action="store_true", help="exit with 1 when the goals are not met")
    arguments = parser.parse_args()
    if PRIVATE not in os.environ:  # once more, where nothing of the machine's can be touched
        command = ["unshare", "--net", "--mount", sys.executable, "-m", "benchmarks.policies", *sys.argv[1:]]
        return subprocess.run(command, env={**os.environ, PRIVATE: "1"}, check=False).returncode
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    met = True
    with tempfile.TemporaryDirectory() as directory:
        for name in arguments.parts or PARTS:
            met = PARTS[name](Path(directory) / name, arguments.rounds) and met
    print("the goals were met" if met else "the goals were NOT met")
    return 1 if not met and arguments.gate else 0


if __name__ == "__main__":
    sys.exit(main())
