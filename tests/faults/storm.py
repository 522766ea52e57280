"""The storm: ADD and DEL of real plugins, many at once, while agent, shim, plugins and their children are killed.

A container is a namespace, an ADD of one to three networks, a DEL as by a runtime, and the namespace's end. For some,
the namespace is removed before the DEL; for some, the DEL comes at the very end, as after a node's reboot.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import re
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.world import PODS, Node, drop_netns, kill, make_netns, node, processes

LATE, EARLY = 0.1, 0.15  # shares of all containers: DEL at the very end; namespace gone before the DEL


@dataclass
class Storm:
    """One storm. seconds: time for new containers. every: mean seconds between two kills."""

    node: Node
    seed: int
    seconds: float
    operations: int
    workers: int
    every: float
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    messages: collections.Counter[str] = field(default_factory=collections.Counter)
    pending: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.running: set[int] = set()
        self.over, self.calm = threading.Event(), threading.Event()
        self.ends = time.monotonic() + self.seconds
        self.number = 0

    def next(self) -> int | None:
        """The next container's number; None if the storm is over."""
        with self.lock:
            self.number += 1
            done = self.counts["ADD"] + self.counts["DEL"]
            return None if time.monotonic() > self.ends or done >= self.operations else self.number

    def call(self, verb: str, pod: str, container: str, netns: str) -> int:
        """One call, which may be killed; returns its exit status."""
        process = self.node.begin(verb, pod, container, netns)
        with self.lock:
            self.counts[verb] += 1
            self.running.add(process.pid)
        try:
            outcome = self.node.finish(process)
        except subprocess.TimeoutExpired:
            self.messages[f"{verb} TIMEOUT"] += 1
            return -1
        finally:
            with self.lock:
                self.running.discard(process.pid)
        if outcome.status > 0:
            self.messages[f"{verb}: {_general(outcome.message)}"] += 1
        return outcome.status

    def delete(self, pod: str, container: str, netns: str) -> None:
        """Repeat DEL until it succeeds, as a runtime does."""
        for _ in range(500):
            if self.call("DEL", pod, container, netns) == 0:
                return
            time.sleep(0.05)
        self.counts["DEL never succeeded"] += 1

    def work(self, seed: int) -> None:
        """One worker: handles one container after the other."""
        dice = random.Random(seed)
        while (number := self.next()) is not None:
            self.container(dice, f"s{self.seed}x{number:06d}abcdef")

    def container(self, dice: random.Random, name: str) -> None:
        pod = dice.choice(list(PODS))
        netns = make_netns(name)
        for _ in range(2):
            status = self.call("ADD", pod, name, netns)
            self.counts["ADD killed" if status < 0 else "ADD failed" if status else "ADD done"] += 1
            if status == 0 or dice.random() < 0.7:
                break
            self.delete(pod, name, netns)  # a runtime that retries in the same sandbox
        how = dice.random()
        if how < LATE:
            self.pending.append((pod, name, netns))
            return
        if gone := how < LATE + EARLY:
            drop_netns(name)
        self.delete(pod, name, dice.choice(["", netns]) if gone else netns)
        drop_netns(name)

    # processes that are killed and restarted

    def keep_agent(self) -> None:
        """Start an agent whenever there is none."""
        while not self.over.is_set():
            if self.node.agent is None or self.node.agent.poll() is not None:
                self.node.start_agent(wait=0)
            time.sleep(0.01)

    def killer(self) -> None:
        dice = random.Random(self.seed * 7 + 1)
        kinds = ["call", "plugin", "child"] if self.node.direct else ["agent", "call", "plugin", "child"]
        while not self.calm.wait(dice.expovariate(1 / self.every)):
            kind = dice.choice([*kinds, "api"])
            if kind == "api":
                self.api_server(dice)
            elif victims := self.victims(kind):
                self.counts[f"killed {kind}"] += kill(dice.choice(victims))

    def victims(self, kind: str) -> list[int]:
        if kind == "agent":
            agent = self.node.agent
            return [agent.pid] if agent and agent.poll() is None and random.random() < 0.3 else []
        if kind == "call":
            with self.lock:
                return list(self.running)
        return [pid for pid, name in _plugins(self.node.plugins) if (name == "host-local") == (kind == "child")]

    def api_server(self, dice: random.Random) -> None:
        """Stop or freeze the API server for a moment."""
        if dice.random() > 0.05:
            return
        self.counts["API server away"] += 1
        self.node.trouble(dice.choice(["down", "silent", "status 500"]))
        self.calm.wait(dice.uniform(0.5, 3))
        self.node.trouble("")

    def last(self, item: tuple[str, str, str]) -> None:
        """DEL of a container at the end; for every second one, the namespace is gone."""
        pod, name, netns = item
        if gone := hash(name) % 2 == 0:
            drop_netns(name)
        self.delete(pod, name, "" if gone else netns)
        drop_netns(name)


def run(*, seed: int, seconds: float, operations: int, workers: int, every: float, direct: bool) -> list[str]:
    """Run a storm; returns the faults afterwards."""
    with node(direct=direct, plugins=os.environ["GENIE_CNI_BIN"]) as here:
        here.three_networks()
        here.ensure_agent()
        # The first attachments make objects that stay on a node: bridges, directories.
        here.call("ADD", "three", "first", make_netns("first"))
        here.delete("three", "first", "/run/netns/first")
        drop_netns("first")
        before = here.inventory()
        storm = Storm(here, seed, seconds, operations, workers, every)
        threads = [threading.Thread(target=storm.killer)]
        if not direct:
            threads.append(threading.Thread(target=storm.keep_agent))
        for thread in threads:
            thread.start()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(storm.work, range(seed * 1000, seed * 1000 + workers)))
        storm.calm.set()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(storm.last, storm.pending))
        storm.over.set()
        for thread in threads:
            thread.join()
        here.ensure_agent()
        return _verdict(storm, before)


def _verdict(storm: Storm, before: dict[str, set[str]]) -> list[str]:
    here = storm.node
    print(f"seed {storm.seed}: {dict(storm.counts)}, agent started {here.starts} times")
    for message, count in storm.messages.most_common(20):
        print(f"  {count:5d} {message}")
    faults = here.left(before)
    if failed := storm.counts["DEL never succeeded"]:
        faults.append(f"{failed} DELs never succeeded")
    faults += [f"{count} calls did not end" for message, count in storm.messages.items() if "TIMEOUT" in message]
    faults += [f"no JSON: {message}" for message in storm.messages if "NOT JSON" in message]
    return faults + [f"log: {line}" for line in here.odd_lines()[:5]]


def _plugins(directory: str) -> list[tuple[int, str]]:
    """Running plugins with their names."""
    found = []
    for pid in processes():
        with contextlib.suppress(OSError):
            binary = Path(f"/proc/{pid}/exe").readlink()
            if str(binary.parent) == os.path.realpath(directory):
                found.append((pid, binary.name))
    return found


def _general(message: str) -> str:
    """A message without the parts that differ between containers."""
    return re.sub(r"s\d+x\d+\w*|[0-9a-f]{6,}|\d+", "#", message)[:150]
