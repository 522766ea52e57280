"""A node in new namespaces: real plugins, an API server in a process, agents, and calls as by a runtime."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genie.agent import shim
from genie.node import wanted
from tests.rigs.processes import alive

ROOT = Path(__file__).parents[2]
CLONE_NEWNET = 0x40000000
MS_BIND, MNT_DETACH = 4096, 2
#: The networks of each pod, as in its annotation.
PODS = {"one": "br", "two": "br,ptp", "three": "br,ptp,mv", "other": "ptp", "back": "mv,br", "twice": "br,br"}
#: Objects that stay on the node, because all pods of a network share them.
SHARED_LINKS = {"lo", "up0", "up1", "br0"}


def enter(marker: str, arguments: Sequence[str]) -> None:
    """Continue in new network, mount and PID namespaces; returns only if this process is already in them."""
    if os.environ.get(marker) != "1":
        command = ["unshare", "--net", "--mount", "--pid", "--fork", "--propagation", "private", "--mount-proc"]
        env = {**os.environ, marker: "1", "PYTHONUNBUFFERED": "1"}
        os.execvpe(command[0], [*command, "--kill-child=SIGKILL", sys.executable, *arguments], env)
    run("ip", "link", "set", "lo", "up")
    Path("/run/netns").mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "none", "/run/netns")
    run("mount", "--make-shared", "/run/netns")  # as with a runtime: a removed namespace is gone for all processes


def run(*command: str, check: bool = True) -> str:
    """Run a command and return its output."""
    return subprocess.run(command, check=check, capture_output=True, text=True).stdout


def make_netns(name: str) -> str:
    """Make a network namespace with a name, without a process: `ip netns add` takes five times as long."""
    path = f"/run/netns/{name}"
    failed: list[int] = []

    def body() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        Path(path).touch()
        source = f"/proc/self/task/{threading.get_native_id()}/ns/net".encode()
        if libc.unshare(CLONE_NEWNET) or libc.mount(source, path.encode(), b"none", MS_BIND, None):
            failed.append(ctypes.get_errno())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failed:
        raise OSError(failed[0], os.strerror(failed[0]), path)
    return path


def drop_netns(name: str) -> None:
    path = f"/run/netns/{name}"
    ctypes.CDLL(None).umount2(path.encode(), MNT_DETACH)
    Path(path).unlink(missing_ok=True)


@dataclass(frozen=True)
class CallOutcome:
    """The outcome of a call. status: the exit status, negative for a signal."""

    status: int
    answer: Mapping[str, Any]
    seconds: float

    @property
    def message(self) -> str:
        return f"{self.answer.get('msg', '')} {self.answer.get('details', '')}".strip()


@dataclass
class Node:
    """A node. direct: calls use the launcher of `genie install --direct`, otherwise the shim.

    plugins: the directory in CNI_PATH. api: the API server's address; if empty, one is started, with PODS.
    """

    direct: bool = False
    plugins: str = ""
    api: str = ""
    conf: dict[str, Any] = field(default_factory=dict)
    pods: Mapping[str, str] = field(default_factory=lambda: PODS)
    agent: subprocess.Popen[bytes] | None = None
    starts: int = 0

    def __post_init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="genie-faults-"))
        for directory in ("bin", "net.d", "records", "ipam"):
            (self.place / directory).mkdir()
        self.plugins = self.plugins or str(self.place / "bin")
        self.socket, self.log = self.place / "agent.sock", self.place / "agent.log"
        self.log.touch()
        self.server: subprocess.Popen[str] | None = None
        if not self.api:
            self.server = _api_server(self.pods)
            assert self.server.stdout
            self.api = f"http://127.0.0.1:{int(self.server.stdout.readline())}"
        self.conf = {
            "cniVersion": "1.0.0", "name": "genie", "type": "genie", "conf_dir": str(self.place / "net.d"),
            "policy": {"k8s_api_root": self.api, "k8s_auth_token": "sesame"}, "state_dir": str(self.place / "records"),
            **self.conf,
        }  # fmt: skip
        self.executable = self._launcher() if self.direct else str(shim.binary())

    def _launcher(self) -> str:
        path = self.place / "genie"
        path.write_text(wanted.launcher())
        path.chmod(0o755)
        return str(path)

    @property
    def stdin(self) -> bytes:
        return json.dumps(self.conf).encode()

    @property
    def state(self) -> Path:
        return Path(self.conf["state_dir"])

    def network(self, order: int, name: str, **conf: Any) -> None:
        """Write a network's configuration to net.d."""
        text = json.dumps({"cniVersion": "1.0.0", "name": name, **conf})
        (self.place / "net.d" / f"{order}-{name}.conf").write_text(text)

    def script(self, name: str, text: str) -> None:
        """A shell plugin, with a network of the same name."""
        path = self.place / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        self.network(10, name, type=name)

    def ipam(self, block: int, **more: Any) -> dict[str, Any]:
        data = str(self.place / "ipam")
        return {"type": "host-local", "subnet": f"10.{block}.0.0/16", "dataDir": data, **more}

    def three_networks(self) -> None:
        """bridge, ptp and macvlan, each with host-local."""
        run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
        run("ip", "link", "set", "up0", "up")
        run("ip", "link", "set", "up1", "up")
        away = [{"dst": "0.0.0.0/0"}]
        self.network(10, "br", type="bridge", bridge="br0", isGateway=True, ipam=self.ipam(90, routes=away))
        self.network(11, "ptp", type="ptp", ipam=self.ipam(91, routes=away))
        self.network(12, "mv", type="macvlan", master="up0", ipam=self.ipam(92))

    def trouble(self, kind: str) -> None:
        """Set the API server's fault: a name of `server.TROUBLE`, "down", or "" for none."""
        assert self.server and self.server.stdin and self.server.stdout
        self.server.stdin.write(f"{kind}\n")
        self.server.stdin.flush()
        self.server.stdout.readline()

    # the agent

    def start_agent(self, wait: float = 60) -> subprocess.Popen[bytes]:
        """Start an agent; wait: seconds for it to be ready, 0 for no waiting."""
        (self.place / "genie.conf").write_bytes(self.stdin)
        before = self.log.stat().st_size
        with self.log.open("ab") as log:
            self.agent = subprocess.Popen(
                [sys.executable, "-m", "genie", "agent", "--socket", str(self.socket), "--node", "node-1",
                 "--conf", str(self.place / "genie.conf"), "--listen", ""],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, start_new_session=True,
            )  # fmt: skip
        self.starts += 1
        deadline = time.monotonic() + wait
        while wait and b'"READY"' not in self.log.read_bytes()[before:]:
            if self.agent.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the agent did not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.01)
        return self.agent

    def ensure_agent(self) -> None:
        """Restart the agent if it has ended, as the kubelet does."""
        if not self.direct and (self.agent is None or self.agent.poll() is not None):
            self.start_agent()

    # calls

    def env(self, verb: str, pod: str, container: str, netns: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"], "GENIE_SOCKET": str(self.socket), "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container, "CNI_NETNS": netns, "CNI_IFNAME": "eth0", "CNI_PATH": self.plugins,
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod};K8S_POD_UID=uid-{pod}",
        }  # fmt: skip

    def begin(self, verb: str, pod: str, container: str, netns: str) -> subprocess.Popen[bytes]:
        """Start a call; `finish` gives it the configuration and waits."""
        pipe = subprocess.PIPE
        env = self.env(verb, pod, container, netns)
        return subprocess.Popen([self.executable], env=env, stdin=pipe, stdout=pipe, stderr=pipe)

    def finish(self, process: subprocess.Popen[bytes], timeout: float = 240) -> CallOutcome:
        """Wait for a call's end.

        Raises subprocess.TimeoutExpired: it has not ended in time; it is killed.
        """
        began = time.monotonic()
        try:
            stdout, _ = process.communicate(self.stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        try:
            answer = json.loads(stdout) if stdout else {}
        except ValueError:
            answer = {"code": -1, "msg": f"NOT JSON: {stdout[:200]!r}"}
        return CallOutcome(status=process.returncode, answer=answer, seconds=time.monotonic() - began)

    def call(self, verb: str, pod: str, container: str, netns: str, timeout: float = 240) -> CallOutcome:
        return self.finish(self.begin(verb, pod, container, netns), timeout)

    def delete(self, pod: str, container: str, netns: str, tries: int = 200) -> CallOutcome:
        """DEL as by a runtime: repeated until it succeeds."""
        for _ in range(tries):
            self.ensure_agent()
            outcome = self.call("DEL", pod, container, netns)
            if outcome.status == 0:
                break
            time.sleep(0.05)
        return outcome

    # what is left

    def end_daemons(self, command: str) -> None:
        """Kill the processes that a successful plugin left on purpose; genie does not touch them."""
        for line in _processes(set()):
            pid, _, text = line.partition(" ")
            if text.strip() == command:
                kill(int(pid))

    def inventory(self) -> dict[str, set[str]]:
        """All objects that a call must not leave behind."""
        links = {line.split(": ")[1].split("@")[0] for line in run("ip", "-o", "link").splitlines()}
        known = {os.getpid(), *(each.pid for each in (self.agent, self.server) if each)}
        return {
            "links": links - SHARED_LINKS,
            "addresses": set(self.addresses()),
            "namespaces": {path.name for path in Path("/run/netns").iterdir()},
            "rules": set(run("ip", "rule").splitlines()) | set(run("ip", "-6", "rule").splitlines()),
            "routes": {route for route in run("ip", "route", "show", "table", "all").splitlines() if _is_own(route)},
            "records": self._records(),
            "files": {path.name for path in self.place.iterdir()},
            "processes": set(_processes(known)),
            "descriptors": self._descriptors(),
        }

    def _records(self) -> set[str]:
        """Records and their temporary files, without genie's long-lived files."""
        names = {path.name for path in self.state.iterdir()} if self.state.is_dir() else set()
        return {name for name in names if name != "objects" and not name.endswith((".damaged", ".failed"))}

    def addresses(self) -> Iterator[str]:
        """Addresses that host-local has reserved.

        An empty file comes from a killed host-local, and is not genie's fault.
        """
        for path in (self.place / "ipam").rglob("*"):
            if path.is_file() and path.name[0].isdigit() and path.stat().st_size:
                yield f"{path.parent.name}/{path.name}"

    def _descriptors(self) -> set[str]:
        """Sockets that the agent still holds after their calls have ended."""
        if self.agent is None or self.agent.poll() is not None:
            return set()
        lines = run("ss", "-xpH", check=False).splitlines()
        ours = [
            line for line in lines if str(self.socket) in line and f"pid={self.agent.pid}," in line and "ESTAB" in line
        ]
        return {f"connection {number}" for number in range(len(ours))}

    def left(self, before: Mapping[str, set[str]], within: float = 3) -> list[str]:
        """New objects, after a moment in which they may disappear by themselves."""
        deadline = time.monotonic() + within
        while True:
            now = self.inventory()
            left = [f"{kind}: {sorted(now[kind] - before[kind])[:8]}" for kind in before if now[kind] - before[kind]]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.1)

    def odd_lines(self) -> list[str]:
        """Lines of the agent's log that are not JSON, and tracebacks."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line[:600] for line in lines if not line.startswith("{") or '"traceback"' in line]

    def close(self) -> None:
        for process in (self.agent, self.server):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        shutil.rmtree(self.place, ignore_errors=True)


@contextlib.contextmanager
def node(**options: Any) -> Iterator[Node]:
    made = Node(**options)
    try:
        yield made
    finally:
        made.close()


def _api_server(pods: Mapping[str, str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "tests.faults.server", json.dumps(dict(pods))]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT, text=True)


def _is_own(route: str) -> bool:
    """Whether a route belongs to a pod's link on the node."""
    return not any(f"dev {link}" in route for link in SHARED_LINKS)


def processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _processes(known: set[int]) -> Iterator[str]:
    """Running processes; ended orphans are reaped, because we are PID 1 of our namespace."""
    for pid in processes():
        if pid in known:
            continue
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        with contextlib.suppress(OSError):
            if alive([pid]):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield f"{pid} {command[:80]}"


def kill(pid: int, sent: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal; returns whether the process existed."""
    try:
        os.kill(pid, sent)
    except ProcessLookupError:
        return False
    return True


def until(condition: Callable[[], object], seconds: float = 30) -> bool:
    """Wait until the condition is true; returns whether it is."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
