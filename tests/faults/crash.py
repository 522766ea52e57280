"""Crash points: kills a process at the start of each system call that changes something, in ADD and in DEL.

Then the runtime calls DEL until it succeeds, the namespace is removed, and nothing may be left.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from dataclasses import dataclass

from tests.faults import trace
from tests.faults.world import CallOutcome, Node, drop_netns, make_netns, node


@dataclass(frozen=True)
class Point:
    """A moment of a kill. container: the pod's container, different for each moment."""

    verb: str
    count: int

    @property
    def container(self) -> str:
        return f"{self.verb.lower()}{self.count}"


def run(*, who: str, verb: str, seed: int, seconds: float, at: int) -> list[str]:
    """Kill `who` (agent, shim or direct) at one moment after the other; returns all leftovers.

    seconds: use moments in random order for this time; 0: all of them. at: only this moment.
    """
    with node(direct=who == "direct", plugins=os.environ["GENIE_CNI_BIN"]) as here:
        here.three_networks()
        here.ensure_agent()
        _whole(here, Point("warm", 0))
        before = here.inventory()
        total = _moment(here, who, Point(verb, 0))[0].total
        order = [at] if at else random.Random(seed).sample(range(1, total + 1), total)
        faults: list[str] = []
        began = time.monotonic()
        done = 0
        for count in order:
            if seconds and time.monotonic() - began > seconds:
                break
            seen, outcome, tries = _moment(here, who, Point(verb, count))
            done += bool(seen.at)
            if left := here.left(before, within=2):
                faults.append(f"{who} ended on entering {seen.at} ({count}) of {verb}: left {left}")
                before = here.inventory()
            if outcome.status:
                faults.append(f"{who} ended at {seen.at} ({count}) of {verb}: {tries} DELs failed: {outcome.message}")
        print(f"{who} {verb}: {done} of {total} moments (seed {seed})")
        return faults + ([] if done or not order else [f"{who} was never ended: the trace does not work"])


def _whole(here: Node, point: Point) -> None:
    """The whole life of a pod, without a fault."""
    netns = make_netns(point.container)
    outcome = here.call("ADD", "three", point.container, netns)
    if outcome.status:
        raise RuntimeError(f"ADD without any trouble failed: {outcome.message}")
    here.delete("three", point.container, netns)
    drop_netns(point.container)


def _moment(here: Node, who: str, point: Point) -> tuple[trace.Traced, CallOutcome, int]:
    """Interrupt a pod's ADD or DEL; returns the trace and the last DEL."""
    here.ensure_agent()
    netns = make_netns(point.container)
    if point.verb == "DEL":
        here.call("ADD", "three", point.container, netns)
    cut = _cut_agent if who == "agent" else _cut_call
    seen = cut(here, point, netns)
    gone = point.count % 2 == 1  # for every second one, the namespace is gone before the runtime calls DEL
    if gone:
        drop_netns(point.container)
    outcome = here.delete("three", point.container, "" if gone else netns, tries=40)
    drop_netns(point.container)
    return seen, outcome, 40


def _cut_agent(here: Node, point: Point, netns: str) -> trace.Traced:
    assert here.agent
    tracer = trace.attach(here.agent.pid, point.count)
    outcome = here.call(point.verb, "three", point.container, netns)
    if outcome.status == 0:
        time.sleep(0.1)  # system calls of the agent after its answer count, too
    return tracer.end()


def _cut_call(here: Node, point: Point, netns: str) -> trace.Traced:
    stdin, feed = os.pipe()
    out, stdout = os.pipe()
    env = here.env(point.verb, "three", point.container, netns)
    tracer = trace.launch([here.executable], env, stdin, stdout, point.count)
    os.close(stdin)
    os.close(stdout)
    with contextlib.suppress(BrokenPipeError), os.fdopen(feed, "wb") as pipe:  # it is written when the pipe is closed
        pipe.write(here.stdin)
    with os.fdopen(out, "rb") as pipe:
        pipe.read()
    return tracer.end(wait=True)
