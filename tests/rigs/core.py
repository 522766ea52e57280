"""A node without a cluster, for the tests of genie's core: configurations, a fake executor, a fake API server.

The executor answers like a plugin and records its calls; a test can give it a function for other behaviour. So tests
see the calls of the verbs one by one, and the files on disk while a delegate runs.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from genie.cni.config import NetworkConfig
from genie.cni.config import parse as parse_network
from genie.cni.errors import CniError, Code
from genie.cni.execute import Outcome, PluginCall, SubprocessExecutor, run_sync
from genie.cni.result import parse as parse_result
from genie.kube import Default, Pod
from genie.records import Record, Records
from genie.request import Reply, Request
from genie.serve import serve
from tests.rigs.kernel import FakeKernel

T = TypeVar("T")
CONTAINER = "c0ffee0123456789"
ARGS = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=blue;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID={CONTAINER};K8S_POD_UID=u-1"


def network(name: str = "calico", *plugins: Mapping[str, Any], source: str = "") -> NetworkConfig:
    """A network; by default, with one plugin of the same name."""
    raw = {"cniVersion": "1.0.0", "name": name, "plugins": list(plugins) or [{"type": name}]}
    return parse_network(json.dumps(raw), source or f"10-{name}.conflist")


@dataclass(frozen=True)
class SeenCall:
    """One call of a delegate, as the executor saw it."""

    plugin: str
    verb: str
    ifname: str
    container_id: str
    env: Mapping[str, str]
    stdin: Mapping[str, Any]


#: The behaviour of a plugin for a call; None for the default.
Answer = Callable[[SeenCall], Outcome | None]


@dataclass
class FakeExecutor:
    """Plugins that give 10.N.0.2/24 to the Nth attachment; `act` can answer instead."""

    act: Answer = lambda call: None
    calls: list[SeenCall] = field(default_factory=list)
    addresses: dict[tuple[str, str, str], int] = field(default_factory=dict)
    kernel: FakeKernel = field(default_factory=FakeKernel)

    async def claim(self, path: str) -> None:
        pass

    async def run(self, call: PluginCall) -> Outcome:
        env, stdin = call.env, json.loads(call.stdin)
        seen = SeenCall(
            plugin=call.binary.rpartition("/")[2],
            verb=env["CNI_COMMAND"],
            ifname=env.get("CNI_IFNAME", ""),
            container_id=env.get("CNI_CONTAINERID", ""),
            env=env,
            stdin=stdin,
        )
        self.calls.append(seen)
        outcome = self.act(seen)
        if outcome is None:
            stdout = json.dumps(self.result(seen)).encode() if seen.verb == "ADD" else b""
            outcome = Outcome(status=0, stdout=stdout)
        if seen.verb == "ADD" and outcome.status == 0:
            with suppress(CniError, ValueError):  # a test may make it return invalid data
                self.kernel.attach(seen.ifname, parse_result(json.loads(outcome.stdout), "1.0.0"))
        return outcome

    async def gather(self, *work: Coroutine[Any, Any, T]) -> list[T | BaseException]:
        outcomes: list[T | BaseException] = []
        for one in work:
            try:
                outcomes.append(await one)
            except BaseException as error:
                outcomes.append(error)
        return outcomes

    def in_thread(self, work: Callable[[], T], *, waits: bool = False) -> Awaitable[T]:
        return SubprocessExecutor().in_thread(work, waits=waits)

    def result(self, call: SeenCall) -> dict[str, Any]:
        if call.stdin.get("prevResult"):
            return dict(call.stdin["prevResult"])
        key = (call.stdin["name"], call.container_id, call.ifname)
        number = self.addresses.setdefault(key, len(self.addresses) + 1)
        if call.stdin["cniVersion"] in ("0.1.0", "0.2.0"):
            return {"cniVersion": call.stdin["cniVersion"], "ip4": {"ip": f"10.{number}.0.2/24"}}
        family = {"version": "4"} if call.stdin["cniVersion"].startswith("0.") else {}
        return {
            "cniVersion": call.stdin["cniVersion"],
            "interfaces": [
                {"name": f"host{number}"},
                {"name": call.ifname, "mac": f"02:00:00:00:00:{number:02x}", "sandbox": call.env["CNI_NETNS"]},
            ],
            "ips": [{**family, "address": f"10.{number}.0.2/24", "gateway": f"10.{number}.0.1", "interface": 1}],
            "routes": [{"dst": f"10.{number}.0.0/16"}],
        }

    def made(self, verb: str) -> list[tuple[str, str]]:
        """(plugin, interface) of each call of a verb, in order."""
        return [(call.plugin, call.ifname) for call in self.calls if call.verb == verb]


def failing(plugin: str, verb: str = "ADD", *, code: int = 123, msg: str = "no more addresses") -> Answer:
    """A plugin that fails with an error object."""

    def act(call: SeenCall) -> Outcome | None:
        if (call.plugin, call.verb) != (plugin, verb):
            return None
        return Outcome(status=1, stdout=json.dumps({"cniVersion": "1.0.0", "code": code, "msg": msg}).encode())

    return act


@dataclass
class FakeKube:
    """An API server with one pod. `away`: it cannot be reached."""

    annotations: dict[str, str] | None = field(default_factory=dict)  # None: the pod is gone
    objects: dict[tuple[str, str, str], Mapping[str, Any]] = field(default_factory=dict)
    default: Default | None = None
    away: bool = False
    asked: list[tuple[str, ...]] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)
    events: list[tuple[str, str, str]] = field(default_factory=list)  # type, reason, message

    def _reach(self, *question: str) -> None:
        self.asked.append(question)
        if self.away:
            raise CniError(Code.TRY_AGAIN, "the API server cannot be reached: connection refused")

    async def pod(self, namespace: str, name: str, uid: str, given: Mapping[str, str] | None = None) -> Pod:
        if given is not None:
            return Pod(namespace=namespace, name=name, uid=uid, annotations=given)
        self._reach("pod", namespace, name, uid)
        if self.annotations is None:
            raise CniError(Code.UNKNOWN_CONTAINER, f"pod {namespace}/{name}: no such pod on the API server")
        return Pod(namespace=namespace, name=name, uid=uid, annotations=self.annotations)

    async def network(self, kind: str, namespace: str, name: str, *, needed: bool = False) -> Mapping[str, Any] | None:
        self._reach(kind, namespace, name)
        return self.objects.get((kind, namespace, name))

    async def defaults(self, namespace: str) -> Default | None:
        return self.default

    async def annotate(self, pod: Pod, annotations: Mapping[str, str], shorter: Any) -> str:
        self._reach("annotate", pod.namespace, pod.name)
        self.written.update(annotations)
        return ""

    async def event(self, pod: Pod, reason: str, message: str, *, warning: bool = False) -> None:
        self.events.append(("Warning" if warning else "Normal", reason, message))

    def define(self, name: str, config: Any = None, *, namespace: str = "blue", **spec: Any) -> None:
        """A NetworkAttachmentDefinition."""
        text = config if isinstance(config, str | None) else json.dumps(config)
        body = spec if text is None else {"config": text}
        self.objects["NetworkAttachmentDefinition", namespace, name] = {"spec": body}


#: Three networks, each with a different plugin.
THREE = "calico,weave-net,flannel"


@dataclass
class Node:
    """A node's directories, with functions that call genie on it."""

    root: Path
    kube: FakeKube = field(default_factory=FakeKube)
    executor: FakeExecutor = field(default_factory=FakeExecutor)
    conf: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)  # the last ADD's result, as a runtime keeps it

    def __post_init__(self) -> None:
        for folder in ("net.d", "bin"):
            (self.root / folder).mkdir(exist_ok=True)
        self.write("00-genie.conf", {"name": "k8s", "type": "genie"})

    @property
    def kernel(self) -> FakeKernel:
        return self.executor.kernel

    @property
    def net_d(self) -> Path:
        return self.root / "net.d"

    @property
    def records(self) -> Records:
        return Records(str(self.root / "state"))

    @property
    def record(self) -> Record:
        """The only record."""
        (record,) = self.records
        return record

    def write(self, file: str, config: Any) -> None:
        text = config if isinstance(config, str) else json.dumps(config)
        (self.net_d / file).write_text(text)

    def install(self, *names: str, version: str = "1.0.0", **keys: Any) -> None:
        """Networks, each with one plugin of the same name and its binary."""
        for name in names:
            self.write(f"10-{name}.conf", {"cniVersion": version, "name": name, "type": name, **keys})
            self.binary(name)

    def binary(self, *names: str) -> None:
        for name in names:
            (self.root / "bin" / name).write_text("")
            (self.root / "bin" / name).chmod(0o755)

    def request(self, verb: str, stdin: bytes | None = None, /, **env: str | None) -> Request:
        """A call like containerd's; an environment variable that is None is omitted."""
        conf = {
            "cniVersion": "1.1.0" if verb in ("GC", "STATUS") else "1.0.0",
            "name": "k8s",
            "type": "genie",
            **({"prevResult": self.kept} if verb in ("CHECK", "DEL") and self.kept else {}),
            "conf_dir": str(self.net_d),
            "state_dir": str(self.root / "state"),
            **self.conf,
        }
        given = {
            "PATH": "/usr/bin",
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": CONTAINER,
            "CNI_NETNS": "/var/run/netns/web",
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": ARGS,
            "CNI_PATH": str(self.root / "bin"),
            **env,
        }
        kept = {key: value for key, value in given.items() if value is not None}
        return Request(env=kept, stdin=json.dumps(conf).encode() if stdin is None else stdin)

    def call(self, verb: str, stdin: bytes | None = None, /, **env: str | None) -> Reply:
        reply = run_sync(serve(self.request(verb, stdin, **env), self.kube, self.executor))
        if verb == "ADD" and reply.status == 0:
            self.kept = json.loads(reply.stdout)
        return reply

    def ok(self, verb: str, **env: str | None) -> dict[str, Any]:
        """A call that must succeed; returns its result."""
        reply = self.call(verb, **env)
        assert reply.status == 0, reply.stdout
        answer = json.loads(reply.stdout) if reply.stdout else {}
        assert isinstance(answer, dict)
        return answer

    def add(self, cni: str | None = None, *, container: str = CONTAINER, **annotations: str) -> dict[str, Any]:
        """ADD of a pod with these annotations, passed by the runtime."""
        if cni is not None:
            annotations["cni"] = cni
        if annotations:
            self.kube.annotations = annotations
        return self.ok("ADD", CNI_CONTAINERID=container)

    def fails(self, verb: str, stdin: bytes | None = None, /, **env: str | None) -> dict[str, Any]:
        """A call that must fail; returns its CNI error object."""
        reply = self.call(verb, stdin, **env)
        assert reply.status != 0, reply.stdout
        error = json.loads(reply.stdout)
        assert {"cniVersion", "code", "msg"} <= error.keys() <= {"cniVersion", "code", "msg", "details"}
        assert isinstance(error["code"], int) and error["code"] > 0
        return dict(error)

    def left(self) -> list[str]:
        """The files in the state directory."""
        state = self.root / "state"
        return sorted(path.name for path in state.iterdir()) if state.is_dir() else []


def addresses(result: Mapping[str, Any]) -> list[str]:
    return [ip["address"] for ip in result["ips"]]


def on(result: Mapping[str, Any]) -> list[str]:
    """The interface of each address."""
    return [result["interfaces"][ip["interface"]]["name"] if "interface" in ip else "" for ip in result["ips"]]


def names(choices: Sequence[Any]) -> list[str]:
    return [choice.ifname for choice in choices]


def damage(node: Node, text: str = "{") -> str:
    """Damage the only record; returns its file."""
    (path,) = (node.root / "state").glob("*.json")
    path.write_text(text)
    return path.name


def valid(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"cni.dev/valid-attachments": [{"containerID": one, "ifname": two} for one, two in pairs]}


@contextmanager
def full_disk() -> Iterator[None]:
    """The kernel refuses each byte of a file, as on a full disk, but as "File too large"; files can be made."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
