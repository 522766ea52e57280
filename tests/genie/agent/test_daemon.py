"""`genie agent` as a separate process, called through the compiled shim, with and without faults."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from genie import config, removals
from genie.agent import daemon
from genie.cni.errors import CniError
from genie.removals import Removals
from tests.rigs.agent import ShimOutcome, end, is_alive, script, until
from tests.rigs.agent_node import TOKEN, Node
from tests.rigs.fake_api import FakeApi


@pytest.fixture
def node(place: Path, binary: Path, api: FakeApi) -> Node:
    return Node(place, binary, api)


def test_an_add_and_a_del(node: Node) -> None:
    async def go() -> None:
        async with node.agent():
            mode = node.socket.stat()
            assert stat.S_IMODE(mode.st_mode) == 0o600 and mode.st_uid == os.geteuid()
            added = await node.call("ADD")
            assert added.status == 0 and added.json["ips"][0]["address"] == "10.1.0.5/24"
            assert node.records == ["c1@eth0.json"]
            await until(lambda: "k8s.v1.cni.cncf.io/network-status" in node.api.notes("p"))
            assert (await node.call("DEL")).status == 0
        assert not node.socket.exists()

    asyncio.run(go())
    assert node.calls == ["ADD c1 eth0", "DEL c1 eth0"] and not node.records
    assert not node.api.asked("/namespaces/default/pods/p HTTP"), "the ADD took no API request"
    added, deleted = node.lines("call")
    assert (added["verb"], added["pod"], added["result"], added["container"]) == ("ADD", "default/p", "ok", "c1")
    assert added["selection"] == [["net", "eth0"]] and added["why"] and added["delegates"][0]["plugin"] == "plug"
    assert deleted["verb"] == "DEL" and added["own_ms"] < added["seconds"] * 1000
    assert TOKEN not in node.log


@pytest.mark.root
def test_missing_fields_of_a_result_are_read_from_the_pods_namespace(node: Node, namespace: Callable[[], Any]) -> None:
    pod = namespace()
    pod.ip("link add eth0 address 02:00:00:00:00:42 mtu 1337 type veth peer name other")

    async def go() -> ShimOutcome:
        async with node.agent():
            added = await node.call("ADD", netns=pod.path)
            await until(lambda: "k8s.v1.cni.cncf.io/network-status" in node.api.notes("p"))
            return added

    interface = {"name": "eth0", "mac": "02:00:00:00:00:42", "mtu": 1337, "sandbox": pod.path}
    assert asyncio.run(go()).json["interfaces"] == [interface]
    (shown,) = json.loads(node.api.notes("p")["k8s.v1.cni.cncf.io/network-status"])
    assert (shown["mac"], shown["mtu"]) == ("02:00:00:00:00:42", 1337)


def test_a_delegate_that_fails_is_told_and_logged(node: Node) -> None:
    async def go() -> ShimOutcome:
        async with node.agent():
            node.set("broken")
            return await node.call("ADD")

    outcome = asyncio.run(go())
    assert outcome.status == 1 and outcome.json["code"] == 110 and "no luck" in outcome.json["msg"]
    (line,) = node.lines("call")
    assert line["level"] == "error" and "no luck" in line["error"]


def test_metrics_and_probes_are_served(node: Node) -> None:
    port = _free_port()

    async def go() -> str:
        async with node.agent("--listen", f"127.0.0.1:{port}"):
            await node.call("ADD")
            await node.call("CHECK", container="unknown")
            (node.place / "records" / "install").mkdir()
            removals.write(str(node.place / "records"), Removals(count=3, why="", at=0.0, wait=0.0))  # as `keep` does
            assert (
                await asyncio.to_thread(_get, port, "/healthz")
                == await asyncio.to_thread(_get, port, "/readyz")
                == "ok\n"
            )
            return await asyncio.to_thread(_get, port, "/metrics")

    reported = asyncio.run(go())
    for line in (
        'genie_calls_total{verb="ADD",result="ok"} 1',
        'genie_calls_total{verb="CHECK",result="error"} 1',
        'genie_delegate_seconds_count{plugin="plug",verb="ADD",result="ok"} 1',
        'genie_call_own_seconds_count{verb="ADD"} 1',
        'genie_cache_objects{resource="pods"} 1',
        'genie_cache_objects{resource="namespaces"} 0',
        'genie_network_attachments{network="net"} 0',  # as they were when the agent started
        'genie_network_received_bytes_total{network="net"} 0',
        "genie_calls_active 0",
        "genie_calls_waiting 0",
        "# TYPE genie_conf_removed_total counter",
        "genie_conf_removed_total 3",
    ):
        assert line in reported.splitlines(), reported


def test_killed_in_the_middle_it_leaves_an_error_and_a_record_to_delete_by(node: Node) -> None:
    async def go() -> None:
        node.set("hang")
        async with node.agent() as agent:
            shim = await node.start("ADD")
            await until((node.place / "hanging").exists)
            agent.kill()
            outcome = await end(shim, 5)
            assert outcome.status == 1 and outcome.json["code"] == 11
            assert not is_alive(int((node.place / "hanging").read_text()))
        node.set("hang", False)
        assert node.records and node.socket.exists()  # the socket of the dead one does not matter
        async with node.agent():
            node.api.remove("/api/v1/pods", "default", "p")
            assert (await node.call("DEL")).status == 0
        assert node.calls == ["ADD c1 eth0", "DEL c1 eth0"] and not node.records

    asyncio.run(go())


def test_a_runtime_that_loses_patience(node: Node) -> None:
    """The shim is killed during an ADD; the next DEL finds the record, and waits for nothing."""

    async def go() -> None:
        node.set("hang")
        async with node.agent():
            shim = await node.start("ADD")
            await until((node.place / "hanging").exists)
            shim.kill()
            await end(shim)
            node.set("hang", False)
            assert (await node.call("DEL")).status == 0
            await until(lambda: not is_alive(int((node.place / "hanging").read_text())))
        assert node.calls[0] == "ADD c1 eth0" and node.calls[-1] == "DEL c1 eth0" and not node.records

    asyncio.run(go())


def test_a_delegate_that_hangs_ends_in_one_clear_error(node: Node) -> None:
    async def go() -> ShimOutcome:
        node.conf["delegate_timeout"] = 0.4
        node.set("hang")
        async with node.agent():
            return await node.call("ADD")

    outcome = asyncio.run(go())
    assert (
        outcome.status == 1 and "plug" in outcome.json["msg"] and "no answer within 0.4 seconds" in outcome.json["msg"]
    )


def test_genie_as_its_own_delegate_is_refused_at_once_and_waits_for_nothing(node: Node) -> None:
    script(node.place / "bin", "plug", f"exec {node.binary}")

    async def go() -> list[ShimOutcome]:
        async with node.agent():
            return [await node.call(verb) for verb in ("ADD", "DEL")]

    added, deleted = asyncio.run(go())
    assert "genie is called by a plugin that it called itself" in added.json["msg"] and added.json["code"] == 7
    assert deleted.status == 0 and not node.records


def test_told_to_stop_it_finishes_what_it_has_begun(node: Node) -> None:
    async def go() -> None:
        node.set("slow")
        port = _free_port()
        async with node.agent("--listen", f"127.0.0.1:{port}", "--concurrency", "2") as agent:
            shims = [await node.start("ADD", container=f"c{n}") for n in range(5)]
            while "genie_calls_waiting 3" not in await asyncio.to_thread(_get, port, "/metrics"):
                await asyncio.sleep(0.01)
            agent.terminate()
            assert [(await end(shim)).status for shim in shims] == [0] * 5
            assert await asyncio.wait_for(agent.wait(), 10) == 0
        assert not node.socket.exists() and len(node.records) == 5

    asyncio.run(go())
    (line,) = node.lines("stopped")
    assert line["calls_finished"] and line["annotations_written"]


def test_a_rolling_update_loses_no_call(node: Node) -> None:
    """The new agent takes the socket's place while the old one finishes; calls keep coming all the time."""

    async def go() -> None:
        done: list[int] = []
        stop = asyncio.Event()

        async def keep_calling(worker: int) -> None:
            turn = 0
            while not stop.is_set():
                turn += 1
                for verb in ("ADD", "DEL"):
                    done.append((await node.call(verb, container=f"c{worker}x{turn}")).status)

        async with node.agent() as old:
            workers = [asyncio.create_task(keep_calling(n)) for n in range(3)]
            await until(lambda: len(done) > 10)
            async with node.agent() as new:
                old.terminate()
                assert await asyncio.wait_for(old.wait(), 10) == 0
                assert node.socket.exists(), "the old one took the new one's socket away"
                so_far = len(done)
                await until(lambda: len(done) > so_far + 10)
                assert new.returncode is None
                stop.set()
                await asyncio.gather(*workers)
        assert set(done) == {0} and not node.records

    asyncio.run(go())


