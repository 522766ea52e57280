"""Annotations on their way: refused, shortened, in trouble; one pod's trouble is nobody else's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from typing import Any

import pytest

from genie import kube
from genie.agent import reporter
from genie.agent import writer as writing
from genie.agent.cache import Asker
from genie.agent.metrics import Metrics
from genie.agent.reporter import Reporter
from genie.agent.writer import Writer
from genie.cni.errors import CniError, Code
from genie.kube import Client, Pod, RefusedError
from tests.rigs.fake_api import FakeApi

Patch = Callable[[Pod, Mapping[str, str]], str]
NOTES = {"k8s.v1.cni.cncf.io/network-status": "[]"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "BACKOFF", (0.01, 0.05))
    monkeypatch.setattr(reporter, "BACKOFF", (0.01, 0.05))


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()
    yield fake
    fake.down()


def pod(name: str = "web") -> Pod:
    return Pod(namespace="blue", name=name, uid=f"u-{name}")


def trying(api: FakeApi, patch: Patch, check: Callable[[Writer], Coroutine[Any, Any, None]]) -> Metrics:
    """Run a check with a writer whose patches are the test's; returns what was counted."""
    metrics = Metrics()

    async def go() -> None:
        asker = Asker(lambda seconds: Client(kube.ApiServer(url=api.url), seconds))
        made = Writer(patch, metrics, Reporter(asker.ask, "node-1", metrics.events))
        running = asyncio.get_running_loop().create_task(made.run())
        await check(made)
        assert made.reporter.flush(10)
        running.cancel()

    asyncio.run(go())
    return metrics


def events(api: FakeApi) -> list[tuple[str, str, str]]:
    return [(each["type"], each["reason"], each["message"]) for each in api.events.values()]


@pytest.mark.parametrize("status", [400, 405, 410, 413, 415, 422])
def test_refused_annotations_are_logged_counted_and_an_event(
    api: FakeApi, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.WARNING)

    def refuse(*_: object) -> str:
        raise RefusedError(status, f"the API server answers {status}")

    async def check(made: Writer) -> None:
        made.add(pod(), NOTES)
        assert await made.flush(5)

    metrics = trying(api, refuse, check)
    assert (metrics.patches.value("refused"), metrics.patches.value("written")) == (1, 0)
    assert events(api) == [("Warning", "NetworkStatusRefused", f"the API server answers {status}")]
    assert [line.msg for line in caplog.records] == ["annotations were refused"]


def test_shortened_annotations_are_logged_counted_and_an_event(api: FakeApi, caplog: pytest.LogCaptureFixture) -> None:
    async def check(made: Writer) -> None:
        made.add(pod(), NOTES)
        assert await made.flush(5)

    metrics = trying(api, lambda *_: "Too long", check)
    assert (metrics.patches.value("shortened"), metrics.patches.value("written")) == (1, 0)
    assert events(api) == [("Warning", "NetworkStatusShortened", "Too long")]
    assert [line.msg for line in caplog.records] == ["annotations did not fit; less was written"]


@pytest.mark.parametrize("status", [401, 403])
def test_missing_rights_are_one_event_and_the_annotations_come_when_they_are_given(api: FakeApi, status: int) -> None:
    tries: list[int] = []

    def patch(*_: object) -> str:
        tries.append(1)
        if len(tries) < 4:
            raise RefusedError(status, "no right")
        return ""

    async def check(made: Writer) -> None:
        made.add(pod(), NOTES)
        assert await made.flush(5)

    metrics = trying(api, patch, check)
    assert (metrics.patches.value("failed"), metrics.patches.value("written")) == (3, 1)
    assert events(api) == [("Warning", "NetworkStatusRefused", "no right")]


@pytest.mark.parametrize("status", [403, 409, 429, 500])
def test_a_pod_in_trouble_delays_no_other(api: FakeApi, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(writing, "BACKOFF", (1000.0, 1000.0))
    done: list[str] = []

    def patch(to: Pod, _: Mapping[str, str]) -> str:
        if to.name == "bad":
            raise RefusedError(status, "no")
        done.append(to.name)
        return ""

    async def check(made: Writer) -> None:
        made.add(pod("bad"), NOTES)
        while made.waiting and not made._again:
            await asyncio.sleep(0.001)
        for name in ("a", "b"):
            made.add(pod(name), NOTES)
            while name not in done:
                await asyncio.sleep(0.001)

    trying(api, patch, check)
    assert done == ["a", "b"]


def test_an_api_server_that_is_away_is_not_asked_for_each_new_pod(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "BACKOFF", (1000.0, 1000.0))
    tries: list[str] = []

    def patch(to: Pod, _: Mapping[str, str]) -> str:
        tries.append(to.name)
        raise CniError(Code.TRY_AGAIN, "away")

    async def check(made: Writer) -> None:
        made.add(pod("first"), NOTES)
        while not made._again:
            await asyncio.sleep(0.001)
        for number in range(20):
            made.add(pod(f"p{number}"), NOTES)
        assert not await made.flush(0.1)
        assert made.waiting == 21

    trying(api, patch, check)
    assert tries == ["first"]


def test_what_comes_during_an_attempt_goes_with_the_next(api: FakeApi) -> None:
    written: list[Mapping[str, str]] = []
    more: list[Callable[[], object]] = []

    def patch(_: Pod, notes: Mapping[str, str]) -> str:
        if not written:
            written.append({})
            more[0]()
            raise RefusedError(500, "trouble")
        written.append(dict(notes))
        return ""

    async def check(one: Writer) -> None:
        newer = {"b": "new", "c": "3"}
        more.append(partial(asyncio.get_running_loop().call_soon_threadsafe, one.add, pod(), newer))
        one.add(pod(), {"a": "1", "b": "old"})
        assert await one.flush(5)

    trying(api, patch, check)
    assert written[1:] == [{"a": "1", "b": "new", "c": "3"}]
