"""The compiled shim with a correct agent: the plugins that it runs, and how; also on aarch64, by emulation."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genie.agent import protocol
from genie.agent.server import DELEGATES_MAX, ShimExecutor
from genie.cni.execute import PluginCall
from genie.serve import versions
from tests.rigs.agent import (
    ShimOutcome,
    answer,
    call,
    end,
    environment,
    gone,
    hanging,
    is_alive,
    running,
    script,
    serving,
    start,
    until,
)


@pytest.fixture(params=["native", "aarch64"])
def binary(request: pytest.FixtureRequest) -> Path:
    """The shim for this machine, and the one for aarch64."""
    path: Path = request.getfixturevalue("shim_binary" if request.param == "native" else "foreign")
    return path


#: For tests that fail only because of the emulation.
_NO_VFORK = pytest.mark.skip(
    reason="QEMU's user mode runs vfork as fork: the shim does not get the reason why exec failed"
)
sees_why_exec_failed = pytest.mark.parametrize(
    "binary", ["native", pytest.param("aarch64", marks=_NO_VFORK)], indirect=True
)


def run(binary: Path, place: Path, work: object, **options: object) -> ShimOutcome:
    """One call to an agent that does this work."""

    async def go() -> ShimOutcome:
        async with serving(work, place / "s"):
            return await call(binary, place / "s", **options)  # type: ignore[arg-type]

    return asyncio.run(go())


def test_the_call_reaches_the_agent_as_it_was_made_and_the_answer_the_runtime(binary: Path, place: Path) -> None:
    seen: list[protocol.Call] = []

    async def work(given: protocol.Call, _: ShimExecutor) -> protocol.Answer:
        seen.append(given)
        return protocol.Answer(status=7, stdout=b'{"a": 1}')

    big = b'{"x": "' + b"y" * 300_000 + b'"}'
    outcome = run(binary, place, work, stdin=big, CNI_ARGS="A=1;B=2")
    assert (outcome.status, outcome.stdout, outcome.stderr) == (7, b'{"a": 1}', b"")
    assert seen[0].stdin == big
    assert seen[0].env == environment(place / "s", CNI_ARGS="A=1;B=2")


def test_a_delegate_gets_its_environment_and_input_and_nothing_else(binary: Path, place: Path) -> None:
    plugin = script(place, "p", 'env | sort; echo "stdin: $(wc -c)"; echo oops >&2; exit 3')
    outcome = run(binary, place, running(plugin, stdin=b"z" * 200_000, env={"A": "1", "B": "x=y"})).json
    assert (outcome["status"], outcome["stderr"], outcome["error"]) == (3, "oops\n", "")
    lines = outcome["stdout"].splitlines()
    assert "A=1" in lines and "B=x=y" in lines and not any(line.startswith("CNI_") for line in lines)
    assert "stdin: 200000" in lines
    open_files = run(binary, place, running(script(place, "q", "exec ls /proc/self/fd"))).json["stdout"]
    assert open_files.split() == ["0", "1", "2", "3"]  # the last is the listing's own


@pytest.fixture
def hangup() -> Iterator[None]:
    """Reset SIGHUP, because tests may run under nohup: QEMU, unlike the shim, does not keep it ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup")
def test_a_delegate_is_where_the_runtime_put_the_shim(binary: Path, place: Path) -> None:
    """Same namespaces, cgroup, limits, directory, signal mask and dispositions: as if the runtime had started it."""
    show = (
        "readlink /proc/self/ns/net /proc/self/ns/mnt /proc/self/ns/pid /proc/self/cwd; cat /proc/self/cgroup; "
        "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; ulimit -n"
    )
    command = ["/bin/sh", "-c", f"exec {script(place, 'p', show)}"]
    direct = subprocess.run(command, capture_output=True, text=True, check=True)
    outcome = run(binary, place, running(str(place / "p")))
    assert outcome.json["stdout"] == direct.stdout


def test_delegates_run_at_the_same_time_and_each_gets_its_own_result(binary: Path, place: Path) -> None:
    (place / "begun").mkdir()
    all_there = f"until [ $(ls {place}/begun | wc -l) -ge {DELEGATES_MAX} ]; do sleep 0.02; done"
    plugin = script(place, "p", f"touch {place}/begun/$N; {all_there}; echo $N; exit $N")

    async def work(_: protocol.Call, executor: ShimExecutor) -> protocol.Answer:
        calls = [PluginCall(binary=plugin, env={**os.environ, "N": str(n)}, stdin=b"", timeout=20) for n in range(20)]
        outcomes = await executor.gather(*map(executor.run, calls))
        reported = [[o.status, o.stdout.decode()] for o in outcomes if not isinstance(o, BaseException)]
        return protocol.Answer(status=0, stdout=json.dumps(reported).encode())

    outcome = run(binary, place, work)
    assert json.loads(outcome.stdout) == [[n, f"{n}\n"] for n in range(20)]


