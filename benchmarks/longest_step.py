"""How long the agent's event loop computes at a stretch, for the worst that users and plugins can give it.

    python -m benchmarks.longest_step [-k WORD] [--gate] [--profile]

While the loop computes, no other pod is served, so nothing may take more than 5 ms at a stretch. Each case is an ADD, a
CHECK and a DEL with input at its limits: annotations, results, definitions, net.d, and namespaces with thousands of
routes and addresses. Plugins are a stand-in that reports what the case says, so that only genie is measured; the
namespaces are real. What is measured is the CPU time of the loop's thread, by callback: the machine's other work hardly
counts. `--gate` makes the exit status say whether the goal was met.

Needs root, and iproute2.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genie import config
from genie.agent import daemon, protocol
from genie.agent.server import ShimExecutor
from genie.agent.slots import Slots
from genie.cni.result import MOST
from genie.kube import Pod
from genie.request import Request
from genie.select.annotations import ANNOTATION_MAX, ATTACHMENTS, CNI, DEFAULT, LOGICAL
from genie.select.networks import CONFIG_MAX
from genie.serve import serve

PRIVATE = "GENIE_BENCHMARK_PRIVATE"
GOAL = 5.0
ROUNDS = 3

Result = Callable[[int], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """notes: the pod's annotations. result: what the plugin reports of its Nth attachment. ip: batch commands of `ip`
    in the pod's namespace. files: how many configurations net.d has. spec: of every definition. conf: more of
    genie.conf.
    """

    notes: Mapping[str, str] = field(default_factory=dict)
    result: Result | None = None
    ip: Callable[[], Iterator[str]] = lambda: iter(())
    files: int = 1
    spec: Mapping[str, Any] = field(default_factory=dict)
    conf: Mapping[str, Any] = field(default_factory=dict)


def plain(number: int) -> dict[str, Any]:
    ifname = f"eth{number}"
    return {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": ifname, "mac": f"02:00:00:00:00:{number:02x}", "mtu": 1500, "sandbox": "/n"}],
        "ips": [{"address": f"10.{number}.0.5/24", "gateway": f"10.{number}.0.1", "interface": 0}],
        "routes": [{"dst": "10.99.0.0/16"}],
    }


def most(number: int, share: int = 1) -> dict[str, Any]:
    """A result with as much of everything as is allowed, for one of so many networks."""
    result = plain(number)
    result["interfaces"] += [{"name": f"x{n}", "sandbox": "/n"} for n in range(MOST["interfaces"] - 1)]
    result["ips"] = [
        {"address": f"10.{number}.{n}.5/24", "gateway": f"10.{number}.{n}.1", "interface": 0}
        for n in range(min(MOST["ips"], 256 // share))
    ]
    result["routes"] = [
        {"dst": f"10.{100 + number}.{n}.0/24", "gw": f"10.{number}.{n % 64}.1"}
        for n in range(min(MOST["routes"], 512 // share))
    ]
    result["dns"] = {key: [f"10.0.0.{n}" for n in range(MOST[key])] for key in ("nameservers", "search", "options")}
    return result


def filled(element: Mapping[str, Any], count: int, key: str, value: Callable[[int], Any]) -> str:
    """A network selection annotation of so many elements, in which one key takes all the room that there is."""
    room = ANNOTATION_MAX // count - len(json.dumps(element)) - 80
    text = json.dumps(value(room))
    assert len(text) <= room, (len(text), room)
    return (
        "["
        + ",".join(json.dumps({**element, "name": f"n{n}", key: "@"}).replace('"@"', text) for n in range(count))
        + "]"
    )


def nested(room: int) -> Any:
    value: Any = 1
    for _ in range(min(room // 10, 400)):
        value = {"a": value}
    return value


def many_objects(room: int) -> Any:
    return {f"k{n}": {} for n in range(room // 15)}


def links(ifnames: int) -> Iterator[str]:
    for number in range(ifnames):
        yield f"link add eth{number} type veth peer name p{number}"
        yield f"link set eth{number} up"
        yield f"addr add 10.{number}.0.5/24 dev eth{number}"


def routes_of_a_pod(count: int, ifnames: int = 2) -> Iterator[str]:
    yield from links(ifnames)
    for n in range(count):
        yield f"route add 100.{n >> 8 & 255}.{n & 255}.0/28 dev eth{n % ifnames} metric {n}"


def addresses_of_a_pod(count: int) -> Iterator[str]:
    yield from links(2)
    for n in range(count):
        yield f"addr add 172.{16 + (n >> 16)}.{n >> 8 & 255}.{n & 255}/32 dev eth{n % 2}"


def rules_of_a_pod(count: int) -> Iterator[str]:
    yield from links(2)
    for n in range(count):
        yield f"rule add from 172.16.{n >> 8}.{n & 255} lookup 77"


def links_of_a_pod(count: int) -> Iterator[str]:
    yield from links(2)
    for n in range(count):
        yield f"link add d{n} type veth peer name e{n}"


def many(count: int) -> dict[str, str]:
    return {CNI: ",".join(f"net{n}" for n in range(count))}


TWO = {CNI: "net0,net1"}
CASES: dict[str, Case] = {
    "one network": Case(),
    "two networks": Case(notes=TWO, ip=lambda: links(2)),
    "cni: 32 networks": Case(notes=many(32), ip=lambda: links(32), files=32),
    "cni: 20 networks": Case(notes=many(20), ip=lambda: links(20), files=20),
    "cni: 128 networks": Case(notes=many(128), ip=lambda: links(128), files=128, conf={"max_networks": 128}),
    "cni: 65536 commas": Case(notes={CNI: "," * ANNOTATION_MAX}),
    "cni: one name of 65536": Case(notes={CNI: "a" * ANNOTATION_MAX}),
    "cni: 65536 blanks": Case(notes={CNI: " " * ANNOTATION_MAX}),
    "cni: 65536 @": Case(notes={CNI: "net0" + "@" * (ANNOTATION_MAX - 4)}),
    "cni: 256 KiB": Case(notes={CNI: "a," * 131072}),
    "networks: 32 in short form": Case(notes={ATTACHMENTS: ",".join(f"n{n}" for n in range(31))}, ip=lambda: links(32)),
    "networks: 65536 commas": Case(notes={ATTACHMENTS: "," * ANNOTATION_MAX}),
    "networks: one name of 65536": Case(notes={ATTACHMENTS: "a/" * (ANNOTATION_MAX // 2)}),
    "networks: 21845 numbers": Case(notes={ATTACHMENTS: "[" + "1," * 32000 + "1]"}),
    "networks: 65536 brackets": Case(notes={ATTACHMENTS: "[" * ANNOTATION_MAX}),
    "networks: deep": Case(notes={ATTACHMENTS: '{"a":' * 10000}),
    "networks: objects": Case(notes={ATTACHMENTS: "[" + "{}," * 20000 + "{}]"}),
    "networks: keys": Case(notes={ATTACHMENTS: json.dumps([{"name": "n0", **{f"k{n}": n for n in range(5000)}}])}),
    "networks: keys with a period": Case(
        notes={ATTACHMENTS: json.dumps([{"name": "n0", **{f"k.{n}": n for n in range(4000)}}])}
    ),
    "networks: a key of 60000": Case(notes={ATTACHMENTS: json.dumps([{"name": "n0", "k" * 60000: 1}])}),
    "networks: a number of 65000 digits": Case(notes={ATTACHMENTS: "[" + "1" * 65000 + "]"}),
    "networks: numbers of 4000 digits": Case(notes={ATTACHMENTS: "[" + ",".join(["1" * 4000] * 16) + "]"}),
    "networks: strings, then NaN": Case(notes={ATTACHMENTS: "[" + '"a",' * 16000 + "NaN]"}),
    "networks: backslashes, then NaN": Case(notes={ATTACHMENTS: '["' + "\\\\" * 32000 + '", NaN]'}),
    "networks: quotes": Case(notes={ATTACHMENTS: "[" + '"' * 65000}),
    "networks: cni-args of one, deep": Case(
        notes={ATTACHMENTS: filled({}, 1, "cni-args", nested)}, ip=lambda: links(2)
    ),
    "networks: cni-args of one": Case(
        notes={ATTACHMENTS: filled({}, 1, "cni-args", many_objects)}, ip=lambda: links(2)
    ),
    "networks: cni-args of 31": Case(
        notes={ATTACHMENTS: filled({}, 31, "cni-args", many_objects)}, ip=lambda: links(32)
    ),
    "networks: cni-args, a list": Case(
        notes={ATTACHMENTS: filled({}, 1, "cni-args", lambda room: {"a": [1] * (room // 4)})}, ip=lambda: links(2)
    ),
    "networks: ips": Case(
        notes={ATTACHMENTS: filled({}, 1, "ips", lambda room: ["10.0.0.1"] * (room // 14))},
        spec={"capabilities": {"ips": True}},
    ),
    "networks: 64 ips each": Case(
        notes={
            ATTACHMENTS: json.dumps([{"name": f"n{n}", "ips": [f"10.{n}.{i}.1" for i in range(64)]} for n in range(31)])
        },
        spec={"capabilities": {"ips": True}, "ipam": {"ranges": [[{"subnet": f"10.{n}.0.0/16"}] for n in range(200)]}},
        ip=lambda: links(32),
    ),
    "networks: portMappings": Case(
        notes={
            ATTACHMENTS: filled(
                {}, 1, "portMappings", lambda room: [{"hostPort": 1, "containerPort": 2}] * (room // 40)
            )
        },
        spec={"capabilities": {"portMappings": True}},
        ip=lambda: links(2),
    ),
    "networks: default-route": Case(
        notes={ATTACHMENTS: filled({}, 1, "default-route", lambda room: ["10.0.0.1"] * (room // 14))},
        ip=lambda: links(2),
    ),
    "default-network: cni-args": Case(notes={DEFAULT: filled({}, 1, "cni-args", many_objects)}),
    "default-network: 256 KiB": Case(notes={DEFAULT: "[" * 262144}),
    "logical networks: 32": Case(notes={LOGICAL: ",".join(f"l{n}" for n in range(32))}, ip=lambda: links(32)),
    "logical networks: commas": Case(notes={LOGICAL: "," * ANNOTATION_MAX}),
    "definitions: 31 of 8 KiB": Case(
        notes={ATTACHMENTS: ",".join(f"n{n}" for n in range(31))},
        spec={"x": [1] * 2600},
        ip=lambda: links(32),
    ),
    "definitions: 4 of 64 KiB": Case(
        notes={ATTACHMENTS: ",".join(f"n{n}" for n in range(4))}, spec={"x": [{}] * 16000}, ip=lambda: links(5)
    ),
    "definitions: 16 plugins": Case(
        notes={ATTACHMENTS: ",".join(f"n{n}" for n in range(31))},
        spec={"plugins": [{"type": "plug", "x": "y" * 400}] * 16},
        ip=lambda: links(32),
    ),
    "definitions: routes": Case(
        notes={ATTACHMENTS: ",".join(f"n{n}" for n in range(31))},
        spec={
            "type": "bridge",
            "ipam": {"type": "host-local", "routes": [{"dst": f"1.{n}.0.0/24"} for n in range(200)]},
        },
        ip=lambda: links(32),
    ),
    "definitions: ranges of ptp": Case(
        notes={ATTACHMENTS: ",".join(f"n{n}" for n in range(4))},
        spec={
            "type": "ptp",
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": f"1.{n >> 8}.{n & 255}.0/24", "gateway": "2.0.0.1"}] for n in range(1000)],
            },
        },
        ip=lambda: links(5),
    ),
    "result: the most": Case(result=most, ip=lambda: links(1)),
    "result: the most, two networks": Case(notes=TWO, result=lambda n: most(n, 2), ip=lambda: links(2)),
    "result: the most, 4 networks": Case(notes=many(4), result=lambda n: most(n, 4), ip=lambda: links(4), files=4),
    "result: the most, 32 networks": Case(notes=many(32), result=lambda n: most(n, 32), ip=lambda: links(32), files=32),
    "result: 128 KiB of objects": Case(result=lambda n: {**plain(n), "x": [{}] * 30000}),
    "result: 128 KiB, deep": Case(result=lambda n: {**plain(n), "x": "[" * 500}),
    "net.d: 300 files": Case(files=300),
    "net.d: 300 files, cni": Case(files=300, notes={CNI: "net299"}),
    "net.d: 300 files, 32 networks": Case(files=300, notes=many(32), ip=lambda: links(32)),
    "net.d: 300 files, an unknown network": Case(files=300, notes={CNI: "nowhere"}),
    "pod: 1,000 routes": Case(notes=TWO, ip=lambda: routes_of_a_pod(1000)),
    "pod: 10,000 routes": Case(notes=TWO, ip=lambda: routes_of_a_pod(10_000)),
    "pod: 10,000 addresses": Case(notes=TWO, ip=lambda: addresses_of_a_pod(10_000)),
    "pod: 5,000 rules": Case(notes=TWO, ip=lambda: rules_of_a_pod(5_000)),
    "pod: 600 links": Case(notes=TWO, ip=lambda: links_of_a_pod(300)),
    "one network, pod: 600 links": Case(ip=lambda: links_of_a_pod(300), result=lambda n: {"cniVersion": "1.0.0"}),
}


class Kube:
    """A pod with the case's annotations; every definition exists."""

    def __init__(self, case: Case) -> None:
        self.case = case

    async def pod(self, namespace: str, name: str, uid: str, given: Any = None) -> Pod:
        return Pod(namespace=namespace, name=name, uid=uid, annotations=dict(self.case.notes))

    async def network(self, kind: str, namespace: str, name: str, *, needed: bool = False) -> Mapping[str, Any] | None:
        if kind != "NetworkAttachmentDefinition":
            return {"metadata": {}, "spec": {"plugin": "net0", "physicalNet": "", "sub_subnet": ""}}
        if name.startswith("net") or name == "nowhere":
            return None
        config = json.dumps({"cniVersion": "1.0.0", "name": name, "type": "plug", **self.case.spec})
        if "plugins" in self.case.spec:
            config = json.dumps({"cniVersion": "1.0.0", "name": name, **self.case.spec})
        assert len(config) <= CONFIG_MAX
        return {"metadata": {"annotations": {}}, "spec": {"config": config}}

    async def event(self, pod: Pod, reason: str, message: str, *, warning: bool = False) -> None:
        pass

    async def annotate(self, pod: Pod, annotations: Mapping[str, str], shorter: Any) -> str:
        return ""


