"""A pod's namespace with very much in it: read off the event loop, and up to a limit."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genie.agent.server import ShimExecutor
from genie.agent.slots import Slots
from genie.config import Conf
from genie.kernel import netns
from genie.kernel.netlink import FAMILIES, Netlink
from genie.kernel.netns import MOST, CrowdedError
from genie.request import Request
from genie.verbs.context import HERE, Context
from genie.verbs.trace import StepTimes
from tests.rigs.netns import Namespace

pytestmark = pytest.mark.root

#: How each kind of thing is read, and the command that makes one more.
KINDS: dict[str, tuple[Callable[[Netlink], Any], str]] = {
    "routes": (lambda kernel: [kernel.routes(family) for family in FAMILIES], "route add 10.9.{}.{} dev lo"),
    "addresses": (lambda kernel: kernel.addresses(), "addr add 10.9.{}.{}/32 dev lo"),
    "rules": (lambda kernel: [kernel.rules(family) for family in FAMILIES], "rule add from 10.9.{}.{} lookup 77"),
}


@pytest.fixture(params=KINDS)
def crowded(request: pytest.FixtureRequest) -> Iterator[tuple[Namespace, Callable[[Netlink], Any]]]:
    """A namespace with more of something than is read on the loop."""
    space = Namespace()
    read, command = KINDS[request.param]
    space.ip(*(command.format(n >> 7, n & 127) for n in range(HERE + 1)))
    yield space, read
    space.close()


def context(space: Namespace, executor: Any) -> Context:
    conf = Conf(name="genie", cni_version="1.0.0")
    request = Request(env={"CNI_NETNS": space.path}, stdin=b"")
    nobody: Any = None
    return Context(request=request, conf=conf, kube=nobody, executor=executor, story={}, steps=StepTimes())


def in_agent(space: Namespace, work: Callable[[Netlink], Any]) -> tuple[bool, Any]:
    """What the work returned at last, and whether that was on the loop's thread."""

    async def go() -> tuple[int, Any]:
        call = context(space, ShimExecutor(lambda data: None, lambda why: None, Slots(1)))
        with call.netlink() as kernel:
            return await call.in_namespace(kernel, lambda: (threading.get_ident(), work(kernel)))

    thread, found = asyncio.run(go())
    return thread == threading.get_ident(), found


def test_much_is_read_in_a_thread(crowded: tuple[Namespace, Callable[[Netlink], Any]]) -> None:
    space, read = crowded
    on_loop, found = in_agent(space, read)
    with Netlink(space.path) as kernel:
        assert not on_loop and found == read(kernel)


def test_little_is_read_here() -> None:
    space = Namespace()
    try:
        for read, _ in KINDS.values():
            assert in_agent(space, read)[0]
    finally:
        space.close()


def test_a_connection_is_of_use_after_too_much(crowded: tuple[Namespace, Callable[[Netlink], Any]]) -> None:
    space, read = crowded
    with Netlink(space.path) as kernel:
        kernel.most = HERE
        with pytest.raises(CrowdedError):
            read(kernel)
        assert "lo" in kernel.links()
        kernel.most = MOST
        assert read(kernel)


def test_far_too_much_is_an_error(
    crowded: tuple[Namespace, Callable[[Netlink], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    space, read = crowded
    monkeypatch.setattr(netns, "MOST", HERE)
    with Netlink(space.path) as kernel, pytest.raises(OSError, match=f"more than {HERE}, the most") as caught:
        read(kernel)
    assert caught.value.errno == errno.E2BIG


def test_a_cancelled_call_waits_for_what_its_thread_does(tmp_path: Path) -> None:
    """The thread has the namespace's socket, which the call is about to close."""
    began, go_on, log = threading.Event(), threading.Event(), []

    def work() -> None:
        began.set()
        go_on.wait()
        log.append("done")

    async def serve(executor: ShimExecutor) -> None:
        try:
            await executor.in_thread(work)
        finally:
            log.append("closed")

    async def go() -> None:
        task = asyncio.create_task(serve(ShimExecutor(lambda data: None, lambda why: None, Slots(1))))
        await asyncio.to_thread(began.wait)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())
    assert log == ["done", "closed"]
