"""Long-lived connections out of a pod, and their throughput: parts of the probe, which stand alone as it does.

A flow asks the probe of another pod every few milliseconds and measures the gaps between answers. It must survive what
it measures: a restart of the kubelet or the runtime ends all exec sessions, and a request of the harness with them. So
the flows of one `hold` are a process of their own, which answers on a socket in the pod's network namespace:

    python flow.py {"name": …, "flows": […]}    holds flows until it is asked to end
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TICK = 0.02  # seconds between two questions of a flow
LONGEST = 3600.0  # seconds until flows end by themselves, if nobody ends them
REMEMBERED = 0.1  # seconds: only longer gaps are listed
MOST_GAPS = 50
STAY = b'{"stay": true}\n'  # the probe answers it as any question, and keeps the connection
SINK = b'{"sink": true}\n'  # the probe reads all that follows, and answers with the number of bytes
CHUNK = 1 << 16
IPERF3_PORT = 8473


@dataclass(kw_only=True)
class Flow:
    """One connection, with its gaps so far."""

    protocol: str
    address: str
    port: int
    sock: socket.socket
    last: float  # time of the last answer
    begun: float
    answers: int = 0
    longest: float = 0.0
    gaps: list[tuple[float, float]] = field(default_factory=list)
    broken: str = ""

    @classmethod
    def open(cls, wanted: Mapping[str, Any], timeout: float = 5.0) -> Flow:
        """Connect.

        Raises OSError: it cannot connect.
        """
        address, port, tcp = str(wanted["address"]), int(wanted["port"]), wanted["protocol"] == "tcp"
        sock = connect(address, port, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM, wanted.get("source"), timeout)
        sock.setblocking(False)
        now = time.monotonic()
        return cls(protocol=str(wanted["protocol"]), address=address, port=port, sock=sock, last=now, begun=now)

    def ask(self) -> None:
        """Send a question. UDP has no way; TCP has a full buffer: both are gaps, which the missing answers show."""
        with contextlib.suppress(OSError):
            self.sock.send(STAY)

    def hear(self, now: float) -> None:
        """Read answers."""
        try:
            piece = self.sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as error:  # of UDP: an answer to an earlier question, such as ECONNREFUSED
            if self.protocol == "tcp":
                self.broken = (error.strerror or str(error)).lower()
            return
        if not piece:
            self.broken = "the other end closed it"
        elif b"\n" in piece:
            self.gap(now)
            self.answers, self.last = self.answers + piece.count(b"\n"), now

    def gap(self, now: float) -> None:
        """Note the time since the last answer."""
        seconds = max(0.0, now - self.last)
        self.longest = max(self.longest, seconds)
        if seconds > REMEMBERED and len(self.gaps) < MOST_GAPS:
            self.gaps.append((round(self.last - self.begun, 3), round(seconds * 1000, 1)))

    def report(self, now: float) -> dict[str, Any]:
        """As plain JSON values; a gap that has not ended counts as long as it has lasted."""
        open_gap = max(0.0, now - self.last)
        return {
            "protocol": self.protocol,
            "address": self.address,
            "answers": self.answers,
            "longest_ms": round(max(self.longest, open_gap) * 1000, 1),
            "open_ms": round(open_gap * 1000, 1),
            "gaps": self.gaps,
            "broken": self.broken,
        }


def connect(address: str, port: int, kind: socket.SocketKind, source: str | None, timeout: float) -> socket.socket:
    """A connected socket.

    Raises OSError: it cannot connect.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    try:
        sock.settimeout(timeout)
        if source:
            sock.bind((source, 0))
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect((address, port))
    except OSError:
        sock.close()
        raise
    return sock


# --- the process that holds flows


def hold_until_ended(name: str, wanted: Sequence[Mapping[str, Any]]) -> None:
    """Open flows, ask every tick, and report to each client of the socket, until one sends `end`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, selectors.DefaultSelector() as selector:
        flows, failed = _open_all(wanted)
        listener.bind(_place(name))
        listener.listen(8)
        selector.register(listener, selectors.EVENT_READ)
        for flow in flows:
            selector.register(flow.sock, selectors.EVENT_READ, flow)
        end = time.monotonic() + LONGEST
        for now in _ticks(flows, selector):
            for key, _ in selector.select(timeout=0):
                if key.data is None:
                    if _report(listener, flows, failed):
                        return
                    continue
                key.data.hear(now)
                if key.data.broken:
                    selector.unregister(key.fileobj)
            if now > end:
                return


def _ticks(flows: Sequence[Flow], selector: selectors.BaseSelector) -> Iterator[float]:
    """Ask all flows every tick, and yield the time whenever there may be something to read.

    A process that the kernel does not run sees no answers although they are there. Its own delay is no gap.
    """
    due = time.monotonic()
    while True:
        selector.select(timeout=max(0.0, due - time.monotonic()))
        now = time.monotonic()
        if now >= due:
            delay = now - due
            for flow in flows:
                flow.last = min(now, flow.last + delay)
                if not flow.broken:
                    flow.ask()
            due = now + TICK
        yield now


def _open_all(wanted: Sequence[Mapping[str, Any]]) -> tuple[list[Flow], list[str]]:
    flows, failed = [], []
    for each in wanted:
        try:
            flows.append(Flow.open(each))
        except OSError as error:
            failed.append(f"{each['protocol']} to {each['address']}: {(error.strerror or str(error)).lower()}")
    return flows, failed


def _report(listener: socket.socket, flows: Sequence[Flow], failed: Sequence[str]) -> bool:
    """Answer one client; returns whether it wants the flows to end."""
    with contextlib.suppress(OSError):
        client, _ = listener.accept()
        with client:
            client.settimeout(1.0)
            request = client.recv(64)
            now = time.monotonic()
            client.sendall(json.dumps({"flows": [flow.report(now) for flow in flows], "failed": failed}).encode())
            return request.startswith(b"end")
    return False


def _place(name: str) -> str:
    """An abstract socket: it is in the pod's network namespace, and needs no file that somebody must remove."""
    return f"\0genie-flow-{name}"


