"""Descendants of a plugin end when its call is interrupted; a daemon that an exited plugin left stays."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import genie
from genie.cni import leftovers
from genie.cni.errors import CniError
from genie.cni.execute import Claim, Outcome, PluginCall, SubprocessExecutor, run_sync
from harness.waiting import until_nothing
from tests.rigs.leftovers import WAYS, Started

ROOT = str(Path(genie.__file__).parents[1])
RUN = """
import sys
sys.path.insert(0, sys.argv[1])
from genie.cni.execute import PluginCall, SubprocessExecutor, run_sync
executor = SubprocessExecutor()
run_sync(executor.claim(sys.argv[2]))
for plugin in sys.argv[4:]:
    run_sync(executor.run(PluginCall(binary=plugin, env={"PATH": "/usr/bin:/bin", "X": sys.argv[3]}, stdin=b"")))
"""


class Place(Started):
    """A directory with plugins, and calls of direct mode."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.lock = str(path / "c1@eth0.lock")

    def start(self, *plugins: str) -> subprocess.Popen[bytes]:
        """A call: a process that runs plugins, one after the other."""
        command = [sys.executable, "-IS", "-c", RUN, ROOT, self.lock, str(self.path), *plugins]
        return subprocess.Popen(command)

    def run(self, text: str, timeout: float | None, executor: SubprocessExecutor | None = None) -> Outcome:
        call = PluginCall(binary=self.plugin(text), env=self.env, stdin=b"", timeout=timeout)
        return run_sync((executor or SubprocessExecutor()).run(call))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.end()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return WAYS[str(request.param)]


def test_killed_at_once_its_plugins_have_ended_before_the_next_call_begins(place: Place, way: str) -> None:
    call = place.start(place.plugin(f"touch {place.path}/begun; {way}"))
    assert not until_nothing(place.has_not_begun, 20)
    call.kill()
    call.wait()
    claim = Claim(place.lock)
    assert place.running() == []
    claim.close()
    assert not Path(place.lock).exists()


def test_killed_after_a_while_its_plugins_end_without_another_call(place: Place, way: str) -> None:
    call = place.start(place.plugin(way))
    assert not until_nothing(lambda: not _has_guard(call.pid), 20)
    call.kill()
    call.wait()
    assert until_nothing(place.running, 20) == []


def _has_guard(pid: int) -> bool:
    """Whether a call has started a process that is not a plugin and has closed its standard input."""
    children = [Path(f"/proc/{child}") for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return any((child / "exe").samefile(f"/proc/{pid}/exe") and not (child / "fd/0").exists() for child in children)


def test_out_of_time_it_ends_with_all_that_it_has_started(place: Place, way: str) -> None:
    assert "killed" in place.run(way, timeout=0.5).error
    assert place.running() == []


def test_a_plugin_that_dies_takes_what_it_has_started_with_it(place: Place) -> None:
    """Otherwise its processes would attach again what the rollback has removed."""
    outcome = place.run("setsid sleep 60 & sleep 60 & kill -SEGV $$", timeout=20)
    assert (outcome.status, place.running()) == (-11, [])


def test_a_daemon_is_meant_to_stay(place: Place) -> None:
    """In every case of the call's end: it was left by a plugin that exited by itself."""
    daemon = place.plugin("setsid sleep 60 & exit 0", "daemon")
    call = place.start(daemon, place.plugin(f"touch {place.path}/begun; sleep 60; :"))
    assert not until_nothing(place.has_not_begun, 20)
    call.kill()
    call.wait()
    Claim(place.lock).close()
    (pid,) = place.running()
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x0060\0"


def test_a_plugin_beside_one_that_is_cut_off_goes_on(place: Place) -> None:
    executor = SubprocessExecutor()
    run_sync(executor.claim(place.lock))
    beside = place.plugin(place.beside, "beside")
    call = PluginCall(binary=beside, env=place.env, stdin=b"", timeout=60)
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(run_sync(executor.run(call))))
    thread.start()
    assert "killed" in place.run("setsid sleep 60 & wait", 0.5, executor).error
    (place.path / "go").touch()
    thread.join()
    assert [outcome.status for outcome in outcomes] == [0]


def test_a_call_that_is_still_on_was_given_up_by_its_runtime(place: Place) -> None:
    """A restarted runtime does not know its earlier calls, and makes the next one."""
    call = place.start(place.plugin(f"touch {place.path}/begun; sleep 60; :"))
    assert not until_nothing(place.has_not_begun, 20)
    Claim(place.lock).close()
    assert (call.wait(), place.running()) == (-signal.SIGKILL, [])


def test_a_call_that_has_come_to_its_end_leaves_no_file(place: Place) -> None:
    call = place.start(place.plugin("exit 0"))
    assert call.wait() == 0
    assert list(place.path.iterdir()) == [place.path / "plugin"]


def test_a_process_that_does_not_end_is_an_error_of_the_next_call(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Claim(place.lock)
    monkeypatch.setattr(leftovers, "PATIENCE", 0.05)
    with pytest.raises(CniError, match="cut off") as failure:
        Claim(place.lock)
    assert failure.value.code == 11 and place.lock in failure.value.details
    first.close()
    Claim(place.lock).close()


def test_a_disk_that_takes_no_file_keeps_nobody_from_a_del(place: Place) -> None:
    (place.path / "flat").touch()
    executor = SubprocessExecutor()
    run_sync(executor.claim(f"{place.path}/flat/c1@eth0.lock"))
    assert place.run("exit 0", None, executor).status == 0
    executor.close()