@sees_why_exec_failed
def test_a_plugin_that_cannot_be_started_has_the_reason(binary: Path, place: Path) -> None:
    assert "No such file" in run(binary, place, running(str(place / "none"))).json["error"]
    (place / "flat").write_text("text")
    assert "Permission denied" in run(binary, place, running(str(place / "flat"))).json["error"]
    outcome = run(binary, place, running(script(place, "p", "kill -9 $$")))
    assert (outcome.json["status"], outcome.json["error"]) == (-9, "")


@sees_why_exec_failed
def test_an_executable_that_is_just_being_written_is_tried_again(binary: Path, place: Path) -> None:
    plugin = place / "p"
    plugin.write_bytes(Path("/bin/true").read_bytes())
    plugin.chmod(0o755)

    async def go() -> ShimOutcome:
        async with serving(running(str(plugin)), place / "s"):
            with plugin.open("ab"):
                process = await start(binary, place / "s")
                await asyncio.sleep(0.3)
            return await end(process)

    assert asyncio.run(go()).json["status"] == 0


def test_a_delegate_that_hangs_is_killed_with_all_that_it_started(binary: Path, place: Path) -> None:
    plugin = script(place, "p", f"sleep 60 & echo $! >{place}/child; echo $$ >{place}/self; sleep 60")
    outcome = run(binary, place, running(plugin, timeout=0.3)).json
    assert outcome["error"] == "no answer within 0.3 seconds; killed" and outcome["status"] == -signal.SIGKILL
    gone(place)


def test_a_delegate_that_leaves_a_process_behind_is_not_waited_for(binary: Path, place: Path) -> None:
    """A daemon that keeps standard output open must not delay the pod (and is not killed, because it may stay)."""
    plugin = script(place, "p", f"sleep 60 & echo $! >{place}/daemon; echo done")
    outcome = run(binary, place, running(plugin)).json
    assert (outcome["stdout"], outcome["status"]) == ("done\n", 0)
    daemon = int((place / "daemon").read_text())
    assert is_alive(daemon)
    os.kill(daemon, signal.SIGKILL)


def test_output_is_bounded(binary: Path, place: Path) -> None:
    outcome = run(binary, place, running(script(place, "p", "yes"), timeout=20)).json
    assert outcome["error"] == "more than 1 MiB of output; killed" and outcome["stdout"] == ""
    noisy = script(place, "q", "head -c 3000000 /dev/zero >&2; echo fine")
    outcome = run(binary, place, running(noisy, timeout=20)).json
    assert outcome["stdout"] == "fine\n" and len(outcome["stderr"]) == 64 * 1024
    large = script(place, "r", "head -c 1000000 /dev/zero | tr '\\0' x")
    assert len(run(binary, place, running(large, timeout=20)).json["stdout"]) == 1_000_000


def test_a_delegate_that_reads_no_input_does_not_hold_the_call_up(binary: Path, place: Path) -> None:
    outcome = run(binary, place, running(script(place, "p", "echo ok"), stdin=b"x" * 900_000)).json
    assert (outcome["stdout"], outcome["status"]) == ("ok\n", 0)


def test_nothing_is_left_of_a_call(binary: Path, place: Path) -> None:
    """No zombie and none of its two processes stays: the shim waits for its children."""
    plugin = script(place, "p", "ps -o pid= --ppid $PPID 2>/dev/null >/dev/null; echo $PPID")
    shim = int(run(binary, place, running(plugin)).json["stdout"])
    left = [p for p in Path("/proc").glob("[0-9]*/status") if f"PPid:\t{shim}\n" in _read(p)]
    assert not left and not is_alive(shim)


def test_version_needs_no_agent_and_says_what_the_agent_would(binary: Path, place: Path) -> None:
    stdin = b'{"cniVersion": "0.4.0"}'
    outcome = asyncio.run(call(binary, place / "none", CNI_COMMAND="VERSION", stdin=stdin))
    assert outcome.status == 0 and outcome.json == versions("0.4.0")


