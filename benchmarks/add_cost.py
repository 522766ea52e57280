"""Measures the cost of genie: an ADD of one, two and three networks, bare, through the agent, and in direct mode.

    GENIE_CNI_BIN=/opt/cni/bin python benchmarks/add_cost.py [--rounds 100] [--gate]

Bare means without genie: the same plugins (containernetworking's bridge with host-local, for each network), called one
after the other with the same input. All run interleaved, on the same machine, in a private network namespace. Each ADD
has a new namespace, which is made before and deleted after the measurement. The API server is a stand-in in this
process, so direct mode's figure includes a request, but not the time of a real server.

Needs root, or a user namespace where it is (`unshare -rnm`), and iproute2. With `--gate`, the exit status shows whether
the goals were met: 2 ms for the first network, 0.5 ms for each further one, median.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from genie.agent import shim
from genie.node import wanted

NAMES = ("alpha", "beta", "gamma")
PRIVATE = "GENIE_BENCHMARK_PRIVATE"
GOAL_FIRST, GOAL_NEXT = 2.0, 0.5


class Api(BaseHTTPRequestHandler):
    """A minimal API server: the pods of the benchmark, and no network objects."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as real servers do; otherwise each answer waits 40 ms for an acknowledgement

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path.startswith("/apis/"):
            self.answer(404, {"kind": "Status", "code": 404})
        elif path.startswith("/api/v1/namespaces/"):
            self.answer(200, pod(int(path[-1])))
        elif "watch=" in query:
            self.send_response(200)
            self.end_headers()
            threading.Event().wait(3600)
        else:
            pods = [pod(count) for count in range(1, len(NAMES) + 1)] if path == "/api/v1/pods" else []
            self.answer(200, {"metadata": {"resourceVersion": "1"}, "items": pods})

    def do_PATCH(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, {})

    def answer(self, status: int, data: object) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def pod(count: int) -> dict[str, object]:
    """A pod on this number of networks."""
    notes = {"cni": ",".join(NAMES[:count])}
    return {"metadata": {"namespace": "default", "name": f"p{count}", "uid": f"u-{count}", "annotations": notes}}


def network(position: int, place: Path, kind: str) -> dict[str, object]:
    """One network's configuration, without a default route: with it, bare ADDs of several networks would fail."""
    name = NAMES[position]
    ipam = {"type": "host-local", "subnet": f"10.{90 + position}.0.0/16", "dataDir": str(place / "ipam")}
    conf = {"cniVersion": "1.0.0", "name": name, "type": kind, "ipam": ipam}
    return {**conf, "bridge": f"br-{name}", "isGateway": True} if kind == "bridge" else conf


