"""Functions that call a shim as a runtime does, and agents for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genie.agent import protocol
from genie.agent.server import Server, ShimExecutor
from genie.cni.execute import Outcome, PluginCall, run

PLUGIN = b'{"cniVersion": "1.0.0", "name": "n", "type": "genie"}'


@dataclass(frozen=True, kw_only=True)
class ShimOutcome:
    """The outcome of a shim."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def json(self) -> dict[str, Any]:
        data = json.loads(self.stdout)
        assert isinstance(data, dict)
        return data


def environment(socket: Path, **more: str) -> dict[str, str]:
    """Like containerd for an ADD, or for another CNI_COMMAND."""
    return {
        "PATH": os.environ["PATH"],
        "GENIE_SOCKET": str(socket),
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/var/run/netns/c1",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt/cni/bin",
        **more,
    }


async def start(binary: Path, socket: Path, *, stdin: bytes = PLUGIN, **env: str) -> asyncio.subprocess.Process:
    """Start a shim and give it its standard input."""
    process = await asyncio.create_subprocess_exec(
        binary,
        env=environment(socket, **env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin
    process.stdin.write(stdin)
    process.stdin.close()
    return process


async def end(process: asyncio.subprocess.Process, seconds: float = 60) -> ShimOutcome:
    """Wait for a shim's end."""
    stdout, stderr = await asyncio.wait_for(process.communicate(), seconds)
    assert process.returncode is not None
    return ShimOutcome(status=process.returncode, stdout=stdout, stderr=stderr)


async def call(binary: Path, socket: Path, *, stdin: bytes = PLUGIN, **env: str) -> ShimOutcome:
    """One call, from start to end."""
    return await end(await start(binary, socket, stdin=stdin, **env))


@contextlib.asynccontextmanager
async def serving(work: Any, socket: Path, **options: Any) -> AsyncIterator[Server]:
    """A server on the socket."""
    server = Server(work, **options)
    await server.start(socket)
    try:
        yield server
    finally:
        await server.stop(5)


def script(directory: Path, name: str, text: str) -> str:
    """A delegate as a shell script."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def hanging(place: Path) -> str:
    """A delegate that hangs, with a child that hangs; their PIDs are in the files `self` and `child`."""
    start = f"sleep 60 & echo $! >{place}/child; echo $$ >{place}/self.new; mv {place}/self.new {place}/self"
    return script(place, "hanging", f"{start}; wait")


def gone(place: Path) -> None:
    """Check that a hanging delegate and its child are gone; a killed process may take a moment to end."""
    left = [int((place / name).read_text()) for name in ("self", "child")]
    deadline = time.monotonic() + 3
    while any(map(is_alive, left)):
        assert time.monotonic() < deadline, "it was left alone"
        time.sleep(0.01)


async def worker(pid: int) -> int:
    """Wait until a shim has two processes, and return the PID of the worker."""
    await until(lambda: any(_name(child) == "genie-worker" for child in _children(pid)))
    return _children(pid)[0]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def answer(outcome: Outcome) -> protocol.Answer:
    """An answer with all fields of an outcome, for the test."""
    reported = {
        "status": outcome.status,
        "stdout": outcome.stdout.decode("latin-1"),
        "stderr": outcome.stderr.decode("latin-1"),
        "error": outcome.error,
        "seconds": outcome.seconds,
    }
    return protocol.Answer(status=0, stdout=json.dumps(reported).encode())


def running(
    binary: str, *, stdin: bytes = b"", env: Mapping[str, str] | None = None, timeout: float | None = 10
) -> Callable[..., Any]:
    """The work of an agent that runs one delegate and returns its complete outcome."""

    async def work(_: protocol.Call, executor: ShimExecutor) -> protocol.Answer:
        return answer(
            await run(
                executor,
                PluginCall(
                    binary=binary, env={"PATH": os.environ["PATH"], **(env or {})}, stdin=stdin, timeout=timeout
                ),
            )
        )

    return work


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait until the condition is true."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come to that in time"
        await asyncio.sleep(0.01)
