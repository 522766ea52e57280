"""`genie admission --self-signed`: the webhook's certificate, made by the webhook itself.

The certificate and its key are in a Secret that all replicas share. Each replica looks at it every `EVERY` seconds:

1. A certificate that is missing, damaged or near its end is replaced. The Secret's resourceVersion decides between
   replicas; the other ones use the winner's.
2. The caBundle of the ValidatingWebhookConfiguration gets the certificate, and keeps those that were there.
3. After a pause, in which API servers see the new caBundle, the replica serves the new certificate.

So an API server trusts a certificate before anybody serves it, and the one before it as long as anybody still does. A
certificate is its own authority, so there is no other key to protect. `openssl` makes it: Debian's program, which is
in the image for its authorities.
"""

from __future__ import annotations

import base64
import re
import ssl
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genie.cni.errors import CniError, Code
from genie.cni.regular import put
from genie.kube import Client, good
from genie.log import Log

DAYS = 90
"""The life of a certificate."""
RENEWED = 30 * 86400.0
"""Seconds before its end, from which a certificate is replaced."""
EVERY = 60.0
"""Seconds between two looks at the Secret."""
UNSEEN = 5.0
"""Seconds for API servers to see a new caBundle, before a replica that serves nothing yet serves by it."""
SETTLED = 300.0
"""The same, for a replica that serves the certificate before it: longer, because clocks differ."""

TRUSTED = 4
"""Certificates in a caBundle at most."""

log = Log("genie.admission")
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Held:
    """The Secret's content, PEM."""

    cert: bytes
    key: bytes

    @classmethod
    def of(cls, secret: Mapping[str, Any]) -> Held:
        """What a Secret has; empty where it has nothing readable."""
        data = secret.get("data") or {}
        return cls(**{field: _decoded(data.get(key)) for field, key in _KEYS.items()})

    def data(self) -> dict[str, str]:
        return {key: base64.b64encode(getattr(self, field)).decode() for field, key in _KEYS.items()}


_KEYS = {"cert": "tls.crt", "key": "tls.key"}


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text or "", validate=True)
    except (ValueError, TypeError):
        return b""


def made(name: str) -> tuple[bytes, bytes]:
    """A new certificate for a DNS name, and its key.

    Raises CniError: 5; openssl is not here, or fails.
    """
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", str(DAYS), "-subj", "/CN=genie-admission", "-addext", f"subjectAltName=DNS:{name}"]
    try:
        done = subprocess.run([*command, "-keyout", "/dev/stdout"], capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or str(error).encode()
        shown = reason.decode(errors="replace").strip()
        raise CniError(Code.IO_FAILURE, f"openssl cannot make a certificate: {shown:.500}") from None
    key, begin, cert = done.stdout.partition(b"-----BEGIN CERTIFICATE-----")
    return begin + cert, key


def seconds_left(held: Held, name: str, path: str) -> float:
    """How long a certificate can be served for a name; 0 if it is not for the name, if the key is another's, or if it
    begins later than clocks differ: its maker's clock was wrong.

    path: a file that is written, because OpenSSL loads a key only from a file.

    Raises OSError: the disk does not take it, which says nothing about the certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    put(path, held.cert + held.key)
    try:
        context.load_cert_chain(path)
        context.load_verify_locations(cadata=held.cert.decode())
        (found,) = context.get_ca_certs()
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        return 0.0
    if ("DNS", name) not in found.get("subjectAltName", ()):
        return 0.0
    begin, end = (ssl.cert_time_to_seconds(str(found[key])) - time.time() for key in ("notBefore", "notAfter"))
    return end if begin <= SETTLED else 0.0


class SelfSigned:
    """Keeps the certificate of one service.

    client: the API server, with the webhook's account.
    service: NAMESPACE/NAME. The ValidatingWebhookConfiguration has the same name, the Secret NAME-self-signed.
    path: the file to serve from: certificate and key. Replaced as a whole.
    pauses: see `UNSEEN` and `SETTLED`.
    """

    def __init__(
        self, client: Client, service: str, path: str, pauses: tuple[float, float] = (UNSEEN, SETTLED)
    ) -> None:
        namespace, _, name = service.partition("/")
        self._client, self.path, self._pauses = client, path, pauses
        self.dns = f"{name}.{namespace}.svc"
        self._secret = f"/api/v1/namespaces/{namespace}/secrets/{name}-self-signed"
        self._hooks = f"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{name}"
        self.served = b""

    def turn(self, renewed: float = RENEWED) -> None:
        """Look once, and serve what is to be served; may take as long as a pause.

        renewed: see `RENEWED`.

        Raises CniError: the API server does not answer or refuses, or openssl fails.
        """
        held = self._held(renewed)
        self._trust(held)
        if held.cert != self.served:
            time.sleep(self._pauses[bool(self.served)])
            put(self.path, held.cert + held.key)
            self.served = held.cert
            log.info("serving a certificate", name=self.dns)

    def keep(self) -> None:
        """Look from time to time, for ever."""
        while True:
            time.sleep(EVERY)
            self.attempt()

    def attempt(self) -> bool:
        """A turn that logs its error; returns whether there was none."""
        try:
            self.turn()
        except (CniError, OSError) as error:
            log.error("the certificate could not be checked", error=str(error))
            return False
        return True

    def _held(self, renewed: float) -> Held:
        """The Secret's certificate, or a new one if it needs one."""
        while True:
            secret = good(*self._client.request("GET", self._secret), f"read {self._secret}")
            before = Held.of(secret)
            if seconds_left(before, self.dns, f"{self.path}.new") > renewed:
                return before
            cert, key = made(self.dns)
            held = Held(cert=cert, key=key)
            status, data = self._client.request("PUT", self._secret, {**secret, "data": held.data()})
            if status != 409:  # otherwise another replica was first
                good(status, data, f"write {self._secret}")
                return held

    def _trust(self, held: Held) -> None:
        """Have the API server trust a certificate, and the one that this replica serves.

        It goes on trusting the newest others, because other replicas may serve them.
        """
        hooks = good(*self._client.request("GET", self._hooks), f"read {self._hooks}").get("webhooks") or ()
        bundles = [_decoded(hook["clientConfig"].get("caBundle")) for hook in hooks]
        if all(held.cert in bundle and self.served in bundle for bundle in bundles):
            return
        trusted = dict.fromkeys(_CERTIFICATE.findall(b"\n".join([held.cert, self.served, *bundles])))
        bundle = base64.b64encode(b"".join(list(trusted)[:TRUSTED])).decode()
        patch = {"webhooks": [{"name": hook["name"], "clientConfig": {"caBundle": bundle}} for hook in hooks]}
        answer = self._client.request("PATCH", self._hooks, patch, "application/strategic-merge-patch+json")
        good(*answer, f"write {self._hooks}")