class Bench:
    """The three ways, each with ADD and DEL of a container in a namespace."""

    def __init__(self, plugins: str, kind: str, place: Path, url: str, **conf_too: Any) -> None:
        self.plugins, self.kind, self.place = plugins, kind, place
        netd = place / "net.d"
        netd.mkdir()
        for position, name in enumerate(NAMES):
            (netd / f"1{position}-{name}.conf").write_text(json.dumps(network(position, place, kind)))
        conf = {
            "cniVersion": "1.0.0", "name": "genie", "type": "genie", "log_level": "error",
            "policy": {"k8s_api_root": url}, "conf_dir": str(netd), **conf_too,
        }  # fmt: skip
        self.conf = {
            way: json.dumps({**conf, "state_dir": str(place / f"records-{way}")}).encode()
            for way in ("agent", "direct")
        }
        (place / "genie.conf").write_bytes(self.conf["agent"])
        self.socket = place / "agent.sock"
        self.launcher = place / "genie"
        self.launcher.write_bytes(wanted.plugin(direct=True))
        self.launcher.chmod(0o755)

    def env(self, verb: str, container: str, netns: str, ifname: str, count: int) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "GENIE_SOCKET": str(self.socket),
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": netns,
            "CNI_IFNAME": ifname,
            "CNI_PATH": self.plugins,
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=p{count};K8S_POD_UID=u-{count}",
        }

    def bare(self, verb: str, container: str, netns: str, count: int) -> None:
        for position in range(count):
            env = self.env(verb, container, netns, f"eth{position}", count)
            run([f"{self.plugins}/{self.kind}"], env, json.dumps(network(position, self.place, self.kind)).encode())

    def agent(self, verb: str, container: str, netns: str, count: int) -> None:
        run([str(SHIM)], self.env(verb, container, netns, "eth0", count), self.conf["agent"])

    def direct(self, verb: str, container: str, netns: str, count: int) -> None:
        run([str(self.launcher)], self.env(verb, container, netns, "eth0", count), self.conf["direct"])

    @contextlib.contextmanager
    def running_agent(self, listen: str = "") -> Iterator[subprocess.Popen[bytes]]:
        command = [
            sys.executable, "-m", "genie", "agent", "--socket", str(self.socket), "--node", "bench",
            "--conf", str(self.place / "genie.conf"), "--listen", listen, "--log-level", "info",
        ]  # fmt: skip
        with (
            (self.place / "agent.log").open("wb") as log,
            subprocess.Popen(
                command,
                stderr=log,
                env={**os.environ, "MALLOC_ARENA_MAX": "2"},  # as in the manifest
            ) as process,
        ):
            try:
                deadline = time.monotonic() + 20
                while not self.socket.exists():
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit(f"the agent did not start:\n{(self.place / 'agent.log').read_text()}")
                    time.sleep(0.01)
                yield process
            finally:
                process.terminate()


def run(command: list[str], env: dict[str, str], stdin: bytes) -> None:
    # posix_spawn and pipes by hand would be faster, but equally for all three ways
    done = subprocess.run(command, env=env, input=stdin, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[-1]} failed: {done.stdout.decode()} {done.stderr.decode()}")


def measure(bench: Bench, ways: dict[str, Callable[..., None]], rounds: int) -> dict[tuple[str, int], list[float]]:
    """Milliseconds of each ADD, by way and number of networks; the ways take turns in going first."""
    times: dict[tuple[str, int], list[float]] = {(way, n): [] for n in range(1, 4) for way in ways}
    names = list(ways)
    for turn in range(rounds + 3):
        for count in range(1, 4):
            for way in names[turn % len(names) :] + names[: turn % len(names)]:
                container = f"{way}{turn}x{count}"
                subprocess.run(["ip", "netns", "add", container], check=True)
                netns = f"/var/run/netns/{container}"
                began = time.perf_counter()
                ways[way]("ADD", container, netns, count)
                took = (time.perf_counter() - began) * 1000
                ways[way]("DEL", container, netns, count)
                subprocess.run(["ip", "netns", "delete", container], check=True)
                if turn >= 3:  # the first rounds make bridges and fill caches
                    times[way, count].append(took)
    return times


def report(times: dict[tuple[str, int], list[float]], rounds: int, kind: str) -> bool:
    """Print the table; returns whether the goals were met."""

    def median(way: str, count: int) -> float:
        return statistics.median(times[way, count])

    def p95(way: str, count: int) -> float:
        return statistics.quantiles(times[way, count], n=20)[-1]

    print(f"ADD, milliseconds, {rounds} rounds, interleaved ({kind} + host-local for each network)\n")
    print(f"{'networks':>8}  {'way':<7} {'median':>8} {'p95':>8}   more than bare (median of the rounds' differences)")
    over = {}
    for count in range(1, 4):
        for way in ("bare", "agent", "direct"):
            if (way, count) not in times:
                continue
            pairs = zip(times[way, count], times["bare", count], strict=True)
            extra = over[way, count] = statistics.median(mine - bare for mine, bare in pairs)
            shown = "" if way == "bare" else f"{extra:+8.2f}"
            print(f"{count:>8}  {way:<7} {median(way, count):>8.2f} {p95(way, count):>8.2f}   {shown}")
    first = over["agent", 1]
    further = [over["agent", n] - over["agent", n - 1] for n in (2, 3)]
    met = first <= GOAL_FIRST and max(further) <= GOAL_NEXT
    print(
        f"\nagent: {first:+.2f} ms for the first network (goal: at most {GOAL_FIRST}), "
        f"{further[0]:+.2f} and {further[1]:+.2f} for each further one (goal: at most {GOAL_NEXT}): "
        f"{'met' if met else 'NOT met'}"
    )
    return met


