"""The webhook's own certificate, as far as it needs no API server (that is in test_admission_webhook.py)."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from genie.certificate import DAYS, Held, made, seconds_left
from genie.cni.errors import CniError

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


@pytest.mark.parametrize("secret", [{}, {"data": None}, {"data": {"tls.crt": "%", "tls.key": 5}}])
def test_an_empty_or_damaged_secret_has_nothing(secret: dict[str, object]) -> None:
    assert Held.of(secret) == Held(cert=b"", key=b"")


def test_a_secret_has_what_was_put_into_it(held: Held) -> None:
    assert Held.of({"data": held.data()}) == held


def test_without_openssl_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CniError, match="openssl cannot make a certificate: .*No such file"):
        made(NAME)
