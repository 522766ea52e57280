"""The probe with itself on the loopback interface: the report of one end matches the action of the other."""

from __future__ import annotations

import io
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import probe


@pytest.fixture
def server() -> Iterator[int]:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    sock.close()
    made = probe.serve(port, "far-end")
    yield port
    made.close()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9", "::1"])
def test_a_dial_is_answered_from_the_address_that_was_asked(server: int, protocol: str, address: str) -> None:
    output = probe.answer({"op": "dial", "protocol": protocol, "address": address, "port": server, "timeout": 2})
    assert output["ok"], output
    assert output["peer"] == address
    assert output["name"] == "far-end"
    assert output["seen_as"] == ("::1" if ":" in address else "127.0.0.1")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_dial_leaves_from_its_source(server: int, protocol: str) -> None:
    request = {
        "op": "dial",
        "protocol": protocol,
        "address": "127.0.0.1",
        "port": server,
        "source": "127.0.0.5",
    }
    assert probe.answer(request)["seen_as"] == "127.0.0.5"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_icmp(address: str) -> None:
    try:
        probe._icmp_socket(socket.AF_INET).close()
    except PermissionError:
        pytest.skip("neither raw nor ping sockets are allowed here")
    output = probe.answer({"op": "dial", "protocol": "icmp", "address": address})
    assert output["ok"], output
    assert output["peer"] == address


def test_nobody_there_is_an_error_with_its_name() -> None:
    output = probe.answer({"op": "dial", "protocol": "tcp", "address": "127.0.0.1", "port": 1, "timeout": 1})
    assert not output["ok"]
    assert output["error"] == "connection refused (ECONNREFUSED)"


def test_somebody_else_is_not_a_probe(server: int) -> None:
    other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    other.bind(("127.0.0.1", 0))
    other.settimeout(5)

    def reply() -> None:
        _, client = other.recvfrom(100)
        other.sendto(b"hello", client)

    thread = threading.Thread(target=reply)
    thread.start()
    output = probe.answer({"op": "dial", "protocol": "udp", "address": "127.0.0.1", "port": other.getsockname()[1]})
    thread.join()
    other.close()
    assert not output["ok"]
    assert "no probe" in output["error"]


def test_a_dial_ends_in_time() -> None:
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 0))
    request = {
        "op": "dial",
        "protocol": "udp",
        "address": "127.0.0.1",
        "port": silent.getsockname()[1],
        "timeout": 0.3,
    }
    output = probe.answer(request)
    silent.close()
    assert output["error"] == "no answer within 0.3 s"


def test_look_tells_the_loopback_interface() -> None:
    pytest.importorskip("pyroute2")
    output = probe.answer({"op": "look"})
    lo = next(interface for interface in output["interfaces"] if interface["name"] == "lo")
    assert lo["kind"] == "loopback"
    assert "127.0.0.1/8" in lo["addresses"]
    assert all(route["table"] != 255 for route in output["routes"])
    assert json.loads(json.dumps(output)) == output


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"op": "sing"}, "unknown op 'sing'"),
        ({"op": "dial", "protocol": "sctp", "address": "127.0.0.1"}, "protocol 'sctp'"),
        ({"op": "dial", "protocol": "tcp", "address": "nowhere"}, "'nowhere'"),
        ({"op": "dial", "protocol": "tcp"}, "address"),
    ],
)
def test_a_bad_request_is_answered(request_: dict[str, Any], error: str) -> None:
    assert error in probe.answer(request_)["error"]


def test_the_console_answers_each_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"op": "sing"}\n\nnot json\n[]\n'))
    probe.console()
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [
        "unknown op" in answers[0]["error"],
        *("not a JSON object" in each["error"] for each in answers[1:]),
    ] == [True] * 3


def test_a_closed_server_frees_its_port() -> None:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    sock.close()
    for _ in range(2):
        made = probe.serve(port, "x")
        made.close()
        made.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_datagram_is_exactly_as_large_as_asked_and_in_one_piece(server: int, address: str) -> None:
    """A loopback takes packets of 65536 bytes: one of 9000 gets there whole, one of a byte too many does not leave."""
    request = {"op": "dial", "protocol": "udp", "address": address, "port": server, "timeout": 1}
    assert probe.answer({**request, "size": 9000})["ok"]
    mtu = int(Path("/sys/class/net/lo/mtu").read_text())
    assert not probe.answer({**request, "size": mtu + 1})["ok"]


def test_throughput_is_measured_with_iperf3_where_it_is(server: int) -> None:
    if shutil.which("iperf3") is None:
        pytest.skip("there is no iperf3 on PATH")
    started = probe.answer({"op": "serve-iperf3", "seconds": 1})
    output = probe.answer({"op": "throughput", "address": "127.0.0.1", "seconds": 1, "iperf3": started["port"]})
    assert output["tool"] == "iperf3", output
    assert output["bits_per_second"] > 0


def test_throughput_is_measured_with_the_probe_where_there_is_no_iperf3(
    server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert probe.answer({"op": "serve-iperf3"}) == {"port": 0}
    output = probe.answer({"op": "throughput", "address": "127.0.0.1", "port": server, "seconds": 0.1})
    assert (output["tool"], output["name"]) == ("probe", "far-end")
    assert output["bits_per_second"] > 0


def test_throughput_to_nobody_is_an_error() -> None:
    output = probe.answer({"op": "throughput", "address": "127.0.0.1", "port": 1, "seconds": 0.1})
    assert output == {"error": "connection refused"}


def test_flows_that_nobody_holds_are_an_error() -> None:
    assert "nothing holds these flows" in probe.answer({"op": "held", "name": "nobody"})["error"]


def test_a_name_is_resolved_or_an_error() -> None:
    assert "127.0.0.1" in probe.answer({"op": "resolve", "name": "localhost"})["addresses"]
    assert "no-such-name.invalid" in probe.answer({"op": "resolve", "name": "no-such-name.invalid"})["error"]
