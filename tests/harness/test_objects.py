"""Requests for Kubernetes objects, with the client's own connections."""

from __future__ import annotations

import socket

import pytest
from kubernetes.client import ApiClient, Configuration

from harness.objects import ApiError, Objects


def test_an_api_server_that_is_away_is_one_error_and_no_warnings(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"http://127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(ApiError, match=f"the API server at {host} cannot be reached: .*refused"):
        Objects(ApiClient(Configuration(host=host))).get("/api/v1/namespaces")
    assert not caplog.records