class Plugins:
    """The other end of the agent's connection: answers each RUN with the case's result."""

    def __init__(self, case: Case) -> None:
        self.case, self.decoder = case, protocol.Decoder()
        self.executor = ShimExecutor(self.send, lambda why: None, Slots(16))

    def send(self, data: bytes) -> None:
        asyncio.get_running_loop().call_soon(self.answer, data)

    def answer(self, data: bytes) -> None:
        for frame in self.decoder.feed(data):
            assert isinstance(frame, protocol.Run)
            ifname = frame.env["CNI_IFNAME"]
            stdout = b""
            if frame.env["CNI_COMMAND"] == "ADD":
                stdout = json.dumps((self.case.result or plain)(int(ifname[3:]))).encode()
            self.executor.resolve(
                protocol.Result(
                    id=frame.id, how=protocol.How.EXITED, status=0, errno=0, micros=0, stdout=stdout, stderr=b""
                )
            )


class Watch:
    """Measures every callback of the event loop, except those of `Plugins`."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._run = asyncio.Handle._run

    def __enter__(self) -> Watch:
        def measured(handle: Any) -> None:
            if getattr(handle._callback, "__func__", None) is Plugins.answer:
                self._run(handle)
                return
            began = time.thread_time()
            self._run(handle)
            self.longest = max(self.longest, (time.thread_time() - began) * 1000)

        asyncio.Handle._run = measured  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.Handle._run = self._run  # type: ignore[method-assign]


async def call(
    case: Case, verb: str, netns: str, place: Path, previous: Any = None
) -> tuple[dict[str, float | str], Any]:
    conf = {
        "cniVersion": "1.0.0", "name": "genie", "type": "genie", "conf_dir": str(place / "net.d"),
        "state_dir": str(place / "records"), **case.conf,
    }  # fmt: skip
    if previous is not None:
        conf["prevResult"] = previous
    env = {
        "CNI_COMMAND": verb, "CNI_CONTAINERID": "c0ffee", "CNI_NETNS": netns, "CNI_IFNAME": "eth0",
        "CNI_PATH": str(place / "bin"), "CNI_ARGS": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
    }  # fmt: skip
    request = Request(env=env, stdin=json.dumps(conf).encode())
    read = config.read(request.stdin)  # the agent reads it in a thread, if it is large
    with Watch() as watch:
        served = serve(request, Kube(case), Plugins(case).executor, read)  # type: ignore[arg-type]
        reply = await asyncio.create_task(served)
    said = json.loads(reply.stdout) if reply.stdout else None
    error = said.get("msg", "") if reply.status else ""
    return {"ms": watch.longest, "error": error}, said


async def rounds(case: Case, netns: str, place: Path) -> dict[str, dict[str, float | str]]:
    """The shortest of some rounds, of the longest callback of each verb."""
    found: dict[str, dict[str, float | str]] = {}
    for _ in range(ROUNDS):
        previous = None
        for verb in ("ADD", "CHECK", "DEL"):
            if verb == "CHECK" and found["ADD"]["error"]:
                continue
            took, said = await call(case, verb, netns, place, previous)
            previous = said if verb == "ADD" else previous
            if verb not in found or took["ms"] < found[verb]["ms"]:  # type: ignore[operator]
                found[verb] = took
    return found


def plugins(place: Path) -> None:
    """Something to be found where the plugins are, which the stand-in takes the place of."""
    (place / "bin").mkdir()
    for name in ("plug", "bridge", "ptp"):
        (place / "bin" / name).write_text("")
        (place / "bin" / name).chmod(0o755)


def fill(case: Case, place: Path) -> None:
    """Write the case's net.d."""
    for number in range(max(case.files, 2 if case.notes.get(CNI) == TWO[CNI] else 1)):
        config = {"cniVersion": "1.0.0", "name": f"net{number}", "type": "plug"}
        (place / "net.d" / f"10-net{number}.conf").write_text(json.dumps(config))


