"""The agent's cache, with an API server that changes, forgets, stops and returns."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from genie import kube
from genie.agent import cache
from genie.agent.cache import Asker, CachedKube, Unkept, read_object
from genie.agent.metrics import Metrics
from genie.agent.reporter import Reporter
from genie.agent.writer import Writer
from genie.cni.errors import CniError
from genie.kube import Default, Pod
from genie.select.annotations import ANNOTATION_MAX, asks
from genie.select.networks import RESOURCE
from genie.verbs.network_status import shorter
from tests.rigs.agent import until
from tests.rigs.api import POD, WEB, Api, serve
from tests.rigs.fake_api import FakeApi
from tests.rigs.selection import CONF

NAD = "NetworkAttachmentDefinition"
NADS = "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions"
CRDS = Path(kube.__file__).with_name("deploy") / "crds"
LOGICAL = "/apis/alpha.network.k8s.io/v1/logicalnetworks"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of seconds on a node take no time here."""
    monkeypatch.setattr(cache, "BACKOFF", (0.01, 0.05))
    monkeypatch.setattr(cache, "ABSENT_SECONDS", 0.05)
    monkeypatch.setattr(cache, "PAGE", 3)
    monkeypatch.setattr(cache, "FIRST_PAGE", 3)
    monkeypatch.setattr("genie.agent.writer.BACKOFF", (0.01, 0.05))


@asynccontextmanager
async def watching(api: FakeApi, *, wait: bool = True) -> AsyncIterator[CachedKube]:
    server = kube.ApiServer(url=api.url)
    metrics = Metrics()
    events = Asker(lambda seconds: kube.Client(server, seconds))
    client = kube.Client(server, 5)
    writer = Writer(
        lambda pod, notes: kube.write_annotations(client, pod, notes, shorter),
        metrics,
        Reporter(events.ask, "node-1", metrics.events),
    )
    cached = CachedKube(lambda seconds: kube.Client(server, seconds, read_object), "node-1", writer, metrics)
    writing = asyncio.get_running_loop().create_task(writer.run())
    cached.start()
    try:
        if wait:
            await until(cached.synced)
        yield cached
    finally:
        writing.cancel()
        cached.stop()


def trying(api: FakeApi, check: Callable[[CachedKube], Awaitable[None]], **options: bool) -> None:
    async def go() -> None:
        async with watching(api, **options) as cached:
            await check(cached)

    asyncio.run(go())


def test_a_pod_of_this_node_takes_no_request(api: FakeApi) -> None:
    for n in range(8):  # several pages
        api.pod(f"p{n}", annotations={"cni": "calico", "kubectl.kubernetes.io/last-applied-configuration": "x" * 9999})

    async def check(cached: CachedKube) -> None:
        assert api.asked("GET /api/v1/pods?limit=3&fieldSelector=spec.nodeName%3Dnode-1") == 3
        pod = await cached.pod("default", "p7", "uid-p7")
        assert pod == Pod(namespace="default", name="p7", uid="uid-p7", annotations={"cni": "calico"})
        assert not api.asked("/namespaces/default/pods")

    trying(api, check)


def test_changes_arrive(api: FakeApi) -> None:
    async def check(cached: CachedKube) -> None:
        api.pod("a", annotations={"cni": "one"})
        await until(lambda: cached.pods.get("default", "a"))
        api.pod("a", annotations={"cni": "two"})
        two = Pod(namespace="default", name="a", uid="uid-a", annotations={"cni": "two"})
        await until(lambda: cached.pods.get("default", "a") == two)
        api.remove("/api/v1/pods", "default", "a")
        await until(lambda: not cached.pods.get("default", "a"))

    trying(api, check)


def test_a_pod_that_is_not_known_yet_is_asked_for(api: FakeApi) -> None:
    async def check(cached: CachedKube) -> None:
        for watch in cached.watches:
            watch.stop()  # the watch is behind
        api.pod("new", annotations={"cni": "x"})
        cached.pods.items.clear()
        assert (await cached.pod("default", "new", "uid-new")).annotations == {"cni": "x"}
        assert api.asked("/namespaces/default/pods/new") == 1
        with pytest.raises(CniError, match="no such pod") as missing:
            await cached.pod("default", "none", "")
        assert missing.value.code == 3

    trying(api, check)