# --- requests of the harness, in the network namespace of the calling thread


def hold(name: str, flows: Sequence[Mapping[str, Any]], timeout: float) -> dict[str, Any]:
    """Start flows; returns their first report."""
    command = [sys.executable, "-I", "-S", str(Path(__file__)), json.dumps({"name": name, "flows": list(flows)})]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=subprocess.PIPE, start_new_session=True)
    threading.Thread(target=process.wait, daemon=True).start()
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and process.returncode is None:
        found = held(name)
        if "error" not in found:
            if process.stderr:
                process.stderr.close()
            return found
        time.sleep(0.05)
    if process.returncode is None:
        process.kill()
        return {"error": f"the flows did not start within {timeout:g} s"}
    printed = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
    return {"error": f"the flows did not start: {printed.splitlines()[-1] if printed else 'their process ended'}"}


def held(name: str, *, end: bool = False) -> dict[str, Any]:
    """The report of flows; with `end`, their last one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(5.0)
        try:
            sock.connect(_place(name))
            sock.sendall(b"end" if end else b"report")
            text = b""
            while piece := sock.recv(CHUNK):
                text += piece
            found: dict[str, Any] = json.loads(text)
            return found
        except (OSError, ValueError) as error:
            return {"error": f"nothing holds these flows in the pod: {error}"}


def throughput(address: str, port: int, seconds: float, source: str | None, iperf3_port: int) -> dict[str, Any]:
    """Send to a pod as fast as TCP can; returns the bits per second that arrived, and the tool."""
    if iperf3_port and (tool := shutil.which("iperf3")):
        return _iperf3([tool, "-c", address, "-p", str(iperf3_port), "-t", str(max(1, round(seconds))), "-J",
                        *(["-B", source] if source else [])], seconds)  # fmt: skip
    try:
        return _send_for(seconds, address, port, source)
    except (OSError, ValueError) as error:
        return {"error": str(getattr(error, "strerror", None) or error).lower()}


def _send_for(seconds: float, address: str, port: int, source: str | None) -> dict[str, Any]:
    with connect(address, port, socket.SOCK_STREAM, source, 5.0) as sock:
        sock.sendall(SINK)
        block, begin = bytes(CHUNK), time.monotonic()
        while time.monotonic() - begin < seconds:
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(10.0)
        answer = json.loads(sock.makefile("rb").readline() or b"{}")
        took = time.monotonic() - begin
    if "sunk" not in answer:
        return {"error": "the other end did not count what arrived"}
    return {"bits_per_second": round(answer["sunk"] * 8 / took), "name": answer["name"], "tool": "probe"}


def serve_iperf3(seconds: float) -> dict[str, Any]:
    """Start iperf3's server for one client, if it is installed; returns its port, 0 without iperf3."""
    if not (tool := shutil.which("iperf3")):
        return {"port": 0}
    quiet = subprocess.DEVNULL
    server = subprocess.Popen([tool, "-s", "-1", "-p", str(IPERF3_PORT)], stdin=quiet, stdout=quiet, stderr=quiet)

    def end() -> None:
        try:
            server.wait(timeout=seconds + 20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    threading.Thread(target=end, daemon=True).start()
    deadline = time.monotonic() + 5
    while not _listens(IPERF3_PORT) and server.returncode is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return {"port": IPERF3_PORT}


def _listens(port: int) -> bool:
    """Whether a process listens on a TCP port, in the network namespace of this thread."""
    tables = (Path(f"/proc/thread-self/net/{name}") for name in ("tcp", "tcp6"))
    rows = (line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:])
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


def _iperf3(command: Sequence[str], seconds: float) -> dict[str, Any]:
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds + 15, check=False)
        found = json.loads(done.stdout)
        if "error" in found:
            return {"error": f"iperf3: {found['error']}"}
        return {"bits_per_second": round(found["end"]["sum_received"]["bits_per_second"]), "tool": "iperf3"}
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
        return {"error": f"iperf3: {error}"}


if __name__ == "__main__":
    os.chdir("/")
    given = json.loads(sys.argv[1])
    hold_until_ended(given["name"], given["flows"])