def measure(name: str, case: Case, place: Path) -> bool:
    shutil.rmtree(place / "net.d", ignore_errors=True)
    (place / "net.d").mkdir()
    fill(case, place)
    subprocess.run(["ip", "netns", "add", "pod"], check=True)
    try:
        batch = "\n".join(case.ip())
        subprocess.run(["ip", "-n", "pod", "-batch", "-"], input=batch.encode(), check=True)
        found = asyncio.run(rounds(case, "/run/netns/pod", place))
    finally:
        subprocess.run(["ip", "netns", "delete", "pod"], check=True)
    worst = max(float(each["ms"]) for each in found.values())
    times = "  ".join(f"{verb} {float(each['ms']):7.2f}" for verb, each in found.items())
    error = next((str(each["error"]) for each in found.values() if each["error"]), "")
    print(f"{'  ' if worst <= GOAL else '! '}{name:<40} {times}  {error[:90]}", flush=True)
    return worst <= GOAL


def main() -> int:
    """Measure and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-k", default="", help="only cases with this word in their name")
    parser.add_argument("--gate", action="store_true", help="exit with 1 when a step takes more than 5 ms")
    parser.add_argument("--profile", action="store_true", help="show where the time goes")
    arguments = parser.parse_args()
    if PRIVATE not in os.environ:  # once more, where nothing of the machine's can be touched
        environment = {**os.environ, PRIVATE: "1"}
        command = ["unshare", "--net", "--mount", sys.executable, "-m", "benchmarks.longest_step", *sys.argv[1:]]
        return subprocess.run(command, env=environment, check=False).returncode
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    daemon._import_all()
    met = True
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        plugins(place)
        profile = cProfile.Profile() if arguments.profile else None
        for name, case in CASES.items():
            if arguments.k not in name:
                continue
            if profile:
                profile.enable()
            met = measure(name, case, place) and met
            if profile:
                profile.disable()
        if profile:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
    return 1 if not met and arguments.gate else 0


if __name__ == "__main__":
    sys.exit(main())