STEPS = {
    "select": "the pod, its networks and their configurations",
    "record": "the record, written before the first delegate and completed after the last",
    "requests": "what delegates are told",
    "results": "what they said, read and checked",
    "links": "what their results lack of the pod's interfaces, asked of the kernel",
    "routes": "the pod's routes arranged",
    "answer": "one result, and the pod's annotations",
}


def account(log: Path) -> None:
    """Print the agent's own times by step, from its log: medians for each number of networks."""
    calls: dict[int, list[dict[str, Any]]] = {}
    for line in log.read_text().splitlines():
        call = json.loads(line)
        if call.get("verb") == "ADD" and "steps" in call:
            calls.setdefault(len(call["selection"]), []).append(call)
    print(
        "\nthe agent's own time, milliseconds, medians (what an ADD costs beyond it is the shim's and the system's)\n"
    )
    print("networks " + "".join(f"{count:>8}" for count in sorted(calls)))
    for step, what in STEPS.items():
        each = [statistics.median(call["steps"].get(step, 0.0) for call in calls[count]) for count in sorted(calls)]
        print(f"{step:<9}" + "".join(f"{ms:>8.2f}" for ms in each) + f"   {what}")
    whole = [statistics.median(call["own_ms"] for call in calls[count]) for count in sorted(calls)]
    print(f"{'all':<9}" + "".join(f"{ms:>8.2f}" for ms in whole) + "   of the call, while no delegate ran")


def main() -> int:
    """Measure and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=100, help="ADDs of each kind (default: 100)")
    parser.add_argument(
        "--plugin", choices=("bridge", "ptp"), default="bridge", help="of each network (default: bridge)"
    )
    parser.add_argument("--no-direct", action="store_true", help="leave direct mode out: it takes most of the time")
    parser.add_argument("--gate", action="store_true", help="exit with 1 when the goals are not met")
    arguments = parser.parse_args()
    plugins = os.environ.get("GENIE_CNI_BIN", "/opt/cni/bin")
    if not os.access(f"{plugins}/bridge", os.X_OK):
        parser.error(f"no plugins in {plugins}: set GENIE_CNI_BIN to a directory with bridge and host-local")
    if PRIVATE not in os.environ:  # start again in private namespaces
        flags = ["--net", "--mount"] if os.geteuid() == 0 else ["--map-root-user", "--net", "--mount"]
        environment = {**os.environ, PRIVATE: "1"}
        return subprocess.run(["unshare", *flags, sys.executable, *sys.argv], env=environment, check=False).returncode
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)  # the directory of `ip netns`
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(plugins, arguments.plugin, Path(place), f"http://127.0.0.1:{server.server_port}")
        ways: dict[str, Callable[..., None]] = {"bare": bench.bare, "agent": bench.agent, "direct": bench.direct}
        if arguments.no_direct:
            del ways["direct"]
        with bench.running_agent():
            times = measure(bench, ways, arguments.rounds)
        met = report(times, arguments.rounds, arguments.plugin)
        account(bench.place / "agent.log")
        if keep := os.environ.get("GENIE_BENCHMARK_LOG"):
            shutil.copy(bench.place / "agent.log", keep)
    return 1 if not met and arguments.gate else 0


SHIM = shim.binary(as_shipped=True)

if __name__ == "__main__":
    sys.exit(main())