def test_a_pod_of_another_uid_is_not_this_pod(api: FakeApi) -> None:
    api.pod("a", uid="old", annotations={"cni": "old"})

    async def check(cached: CachedKube) -> None:
        for watch in cached.watches:
            watch.stop()
        api.pod("a", uid="new", annotations={"cni": "new"})
        cached.pods.items["default", "a"] = Pod(namespace="default", name="a", uid="old", annotations={"cni": "old"})
        assert (await cached.pod("default", "a", "new")).annotations == {"cni": "new"}
        with pytest.raises(CniError, match="UID"):
            await cached.pod("default", "a", "third")

    trying(api, check)


def test_a_static_pod_is_known_by_its_mirror(api: FakeApi) -> None:
    api.pod("a", uid="mirror", annotations={kube.MIRROR: "hash", kube.HASH: "hash", "cni": "old"})

    async def check(cached: CachedKube) -> None:
        assert (await cached.pod("default", "a", "hash")).uid == "mirror"
        assert not api.asked("/namespaces/default/pods"), "the watch knows it"
        with pytest.raises(CniError, match="is the mirror of static pod hash, not yet the mirror of newer") as caught:
            await cached.pod("default", "a", "newer")
        assert caught.value.code == 11
        api.remove("/api/v1/pods", "default", "a")
        with pytest.raises(CniError, match="its mirror pod is not on the API server yet") as caught:
            await cached.pod("default", "a", "newer")
        assert caught.value.code == 11
        api.pod("a", uid="mirror-2", annotations={kube.MIRROR: "newer", kube.HASH: "newer", "cni": "new"})
        assert (await cached.pod("default", "a", "newer")).annotations["cni"] == "new"

    trying(api, check)


def test_annotations_from_the_runtime_win(api: FakeApi) -> None:
    api.pod("a", annotations={"cni": "old"})

    async def check(cached: CachedKube) -> None:
        asked = len(api.requests)
        for name in ("a", "unknown"):
            made = await cached.pod("default", name, f"uid-{name}", {"cni": "new"})
            assert made == Pod(namespace="default", name=name, uid=f"uid-{name}", annotations={"cni": "new"})
        static = {"kubernetes.io/config.source": "file"}
        assert (await cached.pod("default", "a", "another", static)).annotations == static
        assert api.requests[asked:] == []

    trying(api, check)


def test_a_pod_of_another_uid_is_asked_for_and_without_an_api_server_the_runtime_is_believed(api: FakeApi) -> None:
    api.pod("a", uid="1-1")

    async def check(cached: CachedKube) -> None:
        with pytest.raises(CniError, match="the pod was deleted and made again") as caught:
            await cached.pod("default", "a", "2-2", {"cni": "x"})
        assert caught.value.code == 3
        api.down()
        await until(lambda: not cached.pods.live)
        assert (await cached.pod("default", "a", "2-2", {"cni": "x"})).uid == "2-2"

    trying(api, check)


def test_network_objects_and_crds_that_are_not_there(api: FakeApi) -> None:
    api.put(NADS, "default", "blue", spec={"config": "{}"})

    async def check(cached: CachedKube) -> None:
        blue = await cached.network("NetworkAttachmentDefinition", "default", "blue")
        assert blue and blue["spec"] == {"config": "{}"} and blue["metadata"]["name"] == "blue"
        assert await cached.network("NetworkAttachmentDefinition", "default", "red") is None
        assert await cached.network("LogicalNetwork", "default", "green") is None
        assert not api.asked("namespaces/default/net") and not api.asked("namespaces/default/log")
        api.put(LOGICAL, "default", "green", spec={"plugin": "weave"})
        api.absent.clear()  # somebody installs the CRD
        await until(lambda: cached.networks["LogicalNetwork"].get("default", "green"))

    trying(api, check)


