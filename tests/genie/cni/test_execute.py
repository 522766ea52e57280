"""A plugin as a child process: it always gives an outcome in time, and no process stays behind."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from genie.cni import execute
from genie.cni.execute import Outcome, PluginCall, SubprocessExecutor, run_sync


def plugin(folder: Path, script: str) -> str:
    file = folder / "plugin"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


def run(binary: str, stdin: bytes = b"", timeout: float | None = 20, **env: str) -> Outcome:
    env.setdefault("PATH", os.defpath)
    return run_sync(SubprocessExecutor().run(PluginCall(binary=binary, env=env, stdin=stdin, timeout=timeout)))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children() -> set[int]:
    """Of this process, zombies too."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(stat.parent.name))
    return found


def test_a_plugin_gets_its_input_and_environment_and_reports_output_and_status(tmp_path: Path) -> None:
    outcome = run(plugin(tmp_path, 'cat; echo "$X" >&2; exit 3'), stdin=b"hello", X="y")
    assert (outcome.status, outcome.stdout, outcome.stderr, outcome.error) == (3, b"hello", b"y\n", "")
    assert 0 < outcome.seconds < 20


@pytest.mark.parametrize("timeout", [None, 20])
def test_more_than_a_pipe_holds_both_ways(tmp_path: Path, timeout: float | None) -> None:
    much = os.urandom(1 << 20)
    assert run(plugin(tmp_path, "cat"), stdin=much, timeout=timeout).stdout == much


def test_a_plugin_need_not_read_its_input(tmp_path: Path) -> None:
    assert run(plugin(tmp_path, "exec 0<&-; echo done"), stdin=bytes(1 << 20)).stdout == b"done\n"


def test_a_killed_plugin_has_its_signal_as_status(tmp_path: Path) -> None:
    assert run(plugin(tmp_path, "kill -SEGV $$")).status == -11


def test_a_broken_pipe_kills_a_plugin_as_it_would_elsewhere(tmp_path: Path) -> None:
    assert run(plugin(tmp_path, "yes | head -1; kill -PIPE $$")).status == -13


def test_a_plugin_that_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    assert "could not be started: No such file" in run(str(tmp_path / "none")).error
    (tmp_path / "empty").touch(mode=0o644)
    assert "could not be started: Permission denied" in run(str(tmp_path / "empty")).error


def test_a_nul_in_the_environment_is_an_error(tmp_path: Path) -> None:
    assert "could not be started: embedded null byte" in run(plugin(tmp_path, "exit 0"), X="\0").error


