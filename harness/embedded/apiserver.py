"""The API server of a run: a real kube-apiserver with its etcd where both are there, else kmock's emulator.

Both listen on the underlay, where nodes reach them, and write nothing outside the run's own directory. The real one
checks tokens and rights: the harness is an administrator, genie may do what its role on a real cluster lets it, and
no more.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.embedded.plan import NodePlan
from harness.embedded.rest import Access, Client, Refusal

T = TypeVar("T")
PORT = 6443
_ETCD = "http://127.0.0.1:2379"
GENIE = "system:serviceaccount:kube-system:genie"
KUBERNETES_RULES: list[dict[str, list[str]]] = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "patch"]},
    {
        "apiGroups": ["k8s.cni.cncf.io"],
        "resources": ["network-attachment-definitions"],
        "verbs": ["get", "list", "watch"],
    },
    {
        "apiGroups": ["alpha.network.k8s.io"],
        "resources": ["logicalnetworks", "physicalnetworks"],
        "verbs": ["get", "list", "watch"],
    },
]


class NotReady(Exception):
    """The API server did not come up; the message has the end of its log."""


@dataclass(frozen=True, kw_only=True)
class Binaries:
    """Which API server to run."""

    kube_apiserver: str = ""  # empty: the emulator
    etcd: str = ""
    version: str = ""  # for reports

    @property
    def real(self) -> bool:
        return bool(self.kube_apiserver)


@dataclass(frozen=True, kw_only=True)
class Running:
    """An API server that has been started."""

    admin: Access
    genie: Access
    processes: tuple[subprocess.Popen[bytes], ...]
    logs: tuple[Path, ...]


def start(binaries: Binaries, address: str, place: Path) -> Running:
    """Start an API server, to be reached at an address that this network namespace may get later.

    It is not ready when this returns: see `wait`.
    """
    place.mkdir(parents=True)
    return _start_real(binaries, address, place) if binaries.real else _start_emulator(address, place)


def introduce(running: Running, nodes: Sequence[NodePlan], timeout: float = 60.0) -> None:
    """Have it know the nodes before it answers anybody: daemons of networks look for theirs first of all, and one that
    does not find it looks again after seconds. The real one gets them by way of its etcd, which is there much sooner.

    Raises:
        NotReady: it ended, or does not take them in time.
    """
    real = running.admin.server.startswith("https:")
    client = Client(Access(server=_ETCD) if real else running.admin, timeout=2.0)
    for node in nodes:
        entry = {"key": _base64(f"/registry/minions/{node.name}"), "value": _base64(json.dumps(_node(node)))}
        path, body = ("/v3/kv/put", entry) if real else ("/api/v1/nodes", _node(node))
        _until(functools.partial(client.post, path, body), running, timeout)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def reach(running: Running, timeout: float = 60.0, see: Callable[[], None] = lambda: None) -> Running:
    """Wait until it can be connected to; returns it with the certificate that it made for itself. The real one then
    lets whoever connects wait until it can answer. `see` may raise NotReady meanwhile.

    Raises:
        NotReady: it ended, or could not be connected to in time.
    """
    certificate = running.logs[0].parent / "certificates" / "apiserver.crt"

    def connected() -> Running:
        now = _certified(running, certificate)
        socket.create_connection(("127.0.0.1", PORT), timeout=2.0).close()
        return now

    return _until(connected, running, timeout, see)


def wait(running: Running, timeout: float = 60.0, see: Callable[[], None] = lambda: None) -> None:
    """Wait until it answers. `see` may raise NotReady meanwhile.

    Raises:
        NotReady: it ended, or did not answer in time.
    """
    _until(lambda: Client(running.admin, timeout=2.0).get("/api/v1/namespaces"), running, timeout, see)


def _until(attempt: Callable[[], T], running: Running, timeout: float, see: Callable[[], None] = lambda: None) -> T:
    until = time.monotonic() + timeout
    while True:
        see()
        for process, log in zip(running.processes, running.logs, strict=True):
            if process.poll() is not None:
                raise NotReady(f"{log.stem} ended with status {process.returncode}: {_tail(log)}")
        with suppress(OSError, Refusal, ValueError):  # not there yet
            return attempt()
        if time.monotonic() > until:
            raise NotReady(f"the API server did not answer within {timeout:.0f} s: {_tail(running.logs[-1])}")
        time.sleep(0.03)


def _certified(running: Running, certificate: Path) -> Running:
    """With the CA; the emulator speaks plain HTTP."""
    if running.admin.server.startswith("http:"):
        return running
    ca = certificate.read_text()
    if "END CERTIFICATE" not in ca:
        raise ValueError("its certificate is not complete")
    return Running(
        admin=Access(server=running.admin.server, token=running.admin.token, ca=ca),
        genie=Access(server=running.genie.server, token=running.genie.token, ca=ca),
        processes=running.processes,
        logs=running.logs,
    )


def _start_real(binaries: Binaries, address: str, place: Path) -> Running:
    admin, genie = secrets.token_hex(16), secrets.token_hex(16)
    # A token file's lines: token, user, uid, groups.
    (place / "tokens").write_text(f'{admin},harness,1,"system:masters"\n{genie},{GENIE},2,"system:serviceaccounts"\n')
    (place / "accounts.key").write_text(_ec_key())
    etcd_log, log = place / "etcd.log", place / "kube-apiserver.log"
    processes = (
        _spawn(_etcd(binaries.etcd, place), etcd_log),
        _spawn(_kube_apiserver(binaries.kube_apiserver, address, place), log, GOGC="200"),
    )
    server = f"https://{address}:{PORT}"
    return Running(
        admin=Access(server=server, token=admin),
        genie=Access(server=server, token=genie),
        processes=processes,
        logs=(etcd_log, log),
    )


def _etcd(binary: str, place: Path) -> list[str]:
    return [
        binary, f"--data-dir={place / 'etcd'}", "--unsafe-no-fsync", "--log-level=error",
        f"--listen-client-urls={_ETCD}", f"--advertise-client-urls={_ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
    ]  # fmt: skip


def _kube_apiserver(binary: str, address: str, place: Path) -> list[str]:
    key = place / "accounts.key"
    return [
        binary, f"--etcd-servers={_ETCD}",
        "--bind-address=0.0.0.0", f"--advertise-address={address}", f"--secure-port={PORT}",
        f"--cert-dir={place / 'certificates'}", f"--token-auth-file={place / 'tokens'}", "--authorization-mode=RBAC",
        f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
        "--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/16",
        # No controller makes service accounts or endpoints here, and nothing must be fair to anybody.
        "--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none",
        "--enable-priority-and-fairness=false",
        # Half a second less to start: nobody here lists thousands of things.
        "--watch-cache=false", "--profiling=false",
    ]  # fmt: skip


def _start_emulator(address: str, place: Path) -> Running:
    log = place / "emulator.log"
    command = [sys.executable, "-m", "harness.embedded.emulator", str(PORT)]
    access = Access(server=f"http://{address}:{PORT}")
    return Running(admin=access, genie=access, processes=(_spawn(command, log, **module_path()),), logs=(log,))


def module_path() -> dict[str, str]:
    """The environment in which a new Python finds this package, wherever it is."""
    root = str(Path(__file__).resolve().parents[2])
    return {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))}


def _spawn(command: Sequence[str], log: Path, **env: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **env},
            start_new_session=True,
        )


def _tail(log: Path, lines: int = 5) -> str:
    return " | ".join(log.read_text(errors="replace").strip().splitlines()[-lines:]) or "it logged nothing"


def _ec_key() -> str:
    """A new private key on P-256, in SEC 1's PEM; without the public half, which readers compute."""
    version, p256 = b"\x02\x01\x01", b"\xa0\x0a\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
    number = (secrets.randbelow((1 << 255) - 1) + 1).to_bytes(32, "big")
    fields = version + b"\x04\x20" + number + p256
    body = base64.encodebytes(b"\x30" + bytes([len(fields)]) + fields).decode()
    return f"-----BEGIN EC PRIVATE KEY-----\n{body}-----END EC PRIVATE KEY-----\n"


