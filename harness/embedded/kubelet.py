"""A node's kubelet: watches pods of its node, lets the runtime make and end their sandboxes, reports their status.

One thread watches; each pod has a thread, and its code shows the pod's life in order: start, stay, end. Like a real
kubelet, it ends a sandbox that fails and tries a new one after a pause that doubles; it writes the reason into the
pod's events; and it releases a deleted pod only after CNI DEL succeeded. Its connection to the API server does not use
the node's links (see `rest`), so the kubelet of a node without network still works.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from harness.embedded.rest import Client, Object, Refusal
from harness.embedded.runtime import Runtime
from harness.embedded.sandbox import Sandbox
from harness.libcni import Attachment, CniFailure
from harness.waiting import retry, until_nothing

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0  # between attempts at a sandbox
_MIRROR, _HASH, _SOURCE = (f"kubernetes.io/config.{what}" for what in ("mirror", "hash", "source"))
_PATIENCE = 10.0  # seconds of retries if the API server does not answer
_REBOOTED = 60.0  # seconds that pods may take to be up again
_RESYNC = 2.0  # seconds between full lists, for events that a watch may have missed


class Kubelet:
    def __init__(self, node: str, address: str, client: Client, runtime: Runtime) -> None:
        self.node, self.address, self.client, self.runtime = node, address, client, runtime
        self._pods: dict[str, PodLife] = {}
        self._static: dict[str, PodLife] = {}  # by file
        self._past: set[str] = set()  # UIDs of ended pods: an old list or event must not start them again
        self._lock = threading.Lock()
        self.problems: list[str] = []

    def run(self) -> None:
        """Watch, for ever, in threads."""
        for work in (self._watch, self._look_again):
            threading.Thread(target=work, daemon=True).start()

    def pod(self, namespace: str, name: str) -> PodLife:
        """The pod of that name; a wanted pod has precedence over one that is ending.

        Raises KeyError: there is none on this node.
        """
        with self._lock:
            found = [life for life in self._pods.values() if (life.namespace, life.name) == (namespace, name)]
        if not found:
            raise KeyError(f"no pod {namespace}/{name} on node {self.node}")
        return min(found, key=lambda life: life.leaving.is_set())

    def lives(self) -> list[PodLife]:
        """All pods of this kubelet, including ending ones."""
        with self._lock:
            return list(self._pods.values())

    def reboot(self, lose: Callable[[], None]) -> None:
        """The node goes down and comes up: namespaces are gone without a DEL, then `lose` takes what else goes.

        Raises RuntimeError: a pod did not come up again.
        """
        lives = self.lives()
        with ExitStack() as quiet:
            for life in lives:
                quiet.enter_context(life.down())
            lose()
        threads = [threading.Thread(target=life.come_up, daemon=True) for life in lives]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_REBOOTED)
        if down := [life.name for life in lives if not life.running and not life.leaving.is_set()]:
            raise RuntimeError(f"not up again after the reboot of {self.node}: {', '.join(down)}")

    def static(self, file: str, manifest: Object | None) -> None:
        """Handle a new file with this pod in the manifest directory, or a removed file.

        A static pod's UID is a hash of the file's contents. The API server gets a mirror pod, with another UID.

        Raises Refusal: the API server rejects the mirror pod.
        """
        if manifest is None:
            if life := self._static.pop(file, None):
                life.leave()
            return
        uid = hashlib.md5(f"{self.node}/{file}/{json.dumps(manifest)}".encode(), usedforsecurity=False).hexdigest()
        meta = manifest["metadata"]
        notes = {**(meta.get("annotations") or {}), _HASH: uid, _SOURCE: "file"}
        named = {**meta, "name": f"{meta['name']}-{self.node}", "annotations": notes}
        pod = {**manifest, "metadata": named, "spec": {**manifest["spec"], "nodeName": self.node}}
        mirror = {**pod, "metadata": {**named, "annotations": {**notes, _MIRROR: uid}}}
        self.client.post(f"/api/v1/namespaces/{meta['namespace']}/pods", mirror)
        life = self._static[file] = PodLife(self, {**pod, "metadata": {**named, "uid": uid}}, self._forget)
        with self._lock:
            self._pods[uid] = life
        life.start()

    def _watch(self) -> None:
        def see(event: Object) -> None:
            self._see(event["object"], gone=event["type"] == "DELETED")

        self.client.follow("/api/v1/pods", see, self.problems, fieldSelector=f"spec.nodeName={self.node}")

    def _look_again(self) -> None:
        while True:
            time.sleep(_RESYNC)
            known = {life.uid for life in self.lives() if not life.static}
            with suppress(OSError, Refusal):
                there = self.client.get("/api/v1/pods", fieldSelector=f"spec.nodeName={self.node}")["items"]
                for pod in there:
                    self._see(pod, gone=False)
                self._miss(known - {pod["metadata"]["uid"] for pod in there})

    def _see(self, pod: Object, *, gone: bool) -> None:
        meta = pod.get("metadata") or {}
        if (pod.get("spec") or {}).get("nodeName") != self.node or pod.get("kind") == "Status":
            return
        if _MIRROR in (meta.get("annotations") or {}):
            return
        with self._lock:
            life = self._pods.get(meta["uid"])
            if life is None and not gone and meta["uid"] not in self._past:
                life = self._pods[meta["uid"]] = PodLife(self, pod, self._forget)
                life.start()
        if life and not gone:
            life.changed(pod)
        if life and (gone or meta.get("deletionTimestamp")):
            life.leave()

    def _miss(self, uids: set[str]) -> None:
        for life in self.lives():
            if life.uid in uids:
                life.leave()

    def _forget(self, life: PodLife) -> None:
        with self._lock:
            self._pods.pop(life.uid, None)
            self._past.add(life.uid)


class PodLife:
    """One pod on this node, from its first event until everything of it is gone."""

    def __init__(self, kubelet: Kubelet, pod: Object, done: Callable[[PodLife], None]) -> None:
        meta = pod["metadata"]
        self.namespace, self.name, self.uid = str(meta["namespace"]), str(meta["name"]), str(meta["uid"])
        self.static = _HASH in (meta.get("annotations") or {})
        self.leaving = threading.Event()
        self.sandboxes: list[Sandbox] = []  # the last one is current; earlier ones could not be ended yet
        self.running = False
        self._kubelet, self._pod, self._done = kubelet, pod, done
        self._busy = threading.RLock()  # held while a plugin runs for this pod

    @property
    def sandbox(self) -> Sandbox | None:
        """The running sandbox, or None."""
        return self.sandboxes[-1] if self.running and self.sandboxes else None

    def start(self) -> None:
        threading.Thread(target=self._live, daemon=True).start()

    def changed(self, pod: Object) -> None:
        """Update the pod's object: its next sandbox gets these annotations."""
        self._pod = pod

    def leave(self) -> None:
        """Make the pod end."""
        self.leaving.set()

    def _live(self) -> None:
        pause = _FIRST_PAUSE
        while not self.leaving.is_set() and not self._started():
            self.leaving.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        self.leaving.wait()
        self._end()
        self._done(self)

    def end_sandbox(self) -> None:
        """End the sandbox now, as an administrator does with the runtime; the pod's object stays.

        Raises CniFailure: DEL failed.
        Raises KeyError: there is no sandbox.
        """
        with self._busy:
            if not self.sandboxes:
                raise KeyError(f"pod {self.namespace}/{self.name} has no sandbox")
            self.running = False
            for sandbox in self.sandboxes:
                self._kubelet.runtime.delete(self._attachment(sandbox))
                sandbox.close()

    def check(self) -> str:
        """CNI CHECK of the sandbox; returns the error's message, empty if it passes."""
        with self._busy:
            if (sandbox := self.sandbox) is None:
                raise KeyError(f"pod {self.namespace}/{self.name} has no sandbox")
            try:
                self._kubelet.runtime.check(self._attachment(sandbox))
            except CniFailure as error:
                return str(error)
        return ""

    def lose_sandbox(self) -> None:
        """Make one more sandbox; its namespace ends without a DEL, and the runtime forgets it.

        Raises CniFailure: ADD failed.
        """
        with self._busy:
            sandbox = Sandbox()
            attachment = self._attachment(sandbox)
            try:
                self._kubelet.runtime.add(attachment)
            finally:
                self._kubelet.runtime.forget(attachment)
                sandbox.close()

    @contextmanager
    def down(self) -> Iterator[None]:
        """Its namespaces are gone, nobody has called DEL, and no plugin works on it meanwhile."""
        with self._busy:
            self.running = False
            for sandbox in self.sandboxes:
                sandbox.close()
            yield

    def come_up(self) -> None:
        """After a reboot: DEL of the old sandboxes, then a new one, as often as it takes."""
        pause = _FIRST_PAUSE
        while not self.leaving.is_set() and not (self._ended() and self._started()):
            self.leaving.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _started(self) -> bool:
        with self._busy:
            sandbox = Sandbox()
            self.sandboxes.append(sandbox)
            try:
                result = self._kubelet.runtime.add(self._attachment(sandbox))
                sandbox.serve(_probe_name(self._pod))
            except CniFailure as error:
                self._undo(sandbox, error)
                return False
            except OSError as error:
                self._undo(sandbox, CniFailure("probe", "serve", 0, str(error)))
                return False
            self.running = True
        self._report_running(result)
        return True

    def _undo(self, sandbox: Sandbox, error: CniFailure) -> None:
        """Handle a sandbox that failed, as containerd does, and the error, as the kubelet does."""
        with suppress(CniFailure):
            self._kubelet.runtime.delete(self._attachment(sandbox))
            self.sandboxes.remove(sandbox)
            sandbox.close()
        self._event(
            "FailedCreatePodSandBox",
            "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox"
            f' "{sandbox.id}": {error}',
        )

    def _end(self) -> None:
        self.running = False
        until_nothing(lambda: not self._ended(), math.inf, longest=_LONGEST_PAUSE / 2)
        body: Object = {"gracePeriodSeconds": 0}
        if not self.static:  # the mirror pod has another UID
            body = {**body, "preconditions": {"uid": self.uid}}
        with suppress(Refusal, OSError):
            retry(lambda: self._kubelet.client.delete(self._path(), body), _PATIENCE, _may_pass)

    def _ended(self) -> bool:
        with self._busy:
            for sandbox in list(self.sandboxes):
                try:
                    self._kubelet.runtime.delete(self._attachment(sandbox))
                except CniFailure as error:
                    self._event(
                        "FailedKillPod",
                        'error killing pod: failed to "KillPodSandbox" with KillPodSandboxError: "rpc error: code ='
                        f' Unknown desc = failed to destroy network for sandbox \\"{sandbox.id}\\": {error}"',
                    )
                    return False
                sandbox.close()
                self.sandboxes.remove(sandbox)
        return True

    def _attachment(self, sandbox: Sandbox) -> Attachment:
        return Attachment(
            namespace=self.namespace, pod=self.name, uid=self.uid, sandbox=sandbox.id, netns=sandbox.netns,
            capabilities=capabilities(self._pod),
        )  # fmt: skip

    def _path(self, below: str = "") -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}{below}"

    def _report_running(self, result: Object) -> None:
        now = _now()
        addresses = [ip["address"].partition("/")[0] for ip in result.get("ips") or [] if "address" in ip]
        status = {
            "phase": "Running",
            "hostIP": self._kubelet.address,
            "hostIPs": [{"ip": self._kubelet.address}],
            "podIP": addresses[0] if addresses else "",
            "podIPs": [{"ip": address} for address in _one_a_family(addresses)],
            "startTime": now,
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": now}
                for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
            "containerStatuses": [
                _container(container, now) for container in self._pod["spec"].get("containers") or []
            ],
        }
        with suppress(Refusal, OSError):  # refused: the pod is gone, or another pod has its name
            patch = {"status": status}
            retry(lambda: self._kubelet.client.patch(self._path("/status"), patch), _PATIENCE, _is_cut_off)

    def _event(self, reason: str, message: str) -> None:
        now = _now()
        event = {
            "apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": reason, "message": message,
            "metadata": {"name": f"{self.name}.{secrets.token_hex(8)}", "namespace": self.namespace},
            "involvedObject": {
                "apiVersion": "v1", "kind": "Pod", "namespace": self.namespace, "name": self.name, "uid": self.uid,
            },
            "source": {"component": "kubelet", "host": self._kubelet.node},
            "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        }  # fmt: skip
        with suppress(Refusal, OSError):
            self._kubelet.client.post(f"/api/v1/namespaces/{self.namespace}/events", event)


def capabilities(pod: Mapping[str, Any]) -> dict[str, Any]:
    """The capability arguments that kubelet and containerd pass: always the pod's annotations and cgroup; host ports,
    bandwidth and DNS if it has any.
    """
    notes = pod["metadata"].get("annotations") or {}
    offered: dict[str, Any] = {
        "io.kubernetes.cri.pod-annotations": {**notes, _SOURCE: "file" if _HASH in notes else "api"},
        "cgroupPath": f"/kubepods/besteffort/pod{pod['metadata']['uid']}",
    }
    if ports := [
        _port(port)
        for box in pod["spec"].get("containers") or []
        for port in box.get("ports") or []
        if port.get("hostPort")
    ]:
        offered["portMappings"] = ports
    rates = {
        f"{way}Rate": _quantity(notes[f"kubernetes.io/{way}-bandwidth"])
        for way in ("ingress", "egress")
        if f"kubernetes.io/{way}-bandwidth" in notes
    }
    if rates:
        # No burst is given, so use the largest possible value, as go-cni does.
        offered["bandwidth"] = {**rates, **{name.replace("Rate", "Burst"): 2**31 - 1 for name in rates}}
    if dns := pod["spec"].get("dnsConfig"):
        offered["dns"] = {"servers": dns.get("nameservers") or [], "searches": dns.get("searches") or []}
    return offered


def _port(port: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "hostPort": port["hostPort"],
        "containerPort": port["containerPort"],
        "protocol": str(port.get("protocol", "TCP")).lower(),
        "hostIP": port.get("hostIP", ""),
    }


_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def _quantity(text: str) -> int:
    """A number in Kubernetes' notation, such as "10M"; 0 (no limit) if it is invalid."""
    number = text.rstrip("KMGTki")
    try:
        return int(float(number) * _UNITS[text[len(number) :]])
    except (ValueError, KeyError):
        return 0


def _probe_name(pod: Mapping[str, Any]) -> str:
    """The name with which the probe answers: the last word of its command, else the pod's name."""
    return str((pod["spec"]["containers"][0].get("command") or [pod["metadata"]["name"]])[-1])


def _one_a_family(addresses: list[str]) -> list[str]:
    """The kubelet's podIPs: the first address, and the first of the other family."""
    first = {":" in address: address for address in reversed(addresses)}
    return list(dict.fromkeys([*addresses[:1], *first.values()]))


def _container(container: Mapping[str, Any], now: str) -> dict[str, Any]:
    return {
        "name": container["name"], "image": container.get("image", ""), "imageID": container.get("image", ""),
        "ready": True, "started": True, "restartCount": 0, "state": {"running": {"startedAt": now}},
    }  # fmt: skip


def _is_cut_off(error: Exception) -> bool:
    return isinstance(error, OSError)


def _may_pass(error: Exception) -> bool:
    """Whether a failed deletion may succeed later: this pod (not only its name) still exists."""
    return isinstance(error, OSError) or (isinstance(error, Refusal) and error.status not in (404, 409))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
