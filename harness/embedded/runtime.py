"""A container runtime's side of CNI, as containerd has it from libcni: one call of the first network in net.d.

Written anew rather than with `genie.cni`: what genie is tested with must not share its mistakes. That is, of libcni:
the first configuration by file name, a conf taken as a list of one, name and version put into every plugin's part,
capability arguments only for plugins that declare the capability, the result kept on disk for DEL's prevResult (0.4.0
and later), plugins in reverse order for DEL.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]
CONF_DIR, CACHE, BINARIES = Path("/etc/cni/net.d"), Path("/var/lib/cni/results"), "/opt/cni/bin"
_SECRET = ("k8s_auth_token", "token")
_DEADLINE = 120.0  # the kubelet's for a request to its runtime


class CniFailure(Exception):
    """A plugin's error, worded as libcni words it to the runtime."""

    def __init__(self, plugin: str, verb: str, code: int, message: str) -> None:
        super().__init__(f'plugin type="{plugin}" failed ({verb.lower()}): {message}')
        self.code, self.message = code, message


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """What a plugin is called for."""

    namespace: str
    pod: str
    uid: str
    sandbox: str
    netns: str
    capabilities: Mapping[str, Any] = field(default_factory=dict)  # "portMappings": [...]
    ifname: str = "eth0"

    @property
    def args(self) -> list[tuple[str, str]]:
        return [
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", self.namespace),
            ("K8S_POD_NAME", self.pod),
            ("K8S_POD_INFRA_CONTAINER_ID", self.sandbox),
            ("K8S_POD_UID", self.uid),
        ]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a plugin, for the record."""

    at: float
    namespace: str
    pod: str
    uid: str
    plugin: str
    env: Mapping[str, str]
    stdin: Json
    status: int
    stdout: str
    stderr: str
    ms: float

    def text(self) -> str:
        """For people who look for what went wrong."""
        when = time.strftime("%H:%M:%S", time.localtime(self.at)) + f".{int(self.at % 1 * 1000):03d}"
        cni = "\n".join(f"  {name}={value}" for name, value in self.env.items() if name.startswith("CNI_"))
        said = "".join(
            f"{name}:\n{text.rstrip()}\n" for name, text in (("stdout", self.stdout), ("stderr", self.stderr)) if text
        )
        head = f"{when} {self.plugin} {self.env['CNI_COMMAND']}: status {self.status}, {self.ms:.1f} ms"
        return f"{head}\n{cni}\nstdin:\n{json.dumps(_masked(self.stdin), indent=1)}\n{said}"


class Runtime:
    """The runtime of one node. Safe to use from several threads."""

    def __init__(self) -> None:
        self.calls: deque[Call] = deque(maxlen=2000)
        self._overrides: dict[object, tuple[str | None, Json]] = {}
        self._lock = threading.Lock()

    def override(self, key: object, namespace: str | None, conf: Json) -> None:
        """Change the first network's configuration for pods of a namespace (None: of any); null takes a key away."""
        with self._lock:
            self._overrides[key] = (namespace, conf)

    def restore(self, key: object) -> None:
        """Undo an `override`."""
        with self._lock:
            self._overrides.pop(key, None)

    def add(self, attachment: Attachment) -> Json:
        """ADD; returns the result.

        Raises:
            CniFailure: a plugin failed. As with libcni, it is the caller's part to DEL.
        """
        network = self._network(attachment.namespace)
        result: Json | None = None
        for plugin in network["plugins"]:
            result = self._call("ADD", network, plugin, attachment, result)
        self._keep(network, attachment, result or {})
        return result or {}

    def check(self, attachment: Attachment) -> None:
        """CHECK, with the result that ADD gave.

        Raises:
            CniFailure: a plugin is not content, or there was no ADD.
        """
        kept = _kept(attachment)
        if kept is None:
            raise CniFailure("none", "CHECK", 0, "no result of an ADD is kept")
        network, result = kept
        if _version(network) < (0, 4, 0):
            raise CniFailure("none", "CHECK", 0, f"CNI {network.get('cniVersion')} has no CHECK: it came with 0.4.0")
        for plugin in network["plugins"]:
            self._call("CHECK", network, plugin, attachment, result)

    def delete(self, attachment: Attachment) -> None:
        """DEL.

        Raises:
            CniFailure: a plugin failed; the kept result stays, so that DEL can be called again.
        """
        kept = _kept(attachment)
        network, result = kept if kept else (self._network(attachment.namespace), None)
        if _version(network) < (0, 4, 0):
            result = None
        for plugin in reversed(network["plugins"]):
            self._call("DEL", network, plugin, attachment, result)
        for path in CACHE.glob(f"*-{attachment.sandbox}-{attachment.ifname}"):
            path.unlink(missing_ok=True)

    def calls_for(self, namespace: str, pod: str) -> list[Call]:
        """The calls for a pod, oldest first."""
        return [call for call in list(self.calls) if (call.namespace, call.pod) == (namespace, pod)]

    def _network(self, namespace: str) -> Json:
        files = sorted(path for path in CONF_DIR.iterdir() if path.suffix in (".conf", ".conflist", ".json"))
        if not files:
            raise CniFailure("none", "ADD", 0, f"no network configuration in {CONF_DIR}")
        conf: Json = json.loads(files[0].read_text())
        with self._lock:
            overrides = [change for scope, change in self._overrides.values() if scope in (None, namespace)]
        for change in overrides:
            conf = merged(conf, change)
        return (
            conf
            if "plugins" in conf
            else {"name": conf["name"], "cniVersion": conf.get("cniVersion"), "plugins": [conf]}
        )

    def _call(self, verb: str, network: Json, plugin: Json, attachment: Attachment, result: Json | None) -> Json | None:
        stdin = {**plugin, "name": network["name"], "cniVersion": network.get("cniVersion") or "0.2.0"}
        declared = stdin.get("capabilities") or {}
        if arguments := {name: value for name, value in attachment.capabilities.items() if declared.get(name)}:
            stdin["runtimeConfig"] = arguments
        if result is not None:
            stdin["prevResult"] = result
        return self._run(verb, str(plugin["type"]), stdin, attachment)

    def _run(self, verb: str, plugin: str, stdin: Json, attachment: Attachment) -> Json | None:
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": "/root",
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": attachment.sandbox,
            "CNI_NETNS": attachment.netns,
            "CNI_ARGS": ";".join(f"{name}={value}" for name, value in attachment.args),
            "CNI_IFNAME": attachment.ifname,
            "CNI_PATH": BINARIES,
        }
        at, start = time.time(), time.monotonic()
        status, stdout, stderr = _execute([f"{BINARIES}/{plugin}"], env, json.dumps(stdin).encode())
        self.calls.append(
            Call(
                at=at,
                namespace=attachment.namespace,
                pod=attachment.pod,
                uid=attachment.uid,
                plugin=plugin,
                env=env,
                stdin=stdin,
                status=status,
                stdout=stdout,
                stderr=stderr,
                ms=(time.monotonic() - start) * 1000,
            )
        )
        if status != 0:
            raise _failure(plugin, verb, status, stdout, stderr)
        if verb != "ADD":
            return None
        try:
            return dict(json.loads(stdout))
        except ValueError as error:
            raise CniFailure(plugin, verb, 6, f"its result is no JSON object ({error}): {stdout[:200]!r}") from error

    def _keep(self, network: Json, attachment: Attachment, result: Json) -> None:
        CACHE.mkdir(parents=True, exist_ok=True)
        kept = {
            "kind": "cniCacheV1",
            "containerId": attachment.sandbox,
            "config": base64.b64encode(json.dumps(network).encode()).decode(),
            "ifName": attachment.ifname,
            "networkName": network["name"],
            "netns": attachment.netns,
            "cniArgs": attachment.args,
            "capabilityArgs": dict(attachment.capabilities),
            "result": result,
        }
        (CACHE / f"{network['name']}-{attachment.sandbox}-{attachment.ifname}").write_text(json.dumps(kept))


