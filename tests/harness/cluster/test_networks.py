"""Which networks are installed together, and why others are not."""

from __future__ import annotations

import pytest

from harness.cluster import engine, networks
from harness.cluster.software import Software
from harness.contract import Unavailable
from harness.objects import Objects
from harness.waiting import NotReady
from tests.rigs.fake_cluster import FakeCluster
from tests.rigs.objects import thing


@pytest.fixture
def all_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "_had", lambda _: [])


@pytest.mark.usefixtures("all_to_be_had")
class TestPlan:
    def test_all_that_fit_beside_each_other(self, known: dict[str, Software]) -> None:
        plan = networks.plan(known, None)
        assert set(plan.chosen) == set(known) - {"canal"}
        assert "cannot share a cluster with calico" in plan.missing["canal"]

    def test_what_is_on_request_gives_way_to_what_is_not(self, known: dict[str, Software]) -> None:
        assert set(networks.plan(known, ["canal", "flannel", "bridge"]).chosen) == {"flannel", "bridge"}

    def test_on_request(self, known: dict[str, Software]) -> None:
        plan = networks.plan(known, ["canal", "bridge"])
        assert set(plan.chosen) == {"canal", "bridge"}
        assert "cannot share a cluster with canal" in plan.missing["flannel"]
        assert plan.missing["weave"] == "it was not asked for (--networks weave)"

    def test_every_known_network_is_an_offer(self, known: dict[str, Software]) -> None:
        offers = networks.plan(known, ["bridge"]).offers(known)
        assert set(offers) == set(known)
        assert [name for name, offer in offers.items() if not offer.missing] == ["bridge"]


def test_an_image_that_cannot_be_had_is_a_reason(known: dict[str, Software], monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(image: str) -> None:
        raise Unavailable(f"image {image} is not in the engine and cannot be pulled")

    monkeypatch.setattr(Software, "objects", lambda _: [thing("Pod", "a", spec={"containers": [{"image": "far"}]})])
    monkeypatch.setattr(engine, "have_image", lacking)
    plan = networks.plan(known, ["flannel"])
    assert plan.missing["flannel"] == "image far is not in the engine and cannot be pulled"


def test_a_node_that_its_kubelet_registers_later_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"metadata": {"name": "one"}, "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}
    two = {"metadata": {"name": "two"}, "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.2"}]}}
    bare = {"metadata": {"name": "two"}, "status": {}}
    lists = [[], [one], [one, bare]]
    objects = Objects(FakeCluster().api())
    monkeypatch.setattr(objects, "get", lambda path: {"items": lists.pop(0) if lists else [one, two]})
    assert networks.node_addresses(objects, ["one", "two"]) == {"one": "10.0.0.1", "two": "10.0.0.2"}
    monkeypatch.setattr(networks, "REGISTERED", 0.05)
    with pytest.raises(NotReady, match="nodes: .*three is not registered"):
        networks.node_addresses(objects, ["one", "three"])


def test_a_node_has_a_network_s_bridge_before_the_configuration_with_which_pods_start(
    known: dict[str, Software],
) -> None:
    commands: list[str] = []

    class Recording:
        def run(self, node: str, *argv: str, **_: object) -> str:
            commands.append(argv[-1])
            return ""

    todo = networks.Installation(chosen={"bridge": known["bridge"]}, objects={}, missing={})
    networks._furnish(Recording(), "one", todo, {}, number=1, others={2: "192.0.2.2"})
    [bridge] = [at for at, command in enumerate(commands) if "ip link add br-pods" in command]
    [written] = [at for at, command in enumerate(commands) if "mv -f" in command and "20-bridge.conf" in command]
    assert bridge < written
