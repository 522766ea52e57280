"""The kubelet's PodResources API with a real gRPC server (grpcio), with messages written by hand."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.cni.errors import CniError
from genie.select import devices


def field(number: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _number(number << 3 | 2) + _number(len(data)) + data


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def pod(name: str, namespace: str, *resources: tuple[str, list[str]]) -> bytes:
    each = [field(2, field(1, kind) + b"".join(field(2, one) for one in ids)) for kind, ids in resources]
    container = field(1, "main") + b"".join(each) + b"\x18\x05"  # a varint field, which is skipped
    return field(1, field(1, name) + field(2, namespace) + field(3, container))


ANSWER = (
    pod("other", "blue", ("nic.example/fast", ["0000:00:01.0"]))
    + pod("mine", "blue", ("nic.example/fast", ["0000:03:02.1", "0000:03:02.0"]), ("gpu.example/x", ["g0"]))
    + pod("mine", "red", ("nic.example/fast", ["0000:09:09.9"]))
)


@pytest.fixture
def kubelet(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    answer = getattr(request, "param", ANSWER)

    def listed(_request: bytes, context: grpc.ServicerContext) -> bytes:
        if answer is None:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        return bytes(answer)

    server = grpc.server(ThreadPoolExecutor(2))
    method = grpc.unary_unary_rpc_method_handler(listed)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1.PodResourcesLister", {"List": method}),))
    path = tmp_path / "kubelet.sock"
    server.add_insecure_port(f"unix:{path}")
    server.start()
    yield str(path)
    server.stop(None).wait()


def test_the_devices_of_one_pod_are_found(kubelet: str) -> None:
    assert devices.of_pod("blue", "mine", kubelet) == {
        "nic.example/fast": ["0000:03:02.1", "0000:03:02.0"],
        "gpu.example/x": ["g0"],
    }


def test_a_pod_without_devices_has_none(kubelet: str) -> None:
    assert devices.of_pod("blue", "nobody", kubelet) == {}


@pytest.mark.parametrize(
    "kubelet",
    [b"".join(pod(f"p{i}", "blue", ("nic.example/fast", ["x" * 2000])) for i in range(500)) + ANSWER],
    indirect=True,
)
def test_an_answer_of_a_megabyte(kubelet: str) -> None:
    assert "gpu.example/x" in devices.of_pod("blue", "mine", kubelet)


@pytest.mark.parametrize("kubelet", [None], indirect=True)
def test_an_error_is_one_that_can_be_tried_again(kubelet: str) -> None:
    with pytest.raises(CniError, match="does not report the devices of pod blue/mine") as caught:
        devices.of_pod("blue", "mine", kubelet)
    assert caught.value.code == 11


def test_a_missing_kubelet_is_try_again(tmp_path: Path) -> None:
    with pytest.raises(CniError, match="No such file") as caught:
        devices.of_pod("blue", "mine", str(tmp_path / "none"))
    assert caught.value.code == 11


@pytest.mark.parametrize("drip", [b"", b"\0"])
def test_a_kubelet_that_says_too_little_is_given_up_in_time(tmp_path: Path, drip: bytes) -> None:
    """A silent server and a slow one: the limit is for the whole answer."""
    with socket.socket(socket.AF_UNIX) as listener, contextlib.suppress(OSError):
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def say() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                while True:
                    connection.send(b"\0\0\x08\x04" + b"\0" * 13 if drip else b"")
                    time.sleep(0.05)

        threading.Thread(target=say, daemon=True).start()
        with pytest.raises(
            CniError, match="does not report the devices of pod blue/mine.*(in time|timed out)"
        ) as caught:
            devices.of_pod("blue", "mine", str(tmp_path / "s"), until=time.monotonic() + 0.3)
        assert caught.value.code == 11


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused_or_read(garbage: bytes) -> None:
    with contextlib.suppress(ValueError, IndexError):
        devices._devices(garbage, "a", "b")