@pytest.mark.parametrize("kind", ["Logicalnetwork", "Physicalnetwork"])
def test_all_that_a_definition_can_have_is_kept(api: FakeApi, kind: str) -> None:
    """The CRD's schema decides: a key that the API server drops counts as absent."""
    crd = yaml.safe_load((CRDS / f"{kind.lower()}s.yaml").read_text())
    keys = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    api.absent.clear()
    api.put(f"/apis/alpha.network.k8s.io/v1/{kind.lower()}s", "default", "blue", spec=dict.fromkeys(keys, "x"))

    async def check(cached: CachedKube) -> None:
        blue = await cached.network(kind.replace("network", "Network"), "default", "blue")
        assert blue and set(blue["spec"]) == set(keys)
        assert not api.asked("/blue")

    trying(api, check)


def test_an_object_that_came_with_its_definition_is_found(api: FakeApi) -> None:
    """A required object is requested before it is reported as missing: the watch may see a new CRD only after
    seconds."""

    async def check(cached: CachedKube) -> None:
        assert await cached.network("LogicalNetwork", "default", "green", needed=True) is None
        api.put(LOGICAL, "default", "green", spec={"plugin": "weave"})
        api.absent.clear()
        green = await cached.network("LogicalNetwork", "default", "green", needed=True)
        assert green and green["spec"] == {"plugin": "weave"}

    trying(api, check)


NAMESPACES, NODES = "/api/v1/namespaces", "/api/v1/nodes"


def named(by: str) -> dict[str, str]:
    return {"genie.io/default-networks": by, "other": "x"}


def test_a_namespaces_default_networks_come_before_the_nodes(api: FakeApi) -> None:
    api.put(NAMESPACES, "", "blue", annotations=named("calico"))
    api.put(NAMESPACES, "", "green", annotations=named(" "))
    api.put(NODES, "", "node-1", annotations=named("weave"))
    api.put(NODES, "", "node-2", annotations=named("other"))

    async def check(cached: CachedKube) -> None:
        assert await cached.defaults("blue") == Default(kind="Namespace", name="blue", networks="calico")
        of_node = Default(kind="Node", name="node-1", networks="weave")
        assert await cached.defaults("green") == of_node and await cached.defaults("") == of_node
        assert not api.asked("namespaces/") and not api.asked("nodes/"), "the watches know them"
        assert not [path for path, accept in api.accepted if path.startswith(NAMESPACES) and "Partial" not in accept]
        api.put(NAMESPACES, "", "labelled", annotations=named(" "), labels=named("weave"))
        await until(lambda: "weave" in str(cached.networks["Namespace"].get("", "labelled")))
        of_label = Default(kind="Namespace", name="labelled", networks="weave", place="label")
        assert await cached.defaults("labelled") == of_label
        api.put(NAMESPACES, "", "labelled", annotations=named("calico"), labels=named("weave"))
        await until(lambda: "calico" in str(cached.networks["Namespace"].get("", "labelled")))
        api.put(NAMESPACES, "", "blue", annotations=named("x" * (ANNOTATION_MAX * 2)))
        await until(lambda: "calico" not in str(cached.networks["Namespace"].get("", "blue")))
        long = await cached.defaults("blue")
        assert long and len(long.networks) > ANNOTATION_MAX, "asks refuses it"
        api.remove(NODES, "", "node-1")
        await until(lambda: not cached.networks["Node"].items.get(("", "node-1")))
        assert await cached.defaults("green") is None

    trying(api, check)


def test_a_namespace_that_came_a_moment_ago_is_asked_for(api: FakeApi) -> None:
    async def check(cached: CachedKube) -> None:
        cached.networks["Namespace"].stop()
        api.put(NAMESPACES, "", "blue", annotations=named("calico"))
        found = await cached.defaults("blue")
        assert found and found.networks == "calico" and api.asked("namespaces/blue") <= 1

    trying(api, check)


def test_without_the_right_to_see_namespaces_there_are_no_defaults(api: FakeApi) -> None:
    api.forbidden |= {NAMESPACES, NODES}

    async def check(cached: CachedKube) -> None:
        assert cached.synced() and all(watch.live for watch in cached.watches)
        assert await cached.defaults("blue") is None

    trying(api, check)


