"""`genie admission`: a webhook that refuses what needs other objects to be seen, when it is applied.

The API server asks it about pods, their templates and network objects (genie/deploy/webhook). It decides by preview.py,
as `genie explain -f` does, and fails open: if it cannot read an object now, it accepts, with a warning.

Plain http.server in threads: a review takes milliseconds, and there are few. The certificate is another's (cert-manager
in the manifest), or its own (certificate.py); when its file changes, new connections get the new one.
"""

from __future__ import annotations

import argparse
import json
import os
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from genie import config, kube
from genie import log as logs
from genie.agent.sieve import logical_networks, pages
from genie.certificate import UNSEEN, SelfSigned
from genie.cni.errors import CniError, Code
from genie.cni.execute import run_sync
from genie.cni.fields import decode, invalid
from genie.config import Conf
from genie.kube import OWNERS, Default, DirectKube, Pod
from genie.select.annotations import LOGICAL, asks
from genie.select.preview import LOGICAL_KINDS, Given, Subject, Unseen, of_same_physical, preview
from genie.verbs.network_status import NETWORK_STATUS

BODY_MAX = 8 << 20
"""The limit for a review, in bytes: it has an object twice, and etcd's default limit is 1.5 MiB each."""
TIMEOUT = 10.0
AT_ONCE = 32
"""Reviews at the same time; further ones wait, and the API server's time limit ends them."""
SHOWN = 3
"""Users of a deleted definition that a warning names."""
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_USERS = {"metadata": {"namespace": True, "name": True, "annotations": {NETWORK_STATUS: True, LOGICAL: True}}}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """refusal: why an object is refused; "" if it is accepted. warnings: for the person who applies it."""

    refusal: str = ""
    warnings: tuple[str, ...] = field(default=())


def answered(review: Any, conf: Conf) -> dict[str, Any]:
    """The AdmissionReview with the answer.

    Raises CniError: 7; it is no review.
    """
    request = review.get("request") if isinstance(review, dict) else None
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str):
        raise invalid("AdmissionReview", "expected a request with a uid")
    try:
        found = judge(request, conf)
    except CniError as error:
        found = Verdict(warnings=(f"genie could not check this: {error.msg}",))
    response: dict[str, Any] = {"uid": request["uid"], "allowed": not found.refusal}
    if found.refusal:
        response["status"] = {"code": 422, "reason": "Invalid", "message": f"genie: {found.refusal}"}
    if found.warnings:
        response["warnings"] = list(found.warnings)
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def judge(request: Mapping[str, Any], conf: Conf) -> Verdict:
    """Decide about the object of a request.

    Raises CniError: it cannot be decided now, or the request is malformed.
    """
    namespace, old = str(request.get("namespace") or "default"), request.get("oldObject")
    if request.get("operation") == "DELETE":
        return _deleted(Subject.of(old, namespace), conf)
    subject, new = Subject.of(request.get("object"), namespace), request["object"]
    if isinstance(old, dict) and _relevant(old) == _relevant(new):
        return Verdict()  # somebody else's change of an object that is there already
    is_logical = subject.known in LOGICAL_KINDS
    listed = _listed(conf) if is_logical else []
    given = Given(conf, [*listed, new], offline=is_logical)
    try:
        run_sync(preview(subject, conf, given, Unseen(), others=[*listed, new]))
    except CniError as error:
        if error.code == Code.TRY_AGAIN or (isinstance(error, kube.RefusedError)):
            raise
        return _refused(subject, error, conf, Default.of(subject.known, subject.name, new))
    return Verdict()


def _refused(subject: Subject, error: CniError, conf: Conf, default: Default | None) -> Verdict:
    """A template, or a namespace, may come before the network that its pods need: if its annotations can be read, this
    is a warning.
    """
    if subject.kind == "Pod" or (subject.pod is None and subject.known not in OWNERS):
        return Verdict(refusal=error.msg)
    try:
        asks(subject.pod or Pod(namespace="", name=""), conf, default)
    except CniError:
        return Verdict(refusal=error.msg)
    return Verdict(warnings=(f"genie: {error.msg}: until that changes, its pods do not start",))


def _relevant(data: Mapping[str, Any]) -> Any:
    return data.get("spec"), (data.get("metadata") or {}).get("annotations")


# --- deletions ----------------------------------------------------------------------------------------------------


def _deleted(subject: Subject, conf: Conf) -> Verdict:
    """Warn if pods, or logical networks, still need an object that is deleted."""
    kind, name = subject.known, f"{subject.namespace}/{subject.name}"
    if kind == "PhysicalNetwork":
        users = [f"{one.namespace}/{one.name}" for one in of_same_physical(subject, _listed(conf))]
    else:
        users = list(_users(conf, subject.name if kind == "LogicalNetwork" else name, subject.namespace, kind))
    if not users:
        return Verdict()
    shown = ", ".join(users[:SHOWN]) + (", …" if len(users) > SHOWN else "")
    what = "Logicalnetworks" if kind == "PhysicalNetwork" else "pods"
    return Verdict(warnings=(f"genie: {name} is still used by {what} {shown}: a new sandbox of theirs will fail",))


