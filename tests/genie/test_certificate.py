"""The webhook's own certificate, as far as it needs no API server (that is in test_admission_webhook.py)."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from genie.certificate import DAYS, SETTLED, Held, SelfSigned, made, seconds_left
from genie.cni.errors import CniError
from genie.kube import ApiServer, Client
from tests.rigs.api import Api

NAME = "genie-admission.kube-system.svc"


@pytest.fixture(scope="module")
def held() -> Held:
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl for a certificate")
    cert, key = made(NAME)
    return Held(cert=cert, key=key)


def test_a_certificate_has_a_life(held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tls.pem"
    assert DAYS * 86400 - 300 < seconds_left(held, NAME, str(path)) <= DAYS * 86400
    assert path.stat().st_mode & 0o777 == 0o600
    later = time.time() + DAYS * 86400
    monkeypatch.setattr("genie.certificate.time.time", lambda: later)
    assert seconds_left(held, NAME, str(path)) <= 0


@pytest.mark.parametrize("wrong", ["empty", "junk", "cut", "key", "two", "name"])
def test_what_cannot_be_served_has_none(held: Held, tmp_path: Path, wrong: str) -> None:
    other = made(NAME)
    one = {
        "empty": replace(held, cert=b"", key=b""),
        "junk": replace(held, cert=b"\xff junk"),
        "cut": replace(held, cert=held.cert[:200]),
        "key": replace(held, key=other[1]),
        "two": replace(held, cert=held.cert + other[0]),
    }.get(wrong, held)
    assert seconds_left(one, "other.svc" if wrong == "name" else NAME, str(tmp_path / "tls.pem")) <= 0


def test_a_certificate_from_a_clock_that_was_fast_is_replaced(
    held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """API servers would not trust it before its begin. Clocks may differ a little."""
    real = time.time
    for behind, usable in ((60, True), (2 * SETTLED, False), (86400, False)):
        monkeypatch.setattr("genie.certificate.time.time", lambda behind=behind: real() - behind)
        assert (seconds_left(held, NAME, str(tmp_path / "tls.pem")) > 0) == usable


HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/genie-admission"
SECRET = "/api/v1/namespaces/kube-system/secrets/genie-admission-self-signed"


@pytest.fixture
def hooked(api: Api, held: Held) -> Api:
    """An API server with a good certificate, and a configuration without webhooks, as somebody switched them off."""
    api.answers = {SECRET: (200, {"metadata": {}, "data": held.data()}), HOOKS: (200, {"metadata": {}})}
    return api


def kept(api: Api, path: Path) -> SelfSigned:
    return SelfSigned(Client(ApiServer(url=api.url), timeout=5), "kube-system/genie-admission", str(path), (0, 0))


def test_a_configuration_without_webhooks_has_nothing_to_trust(hooked: Api, held: Held, tmp_path: Path) -> None:
    assert kept(hooked, tmp_path / "tls.pem").attempt()
    assert (tmp_path / "tls.pem").read_bytes() == held.cert + held.key


def test_a_full_disk_replaces_nobodys_certificate(hooked: Api, tmp_path: Path) -> None:
    assert not kept(hooked, tmp_path / "gone" / "tls.pem").attempt()
    assert [method for method, *_ in hooked.requests] == ["GET"]


@pytest.mark.parametrize("secret", [{}, {"data": None}, {"data": {"tls.crt": "%", "tls.key": 5}}])
def test_an_empty_or_damaged_secret_has_nothing(secret: dict[str, object]) -> None:
    assert Held.of(secret) == Held(cert=b"", key=b"")


def test_a_secret_has_what_was_put_into_it(held: Held) -> None:
    assert Held.of({"data": held.data()}) == held


def test_without_openssl_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CniError, match="openssl cannot make a certificate: .*No such file"):
        made(NAME)
