"""A node's daemon: sets up the node (namespaces, files, links), runs its kubelet, and answers the harness."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.embedded import inventory, links, linux, plugincalls, rootfs, socket_api
from harness.embedded.daemons import Daemons
from harness.embedded.inventory import Owned
from harness.embedded.kubelet import Kubelet, PodLife
from harness.embedded.node_agent import LOG, PLUGIN, NodeAgent
from harness.embedded.plan import KUBECONFIG, UNREACHABLE_KUBECONFIG, NodePlan, Plan
from harness.embedded.rest import Access, Client
from harness.embedded.runtime import BINARIES, CONF_DIR, Runtime
from harness.libcni import CniFailure

_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.conf.all.rp_filter": "2",
    "net.ipv4.conf.default.rp_filter": "2",
    "net.ipv6.conf.all.forwarding": "1",
    "net.ipv6.conf.default.accept_dad": "0",
}


def run(plan: Plan, node: NodePlan, net: int) -> None:
    """Run a node, for ever."""
    base = linux.net_namespace()  # the API server is reachable from here, even if the node's links are down
    linux.setns(net, linux.CLONE_NEWNET)
    place = Path(plan.place)
    listening = place / f"{node.name}.sock"
    early = _early_socket(listening)
    rootfs.enter(_made(place / node.name), node.name)
    place = Path(rootfs.HOST + plan.place)
    notes: list[str] = []
    rootfs.write_sysctls(_SYSCTLS, notes.append)
    links.build(node.setup)
    links.cut(plan.nowhere)
    plugincalls.install(BINARIES, plan.plugins)
    for name, content in node.files.items():
        (CONF_DIR / name).write_text(json.dumps(content, indent=2) + "\n")
    daemons = Daemons(node.name, node.daemons)
    if node.daemons:
        _give(Path(node.kubeconfig), Access.read(place / "daemons-access.json"))
        daemons.start()
    _install_genie(plan, Access.read(place / "genie-access.json"))
    daemon = Daemon(node, notes, base, daemons, plan.genie_conf)
    daemon.serve(early)
    daemon.start(Access.read(place / "access.json"))
    threading.Event().wait()


def _early_socket(path: Path) -> Path:
    """The socket's path inside the node: through a descriptor of its directory, which survives the change of root."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    return Path(f"/proc/self/fd/{directory}") / path.name


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def _give(path: Path, access: Access) -> None:
    path.write_text(json.dumps(access.kubeconfig()))
    path.chmod(0o600)


def _install_genie(plan: Plan, access: Access) -> None:
    """Install genie in direct mode, with an administrator's command, and two kubeconfigs: a working one and a broken
    one.

    Raises RuntimeError: the command failed; the message has its log.
    """
    _give(Path(KUBECONFIG), access)
    _give(Path(UNREACHABLE_KUBECONFIG), replace(access, server=plan.unreachable_server(access.server)))
    conf = Path("/etc/kubernetes/genie.conf")
    conf.write_text(json.dumps(plan.genie_conf))
    command = [sys.executable, "-m", "genie", "install", "--direct", "--conf", str(conf)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"genie cannot be installed: {done.stderr.strip() or done.stdout.strip()}")


