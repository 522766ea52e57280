"""Network objects on the node's disk: stored, bounded, and used while the API server is away."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genie import kube
from genie.agent import cache, offline
from genie.agent.cache import Asker
from genie.agent.metrics import Metrics
from genie.agent.offline import Kept, KeptObjects, OfflineKube
from genie.agent.reporter import Reporter
from genie.agent.writer import Writer
from genie.cni.errors import CniError
from genie.kube import Default, Pod
from genie.node.inspect import kept as reported
from genie.select.choose import default_for
from tests.rigs.agent import until
from tests.rigs.agent_node import Node
from tests.rigs.fake_api import FakeApi
from tests.rigs.selection import CONF

NADS = "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions"
NAD = "NetworkAttachmentDefinition"
CONFIG = json.dumps({"cniVersion": "1.0.0", "name": "red", "type": "plug"})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "BACKOFF", (0.01, 0.05))
    monkeypatch.setattr(cache, "ABSENT_SECONDS", 0.05)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()
    yield fake
    fake.down()


@pytest.fixture
def disk(tmp_path: Path) -> KeptObjects:
    return KeptObjects(str(tmp_path / "objects"))


# --- the disk ---------------------------------------------------------------------------------------------------


def test_an_object_and_that_there_is_none_are_kept(disk: KeptObjects) -> None:
    some, none = Kept((NAD, "blue", "red"), {"spec": {"config": CONFIG}}), Kept((NAD, "blue", "calico"), None)
    assert list(disk) == [] and disk.read(some.key) is None and disk.checked() is None
    disk.write(some)
    disk.write(none)
    again = KeptObjects(disk.directory)
    assert (again.read(some.key), again.read(none.key)) == (some, none)
    assert again.read((NAD, "blue", "green")) is None
    assert {kept.key for kept in again} == {some.key, none.key}


NAMES = st.text(max_size=300)


@given(NAMES, NAMES, st.dictionaries(st.text(max_size=5), st.text(max_size=5)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_stored_object_is_below_the_directory_whatever_its_name(
    disk: KeptObjects, namespace: str, name: str, found: dict[str, str]
) -> None:
    kept = Kept((NAD, namespace, name), found)
    disk.write(kept)
    assert disk.read(kept.key) == kept
    assert all(len(file.name) < 100 for file in Path(disk.directory).iterdir())


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'["a","b","c",5]', b"null", b"[" * 100_000])
def test_a_damaged_file_is_as_none(disk: KeptObjects, content: bytes) -> None:
    kept = Kept((NAD, "blue", "red"), {})
    disk.write(kept)
    (file,) = Path(disk.directory).iterdir()
    file.write_bytes(content)
    assert disk.read(kept.key) is None
    assert list(disk) == [] and not file.exists()


def test_an_object_that_is_too_large_is_not_kept(disk: KeptObjects) -> None:
    key = (NAD, "blue", "red")
    disk.write(Kept(key, {"small": "x"}))
    disk.write(Kept(key, {"large": "x" * offline.LARGEST}))
    assert disk.read(key) is None, "nor as it was before"


def test_a_namespace_that_asks_for_much_takes_nothing_from_others(
    disk: KeptObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "ENTRIES", 10)
    for number in range(3):
        disk.write(Kept((NAD, "quiet", f"n{number}"), {}))
    for number in range(50):
        disk.write(Kept((NAD, "greedy", f"n{number}"), {}))
    of = [kept.key[1] for kept in disk]
    assert (of.count("quiet"), of.count("greedy")) == (3, 7)
    monkeypatch.setattr(offline, "ENTRIES", 1000)
    monkeypatch.setattr(offline, "TOTAL", 1000)
    disk.write(Kept((NAD, "greedy", "long"), {"x": "y" * 400}))
    assert sum(path.stat().st_size for path in Path(disk.directory).iterdir()) <= 1000
    assert [kept.key[1] for kept in disk].count("quiet") == 3


def test_a_writer_that_was_ended_leaves_nothing_for_long(disk: KeptObjects) -> None:
    disk.check()
    left, young = Path(disk.directory) / "a.json.1.new", Path(disk.directory) / "b.json.2.new"
    for file in (left, young):
        file.touch()
    os.utime(left, (0, 0))
    disk.check()
    assert not left.exists() and young.exists()
    assert list(disk) == []


def test_status_reports_how_old_it_is(disk: KeptObjects) -> None:
    assert list(reported(disk)) == []
    disk.write(Kept((NAD, "blue", "red"), {}))
    disk.write(Kept((NAD, "blue", "calico"), None))
    start = "1 network object and 1 names without one are kept for when the API server is away, "
    assert list(reported(disk)) == [f"{start}never compared with the API server since"]
    disk.check()
    os.utime(f"{disk.directory}/checked", (0, 0))
    (line,) = reported(disk)
    assert line.startswith(f"{start}as of ") and line.endswith(" days ago")


# --- the agent's Kube -------------------------------------------------------------------------------------------


@asynccontextmanager
async def watching(api: FakeApi, disk: KeptObjects) -> AsyncIterator[OfflineKube]:
    metrics, server = Metrics(), kube.ApiServer(url=api.url)
    asker = Asker(lambda seconds: kube.Client(server, seconds))
    writer = Writer(lambda *_: "", metrics, Reporter(asker.ask, "node-1", metrics.events))
    made = OfflineKube(lambda seconds: kube.Client(server, seconds), "node-1", writer, metrics, disk.directory)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def trying(api: FakeApi, disk: KeptObjects, check: Callable[[OfflineKube], Awaitable[None]]) -> None:
    async def go() -> None:
        async with watching(api, disk) as made:
            await check(made)

    asyncio.run(go())


def learned(api: FakeApi, disk: KeptObjects) -> None:
    """An agent after requests for an existing and a missing definition."""
    api.put(NADS, "blue", "red", spec={"config": CONFIG})

    async def check(made: OfflineKube) -> None:
        await until(made.synced)
        assert await made.network(NAD, "blue", "red")
        assert await made.network(NAD, "blue", "calico") is None
        await until(lambda: len(list(disk)) == 2)

    trying(api, disk, check)


def test_a_new_agent_knows_it_without_a_single_request(api: FakeApi, disk: KeptObjects) -> None:
    learned(api, disk)
    api.down()
    asked = len(api.requests)

    async def check(made: OfflineKube) -> None:
        found = await made.network(NAD, "blue", "red", needed=True)
        assert found and found["spec"] == {"config": CONFIG}
        assert await made.network(NAD, "blue", "calico") is None
        assert made.metrics.offline.value(NAD) == 2

    trying(api, disk, check)
    assert len(api.requests) == asked


def test_an_object_that_was_never_stored_is_refused_with_a_reason(api: FakeApi, disk: KeptObjects) -> None:
    learned(api, disk)
    api.down()

    async def check(made: OfflineKube) -> None:
        for name, needed in (("green", False), ("green", True), ("calico", True)):
            with pytest.raises(CniError) as caught:
                await made.network(NAD, "blue", name, needed=needed)
            assert caught.value.code == 11
            assert str(caught.value).startswith(f"whether there is a {NAD} blue/{name} is not known on this node, and ")
            assert "cannot be reached" in str(caught.value)

    trying(api, disk, check)


def test_default_networks_are_kept_and_without_them_only_a_static_pod_comes_up(api: FakeApi, disk: KeptObjects) -> None:
    default = Default(kind="Namespace", name="blue", networks="red")
    api.put("/api/v1/namespaces", "", "blue", annotations={"genie.io/default-networks": "red"})

    async def learn(made: OfflineKube) -> None:
        await until(made.synced)
        assert await made.defaults("blue") == default
        await until(lambda: len(list(disk)) == 1)

    async def check(made: OfflineKube) -> None:
        assert await default_for(Pod(namespace="blue", name="a"), CONF, made) == default
        with pytest.raises(CniError, match="^the Namespace green is not known on this node, and .*cannot be reached"):
            await default_for(Pod(namespace="green", name="a"), CONF, made)
        static = Pod(namespace="green", name="a", annotations={kube.SOURCE: "file"})
        assert await default_for(static, CONF, made) is None
        off = replace(CONF, namespace_defaults=False)
        assert await default_for(Pod(namespace="blue", name="a"), off, made) is None

    trying(api, disk, learn)
    api.down()
    trying(api, disk, check)


def test_stored_objects_follow_changes_in_the_cluster(api: FakeApi, disk: KeptObjects) -> None:
    learned(api, disk)
    api.remove(NADS, "blue", "red")
    api.put(NADS, "blue", "calico", spec={"config": "new"})

    async def check(made: OfflineKube) -> None:
        await until(made.synced)
        await made.refresh()

    trying(api, disk, check)
    assert disk.read((NAD, "blue", "red")) == Kept((NAD, "blue", "red"), None)
    kept = disk.read((NAD, "blue", "calico"))
    assert kept and kept.found and kept.found["spec"] == {"config": "new"}
    assert disk.checked()


def test_while_the_api_server_is_away_nothing_is_forgotten(api: FakeApi, disk: KeptObjects) -> None:
    learned(api, disk)
    api.down()

    async def check(made: OfflineKube) -> None:
        await made.refresh()

    trying(api, disk, check)
    assert disk.read((NAD, "blue", "red")) != Kept((NAD, "blue", "red"), None) and disk.checked() is None


def test_a_disk_that_takes_nothing_keeps_no_pod_down(
    api: FakeApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "objects").write_text("a file")
    api.put(NADS, "blue", "red", spec={"config": CONFIG})

    async def check(made: OfflineKube) -> None:
        await until(made.synced)
        for name in ("red", "green"):
            await made.network(NAD, "blue", name)
        await made.refresh()

    trying(api, KeptObjects(str(tmp_path / "objects")), check)
    lines = [line.msg for line in caplog.records]
    assert lines.count("network objects cannot be kept for when the API server is away") == 1


def test_an_object_that_the_disk_did_not_take_is_stored_with_the_next_add(api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("a file")
    disk = KeptObjects(str(tmp_path / "objects"))
    api.put(NADS, "blue", "red", spec={"config": CONFIG})

    async def check(made: OfflineKube) -> None:
        await until(made.synced)
        await made.network(NAD, "blue", "red")
        await until(lambda: made._complaint.text)
        (tmp_path / "objects").unlink()
        await made.network(NAD, "blue", "red")
        await until(lambda: disk.read((NAD, "blue", "red")))
        (stored,) = Path(disk.directory).iterdir()
        before = stored.stat().st_ino
        await made.network(NAD, "blue", "red")
        await made._on_disk(lambda: None)
        assert stored.stat().st_ino == before

    trying(api, disk, check)


def test_a_file_that_cannot_be_read_now_stays(disk: KeptObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with too many open files: a damaged one would be removed."""
    kept = Kept((NAD, "blue", "red"), {})
    disk.write(kept)

    def unreadable(path: str) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files", path)

    with monkeypatch.context() as patched:
        patched.setattr(offline, "_content", unreadable)
        assert list(disk) == [] and disk.read(kept.key) is None
    assert list(disk) == [kept]


