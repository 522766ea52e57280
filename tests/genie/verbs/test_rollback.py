"""A failed ADD is undone plugin by plugin in reverse order, also after failures, until each plugin has released."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genie.cni.execute import Outcome, PluginCall
from genie.serve import serve
from tests.rigs.core import FakeExecutor, Node, SeenCall, failing


def refusal(code: int, msg: str) -> Outcome:
    return Outcome(status=1, stdout=json.dumps({"cniVersion": "1.0.0", "code": code, "msg": msg}).encode())


def chain(node: Node, name: str, *plugins: str) -> None:
    """A network of several plugins, with their executables."""
    listed = [{"type": plugin} for plugin in plugins]
    node.write(f"20-{name}.conflist", {"cniVersion": "1.0.0", "name": name, "plugins": listed})
    node.binary(*plugins)


@pytest.fixture
def chained(node: Node) -> Node:
    """A pod that asks for a network of three plugins."""
    chain(node, "chain", "a", "b", "c")
    node.kube.annotations = {"cni": "chain"}
    return node


def deleted(node: Node) -> list[str]:
    return [plugin for plugin, _ in node.executor.made("DEL")]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_the_plugins_that_were_called_are_undone_in_reverse_with_the_last_result(chained: Node, position: int) -> None:
    bad = "abc"[position]
    chained.executor.act = failing(bad)
    assert chained.fails("ADD")["msg"] == f"network 'chain': plugin '{bad}': ADD: no more addresses"
    assert deleted(chained) == [*reversed("abc"[: position + 1])]
    known = {"prevResult" in call.stdin for call in chained.executor.calls if call.verb == "DEL"}
    assert known == {position > 0}
    assert chained.left() == []


def test_a_plugin_that_cannot_let_go_stays_in_the_record_alone(chained: Node) -> None:
    (chained.root / "bin" / "b").unlink()
    chained.executor.act = failing("a", "DEL", code=11, msg="the store is locked")
    error = chained.fails("ADD")
    assert "plugin 'b': ADD: no plugin 'b'" in error["msg"]
    assert "also: network 'chain': plugin 'a': DEL: the store is locked" in error["details"]
    (attached,) = chained.record.attached
    assert (attached.left, len(attached.network.plugins)) == ((0,), 3)
    chained.executor.calls.clear()
    assert chained.fails("DEL")["msg"] == "network 'chain': plugin 'a': DEL: the store is locked"
    assert deleted(chained) == ["a"] and chained.left()
    chained.executor.act = lambda _: None
    chained.ok("DEL")
    assert deleted(chained) == ["a", "a"] and chained.left() == []


def test_a_plugin_that_is_not_there_is_forgotten_and_not_its_network(chained: Node) -> None:
    (chained.root / "bin" / "c").unlink()
    chained.executor.act = failing("b", "DEL")
    chained.fails("ADD")
    assert deleted(chained) == ["b", "a"]
    assert chained.record.attached[0].left == (1,)


def test_a_plugin_that_refuses_alike_is_forgotten_and_another_of_the_same_words_is_not(chained: Node) -> None:
    chained.executor.act = lambda call: (
        refusal(7, "no subnet") if call.plugin == "b" or (call.plugin, call.verb) == ("a", "DEL") else None
    )
    chained.fails("ADD")
    assert chained.record.attached[0].left == (0,), "a was attached: that it cannot be read now deletes nothing"


def test_each_attachment_of_a_network_is_judged_by_its_own_failure(node: Node) -> None:
    node.kube.annotations = {"cni": "calico,flannel,flannel"}
    node.executor.act = lambda call: (
        refusal(7, "no subnet") if call.plugin == "flannel" and (call.verb == "DEL" or call.ifname == "eth2") else None
    )
    node.fails("ADD")
    assert [attached.ifname for attached in node.record.attached] == ["eth1"]


@pytest.mark.parametrize(
    "outcome",
    [
        refusal(11, "try again"),
        Outcome(status=-9, error="no answer within 60 seconds; killed"),
        Outcome(status=-1, error="the shim went away, killed by the runtime perhaps"),
    ],
)
def test_a_plugin_whose_failure_proves_nothing_is_never_forgotten(chained: Node, outcome: Outcome) -> None:
    chained.executor.act = lambda call: outcome if call.plugin == "c" else None
    chained.fails("ADD")
    assert chained.record.attached[0].left == (2,)


@pytest.mark.parametrize("number", [2, 8, 13, 26])
def test_a_plugin_that_could_not_be_started_is_forgotten(
    chained: Node, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genie.cni.execute.BUSY_WAIT", 0)
    outcome = Outcome(status=-1, error="/bin/c could not be started", errno=number)
    chained.executor.act = lambda call: outcome if call.plugin == "c" else None
    chained.fails("ADD")
    assert chained.left() == [] and deleted(chained)[-2:] == ["b", "a"]


def test_a_cancelled_add_undoes_the_plugins_that_were_called(chained: Node) -> None:
    class Slow(FakeExecutor):
        async def run(self, call: PluginCall) -> Outcome:
            if call.env["CNI_COMMAND"] == "ADD" and call.binary.endswith("/b"):
                started.set()
                await asyncio.sleep(60)
            return await super().run(call)

    async def cancel() -> None:
        task = asyncio.create_task(serve(chained.request("ADD"), chained.kube, chained.executor))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    started = asyncio.Event()
    chained.executor = Slow()
    (chained.root / "bin" / "c").unlink()  # never called, so its DEL, which would fail, is not needed
    asyncio.run(cancel())
    assert deleted(chained) == ["b", "a"] and chained.left() == []


def test_a_del_of_what_was_attached_halts_its_chain_at_a_failure(chained: Node) -> None:
    chained.ok("ADD")
    chained.executor.act = failing("b", "DEL")
    chained.fails("DEL")
    assert deleted(chained) == ["c", "b"], "specification, section 3: a may be what b still works on"
    assert chained.record.attached[0].left == (0, 1)
    chained.executor.act = lambda _: None
    chained.ok("DEL")
    assert deleted(chained) == ["c", "b", "b", "a"] and chained.left() == []


def test_a_del_of_an_add_that_was_cut_off_tries_every_plugin(chained: Node) -> None:
    class PowerCut(BaseException):
        pass

    class Cut(FakeExecutor):
        async def run(self, call: PluginCall) -> Outcome:
            raise PowerCut

    chained.executor = Cut()
    with pytest.raises(PowerCut):
        chained.call("ADD")
    chained.executor = FakeExecutor(act=failing("b", "DEL"))
    chained.fails("DEL")
    assert deleted(chained) == ["c", "b", "a"]
    assert chained.record.attached[0].left == (1,)


NAMES = ("one", "two", "three")


class Holding:
    """Plugins that hold something from the start of their ADD until their DEL succeeds."""

    def __init__(self, bad: set[str], stuck: set[str]) -> None:
        self.bad, self.stuck = bad, stuck
        self.held: set[tuple[str, str]] = set()
        self.called: set[tuple[str, str]] = set()

    def __call__(self, call: SeenCall) -> Outcome | None:
        key = (call.plugin, call.ifname)
        if call.verb == "ADD":
            self.called.add(key)
            self.held.add(key)
            return refusal(100, "no more addresses") if call.plugin in self.bad else None
        assert key in self.called, "no DEL of what was never called"
        if call.plugin in self.stuck:
            return refusal(11, "locked")
        self.held.discard(key)
        return None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    bad=st.sets(st.integers(0, 8), min_size=1, max_size=2),
    stuck=st.sets(st.integers(0, 8), max_size=4),
    twice=st.booleans(),
)
def test_whatever_fails_every_plugin_that_was_called_lets_go_in_the_end(
    tmp_path_factory: pytest.TempPathFactory, sizes: Sequence[int], bad: set[int], stuck: set[int], twice: bool
) -> None:
    node = Node(Path(tmp_path_factory.mktemp("node")))
    every = [f"p{at}{i}" for at, size in enumerate(sizes) for i in range(size)]
    for at, size in enumerate(sizes):
        chain(node, NAMES[at], *[f"p{at}{i}" for i in range(size)])
    asked = [*NAMES[: len(sizes)], *([NAMES[0]] if twice else [])]
    node.kube.annotations = {"cni": ",".join(asked)}
    pick = {i: every[i % len(every)] for i in range(9)}
    plugins = Holding({pick[i] for i in bad}, {pick[i] for i in stuck})
    node.executor.act = plugins
    node.fails("ADD")
    assert bool(node.left()) == bool(plugins.held), "there is a record as long as something is held, and no longer"
    if node.left():
        node.fails("DEL")
        assert {plugin for plugin, _ in plugins.held} <= plugins.stuck, "what can let go holds nothing any more"
        plugins.stuck = set()
        node.ok("DEL")
    assert plugins.held == set() and node.left() == []