def test_a_hundred_pods_at_once_cost_it_a_few_megabytes(node: Node) -> None:
    """Multus #1346. All calls wait for a slot, all are served, and never more than the limit at once."""

    async def go() -> tuple[list[int], int, int]:
        for n in range(100):
            node.api.pod(f"p{n}", annotations={"cni": "net"})
        async with node.agent("--listen", "", "--concurrency", "8") as agent:
            await node.call("ADD", pod="p0", container="first")
            before = _peak(agent.pid)
            shims = [await node.start("ADD", pod=f"p{n}", container=f"c{n}") for n in range(100)]
            outcome = await asyncio.gather(*(end(shim, 60) for shim in shims))
            return [one.status for one in outcome], before, _peak(agent.pid)

    statuses, before, after = asyncio.run(go())
    assert statuses == [0] * 100
    assert after - before < 4 << 20, f"{before / 1e6:.1f} MB before, {after / 1e6:.1f} MB at its highest"


def test_without_a_node_or_a_way_to_the_api_server_it_says_what_is_missing(place: Path) -> None:
    def agent(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "genie", "agent", "--socket", str(place / "s"), *options]
        env = {key: value for key, value in os.environ.items() if key not in ("NODE_NAME", "KUBERNETES_SERVICE_HOST")}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)

    assert "NODE_NAME" in agent().stderr and agent().returncode == 2
    nowhere = agent("--node", "n", "--conf", str(place / "none.conf"))
    assert nowhere.returncode == 1 and "cannot read" in json.loads(nowhere.stderr)["error"]
    (place / "genie.conf").write_text('{"name": "genie", "type": "genie"}')
    nobody = agent("--node", "n", "--conf", str(place / "genie.conf"))
    assert nobody.returncode == 1 and "API server" in json.loads(nobody.stderr)["error"]
    (place / "genie.conf").write_text('{"name": "genie", "type": "genie", "agent": {"listen": "nowhere"}}')
    wrong = agent("--node", "n", "--conf", str(place / "genie.conf"))
    assert wrong.returncode == 1 and "agent: listen: expected HOST:PORT" in json.loads(wrong.stderr)["error"]
    helped = agent("--help").stdout
    assert "--concurrency" in helped and "SIGTERM" in helped


