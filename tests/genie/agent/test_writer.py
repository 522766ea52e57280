"""Writing annotations: refused, shortened, failed; an error of one pod does not affect others."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie import kube
from genie.agent import reporter
from genie.agent import writer as writing
from genie.agent.cache import Asker
from genie.agent.metrics import Metrics
from genie.agent.reporter import Reporter
from genie.agent.writer import Writer
from genie.cni.errors import CniError, Code
from genie.kube import Client, MirrorMissingError, Pod, RefusedError
from genie.records import Record
from tests.rigs.agent import until
from tests.rigs.agent_node import Node
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
    """Run a check with a writer that uses the test's patches; returns the counters."""
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


def test_a_static_pods_mirror_is_waited_for_but_not_for_ever(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MIRROR_ATTEMPTS", 3)
    tries: list[str] = []

    def patch(to: Pod, _: Mapping[str, str]) -> str:
        tries.append(to.name)
        if to.name == "gone" or len(tries) < 2:
            raise MirrorMissingError(Code.TRY_AGAIN, "no mirror yet")
        return ""

    async def check(made: Writer) -> None:
        for name in ("late", "gone"):
            made.add(pod(name), NOTES)
            assert await made.flush(5)

    metrics = trying(api, patch, check)
    assert tries == ["late", "late", "gone", "gone", "gone"]
    assert (metrics.patches.value("written"), metrics.patches.value("refused")) == (1, 1)
    assert events(api) == [("Warning", "NetworkStatusRefused", "no mirror yet")]


def test_annotations_that_come_during_an_attempt_are_written_by_the_next(api: FakeApi) -> None:
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


# --- what an agent left unwritten -------------------------------------------------------------------------------

LIVING = "/proc/self/ns/net"
UID = "11111111-1111-4111-8111-111111111111"


def record(
    container: str = "c1", *, name: str = "web", uid: str = UID, netns: str = LIVING, complete: bool = True, **more: Any
) -> Record:
    return Record(
        container_id=container, ifname="eth0", netns=netns, namespace="blue", pod=name, uid=uid, complete=complete,
        annotations={"status": container, "more": "x"}, **more,
    )  # fmt: skip


def on_pods(uid: str = UID, **annotations: str) -> dict[tuple[str, str], Pod]:
    return {("blue", "web"): Pod(namespace="blue", name="web", uid=uid, annotations=annotations)}


def texts(*records: Record, pods: Mapping[tuple[str, str], Pod] | None = None) -> list[dict[str, str]]:
    """The annotations that would be written for records that were written one after the other."""
    dated = [(time.time() + at, each) for at, each in enumerate(records)]
    return [notes for _, notes in writing.left_over(dated, on_pods() if pods is None else pods)]


def test_left_over_finds_missing_annotations_alone() -> None:
    assert texts(record()) == [{"status": "c1", "more": "x"}]
    assert texts(record(), pods=on_pods(status="c1", more="y", cni="net")) == [{"more": "x"}]
    assert texts(record(), pods=on_pods(status="c1", more="x")) == []
    assert texts(record(complete=False)) == [], "its ADD is to be undone"
    assert texts(record(), pods={}) == [], "the pod is gone"


@pytest.mark.parametrize("order", [("dead", "alive"), ("alive", "dead")])
def test_of_two_containers_of_a_pod_the_living_one_counts(tmp_path: Path, order: tuple[str, str]) -> None:
    """Without a DEL, the dead container's record still exists; by a clock that was fast, it may be the newer one."""
    gone = str(tmp_path / "gone")
    made = [record(name, netns=LIVING if name == "alive" else gone) for name in order]
    assert [notes["status"] for notes in texts(*made)] == ["alive"]


def test_a_newer_container_that_is_not_ready_leaves_no_room_for_an_older_one() -> None:
    assert texts(record("old"), record("new", complete=False)) == []
    assert texts(record("new"), record("old")) == [{"status": "old", "more": "x"}], "written last is newest"


def test_a_container_whose_namespace_is_gone_has_nothing_to_report(tmp_path: Path) -> None:
    assert texts(record(netns=str(tmp_path / "gone"))) == []
    (tmp_path / "unmounted").touch()
    assert texts(record(netns=str(tmp_path / "unmounted"))) == [], "only the file that it was mounted on is left"
    (tmp_path / "there").symlink_to(LIVING)
    assert len(texts(record(netns=str(tmp_path / "there")))) == 1


def test_where_namespaces_cannot_be_seen_those_of_before_the_nodes_start_are_gone() -> None:
    unseen = record(netns="/nowhere/netns/x")
    assert len(texts(unseen)) == 1
    assert writing.left_over([(1.0, unseen)], on_pods()) == []


def test_a_pod_made_again_under_the_name_has_its_own_annotations() -> None:
    other = "22222222-2222-4222-8222-222222222222"
    assert texts(record(uid=other)) == []
    assert texts(record(uid=other), record("newer")) == [{"status": "newer", "more": "x"}]
    assert texts(record(), record("newer", uid=other)) == [], "the newest container is another pod's"


def test_a_static_pods_new_mirror_is_the_same_pod() -> None:
    mirror = on_pods(uid="another-mirror", **{kube.MIRROR: "hash", kube.HASH: "hash"})
    args = "K8S_POD_NAMESPACE=blue;K8S_POD_NAME=web;K8S_POD_UID="
    assert len(texts(record(args=f"{args}hash"), pods=mirror)) == 1
    assert texts(record(args=f"{args}older"), pods=mirror) == []


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=6))
def test_at_most_the_newest_that_lives_is_written_whatever_was_left(made: list[tuple[bool, bool, bool]]) -> None:
    """A dead one may be the newest by its file's time, after the clock was set back."""
    records = [
        record(f"c{at}", complete=whole, netns=LIVING if lives else "/proc/self/ns/none", uid=UID if own else "other")
        for at, (whole, lives, own) in enumerate(made)
    ]
    newest = max((at for at, (_, lives, _) in enumerate(made) if lives), default=None)
    expected = [] if newest is None or not all(made[newest]) else [{"status": f"c{newest}", "more": "x"}]
    assert texts(*records) == expected


def test_an_agent_writes_what_the_one_before_it_left(place: Path, binary: Path, api: FakeApi) -> None:
    """Also if the API server answers only after calls are served."""
    node = Node(place, binary, api)
    unseen = "/nowhere/netns/x"

    async def go() -> None:
        async with node.agent() as agent:
            api.down()
            assert (await node.call("ADD", netns=unseen)).status == 0
            agent.kill()
            await agent.wait()
        async with node.agent():
            assert "k8s.v1.cni.cncf.io/network-status" not in api.notes("p")
            api.up()
            await until(lambda: "k8s.v1.cni.cncf.io/network-status" in api.notes("p"), 30)

    asyncio.run(go())
    assert json.loads(api.notes("p")["k8s.v1.cni.cncf.io/network-status"])[0]["ips"] == ["10.1.0.5"]