def _listed(conf: Conf) -> list[dict[str, Any]]:
    with closing(DirectKube(conf).client) as client:
        return logical_networks(client)


def _users(conf: Conf, label: str, namespace: str, kind: str) -> Iterator[str]:
    """The pods whose status has a network; not more than a warning shows, and one."""
    count = 0
    within = f"/namespaces/{namespace}" if kind == "LogicalNetwork" else ""
    with closing(DirectKube(conf).client) as client:
        listed = pages(client, f"/api/v1{within}/pods", _USERS, accept=_METADATA, within=TIMEOUT)
        for item in (item for items, _ in listed for item in items):
            meta = item.get("metadata") or {}
            notes = meta.get("annotations") or {}
            if kind == "LogicalNetwork" and not notes.get(LOGICAL):
                continue
            if label in _names(notes.get(NETWORK_STATUS)):
                count += 1
                yield f"{meta.get('namespace')}/{meta.get('name')}"
                if count > SHOWN:
                    return


def _names(status: Any) -> list[str]:
    try:
        return [entry["name"] for entry in json.loads(status)]
    except (ValueError, TypeError, LookupError, RecursionError):
        return []


# --- the server ---------------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """HTTPS with the certificate in two files. conf: genie.conf's path; "" for the defaults."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], *, cert: str, key: str, conf: str = "") -> None:
        self._files, self._conf, self._loaded = (cert, key), conf, 0.0
        self._tls = self._load()
        self.turn = threading.BoundedSemaphore(AT_ONCE)
        super().__init__(address, _Handler)

    def _renew(self) -> None:
        """Load the certificate again if somebody renewed it; while its files are being replaced, the old one serves."""
        with suppress(OSError):  # ssl.SSLError, too
            if (changed := max(os.stat(path).st_mtime for path in self._files)) != self._loaded:
                self._tls, self._loaded = self._load(), changed

    def _load(self) -> ssl.SSLContext:
        """A context of its own: a certificate without its key would make one in use unusable."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._files)
        return context

    def get_request(self) -> tuple[Any, Any]:
        sock, address = super().get_request()
        sock.settimeout(TIMEOUT)
        self._renew()
        return self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

    def conf(self) -> Conf:
        return _conf(self._conf)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that breaks off, or speaks no TLS, is not an error of the server's."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = TIMEOUT

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/healthz" else 404, {})

    def do_POST(self) -> None:
        try:
            length = int(self.headers.get("Content-Length") or -1)
            if not 0 <= length <= BODY_MAX:
                self._answer(413, {})
                return
            review = decode(self.rfile.read(length), "AdmissionReview")
            with self.server.turn:
                self._answer(200, answered(review, self.server.conf()))
        except (CniError, ValueError) as error:
            self._answer(400, {"message": str(error)})

    def _answer(self, status: int, data: Mapping[str, Any]) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main(argv: list[str]) -> int:
    """Serve until SIGTERM ends the process."""
    parser = argparse.ArgumentParser(prog="genie admission", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--listen", metavar="HOST:PORT", default="0.0.0.0:8443", help="default: %(default)s")
    parser.add_argument("--cert", metavar="PATH", help="the certificate, PEM")
    parser.add_argument("--key", metavar="PATH", help="its key, PEM")
    parser.add_argument(
        "--self-signed",
        metavar="NAMESPACE/SERVICE",
        help="instead: make a certificate for this service, keep it in the Secret SERVICE-self-signed, and renew it",
    )
    parser.add_argument("--conf", metavar="PATH", default="", help="genie.conf, for its limits and defaults")
    arguments = parser.parse_args(argv)
    if bool(arguments.self_signed) == bool(arguments.cert and arguments.key):
        parser.error("expected --cert with --key, or --self-signed")
    logs.setup("info")
    host, _, port = arguments.listen.rpartition(":")
    cert, key = arguments.cert, arguments.key
    if arguments.self_signed:
        cert = key = _self_signed(arguments.self_signed, arguments.conf)
    Server((host, int(port)), cert=cert, key=key, conf=arguments.conf).serve_forever()
    return 0


def _self_signed(service: str, conf: str) -> str:
    """The file of the webhook's own certificate, once it has one; a thread keeps it."""
    kept = SelfSigned(DirectKube(_conf(conf)).client, service, f"{tempfile.mkdtemp(prefix='genie-')}/tls.pem")
    while not kept.attempt():
        time.sleep(UNSEEN)
    threading.Thread(target=kept.keep, daemon=True).start()
    return kept.path


def _conf(path: str) -> Conf:
    return config.load(path) if path else config.defaults()
