"""Two agents on one node for a moment, as in an update; they share only the records."""

from __future__ import annotations

from genie.cni.execute import Outcome
from tests.rigs.core import Node, SeenCall


def test_an_add_that_is_undone_brings_back_no_record_that_a_del_has_removed(node: Node) -> None:
    """The runtime gave up the ADD; its DEL went to the new agent, which finishes before the old one has undone the
    ADD."""

    def act(call: SeenCall) -> Outcome | None:
        if call.verb == "DEL":
            for record in (node.root / "state").glob("*.json"):
                record.unlink()  # the new agent has deleted everything
        return Outcome(status=-1, error="the shim went away, killed by the runtime perhaps")

    node.executor.act = act
    node.kube.annotations = {"cni": "calico,flannel"}
    node.fails("ADD")
    assert node.executor.made("DEL") and node.left() == []


def test_an_add_that_is_undone_in_vain_leaves_its_record_for_the_del(node: Node) -> None:
    node.executor.act = lambda _: Outcome(status=-1, error="the shim went away, killed by the runtime perhaps")
    node.kube.annotations = {"cni": "calico,flannel"}
    node.fails("ADD")
    assert len(node.left()) == 1
    node.executor.act = lambda _: None
    node.ok("DEL")
    assert node.left() == []
