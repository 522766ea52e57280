"""All processes of a call end before the agent sees the call's end, after every kind of kill; a daemon stays."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from genie.agent import protocol
from genie.agent.server import Server, ShimExecutor
from genie.cni.execute import Outcome, PluginCall
from tests.rigs.agent import ShimOutcome, answer, call, end, running, serving, start, until, worker
from tests.rigs.leftovers import WAYS, Started

Cut = Callable[[asyncio.subprocess.Process], Awaitable[None]]


@pytest.fixture
def started(place: Path) -> Iterator[Started]:
    made = Started(place)
    yield made
    made.end()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return WAYS[str(request.param)]


def cut_off(binary: Path, started: Started, way: str, cut: Cut) -> tuple[ShimOutcome, list[int]]:
    """Interrupt a call after its plugin started. Returns the shim's outcome, and the processes at the call's end."""
    plugin = started.plugin(f"touch {started.path}/begun; {way}")
    left: list[list[int]] = []

    async def work(_: protocol.Call, executor: ShimExecutor) -> protocol.Answer:
        await executor.run(PluginCall(binary=plugin, env=started.env, stdin=b"", timeout=60))
        left.append(started.running())
        return protocol.Answer(status=0, stdout=b"nobody reads this")

    async def go() -> ShimOutcome:
        async with serving(work, started.path / "s"):
            process = await start(binary, started.path / "s")
            await until((started.path / "begun").exists)
            await cut(process)
            await until(lambda: left)
            return await end(process)

    return asyncio.run(go()), left[0]


def test_a_shim_that_the_runtime_kills_ends_its_plugins(binary: Path, started: Started, way: str) -> None:
    async def kill(process: asyncio.subprocess.Process) -> None:
        process.kill()

    outcome, left = cut_off(binary, started, way, kill)
    assert (outcome.status, left) == (-signal.SIGKILL, [])


def test_ended_by_the_runtime(binary: Path, started: Started, way: str) -> None:
    async def terminate(process: asyncio.subprocess.Process) -> None:
        process.terminate()

    outcome, left = cut_off(binary, started, way, terminate)
    assert (outcome.json["code"], left) == (11, [])


def test_the_process_that_works_is_killed(binary: Path, started: Started, way: str) -> None:
    async def kill(process: asyncio.subprocess.Process) -> None:
        os.kill(await worker(process.pid), signal.SIGKILL)

    outcome, left = cut_off(binary, started, way, kill)
    assert (outcome.json["code"], outcome.json["details"], left) == (11, "Killed", [])


def test_its_process_group_is_killed(binary: Path, started: Started) -> None:
    """For a runtime that gives each plugin a separate process group."""

    async def kill(process: asyncio.subprocess.Process) -> None:
        os.killpg(process.pid, signal.SIGKILL)

    leads = started.path / "leads"  # a shim that leads a group
    leads.write_text(f"#!/bin/sh\nexec setsid {binary}\n")
    leads.chmod(0o755)
    outcome, left = cut_off(leads, started, WAYS["orphan"], kill)
    assert (outcome.status, left) == (-signal.SIGKILL, [])


def test_the_agent_goes_away(binary: Path, started: Started, way: str) -> None:
    plugin = started.plugin(f"touch {started.path}/begun; {way}")

    async def go() -> ShimOutcome:
        server = Server(running(plugin, env=started.env, timeout=60))
        await server.start(started.path / "s")
        process = await start(binary, started.path / "s")
        await until((started.path / "begun").exists)
        await server.stop(0)
        for connection in list(server._active):
            connection._close()
        return await end(process)

    assert (asyncio.run(go()).json["code"], started.running()) == (11, [])


def serve(
    binary: Path, started: Started, *plugins: tuple[str, float], at_once: bool = False
) -> list[tuple[str, list[int]]]:
    """One call that runs plugins, each with a time limit. Returns for each its error and the processes after its
    end."""
    seen: list[tuple[str, list[int]]] = []

    async def work(_: protocol.Call, executor: ShimExecutor) -> protocol.Answer:
        async def one(number: int, text: str, timeout: float) -> Outcome:
            path = started.plugin(text, f"plugin{number}")
            outcome = await executor.run(PluginCall(binary=path, env=started.env, stdin=b"", timeout=timeout))
            seen.append((outcome.error or str(outcome.status), started.running()))
            return outcome

        calls = [one(number, *plugin) for number, plugin in enumerate(plugins)]
        outcomes = await executor.gather(*calls) if at_once else [await each for each in calls]
        assert isinstance(outcomes[-1], Outcome)
        return answer(outcomes[-1])

    async def go() -> ShimOutcome:
        async with serving(work, started.path / "s"):
            return await call(binary, started.path / "s")

    assert json.loads(asyncio.run(go()).stdout)
    return seen


def test_out_of_time_it_ends_with_all_that_it_has_started(binary: Path, started: Started, way: str) -> None:
    """Before its end is reported, because the DEL comes next."""
    assert serve(binary, started, (way, 0.5)) == [("no answer within 0.5 seconds; killed", [])]


@pytest.mark.parametrize("death", ["kill -SEGV $$", "exec yes"])
def test_a_plugin_that_dies_takes_what_it_has_started_with_it(binary: Path, started: Started, death: str) -> None:
    ((error, left),) = serve(binary, started, (f"(setsid sleep 60 >&- 2>&- &); sleep 60 & {death}", 20))
    assert error in ("-11", "more than 1 MiB of output; killed") and left == []


def test_a_daemon_is_meant_to_stay(binary: Path, started: Started) -> None:
    """Even if later plugins or the call fail."""
    daemon = "(setsid sleep 60 &); sleep 60 & exit 0"
    (_, first), (error, second) = serve(binary, started, (daemon, 20), ("(setsid sleep 50 &); sleep 50", 0.5))
    assert "killed" in error and first == second == started.running()
    assert len(started.running()) == 2


def test_a_plugin_beside_one_that_is_cut_off_goes_on(binary: Path, started: Started) -> None:
    kills = f"touch {started.path}/go; sleep 60 & sleep 0.2; kill -9 $$"
    beside = f"sleep 0.01 & until [ -e {started.path}/go ]; do sleep 0.02; done; sleep 0.5; exit 0"
    seen = serve(binary, started, (beside, 20), (kills, 20), at_once=True)
    assert sorted(error for error, _ in seen) == ["-9", "0"]