def test_a_lack_of_descriptors_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, real, before = plugin(tmp_path, "exit 0"), os.pipe2, len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    given: list[int] = []

    def few(flags: int) -> tuple[int, int]:
        if len(given) == 2:
            raise OSError(24, "Too many open files")
        given.append(flags)
        return real(flags)

    monkeypatch.setattr(os, "pipe2", few)
    assert "could not be started: Too many open files" in run(script).error
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_out_of_time_the_whole_group_is_killed(tmp_path: Path) -> None:
    script = plugin(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child; echo so far; wait")
    outcome = run(script, timeout=0.5)
    assert outcome.error == "no answer within 0.5 seconds; killed"
    assert (outcome.status, outcome.stdout) == (-9, b"so far\n")
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        if not alive(child):
            break
        time.sleep(0.02)
    assert not alive(child)


def test_a_daemon_left_behind_holds_nobody_up(tmp_path: Path) -> None:
    outcome = run(plugin(tmp_path, f"sleep 60 & echo $! >{tmp_path}/daemon; echo started"), timeout=20)
    os.kill(int((tmp_path / "daemon").read_text()), signal.SIGKILL)
    assert (outcome.status, outcome.stdout, outcome.error) == (0, b"started\n", "")


def test_output_is_bounded(tmp_path: Path) -> None:
    endless = run(plugin(tmp_path, "yes"), timeout=None)
    assert (endless.error, endless.stdout) == ("more than 1 MiB of output; killed", b"")
    at_once = run(plugin(tmp_path, "head -c 1048577 /dev/zero"))
    assert (at_once.error, at_once.stdout) == ("more than 1 MiB of output; killed", b"")
    noisy = run(plugin(tmp_path, "head -c 3000000 /dev/zero >&2; echo fine"))
    assert (noisy.status, noisy.stdout, len(noisy.stderr)) == (0, b"fine\n", 64 << 10)


def test_a_daemon_that_never_stops_talking_holds_nobody_up(tmp_path: Path) -> None:
    outcome = run(plugin(tmp_path, f"yes >&2 & echo $! >{tmp_path}/daemon; echo started"), timeout=60)
    os.kill(int((tmp_path / "daemon").read_text()), signal.SIGKILL)
    assert (outcome.status, outcome.stdout, outcome.error) == (0, b"started\n", "")


def test_no_zombies_and_no_descriptors_stay(tmp_path: Path) -> None:
    script = plugin(tmp_path, "exit 0")
    before, had = len(os.listdir("/proc/self/fd")), children()  # noqa: PTH208
    for _ in range(5):
        assert run(script).status == 0
        run(str(tmp_path / "none"))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert children() == had


def test_a_kernel_without_pidfd_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", unknown)
    assert run(plugin(tmp_path, "cat; exit 4"), stdin=b"x").status == 4
    assert run(plugin(tmp_path, "sleep 60"), timeout=0.1).status == -9


def test_an_executable_that_is_being_written_is_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "true"
    file.write_bytes(Path("/bin/true").read_bytes())
    file.chmod(0o755)
    held = file.open("r+b")
    timer = threading.Timer(0.1, held.close)
    timer.start()
    call = PluginCall(binary=str(file), env={}, stdin=b"", timeout=20)
    outcome = run_sync(execute.run(SubprocessExecutor(), call))
    timer.join()
    assert (outcome.status, outcome.error) == (0, "")


@dataclass
class Busy:
    """An executor for a plugin that is being written during this number of attempts."""

    attempts: int
    number: int = errno.ETXTBSY
    waits: int = 0
    runs: int = 0

    async def claim(self, path: str) -> None:
        raise NotImplementedError

    async def run(self, call: PluginCall) -> Outcome:
        self.runs += 1
        return Outcome(status=-1, error="busy", errno=self.number) if self.runs <= self.attempts else Outcome(status=0)

    async def gather(self, *work: Coroutine[Any, Any, Any]) -> list[Any]:
        raise NotImplementedError

    async def in_thread(self, work: Callable[[], Any], *, waits: bool = False) -> Any:
        self.waits += 1


@pytest.mark.parametrize(
    ("busy", "status", "runs"),
    [
        (Busy(0), 0, 1),
        (Busy(1), 0, 2),
        (Busy(5), 0, 6),
        (Busy(6), -1, 6),
        (Busy(9, errno.ENOENT), -1, 1),
    ],
)
def test_how_often_a_busy_executable_is_tried(busy: Busy, status: int, runs: int) -> None:
    outcome = run_sync(execute.run(busy, PluginCall(binary="/b", env={}, stdin=b"")))
    assert (outcome.status, busy.runs, busy.waits) == (status, runs, min(runs - 1, 5))


def test_gather_is_at_once_and_returns_exceptions(tmp_path: Path) -> None:
    executor = SubprocessExecutor()
    script = plugin(tmp_path, "touch $0.$N; until [ -e $0.1 ] && [ -e $0.2 ]; do sleep 0.01; done; echo ok")

    async def fails() -> Outcome:
        raise ValueError("on purpose")

    def call(n: int) -> PluginCall:
        return PluginCall(binary=script, env={"PATH": os.defpath, "N": str(n)}, stdin=b"", timeout=20)

    first, second, third = run_sync(executor.gather(executor.run(call(1)), fails(), executor.run(call(2))))
    assert isinstance(second, ValueError)
    assert isinstance(first, Outcome)
    assert isinstance(third, Outcome)
    assert first.stdout == third.stdout == b"ok\n"
    assert run_sync(executor.gather()) == []


def test_in_thread_work_goes_on_while_a_plugin_runs(tmp_path: Path) -> None:
    executor = SubprocessExecutor()
    script = plugin(tmp_path, "touch $0.ready; until [ -e $0.done ]; do sleep 0.01; done; echo ok")

    def work() -> int:
        while not Path(f"{script}.ready").exists():
            time.sleep(0.01)
        Path(f"{script}.done").touch()
        return 7

    begun = executor.in_thread(work)
    call = PluginCall(binary=script, env={"PATH": os.defpath}, stdin=b"", timeout=20)
    assert run_sync(executor.run(call)).stdout == b"ok\n"
    assert run_sync(waited(begun)) == run_sync(waited(begun)) == 7


def test_in_thread_errors_are_raised_where_it_is_awaited() -> None:
    def work() -> None:
        raise ValueError("on purpose")

    begun = SubprocessExecutor().in_thread(work)
    with pytest.raises(ValueError, match="on purpose"):
        run_sync(waited(begun))


def test_in_thread_works_without_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_threads(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("_thread.start_new_thread", no_threads)
    assert run_sync(waited(SubprocessExecutor().in_thread(lambda: 7))) == 7


async def waited(begun: Awaitable[Any]) -> Any:
    return await begun