@pytest.mark.parametrize(("command", "code"), [("ADD", 11), ("DEL", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)])
def test_without_an_agent_it_says_try_again(binary: Path, place: Path, command: str, code: int) -> None:
    stdin = b'{\n  "cniVersion" : "0.3.1", "prevResult": {"cniVersion": "9"}}'
    outcome = asyncio.run(call(binary, place / "none", CNI_COMMAND=command, stdin=stdin))
    assert outcome.status == 1 and (outcome.json["code"], outcome.json["cniVersion"]) == (code, "0.3.1")
    assert "No such file" in outcome.json["details"]


@pytest.mark.parametrize(
    "stdin",
    [b"", b"{}", b'{"cniVersion": "1.0\\"x"}', b'{"cniVersion"', b'{"cniVersion": 3}', b'"cniVersion": "' + b"1" * 99],
)
def test_whatever_is_on_its_input_its_own_error_is_json(binary: Path, place: Path, stdin: bytes) -> None:
    outcome = asyncio.run(call(binary, place / 'no"ne\n', stdin=stdin))
    assert outcome.json["code"] == 11 and outcome.json["cniVersion"] == "1.0.0"


def test_input_and_environment_are_bounded(binary: Path, place: Path) -> None:
    outcome = asyncio.run(call(binary, place / "none", stdin=b"x" * (2 << 20)))
    assert outcome.json["code"] == 5 and "larger than 1 MiB" in outcome.json["msg"]
    long: dict[str, Any] = {f"V{n}": "x" * 100_000 for n in range(12)}

    async def go() -> ShimOutcome:
        async with serving(running("/bin/true"), place / "s"):
            return await call(binary, place / "s", **long)

    outcome = asyncio.run(go())
    assert outcome.json["code"] == 4 and "environment" in outcome.json["msg"]


def test_an_agent_that_starts_while_it_knocks_is_found(binary: Path, place: Path) -> None:
    async def go() -> ShimOutcome:
        process = await start(binary, place / "s")
        await asyncio.sleep(0.3)
        async with serving(running("/bin/true"), place / "s"):
            return await end(process)

    assert asyncio.run(go()).json["status"] == 0


def test_a_person_who_starts_it_is_told_what_it_is(binary: Path) -> None:
    done = subprocess.run([binary], env={}, capture_output=True, text=True, timeout=5, check=False)
    assert done.returncode == 2 and "CNI" in done.stderr and not done.stdout


def test_sigterm_ends_the_delegates_and_the_call(binary: Path, place: Path) -> None:
    plugin = hanging(place)

    async def go() -> ShimOutcome:
        async with serving(running(plugin, timeout=30), place / "s"):
            process = await start(binary, place / "s")
            await until((place / "self").exists)
            process.send_signal(signal.SIGTERM)
            return await end(process, 3)

    outcome = asyncio.run(go())
    assert outcome.status == 1 and outcome.json["code"] == 11 and "stop" in outcome.json["msg"]
    gone(place)


def test_killed_it_leaves_no_orphan(binary: Path, place: Path) -> None:
    """The runtime kills with SIGKILL: the delegates and the plugins that they started end, too."""
    plugin = hanging(place)
    outcomes = []

    async def work(_: protocol.Call, executor: ShimExecutor) -> protocol.Answer:
        outcomes.append(await executor.run(PluginCall(binary=plugin, env=dict(os.environ), stdin=b"", timeout=30)))
        outcomes.append(await executor.run(PluginCall(binary=plugin, env=dict(os.environ), stdin=b"", timeout=30)))
        return answer(outcomes[-1])

    async def go() -> None:
        async with serving(work, place / "s") as server:
            process = await start(binary, place / "s")
            await until((place / "self").exists)
            process.kill()
            await until(lambda: server.active == 0)
            pids = [int((place / name).read_text()) for name in ("child", "self")]
            await until(lambda: not any(map(is_alive, pids)))
            assert (await end(process)).status == -signal.SIGKILL

    asyncio.run(go())
    assert len(outcomes) == 2 and all("went away" in outcome.error for outcome in outcomes)


def test_killed_at_once_it_takes_its_delegates_with_it(binary: Path, place: Path) -> None:
    """Even very early."""
    plugin = script(place, "p", f"echo $$ >{place}/self.new; mv {place}/self.new {place}/self; exec sleep 60")

    async def go() -> None:
        async with serving(running(plugin, timeout=30), place / "s"):
            process = await start(binary, place / "s")
            await until((place / "self").exists)
            process.kill()
            await until(lambda: not is_alive(int((place / "self").read_text())))
            await end(process)

    asyncio.run(go())


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
