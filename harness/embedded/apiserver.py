"""The API server of a run: a real kube-apiserver with etcd if both were found, else kmock's emulator.

Both listen on the underlay, where nodes reach them, and write only to the run's directory. The real one checks tokens
and rights: the harness is an administrator, genie has only the rights of its role on a real cluster.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from harness.embedded import linux
from harness.embedded.rest import Access, Client, Refusal
from harness.waiting import NotReady, limit, retry

T = TypeVar("T")
PORT = 6443
ETCD = "http://127.0.0.1:2379"
GENIE = "system:serviceaccount:kube-system:genie"


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
    """Start an API server on an address that this network namespace may get later.

    It is not ready when this function returns: see `wait`.
    """
    place.mkdir(parents=True)
    return _start_real(binaries, address, place) if binaries.real else _start_emulator(address, place)


def reach(running: Running, timeout: float = 60.0, see: Callable[[], None] = lambda: None) -> Running:
    """Wait until it accepts connections; returns it with the certificate that it made. The real one answers the first
    requests later. `see` may raise NotReady during the wait.

    Raises NotReady: it exited, or did not accept connections in time.
    """
    certificate = running.logs[0].parent / "certificates" / "apiserver.crt"

    def connected() -> Running:
        now = _certified(running, certificate)
        socket.create_connection(("127.0.0.1", PORT), timeout=2.0).close()
        return now

    return until(connected, running, timeout, see)


def wait(running: Running, timeout: float = 60.0, see: Callable[[], None] = lambda: None) -> None:
    """Wait until it answers. `see` may raise NotReady during the wait.

    Raises NotReady: it exited, or did not answer in time.
    """
    until(lambda: Client(running.admin, timeout=2.0).get("/api/v1/namespaces"), running, timeout, see)


def until(attempt: Callable[[], T], running: Running, timeout: float, see: Callable[[], None] = lambda: None) -> T:
    """Repeat a request until the API server accepts it. `see` may raise NotReady during the wait.

    Raises NotReady: one of its processes exited, or it did not accept the request in time.
    """

    def one_try() -> T:
        see()
        for process, log in zip(running.processes, running.logs, strict=True):
            if process.poll() is not None:
                raise NotReady(f"{log.stem} ended with status {process.returncode}: {linux.tail(log, 5)}")
        return attempt()

    early = (OSError, Refusal, ValueError)
    try:
        return retry(one_try, timeout, lambda error: isinstance(error, early), longest=0.03)
    except early as error:
        raise NotReady(
            f"the API server did not answer within {limit(timeout):.0f} s: {linux.tail(running.logs[-1], 5)}"
        ) from error


def _certified(running: Running, certificate: Path) -> Running:
    """With the CA; the emulator speaks plain HTTP."""
    if running.admin.server.startswith("http:"):
        return running
    ca = certificate.read_text()
    if "END CERTIFICATE" not in ca:
        raise ValueError("its certificate is not complete")
    return replace(running, admin=replace(running.admin, ca=ca), genie=replace(running.genie, ca=ca))


def _start_real(binaries: Binaries, address: str, place: Path) -> Running:
    admin, genie = secrets.token_hex(16), secrets.token_hex(16)
    # A token file's lines: token, user, uid, groups.
    (place / "tokens").write_text(f'{admin},harness,1,"system:masters"\n{genie},{GENIE},2,"system:serviceaccounts"\n')
    (place / "accounts.key").write_text(_ec_key())
    etcd_log, log = place / "etcd.log", place / "kube-apiserver.log"
    processes = (
        linux.spawn(_etcd(binaries.etcd, place), etcd_log, os.environ),
        linux.spawn(_kube_apiserver(binaries.kube_apiserver, address, place), log, {**os.environ, "GOGC": "200"}),
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
        f"--listen-client-urls={ETCD}", f"--advertise-client-urls={ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
    ]  # fmt: skip


def _kube_apiserver(binary: str, address: str, place: Path) -> list[str]:
    key = place / "accounts.key"
    return [
        binary, f"--etcd-servers={ETCD}",
        "--bind-address=0.0.0.0", f"--advertise-address={address}", f"--secure-port={PORT}",
        f"--cert-dir={place / 'certificates'}", f"--token-auth-file={place / 'tokens'}", "--authorization-mode=RBAC",
        f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
        "--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/16",
        # No controller makes service accounts or endpoints here, and requests need no fairness.
        "--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none",
        "--enable-priority-and-fairness=false",
        # Starts half a second faster: here nobody lists thousands of objects.
        "--watch-cache=false", "--profiling=false",
    ]  # fmt: skip


def _start_emulator(address: str, place: Path) -> Running:
    log = place / "emulator.log"
    process = python("harness.embedded.emulator", str(PORT), log=log)
    access = Access(server=f"http://{address}:{PORT}")
    return Running(admin=access, genie=access, processes=(process,), logs=(log,))


def python(module: str, argument: str, *, log: Path) -> subprocess.Popen[bytes]:
    """Start a module of this package as a process."""
    path = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    return linux.spawn([sys.executable, "-m", module, argument], log, environment)


def _ec_key() -> str:
    """A new private key on P-256, in SEC 1's PEM; without the public half, which readers compute."""
    version, p256 = b"\x02\x01\x01", b"\xa0\x0a\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
    number = (secrets.randbelow((1 << 255) - 1) + 1).to_bytes(32, "big")
    fields = version + b"\x04\x20" + number + p256
    body = base64.encodebytes(b"\x30" + bytes([len(fields)]) + fields).decode()
    return f"-----BEGIN EC PRIVATE KEY-----\n{body}-----END EC PRIVATE KEY-----\n"


def found_in(place: str) -> Binaries | None:
    """kube-apiserver and etcd in a directory, or (empty) on PATH."""
    path = place or None
    kube, etcd = shutil.which("kube-apiserver", path=path), shutil.which("etcd", path=path)
    return Binaries(kube_apiserver=kube, etcd=etcd, version=_version(kube)) if kube and etcd else None


def _version(binary: str) -> str:
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=limit(20), check=False)
    return (done.stdout.split() or ["of unknown version"])[-1]