def furnish(client: Client, definitions: Sequence[dict[str, Any]]) -> None:
    """What a cluster has beside its nodes before anybody uses it: genie's rights, kinds of network objects.

    Raises:
        Refusal: the API server does not take one of them.
        NotReady: it does not serve the new kinds.
    """
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    group = rbac.removeprefix("/apis/")
    role = {"apiVersion": group, "kind": "ClusterRole", "metadata": {"name": "genie"}, "rules": KUBERNETES_RULES}
    binding = {
        "apiVersion": group, "kind": "ClusterRoleBinding", "metadata": {"name": "genie"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "genie"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": GENIE}],
    }  # fmt: skip
    client.post(f"{rbac}/clusterroles", role)
    client.post(f"{rbac}/clusterrolebindings", binding)
    for definition in definitions:
        client.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    _make_default_namespace(client)
    for definition in definitions:
        spec = definition["spec"]
        path = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
        _until_served(lambda path=path: client.get(path), path)  # type: ignore[misc]


def _make_default_namespace(client: Client) -> None:
    with suppress(Refusal):  # kube-apiserver makes it itself, a moment later
        client.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})


def _node(node: NodePlan) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    labels = {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", "node-role.kubernetes.io/worker": ""}
    # Every kubelet writes this; flanneld (0.28) cannot do with a node that has no annotation at all.
    annotations = {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
    ready = {
        "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "the harness is its kubelet",
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    }  # fmt: skip
    addresses = [{"type": "InternalIP", "address": node.address}, {"type": "Hostname", "address": node.name}]
    return {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": node.name, "uid": str(uuid.uuid4()), "creationTimestamp": now,
            "labels": labels, "annotations": annotations,
        },
        "spec": {"podCIDR": node.pod_subnets[0], "podCIDRs": node.pod_subnets} if node.pod_subnets else {},
        "status": {"conditions": [ready], "addresses": addresses},
    }  # fmt: skip


def _until_served(ask: Callable[[], object], what: str, timeout: float = 20.0) -> None:
    until = time.monotonic() + timeout
    while True:
        try:
            ask()
            return
        except Refusal as error:
            if error.status not in (404, 429, 503) or time.monotonic() > until:
                raise NotReady(f"{what} is not served: {error}") from error
            time.sleep(0.02)


def found_in(place: str) -> Binaries | None:
    """kube-apiserver and etcd in a directory, or (empty) on PATH."""
    path = place or None
    kube, etcd = shutil.which("kube-apiserver", path=path), shutil.which("etcd", path=path)
    return Binaries(kube_apiserver=kube, etcd=etcd, version=_version(kube)) if kube and etcd else None


def _version(binary: str) -> str:
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout.split()
    return said[-1] if said else "of unknown version"


def as_json(binaries: Binaries) -> str:
    return json.dumps(vars(binaries))
