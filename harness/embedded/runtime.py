"""The runtime of an embedded node: starts plugins, and stores the result of each ADD as libcni does (see `libcni.py`).

The network of all pods is the first configuration in net.d by file name; DEL calls its plugins in reverse order.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import libcni
from harness.libcni import Attachment, CniFailure, Json, Kept, version

CONF_DIR, CACHE, BINARIES = Path(libcni.CONF_DIR), Path(libcni.CACHE), libcni.BINARIES
_SECRET = ("k8s_auth_token", "token")
_DEADLINE = 120.0  # the kubelet's limit for a request to its runtime


@dataclass(frozen=True, kw_only=True)
class RecordedCall:
    """One call of a plugin, for the log."""

    at: float
    attachment: Attachment | None  # empty for GC and STATUS, which concern no pod
    plugin: str
    env: Mapping[str, str]
    stdin: Json
    status: int
    stdout: str
    stderr: str
    ms: float

    def text(self) -> str:
        """The call as readable text."""
        when = time.strftime("%H:%M:%S", time.localtime(self.at)) + f".{int(self.at % 1 * 1000):03d}"
        cni = "\n".join(f"  {name}={value}" for name, value in self.env.items() if name.startswith("CNI_"))
        outputs = "".join(
            f"{name}:\n{text.rstrip()}\n" for name, text in (("stdout", self.stdout), ("stderr", self.stderr)) if text
        )
        head = f"{when} {self.plugin} {self.env['CNI_COMMAND']}: status {self.status}, {self.ms:.1f} ms"
        return f"{head}\n{cni}\nstdin:\n{json.dumps(masked(self.stdin), indent=1)}\n{outputs}"


class Runtime:
    """The runtime of one node. Safe to use from several threads."""

    def __init__(self) -> None:
        self.calls: deque[RecordedCall] = deque(maxlen=2000)
        self._overrides: dict[object, tuple[str, Json]] = {}
        self._lock = threading.Lock()

    def override(self, key: object, namespace: str, conf: Json) -> None:
        """Change the first network's configuration for the pods of a namespace; null removes a key."""
        with self._lock:
            self._overrides[key] = (namespace, conf)

    def restore(self, key: object) -> None:
        """Undo an `override`."""
        with self._lock:
            self._overrides.pop(key, None)

    def add(self, attachment: Attachment) -> Json:
        """ADD; returns the result.

        Raises CniFailure: a plugin failed. As with libcni, the caller must DEL.
        """
        network = self._network(attachment.namespace)
        result: Json | None = None
        for plugin in network["plugins"]:
            result = self._call("ADD", network, plugin, attachment, result=result)
        kept = Kept(attachment=attachment, network=network, result=result or {})
        CACHE.mkdir(parents=True, exist_ok=True)
        (CACHE / kept.name).write_text(kept.text())
        return kept.result

    def check(self, attachment: Attachment) -> None:
        """CHECK, with the result of ADD.

        Raises CniFailure: a plugin reports an error, or there was no ADD.
        """
        kept = _kept(attachment)
        if kept is None:
            raise CniFailure("none", "CHECK", 0, "no result of an ADD is kept")
        if version(kept.network) < (0, 4, 0):
            message = f"CNI {kept.network.get('cniVersion')} has no CHECK: it came with 0.4.0"
            raise CniFailure("none", "CHECK", 0, message)
        for plugin in kept.network["plugins"]:
            self._call("CHECK", kept.network, plugin, attachment, result=kept.result)

    def delete(self, attachment: Attachment) -> None:
        """DEL.

        Raises CniFailure: a plugin failed; the kept result stays, so that DEL can be called again.
        """
        kept = _kept(attachment)
        network = kept.network if kept else self._network(attachment.namespace)
        result = kept.result if kept and version(network) >= (0, 4, 0) else None
        for plugin in reversed(network["plugins"]):
            self._call("DEL", network, plugin, attachment, result=result)
        self.forget(attachment)

    def forget(self, attachment: Attachment) -> None:
        """Remove the stored result of an attachment."""
        for path in _files(attachment):
            path.unlink(missing_ok=True)

    def collect_garbage(self) -> None:
        """GC of 1.1, as CRI-O calls it when it starts: attachments without a stored result are garbage.

        Raises CniFailure: a plugin failed.
        """
        valid = [Kept.of(path.read_text()).attachment for path in CACHE.glob("*")]
        network = {**self._network(""), "cniVersion": "1.1.0"}
        for plugin in network["plugins"]:
            self._call("GC", network, plugin, valid=valid)

    def status(self, change: Json, env: Mapping[str, str]) -> None:
        """STATUS of 1.1.

        change: merged into the configuration for this call. env: further variables for this call.

        Raises CniFailure: a plugin reports that an ADD could not work now.
        """
        network = libcni.as_list(libcni.with_settings(self._conf(""), "genie", {"cniVersion": "1.1.0", **change}))
        for plugin in network["plugins"]:
            self._call("STATUS", network, plugin, env=env)

    def calls_for(self, namespace: str, pod: str) -> list[RecordedCall]:
        """The calls for a pod, oldest first."""
        of = [(call, call.attachment) for call in list(self.calls)]
        return [call for call, it in of if it and (it.namespace, it.pod) == (namespace, pod)]

    def logged(self, namespace: str) -> list[Json]:
        """The lines that genie logged of its calls for a namespace's pods; in direct mode, they are on standard
        error."""
        texts = [call.stderr for call in list(self.calls) if call.attachment and call.attachment.namespace == namespace]
        found = []
        for line in (line for text in texts for line in text.splitlines()):
            with suppress(ValueError):
                logged = json.loads(line)
                found += [logged] if isinstance(logged, dict) else []
        return found

    def _network(self, namespace: str) -> Json:
        return libcni.as_list(self._conf(namespace))

    def _conf(self, namespace: str) -> Json:
        files = sorted(path for path in CONF_DIR.iterdir() if path.suffix in (".conf", ".conflist", ".json"))
        if not files:
            raise CniFailure("none", "ADD", 0, f"no network configuration in {CONF_DIR}")
        conf: Json = json.loads(files[0].read_text())
        with self._lock:
            overrides = [change for scope, change in self._overrides.values() if scope == namespace]
        for change in overrides:
            conf = libcni.with_settings(conf, "genie", change)
        return conf

    def _call(
        self,
        verb: str,
        network: Json,
        plugin: Json,
        attachment: Attachment | None = None,
        *,
        result: Json | None = None,
        valid: Iterable[Attachment] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Json | None:
        """Call one plugin; returns the result of ADD."""
        name = str(plugin["type"])
        stdin = libcni.configuration(network, plugin, attachment, result=result, valid=valid)
        own = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/root"}
        env = {**own, **libcni.environment(verb, attachment), **(env or {})}
        at, start = time.time(), time.monotonic()
        status, stdout, stderr = _execute([f"{BINARIES}/{name}"], env, json.dumps(stdin).encode())
        self.calls.append(
            RecordedCall(
                at=at,
                attachment=attachment,
                plugin=name,
                env=env,
                stdin=stdin,
                status=status,
                stdout=stdout,
                stderr=stderr,
                ms=(time.monotonic() - start) * 1000,
            )
        )
        if status != 0:
            raise libcni.failure(name, verb, status, stdout, stderr)
        if verb != "ADD":
            return None
        try:
            return dict(json.loads(stdout))
        except ValueError as error:
            raise CniFailure(name, verb, 6, f"its result is not a JSON object ({error}): {stdout[:200]!r}") from error


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


def _files(attachment: Attachment) -> list[Path]:
    return list(CACHE.glob(f"*-{attachment.sandbox}-{attachment.ifname}"))


def _kept(attachment: Attachment) -> Kept | None:
    """The network at the time of ADD, and ADD's result."""
    for path in _files(attachment):
        with suppress(OSError, ValueError, KeyError):
            return Kept.of(path.read_text())
    return None


def masked(value: Any) -> Any:
    """A configuration without secrets, for people."""
    if isinstance(value, Mapping):
        return {key: "(not shown)" if key in _SECRET and inner else masked(inner) for key, inner in value.items()}
    return [masked(inner) for inner in value] if isinstance(value, list) else value
