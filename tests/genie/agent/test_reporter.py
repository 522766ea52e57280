"""Sending Events: counted, limited, in the background; with an API server that refuses, forgets, stops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie import kube
from genie.agent import reporter
from genie.agent.cache import Asker
from genie.agent.metrics import Metrics
from genie.agent.reporter import Reporter
from genie.event import Event
from genie.kube import HASH, MIRROR, Client, Pod, pod_event
from tests.rigs.fake_api import FakeApi

WEB = Pod(namespace="blue", name="web", uid="u-1")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "BACKOFF", (0.01, 0.02))


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()
    yield fake
    fake.down()


def reporting(api: FakeApi) -> tuple[Reporter, Metrics]:
    metrics = Metrics()
    asker = Asker(lambda seconds: Client(kube.ApiServer(url=api.url), seconds))
    return Reporter(asker.ask, "node-1", metrics.events), metrics


def event(message: str = "it drifted", pod: Pod = WEB, *, warning: bool = True) -> Event:
    return pod_event(pod, "Drift", message, warning=warning)


def test_an_event_is_one_that_kubectl_shows(api: FakeApi) -> None:
    reports, metrics = reporting(api)
    reports.add(event())
    assert reports.flush(10)
    (written,) = api.events.values()
    assert written["involvedObject"] == {
        "apiVersion": "v1", "kind": "Pod", "namespace": "blue", "name": "web", "uid": "u-1",
    }  # fmt: skip
    assert (written["type"], written["reason"], written["message"]) == ("Warning", "Drift", "it drifted")
    assert written["source"] == {"component": "genie", "host": "node-1"}
    assert written["count"] == 1 and written["firstTimestamp"] == written["lastTimestamp"]
    assert written["metadata"]["namespace"] == "blue" and written["metadata"]["name"].startswith("web.")
    assert metrics.events.value("written") == 1


def test_a_static_pod_is_known_by_the_uid_that_kubectl_looks_for(api: FakeApi) -> None:
    mirror = Pod(namespace="blue", name="web", uid="u-1", annotations={MIRROR: "hash", HASH: "hash"})
    assert event(pod=mirror).uid == "hash"


def test_a_repeated_event_is_counted_and_not_written_anew(api: FakeApi) -> None:
    reports, _ = reporting(api)
    for _ in range(3):
        reports.add(event())
        assert reports.flush(10)
    assert [each["count"] for each in api.events.values()] == [3]
    assert (api.asked("POST"), api.asked("PATCH")) == (1, 2)


def test_an_event_that_the_api_server_has_forgotten_is_written_again(api: FakeApi) -> None:
    reports, _ = reporting(api)
    reports.add(event())
    assert reports.flush(10)
    api.events.clear()  # it keeps them for an hour
    reports.add(event())
    assert reports.flush(10)
    assert [each["count"] for each in api.events.values()] == [2]


def test_a_pod_that_never_stops_costs_nobody_else(api: FakeApi) -> None:
    reports, metrics = reporting(api)
    for number in range(500):
        reports.add(event(f"trouble {number}"))
    other = event(pod=Pod(namespace="blue", name="other", uid="u-2"))
    reports.add(other)
    assert reports.flush(20)
    names = [each["involvedObject"]["name"] for each in api.events.values()]
    assert names.count("web") == reporter.OF_ONE[0] and names.count("other") == 1
    assert metrics.events.value("dropped") == 500 - reporter.OF_ONE[0]


def test_many_pods_together_are_limited_too(api: FakeApi) -> None:
    reports, metrics = reporting(api)
    for number in range(400):
        reports.add(event(pod=Pod(namespace="blue", name=f"p{number}", uid=f"u-{number}")))
    assert reports.flush(20)
    assert metrics.events.value("written") + metrics.events.value("dropped") == 400
    assert metrics.events.value("written") < 250


def test_while_the_api_server_is_away_so_many_wait_and_errors_before_what_went_well(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "WAITING", 3)
    reports, metrics = reporting(api)
    api.down()
    for number in range(4):
        reports.add(event(f"well {number}", warning=False))
    for number in range(3):
        reports.add(event(f"bad {number}"))
    assert not reports.flush(0.1), "adding returned at once, sending did not"
    api.up()
    assert reports.flush(20)
    messages = {each["message"] for each in api.events.values()}
    assert {"bad 0", "bad 1", "bad 2"} <= messages
    assert len(messages) <= 4, "three wait, and one was on its way"
    assert metrics.events.value("dropped") >= 3


def test_an_event_that_waited_for_too_long_is_dropped(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "LONGEST_WAIT", 0.0)
    reports, metrics = reporting(api)
    api.down()
    reports.add(event())
    assert reports.flush(20)
    assert metrics.events.value("dropped") == 1


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413, 422])
def test_a_refused_event_is_counted_and_logged_once(
    api: FakeApi, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    reports, metrics = reporting(api)
    api.refuse_events = status
    for message in ("a", "b"):
        reports.add(event(message))
        assert reports.flush(10)
    assert metrics.events.value("refused") == 2 and api.asked("POST") == 2, "each was tried once"
    assert [line.msg for line in caplog.records] == ["an Event could not be written"]


@pytest.mark.parametrize("status", [401, 408, 429, 500, 503])
def test_an_api_server_in_trouble_gets_the_event_later(api: FakeApi, status: int) -> None:
    reports, metrics = reporting(api)
    api.refuse_events = status
    reports.add(event())
    assert not reports.flush(0.1)
    api.refuse_events = 0
    assert reports.flush(20) and metrics.events.value("written") == 1


def test_an_answer_that_was_lost_makes_no_second_event(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    take = api.post_event

    def lose(item: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        take(item)
        monkeypatch.undo()
        return 500, {}

    monkeypatch.setattr(api, "post_event", lose)
    reports, metrics = reporting(api)
    reports.add(event())
    assert reports.flush(10)
    assert (len(api.events), api.asked("POST"), metrics.events.value("written")) == (1, 2, 1)


def test_an_unexpected_error_does_not_end_the_reporter(caplog: pytest.LogCaptureFixture) -> None:
    metrics, done = Metrics(), threading.Event()

    def ask(_: Callable[[Client], None]) -> None:
        if done.is_set():
            return
        done.set()
        raise ValueError("a bug")

    reports = Reporter(ask, "node-1", metrics.events)
    for message in ("a", "b"):
        reports.add(event(message))
        assert reports.flush(10)
    assert (metrics.events.value("refused"), metrics.events.value("written")) == (1, 1)


@given(st.text(max_size=300), st.text(max_size=3000))
def test_an_event_fits_whatever_a_user_writes(name: str, message: str) -> None:
    from genie import event as events

    made = pod_event(Pod(namespace="blue", name=name, uid="u"), "Reason", message)
    body = events.body(made, events.object_name(made), "n", first=0, last=0, count=1)
    assert len(body["message"]) <= 1024 and len(body["metadata"]["name"]) <= 253
    assert body["firstTimestamp"] == "1970-01-01T00:00:00Z"