def _execute(argv: list[str], env: dict[str, str], stdin: bytes) -> tuple[int, str, str]:
    try:
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd="/"
        ) as process:
            try:
                stdout, stderr = process.communicate(stdin, timeout=_DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()
                stdout, stderr = process.communicate()
                stderr += f"\nended after {_DEADLINE:.0f} s".encode()
    except OSError as error:
        return 127, "", f"{argv[0]}: {error.strerror}"
    return process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace")


def _failure(plugin: str, verb: str, status: int, stdout: str, stderr: str) -> CniFailure:
    try:
        said = json.loads(stdout)
        message = ": ".join(filter(None, (str(said["msg"]), str(said.get("details") or ""))))
        return CniFailure(plugin, verb, int(said["code"]), message)
    except (ValueError, KeyError, TypeError):
        message = f"netplugin failed with no error message: status {status}: {(stderr or stdout).strip()[-500:]}"
        return CniFailure(plugin, verb, 100, message)


def _kept(attachment: Attachment) -> tuple[Json, Json] | None:
    """The network as it was at ADD, and ADD's result."""
    for path in CACHE.glob(f"*-{attachment.sandbox}-{attachment.ifname}"):
        with suppress(OSError, ValueError, KeyError):
            kept = json.loads(path.read_text())
            return json.loads(base64.b64decode(kept["config"])), kept["result"]
    return None


def _version(network: Json) -> tuple[int, ...]:
    return tuple(int(part) for part in (network.get("cniVersion") or "0.2.0").split("."))


def merged(conf: Mapping[str, Any], change: Mapping[str, Any]) -> Json:
    """A configuration with a change merged into it, objects by key; null takes a key away."""
    result = dict(conf)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def _masked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: "(not shown)" if key in _SECRET and inner else _masked(inner) for key, inner in value.items()}
    return [_masked(inner) for inner in value] if isinstance(value, list) else value
