"""Parts of an API server's start."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.embedded import apiserver


def test_the_key_is_one_that_openssl_takes(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(apiserver._ec_key())
    try:
        subprocess.run(["openssl", "ec", "-in", key, "-noout"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl here")