def settings_of(options: list[str], conf: dict[str, Any]) -> tuple[Any, ...]:
    parsed = config.parse({"name": "genie", "type": "genie", **conf})
    settings = daemon.with_conf(daemon.parse(["--node", "n", *options]), parsed)
    return settings.concurrency, settings.listen, settings.grace, settings.log_level


def test_an_option_wins_over_genie_conf_and_that_over_the_default() -> None:
    assert settings_of([], {}) == (16, "127.0.0.1:9465", 25.0, "info")
    conf = {"agent": {"concurrency": 3, "listen": "", "grace": 7}, "log_level": "error"}
    assert settings_of([], conf) == (3, "", 7.0, "error")
    assert settings_of(["--concurrency", "5", "--listen", "[::]:1", "--grace", "0", "--log-level", "debug"], conf) == (
        5,
        "[::]:1",
        0.0,
        "debug",
    )
    assert settings_of(["--listen", ""], {"agent": {"listen": ":1"}})[1] == ""


@pytest.mark.parametrize(
    ("agent", "complaint"),
    [
        ({"concurrency": 0}, "agent: concurrency: expected a whole number above 0, found 0"),
        ({"concurrency": "8"}, "agent: concurrency: expected a whole number above 0, found '8'"),
        ({"grace": -1}, "agent: grace: expected a positive number of seconds"),
        ({"repair": "no"}, "agent: repair: expected true or false"),
        ({"listen": 9465}, "agent: listen: expected a string"),
        ({"listen": "9465"}, "agent: listen: expected HOST:PORT, found '9465'"),
        ({"listen": "h:99999"}, "agent: listen: expected HOST:PORT"),
        ([], "agent: expected an object"),
    ],
)
def test_a_mistake_in_the_agents_part_of_genie_conf_is_an_error(agent: Any, complaint: str) -> None:
    with pytest.raises(CniError, match=complaint) as caught:
        settings_of([], {"agent": agent})
    assert caught.value.code == 7


def test_the_agent_works_on_as_many_calls_at_once_as_genie_conf_says(node: Node) -> None:
    async def go() -> None:
        node.conf["agent"] = {"concurrency": 1}
        node.set("slow")
        async with node.agent():
            await asyncio.gather(*(node.call("ADD", container=f"c{n}") for n in range(3)))

    asyncio.run(go())
    ended = sorted(datetime.fromisoformat(line["time"]).timestamp() for line in node.lines("call"))
    assert len(ended) == 3 and ended[2] - ended[0] > 0.9, "each takes half a second, one after the other"


def test_a_mistake_in_genie_conf_keeps_no_node_without_an_agent_that_had_a_good_one(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (place / "net.d").mkdir()
    monkeypatch.setattr(daemon, "DEFAULT_CONF_DIR", str(place / "net.d"))
    (place / "genie.conf").write_text("{")
    settings = daemon.parse(["--node", "n", "--conf", str(place / "genie.conf")])
    with pytest.raises(CniError, match="genie.conf: not valid JSON"):
        daemon.current_conf(settings)
    (place / "net.d" / "00-genie.conf").write_text('{"name": "genie", "type": "genie", "default_plugin": "ptp"}')
    assert daemon.current_conf(settings).default_plugin == ("ptp",)
    assert "going on with the genie.conf in net.d" in caplog.text
    (place / "genie.conf").write_text('{"name": "genie", "type": "genie", "default_plugin": "bridge"}')
    assert daemon.current_conf(settings).default_plugin == ("bridge",)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
        return str(response.read().decode())


def _peak(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
