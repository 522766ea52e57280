"""What each network carries, from the records and the host's counters."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genie.agent import traffic as module
from genie.agent.metrics import Metrics
from genie.agent.traffic import Traffic, round_trip, store, stored
from genie.cni.execute import run_sync
from genie.config import Conf
from genie.select import least_loaded
from genie.select.least_loaded import Reading
from genie.serve import serve
from tests.rigs.core import Node
from tests.rigs.netns import Namespace


class Counters:
    """The host's counters: received, sent and dropped of each interface."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.values: dict[str, tuple[int, ...]] = {}
        self.of: dict[str, list[str]] = {}
        monkeypatch.setattr(least_loaded, "measured", lambda records: self.of)
        monkeypatch.setattr(least_loaded, "read", lambda names, latency: Reading(at=0, counters=dict(self.values)))


def lines(metrics: Metrics, name: str) -> dict[str, int]:
    """The values of a metric, by its labels."""
    found = (line.rsplit(" ", 1) for line in metrics.text().splitlines() if line.startswith(name + "{"))
    return {labels.removeprefix(name): int(value) for labels, value in found}


def test_a_sample_has_the_figures_of_each_network(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    counters, metrics = Counters(monkeypatch), Metrics()
    traffic = Traffic(metrics)
    conf = Conf(name="k8s", cni_version="1.0.0", conf_dir=str(node.net_d), state_dir=str(node.root / "state"))
    for file in node.net_d.iterdir():
        file.unlink()
    node.install("calico", ipam={"type": "host-local", "subnet": "10.1.0.0/24", "dataDir": str(node.root / "no")})
    node.install("idle")
    node.binary("aside")
    side: dict[str, Any] = {"cniVersion": "1.0.0", "name": "side", "type": "aside"}
    node.kube.define("side", side)
    node.add("calico,side@data")

    def sample(**values: tuple[int, ...]) -> None:
        counters.values = values
        traffic.take(traffic.sample(conf))

    counters.of = {"calico": ["v1", "v2"], "side": ["v3"]}
    sample(v1=(100, 10, 1), v3=(7, 7, 7))
    assert lines(metrics, "genie_network_attachments") == {
        '{network="calico"}': 1, '{network="idle"}': 0, '{network="blue/side"}': 1
    }  # fmt: skip
    assert lines(metrics, "genie_network_received_bytes_total")['{network="calico"}'] == 0, "from the agent's start on"
    sample(v1=(150, 30, 1), v2=(5, 5, 5), v3=(9, 7, 7))
    sample(v2=(6, 5, 5), v3=(9, 7, 7))
    assert [lines(metrics, f"genie_network_{name}_total") for name in ("received_bytes", "sent_bytes", "drops")] == [
        {'{network="calico"}': 56, '{network="idle"}': 0, '{network="blue/side"}': 2},
        {'{network="calico"}': 25, '{network="idle"}': 0, '{network="blue/side"}': 0},
        {'{network="calico"}': 5, '{network="idle"}': 0, '{network="blue/side"}': 0},
    ]
    assert lines(metrics, "genie_network_pool_used") == {'{network="calico"}': 1}
    assert lines(metrics, "genie_network_pool_total") == {'{network="calico"}': 253}
    assert lines(metrics, "pod_network_name_info") == {
        '{pod="web",namespace="blue",interface="eth0",network_name="calico"}': 0,
        '{pod="web",namespace="blue",interface="data",network_name="blue/side"}': 0,
    }
    assert traffic.last.reading.counters == counters.values


def test_further_pools_reach_the_choice_and_explain(node: Node) -> None:
    conf = Conf(name="k8s", cni_version="1.0.0", conf_dir=str(node.net_d), state_dir=str(node.root / "state"))
    sample = Traffic(Metrics(), lambda networks: {networks[0].name: (7, 7)}).sample(conf)
    assert sample.pools == sample.reading.pools == {"calico": (7, 7)}
    path = str(node.root / "reading.json")
    store(replace(sample.reading, at=time.monotonic()), path)
    found = stored(path)
    assert found and [*found.pools["calico"]] == [7, 7]
    node.kube.annotations = {"cni": ""}
    reply = run_sync(serve(node.request("ADD"), node.kube, node.executor, earlier=found))
    assert reply.status == 0 and node.kube.written["cni"] == "flannel"
    assert "calico 0 B/s received, 0 B/s sent, 0 attachments, 7 of 7 addresses, goes last" in reply.story["why"]


@pytest.mark.parametrize(
    "content", ["", "{]", "[]", "{}", '{"at": 0, "counters": {}, "more": 1}', '{"at": -99, "counters": {}}']
)
def test_a_reading_that_is_damaged_or_old_does_not_count(content: str, tmp_path: Path) -> None:
    (tmp_path / "reading.json").write_text(content)
    assert stored(str(tmp_path / "reading.json")) is None
    assert stored(str(tmp_path / "none")) is None


def test_without_net_d_there_are_the_attachments(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    Counters(monkeypatch)
    traffic = Traffic(Metrics())
    conf = Conf(name="k8s", cni_version="1.0.0", conf_dir=str(node.root / "none"), state_dir=str(node.root / "state"))
    assert traffic.sample(conf).attachments == {}
    node.add("calico")
    assert traffic.sample(replace(conf, conf_dir="/none")).attachments == {"calico": 1}


def test_the_time_to_a_gateway_is_measured_in_the_pods_namespace() -> None:
    try:
        pod = Namespace()
    except PermissionError:
        pytest.skip("network namespaces: need root, or CAP_SYS_ADMIN in a user namespace")
    try:
        pod.ip("addr add 192.0.2.7/32 dev lo", "addr add 192.0.2.1/32 dev lo")
        found = round_trip(pod.path, "192.0.2.7", "192.0.2.1")
        assert found is not None and 0 < found < module.PATIENCE
        assert round_trip(pod.path, "192.0.2.7", "198.51.100.1") is None, "no route"
        assert round_trip(pod.path, "192.0.2.8", "192.0.2.1") is None, "not the pod's address"
        assert round_trip("/none", "192.0.2.7", "192.0.2.1") is None
    finally:
        pod.close()


def test_latency_is_measured_only_if_it_has_a_weight(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    times = [None, None, 0.3, 0.1]
    monkeypatch.setattr(module, "round_trip", lambda *_: times.pop(0))
    conf = Conf(name="k8s", cni_version="1.0.0", conf_dir=str(node.net_d), state_dir=str(node.root / "state"))
    for container in ("c1", "c2"):
        node.add("calico", container=container)
    assert Traffic(Metrics()).sample(conf).reading.latency == {}
    weighty = replace(conf, smart_weights={"latency": 1})
    assert Traffic(Metrics()).sample(weighty).reading.latency == {"calico": 0.1}
