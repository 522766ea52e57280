"""What the event loop computes at a stretch, with the worst that users and plugins can give it: counted, not timed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from benchmarks import longest_step
from benchmarks.longest_step import CASES, Case, Plugins
from genie.agent import daemon
from genie.select import networks
from tests.rigs.netns import Namespace

pytestmark = pytest.mark.root

MOST = 30_000
"""Lines of Python: about 5 ms."""

WORST = (
    "cni: 32 networks",
    "cni: 65536 @",
    "networks: objects",
    "networks: strings, then NaN",
    "networks: 64 ips each",
    "networks: portMappings",
    "definitions: 31 of 8 KiB",
    "definitions: routes",
    "definitions: ranges of ptp",
    "result: the most, two networks",
    "result: the most, 32 networks",
    "net.d: 300 files, 32 networks",
)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The lines of each callback of the loop, except of the stand-in for the plugins."""
    counts: list[int] = []
    plain = asyncio.Handle._run

    def trace(_: FrameType, event: str, __: Any) -> Any:
        counts[-1] += event == "line"
        return trace

    def run(handle: Any) -> None:
        if getattr(handle._callback, "__func__", None) is Plugins.answer:
            plain(handle)
            return
        counts.append(0)
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            plain(handle)
        finally:
            sys.settrace(before)

    monkeypatch.setattr(asyncio.Handle, "_run", run)
    yield counts
    monkeypatch.setattr(asyncio.Handle, "_run", plain)


@pytest.mark.parametrize("name", WORST)
def test_no_step_is_long(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    daemon._import_all()
    (tmp_path / "net.d").mkdir()
    longest_step.plugins(tmp_path)
    longest_step.fill(case, tmp_path)
    networks.directory(str(tmp_path / "net.d")).entries()  # read again only when it changes
    space = Namespace()
    try:
        space.ip(*case.ip())
        with counted(monkeypatch) as counts:
            asyncio.run(add_check_del(case, space.path, tmp_path))
    finally:
        space.close()
    assert max(counts) <= MOST


async def add_check_del(case: Case, netns: str, place: Path) -> None:
    added = None
    for verb in ("ADD", "CHECK", "DEL"):
        if verb == "CHECK" and (added is None or "code" in added):
            continue
        _, outcome = await longest_step.call(case, verb, netns, place, added if verb == "CHECK" else None)
        added = outcome if verb == "ADD" else added