def test_a_namespace_that_no_pod_was_in_has_no_default_if_none_had_one(api: FakeApi, disk: KeptObjects) -> None:

    async def learn(made: OfflineKube) -> None:
        await until(made.synced)
        await made.refresh()

    async def plain(made: OfflineKube) -> None:
        assert await made.defaults("green") is None

    async def unknown(made: OfflineKube) -> None:
        with pytest.raises(CniError, match="^the Namespace green is not known"):
            await made.defaults("green")

    for check in (plain, unknown):
        trying(api, disk, learn)
        api.down()
        trying(api, disk, check)
        api.up()
        api.put("/api/v1/namespaces", "", "blue", annotations={"genie.io/default-networks": "red"})


def test_a_node_that_starts_while_the_api_server_is_away(place: Path, binary: Path, api: FakeApi) -> None:
    """Pods come up: with a definition, with a file in net.d, static. One with an unknown definition does not."""
    node = Node(place, binary, api)
    api.put(NADS, "default", "red", spec={"config": CONFIG})
    disk = KeptObjects(str(place / "records" / "objects"))
    results: dict[str, Any] = {}

    async def add(pod: str, container: str, **notes: str) -> Any:
        node.conf["runtimeConfig"] = {kube.POD_ANNOTATIONS: notes}
        return (await node.call("ADD", pod, container)).json

    async def go() -> None:
        async with node.agent():
            for at, notes in enumerate(({"cni": "net"}, {"cni": "red"})):
                await add("p", f"c{at}", **notes)
                await node.call("DEL", "p", f"c{at}")
            await until(lambda: len(list(disk)) == 2)
        for kind in kube.OWNERS:  # as a comparison with the API server leaves them
            disk.write(Kept((kind, "", "node-1" if kind == "Node" else ""), cache.NO_DEFAULT))
        api.down()
        asked = len(api.requests)
        async with node.agent():
            results["net"] = await add("p", "n1", cni="net")
            results["red"] = await add("q", "n2", cni="red")
            results["nothing"] = await add("w", "n5")
            results["static"] = await add("s", "n3", **{kube.SOURCE: "file"})
            results["unknown"] = await add("u", "n4", **{"k8s.v1.cni.cncf.io/networks": "green"})
        assert len(api.requests) == asked

    asyncio.run(go())
    for name in ("net", "red", "static", "nothing"):
        assert results[name]["ips"], (name, results[name])
    assert results["unknown"]["code"] == 11
    assert "whether there is a NetworkAttachmentDefinition default/green is not known" in results["unknown"]["msg"]