def test_an_api_server_that_serves_pods_but_never_namespaces_has_no_defaults(api: FakeApi) -> None:
    api.failing |= {NAMESPACES, NODES}

    async def check(cached: CachedKube) -> None:
        await until(lambda: cached.pods.live)
        assert await cached.defaults("blue") is None
        api.down()
        await until(lambda: not cached.pods.live)
        with pytest.raises(CniError, match="cannot be reached"):
            await cached.defaults("blue")

    trying(api, check, wait=False)


def test_namespaces_that_were_listed_and_fail_later_keep_their_defaults(api: FakeApi) -> None:
    async def check(cached: CachedKube) -> None:
        api.failing |= {NAMESPACES}
        cached.networks["Namespace"].stop()
        cached.networks["Namespace"].overflowing = True  # it lists what it has no room for, one by one
        with pytest.raises(CniError, match="500"):
            await cached.defaults("blue")

    trying(api, check)


def test_while_the_api_server_is_away_what_is_known_is_served(api: FakeApi) -> None:
    api.pod("a", annotations={"cni": "x"})
    api.put(NADS, "default", "blue", spec={"config": "{}"})

    async def check(cached: CachedKube) -> None:
        api.down()
        await until(lambda: not any(watch.live for watch in cached.watches))
        assert (await cached.pod("default", "a", "uid-a")).annotations == {"cni": "x"}
        assert (await cached.pod("default", "a", "")).annotations == {"cni": "x"}
        assert await cached.network("NetworkAttachmentDefinition", "default", "blue")
        assert await cached.network("NetworkAttachmentDefinition", "default", "red") is None
        with pytest.raises(CniError) as away:
            await cached.pod("default", "b", "uid-b")
        assert away.value.code == 11
        api.pod("b")
        api.up()
        await until(lambda: cached.pods.get("default", "b"))
        await until(lambda: all(watch.live for watch in cached.watches))

    trying(api, check)


def test_an_api_server_that_was_never_there(api: FakeApi) -> None:
    api.down()

    async def check(cached: CachedKube) -> None:
        assert not cached.synced()
        for question in (cached.pod("default", "a", ""), cached.network("LogicalNetwork", "default", "a")):
            with pytest.raises(CniError) as away:
                await question
            assert away.value.code == 11
        api.up()
        await until(cached.synced)

    trying(api, check, wait=False)


@pytest.mark.parametrize("by_status", [False, True])
def test_a_watch_whose_version_expired_lists_again(
    api: FakeApi, caplog: pytest.LogCaptureFixture, by_status: bool
) -> None:
    api.gone_by_status = by_status

    async def check(cached: CachedKube) -> None:
        api.pod("a")
        await until(lambda: cached.pods.get("default", "a"))
        lists = api.asked("GET /api/v1/pods?limit")
        del api.objects["/api/v1/pods", "default", "a"]  # and the event of it is forgotten
        api.forget()
        await until(lambda: not cached.pods.get("default", "a"))
        assert api.asked("GET /api/v1/pods?limit") > lists
        assert not caplog.records, "that is no failure"

    trying(api, check)


def test_annotations_arrive_as_one_patch_however_often_it_fails(api: FakeApi) -> None:
    api.pod("a", annotations={"mine": "stays"})
    api.pod("b")

    async def check(cached: CachedKube) -> None:
        api.refuse_patches = 3
        pod_a, pod_b = await cached.pod("default", "a", ""), await cached.pod("default", "b", "")
        await cached.annotate(pod_a, {"x": "1"}, shorter)
        await cached.annotate(pod_a, {"y": "2"}, shorter)
        await cached.annotate(pod_b, {"z": "3"}, shorter)
        assert await cached.writer.flush(5)
        assert api.notes("a") == {"mine": "stays", "x": "1", "y": "2"} and api.notes("b") == {"z": "3"}
        assert api.asked("PATCH") == 5  # three refused, one for each

    trying(api, check)


def test_annotations_outlast_an_api_server_that_is_away(api: FakeApi) -> None:
    api.pod("a")

    async def check(cached: CachedKube) -> None:
        pod = await cached.pod("default", "a", "")
        api.down()
        await cached.annotate(pod, {"x": "1"}, shorter)
        assert not await cached.writer.flush(0.2)
        api.up()
        assert await cached.writer.flush(5)
        assert api.notes("a") == {"x": "1"}

    trying(api, check)