def _take_away(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
        if path.parent != CONF_DIR:
            with suppress(OSError):  # the folder still has another file
                path.parent.rmdir()


class Daemon:
    """Answers requests of the harness to a node."""

    def __init__(
        self, node: NodePlan, notes: list[str], base: int, daemons: Daemons, genie_conf: dict[str, Any]
    ) -> None:
        self._node, self._notes, self._base, self._genie_conf = node, notes, base, genie_conf
        self._agent = NodeAgent(node.name)
        self._daemons, self._runtime = daemons, Runtime()
        self._kubelet: Kubelet | None = None

    def serve(self, path: Path) -> None:
        answers: dict[str, socket_api.Answer] = {
            "ready": lambda request: self._daemons.await_ready(),
            "ask": self._ask,
            "where": self._where,
            "restart-daemon": lambda request: self._daemons.restart(request["network"]),
            "end-sandbox": lambda request: self._life(request).end_sandbox(),
            "check": lambda request: self._life(request).check(),
            "status": self._status,
            "lose-sandbox": lambda request: self._life(request).lose_sandbox(),
            "collect-garbage": lambda request: self._runtime.collect_garbage(),
            "reboot": lambda request: self._living().reboot(self._lose_links),
            "tamper": self._tamper,
            "static-pod": lambda request: self._living().static(request["file"], request["manifest"]),
            "inventory": lambda request: self._inventory(),
            "binaries": lambda request: plugincalls.checksums(),
            "calls": lambda request: self._runtime.logged(request["namespace"]),
            "evidence": self._evidence,
            "notes": lambda request: [*self._notes, *(self._kubelet.problems if self._kubelet else ())],
        }
        holds = {
            "settings": self._settings, "away": self._away, "net-d": self._net_d, "policies": self._policies,
        }  # fmt: skip
        socket_api.serve(path, answers, holds)

    def start(self, access: Access) -> None:
        self._kubelet = Kubelet(self._node.name, self._node.address, Client(access, net=self._base), self._runtime)
        self._kubelet.run()

    def _ask(self, request: dict[str, Any]) -> Any:
        self._daemons.check()
        life = self._life(request)
        sandbox = life.sandbox
        if sandbox is None:
            raise RuntimeError(f"pod {life.namespace}/{life.name} is not running")
        from harness import probe

        return sandbox.inside(probe.answer, request["request"])

    def _where(self, request: dict[str, Any]) -> tuple[str, str]:
        """A pod's node, and its network namespace."""
        sandbox = self._life(request).sandbox
        if sandbox is None:
            raise RuntimeError(f"pod {request['namespace']}/{request['pod']} is not running")
        return self._node.name, sandbox.netns

    def _life(self, request: dict[str, Any]) -> PodLife:
        return self._living().pod(request["namespace"], request["pod"])

    def _living(self) -> Kubelet:
        if self._kubelet is None:
            raise RuntimeError("the kubelet has not started")
        return self._kubelet

    def _status(self, request: dict[str, Any]) -> str:
        try:
            self._runtime.status(request["conf"], request["env"])
        except CniFailure as error:
            return str(error)
        return ""

    def _tamper(self, request: dict[str, Any]) -> None:
        sandbox = self._life(request).sandbox
        if sandbox is None:
            raise RuntimeError(f"pod {request['namespace']}/{request['pod']} is not running")
        sandbox.inside(links.tamper, request["interface"], request["remove"])

    def _lose_links(self) -> None:
        """What the kernel forgets in a reboot; what the harness made for networks is made again."""
        links.clear()
        with suppress(OSError):  # without nft there are no rules of its kind
            subprocess.run(["nft", "flush", "ruleset"], capture_output=True, check=False)
        links.build(self._node.setup)

    def _net_d(self, request: dict[str, Any]) -> Callable[[], None]:
        """Files in net.d, and in folders there."""
        paths = [CONF_DIR / name for name in request["files"]]
        for path, content in zip(paths, request["files"].values(), strict=True):
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content))
        return lambda: _take_away(paths)

    def _owned(self) -> Owned:
        lives = self._kubelet.lives() if self._kubelet else []
        return Owned.by([sandbox for life in lives for sandbox in list(life.sandboxes) if sandbox.netns])

    def _inventory(self) -> dict[str, list[str]]:
        before = self._owned()
        taken = inventory.take(before)
        later = self._owned()
        return taken if later == before else inventory.take(before | later)

    def _settings(self, request: dict[str, Any]) -> Callable[[], None]:
        key = object()
        self._runtime.override(key, request["namespace"], request["conf"])
        return lambda: self._runtime.restore(key)

    def _away(self, request: dict[str, Any]) -> Callable[[], None]:
        """For the pods of a namespace, use a kubeconfig with an unused address."""
        conf = {"kubernetes": {"kubeconfig": UNREACHABLE_KUBECONFIG}}
        return self._settings({"namespace": request["namespace"], "conf": conf})

    def _policies(self, request: dict[str, Any]) -> Callable[[], None]:
        self._agent.start(self._genie_conf)
        return self._settings({"namespace": request["namespace"], "conf": {"type": PLUGIN}})

    def _evidence(self, request: dict[str, Any]) -> dict[str, str]:
        """Texts by file name."""
        calls = self._runtime.calls_for(request["namespace"], request["pod"])
        texts = {"cni-calls.txt": "\n".join(call.text() for call in calls) or "no plugin was called for this pod\n"}
        if found := plugincalls.of_pod(request["namespace"], request["pod"]):
            texts["plugin-calls.json"] = json.dumps(found, indent=1)
        texts |= self._daemons.logs()
        if LOG.exists():
            texts[LOG.name] = LOG.read_text(errors="replace")
        texts["node.txt"] = inventory.look(f"node {socket.gethostname()}: {self._node.name}") + json.dumps(
            self._inventory(), indent=1
        )
        try:
            if sandbox := self._life(request).sandbox:
                texts["pod.txt"] = sandbox.inside(inventory.look, f"pod {request['namespace']}/{request['pod']}")
        except (KeyError, OSError, RuntimeError) as error:
            texts["pod.txt"] = f"{error.args[0] if error.args else error}\n"
        return texts