def test_a_pod_made_again_under_the_name_is_not_written_to(api: FakeApi) -> None:
    api.pod("a", uid="new")

    async def check(cached: CachedKube) -> None:
        await cached.annotate(Pod(namespace="default", name="a", uid="old"), {"x": "1"}, shorter)
        await cached.annotate(Pod(namespace="default", name="gone", uid="u"), {"x": "1"}, shorter)
        assert await cached.writer.flush(5)
        assert api.notes("a") == {}

    trying(api, check)


LONG = "y" * 200_000


def test_an_object_without_room_is_known_and_requested_once(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever could create 100 definitions of 1 MB once killed each node's agent at its memory limit."""
    monkeypatch.setattr(cache, "BUDGET", 3000)
    for n in range(10):
        api.put(NADS, "default", f"n{n}", spec={"config": "x" * 1000})
        api.pod(f"p{n}", annotations={"cni": "z" * 1000})

    async def check(cached: CachedKube) -> None:
        watch = cached.networks[NAD]
        assert len(watch.items) == 10 and sum(isinstance(one, Unkept) for one in watch.items.values()) == 9
        assert len(cached.pods.items) == 1
        for n in (*range(10), 9, 9, 0):
            found = await cached.network(NAD, "default", f"n{n}")
            assert found and found["spec"] == {"config": "x" * 1000}
            assert (await cached.pod("default", f"p{n}", f"uid-p{n}")).annotations == {"cni": "z" * 1000}
        assert api.asked("network-attachment-definitions/n9") == 1, "kept, since a pod asked for it"
        api.put(NADS, "default", "n9", spec={"config": "new"})
        await until(lambda: watch.get("default", "n9") != Unkept("20"))
        found = await cached.network(NAD, "default", "n9")
        assert found and found["spec"] == {"config": "new"}
        api.remove(NADS, "default", "n0")
        await until(lambda: not watch.get("default", "n0"))
        assert await cached.network(NAD, "default", "n0") is None

    trying(api, check)


def test_a_network_of_the_node_needs_no_rights_on_the_api_server(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without a definition stays a name of the node, even if the API server later answers otherwise."""
    api.pod("a")

    async def check(cached: CachedKube) -> None:
        for watch in cached.watches:
            watch.stop()
        monkeypatch.setattr(kube.Client, "request", lambda *_: (401, {"message": "who are you?"}))
        cached.networks[NAD].live = False
        assert await cached.network(NAD, "default", "net") is None
        cached.networks[NAD].overflowing = True
        with pytest.raises(CniError, match="answers 401 who are you"):
            await cached.network(NAD, "default", "net")

    trying(api, check)


def test_an_object_that_is_too_large_is_refused_by_its_size(api: FakeApi) -> None:
    api.put(NADS, "default", "listed", spec={"config": LONG})
    api.pod("listed", annotations={"cni": LONG, kube.MIRROR: "hash"})

    async def check(cached: CachedKube) -> None:
        assert cached.networks[NAD].items == {("default", "listed"): Unkept("2", too_large=True)}
        for watch in cached.watches:
            watch.stop()
        api.put(NADS, "default", "asked-for", spec={"config": LONG})
        api.pod("asked-for", annotations={"cni": LONG, kube.MIRROR: "hash"})
        for name in ("listed", "asked-for"):
            with pytest.raises(CniError) as refused:
                await cached.network(NAD, "default", name, needed=True)
            too_many = "spec.config has more than 65536 characters, the most that genie reads"
            assert str(refused.value) == f"NetworkAttachmentDefinition default/{name}: {too_many}"
            pod = await cached.pod("default", name, f"uid-{name}")
            with pytest.raises(CniError, match="annotation cni: it has more than 65536 characters"):
                asks(pod, CONF)
            assert pod.static_uids == ("hash",)

    trying(api, check)


def test_a_long_object_of_which_little_is_needed(api: FakeApi) -> None:
    spec = {"containers": [{"env": [{"name": "X", "value": LONG}]}]}
    api.pod("a", annotations={"cni": "x", "other": LONG}, spec=spec)
    api.put(NADS, "default", "blue", annotations={"other": LONG}, spec={"config": "{}"}, status={"x": [LONG]})
    api.absent.clear()
    api.put(LOGICAL, "default", "green", spec={"plugin": "weave", "other": LONG})

    async def check(cached: CachedKube) -> None:
        assert (await cached.pod("default", "a", "uid-a")).annotations == {"cni": "x"}
        blue = await cached.network(NAD, "default", "blue")
        assert blue and blue["spec"] == {"config": "{}"}
        green = await cached.network("LogicalNetwork", "default", "green")
        assert green and green["spec"] == {"plugin": "weave"}
        for watch in cached.watches:
            watch.stop()
        api.put(NADS, "default", "new", annotations={RESOURCE: "nic", "other": LONG}, spec={"config": "{}"})
        new = await cached.network(NAD, "default", "new", needed=True)
        assert new and new["spec"] == {"config": "{}"} and new["metadata"]["annotations"] == {RESOURCE: "nic"}

    trying(api, check)


def test_pages_are_small_where_objects_are_large(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "PAGE", 500)
    monkeypatch.setattr(cache, "PAGE_SIZE", 100_000)
    for n in range(20):
        api.put(NADS, "default", f"n{n}", spec={"config": "x" * 30_000})
        api.pod(f"p{n}", annotations={"cni": "x"})

    async def check(_: CachedKube) -> None:
        limits = [int(limit) for line in api.requests for limit in re.findall(r"definitions\?limit=(\d+)", line)]
        assert limits == [3] * 7
        limits = [int(limit) for line in api.requests for limit in re.findall(r"pods\?limit=(\d+)", line)]
        assert limits[0] == 3 and len(limits) == 2 and limits[1] > 100

    trying(api, check)


def test_a_list_that_is_long_goes_on_without_specifications(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LIST_SIZE", 50_000)
    for n in range(9):
        api.put(NADS, "default", f"n{n}", spec={"config": "x" * 30_000})
    api.pod("p")

    async def check(cached: CachedKube) -> None:
        def accepted(what: str) -> list[bool]:
            return ["PartialObjectMetadata" in accept for line, accept in api.accepted if what in line]

        await until(lambda: api.asked("definitions?watch"))
        assert accepted("definitions?limit") == [False, True, True] and all(accepted("definitions?watch"))
        assert accepted("pods?limit") == [True], "of pods only metadata is ever needed"
        whole = [isinstance(one, Unkept) for one in cached.networks[NAD].items.values()]
        assert whole == [False] * 3 + [True] * 6
        found = await cached.network(NAD, "default", "n8")
        assert found and found["spec"] == {"config": "x" * 30_000}
        api.put(NADS, "default", "n8", spec={"config": "new"})
        await until(lambda: cached.networks[NAD].get("default", "n8") == Unkept("12"))
        found = await cached.network(NAD, "default", "n8")
        assert found and found["spec"] == {"config": "new"}

    trying(api, check)


def test_more_objects_than_are_kept_track_of_are_asked_for(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "OBJECTS_MAX", 5)
    monkeypatch.setattr(cache, "OVERFLOW_SECONDS", 0.05)
    for n in range(6):
        api.put(NADS, "default", f"n{n}", spec={"config": "{}"})

    async def check(cached: CachedKube) -> None:
        watch = cached.networks[NAD]
        assert watch.overflowing and not watch.items
        assert await cached.network(NAD, "default", "n5") and await cached.network(NAD, "default", "none") is None
        api.remove(NADS, "default", "n0")
        await until(lambda: watch.live and len(watch.items) == 5)
        api.put(NADS, "default", "n0", spec={"config": "{}"})
        await until(lambda: watch.overflowing)
        assert await cached.network(NAD, "default", "n0")

    trying(api, check)


@pytest.mark.parametrize("answer", [{}, {"message": "log in first"}, {"metadata": {"resourceVersion": "9"}}])
def test_a_proxys_own_answer_does_not_mean_that_nothing_exists(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
) -> None:
    api.pod("a")

    async def check(cached: CachedKube) -> None:
        monkeypatch.setattr(api, "list", lambda path, query: (200, answer))
        api.forget()
        await until(lambda: "expected an object with `items`" in cached.pods.complaint.text)
        assert cached.pods.get("default", "a") and not cached.pods.live

    trying(api, check)


def test_credentials_that_were_renewed_are_taken_with_the_request_that_needs_them() -> None:
    """As of a client certificate that has ended: the client was made with the one before."""
    valid, held, web = ["old"], ["old"], Api("")
    web.answers[POD] = lambda: (200 if web.requests[-1][2]["Authorization"] == f"Bearer {valid[0]}" else 401, WEB)
    server = serve(web)
    asker = Asker(lambda seconds: kube.Client(kube.ApiServer(url=web.url, token=held[0]), seconds))

    def read() -> str:
        return asker.ask(lambda client: kube.read_pod(client, "blue", "web", "").name)

    assert read() == "web"
    valid[0] = held[0] = "new"
    assert read() == "web" and len(web.requests) == 3
    valid[0] = "another"
    with pytest.raises(kube.RefusedError, match="answers 401"):
        read()
    assert len(web.requests) == 5, "once more, and not for ever"
    server.shutdown()
    server.server_close()


def test_a_list_that_never_ends_is_given_up(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = (200, {"metadata": {"resourceVersion": "1", "continue": "again"}, "items": []})
    monkeypatch.setattr(api, "list", lambda path, query: endless)

    async def check(cached: CachedKube) -> None:
        await until(lambda: "does not end its list" in cached.pods.complaint.text)

    trying(api, check, wait=False)


@pytest.mark.parametrize("event", ["410", ""], ids=["expired", "closed"])
def test_watches_that_end_at_once_are_not_asked_for_without_end(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    """An API server that refuses each version at once was listed 62 times a second."""
    ended = [{"type": "ERROR", "object": {"code": 410}}] if event else []
    monkeypatch.setattr(api, "watch", lambda *_: iter(ended))
    monkeypatch.setattr(cache, "BACKOFF", (1.0, 64.0))
    pauses = nine_pauses(api)
    assert len(pauses) == 9 and api.asked("watch=true") == 9
    assert all(0.5 * 2**n <= pause <= 2**n for n, pause in enumerate(pauses[:7])) and min(pauses[7:]) >= 32
    assert api.asked("pods?limit") == (9 if event else 1)


def test_watches_that_end_early_are_opened_again_less_often(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that cuts each watch after 1.1 seconds was asked for the next one at once, for ever. One that lived for a
    while is opened again at once.
    """
    lives = [1.1] * 8 + [100.0, 1.1]
    clock = [0.0]

    def cut(*_: object) -> Iterator[Any]:
        clock[0] += lives.pop(0)
        return iter(())

    monkeypatch.setattr(api, "watch", cut)
    monkeypatch.setattr(cache, "BACKOFF", (0.2, 30.0))
    monkeypatch.setattr(cache, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    pauses = nine_pauses(api)
    assert all(0.1 * 2**n <= pause <= 0.2 * 2**n for n, pause in enumerate(pauses[:5]))
    assert all(cache.BLIND / 2 <= pause <= cache.BLIND for pause in pauses[5:8])
    assert pauses[8] <= 0.2 and not lives, "after one that lived, there is no pause, and the next is short again"


def nine_pauses(api: FakeApi) -> list[float]:
    """The first pauses of a watch, which does not wait for them."""
    pauses: list[float] = []

    class Stopped(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout
            pauses.append(timeout)
            if len(pauses) == 9:
                self.set()
            return self.is_set()

    watch = CachedKube(
        lambda seconds: kube.Client(kube.ApiServer(url=api.url), seconds),
        "n",
        Writer(
            lambda *_: "",
            Metrics(),
            Reporter(lambda _: None, "n", Metrics().events),
        ),
        Metrics(),
    ).pods
    watch._stopped = Stopped()
    watch._run()
    return pauses


def test_the_fake_api_server_cuts_a_watch_that_came_just_before_it_went(api: FakeApi) -> None:
    """A watch that started in between outlived the server, so a wait for its end never returned."""
    came = api._epoch
    api.down()
    assert list(api.watch("/api/v1/pods", 1, came)) == []
