"""A scenario's life, on a cluster in memory: what is made and unmade, what is found, and what its failures say."""

# ruff: noqa: E501 - tables read better than lines cut short
from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from harness_rig import FakeCluster

from harness.contract import APART, must_be_alone
from harness.pods import place
from harness.report.outcome import Outcome
from harness.run.leaks import Sweep
from harness.run.life import Options, run
from harness.run.locks import turn
from harness.run.skips import why_not
from harness.scenario.reading import parse

TWO = """\
scenario: A pod on two networks
networks: [calico, weave]
pods:
  both: {annotations: {cni: "calico,weave"}}
  peer: {annotations: {cni: weave}, node: other}
expect:
"""


@pytest.fixture
def go(tmp_path):
    def go(text, *, shared=False, keep=False, **cluster):
        made = cluster.pop("cluster", None) or FakeCluster(**cluster)
        options = Options(report=tmp_path, locks=tmp_path / "locks", shared=shared, keep=keep, hurry=0.02)
        outcome = run(parse(text, "scenarios/it.yaml"), made, options)
        assert Outcome.from_json(outcome.to_json()) == outcome
        return outcome, made

    return go


def two(*checks):
    return TWO + "".join(f"  - {check}\n" for check in checks)


def failing(outcome):
    assert outcome.verdict == "failed", outcome
    return "\n".join(f"{where}: {what}" for where, what in outcome.failures)


def test_a_life_from_namespace_to_nothing(go):
    outcome, cluster = go(
        two(
            "interfaces: {pod: both, eth0: calico, eth1: weave}",
            "addresses: {pods: [both, peer], network: weave, count: 1}",
            "default-route: {pod: both, network: calico}",
            "routes: {pod: both, has: [{to: 10.2.0.0/16, interface: eth1}], lacks: [{to: default, interface: eth1}]}",
            "status-ip: {pod: both, network: calico}",
            "reach: {from: both, to: peer, over: weave, both-ways: true, from-network: weave, seen-as: weave}",
            "reach: {from: peer, to: both}",
            "other-node: [both, peer]",
            "annotations: {pod: peer, has: {cni: weave, gone: {absent: true}}}",
            "check-passes: [both, peer]",
        )
    )
    assert outcome.verdict == "passed", outcome.failures
    assert cluster.store == {}
    assert [stage.name for stage in outcome.stages] == [
        "prepare", "create both, peer", "expect", "delete both, peer", "after delete", "remove the namespace"
    ]  # fmt: skip
    assert "udp 10.2.0.13" in cluster.said


def test_steps_in_turn(go):
    outcome, cluster = go(
        """\
scenario: x
networks: [weave]
genie: {default_plugin: weave}
pods: {a: {annotations: {cni: weave}}}
steps:
  - create: a
  - annotate: {pod: a, annotations: {note: "{{ namespace }}"}}
  - expect: [{annotations: {pod: a, has: {note: "{{ namespace }}"}}}]
  - recreate: a
  - with-api-server-away:
      - end-sandbox: a
  - apply: [{apiVersion: v1, kind: ConfigMap, metadata: {name: "{{ scenario }}"}}]
  - remove: [{apiVersion: v1, kind: ConfigMap, metadata: {name: "{{ scenario }}"}}]
  - delete: a
"""
    )
    assert outcome.verdict == "passed", outcome.failures
    order = ["settings {'default_plugin': 'weave'}", "API server away", "end a", "API server back", "settings back"]
    assert [said for said in cluster.said if said in order] == order
    assert cluster.store == {}


def test_a_static_pod_goes_by_its_mirrors_name(go):
    outcome, cluster = go(
        """\
scenario: x
networks: [calico, weave]
pods: {fixed: {static: true, annotations: {cni: "calico,weave"}, node: first}, peer: {annotations: {cni: weave}}}
steps:
  - create: [fixed, peer]
  - expect: ["interfaces": {pod: fixed, eth0: calico, eth1: weave}, "reach": {from: peer, to: fixed, over: weave}]
  - recreate: fixed
  - expect: [{check-passes: fixed}]
"""
    )
    assert outcome.verdict == "passed", outcome.failures
    assert cluster.store == {}
    assert cluster.static == {}


def test_files_in_net_d_are_there_for_the_time_of_the_scenario(go):
    outcome, cluster = go(
        """\
scenario: x
networks: [weave]
net-d: {"80-blue.conf": {name: "{{ scenario }}", type: bridge}}
pods: {a: {annotations: {cni: weave}}}
"""
    )
    assert outcome.verdict == "passed", outcome.failures
    assert cluster.said == ["net.d {'80-blue.conf': {'name': 'it', 'type': 'bridge'}}", "net.d back"]


def test_the_first_network_is_whichever_the_nodes_have_first(go):
    text = (
        "scenario: x\nnetworks: [first-of-node]\npods: {a: }\nexpect: [{interfaces: {pod: a, eth0: first-of-node}}]\n"
    )
    outcome, _ = go(text)
    assert (outcome.verdict, outcome.networks) == ("passed", ("bridge",)), outcome.failures
    outcome, _ = go(text.replace("a: }", "a: {annotations: {cni: weave}}}"))
    assert "eth0 has no address of first-of-node" in failing(outcome)
    outcome, _ = go(text, offers={})
    assert outcome.reason == "the network that the nodes have first is none that the harness knows"


def test_a_pod_that_is_to_fail(go):
    text = "scenario: x\nnetworks: []\npods: {lost: {annotations: {cni: nowhere}}}\nexpect:\n  - pod-fails: {pod: lost, message: '%s'}\n"
    outcome, _ = go(text % "nowhere.* not found")
    assert outcome.verdict == "passed", outcome.failures
    told = failing(go(text % "another reason")[0])
    assert "no event of lost matches 'another reason'" in told
    assert 'network "nowhere" not found' in told


def test_a_pod_that_is_to_fail_and_runs(go):
    outcome, _ = go(two("pod-fails: {pod: both, message: x}"))
    assert "both runs, expected it to fail" in failing(outcome)


@pytest.mark.parametrize(
    ("fault", "check", "told"),
    [
        (
            "missing-interface",
            "interfaces: {pod: both, eth0: calico, eth1: weave}",
            ["eth1 is missing: expected it on weave", "eth0 up, 10.1.0.11/16 (calico)", "weave: 10.2.0.0/16"],
        ),
        ("x", "interfaces: {pod: both, eth0: weave, eth1: calico}", ["eth0 has no address of weave", "it has 10.1.0.11/16"]),
        ("x", "interfaces: {pod: both, eth0: calico}", ["eth1 is there and nothing asked for it"]),
        ("two-defaults", "default-route: {pod: both, network: calico}", ["2 IPv4 default routes, expected one by eth0 (calico)"]),
        ("no-gateway", "default-route: {pod: both, interface: eth0}", ["0 IPv4 default routes, expected one by eth0: none"]),
        ("x", "default-route: {pod: both, network: weave}", ["leaves by eth0, expected by eth1 (weave)"]),
        ("x", "default-route: {pod: both, none: true}", ["both has a default route: default via 10.1.0.1 dev eth0"]),
        ("x", "routes: {pod: both, has: [{to: 10.9.0.0/16, via: 10.2.0.1}]}", ["no route 10.9.0.0/16 via 10.2.0.1"]),
        ("wrong-status", "status-ip: {pod: both, network: calico}", ["status.podIP of both is 10.9.9.9, expected one of calico"]),
        ("unreachable", "reach: {from: both, to: peer, over: weave}", ["icmp from both to peer at 10.2.0.13: no answer", "udp from"]),
        ("wrong-pod", "reach: {from: both, to: peer, over: weave}", ["somebody answered, expected peer: two pods have one"]),
        ("x", "reach: {from: both, to: peer, over: weave, seen-as: calico}", ["seen as 10.2.0.12, expected 10.1.0.11 (calico)"]),
        ("x", "reach: {from: both, to: peer, over: calico}", ["peer has no address of calico to reach"]),
        ("x", "isolated: {from: both, to: peer, over: weave}", ["icmp from both gets to peer at 10.2.0.13, expected it not to"]),
        ("unreachable", "isolated: {from: both, to: peer, over: weave}", ["peer does not answer itself at 10.2.0.13, so being"]),
        ("x", "same-node: [both, peer]", ["expected these on one node: both is on", "peer is on"]),
        ("x", "addresses: {pods: [both, peer], network: calico}", ["peer has no address of calico"]),
        ("x", "addresses: {pods: both, network: calico, count: 2}", ["both has 1 addresses of calico, expected 2"]),
        ("x", "annotations: {pod: both, has: {cni: weave}}", ["annotation cni of both is 'calico,weave', expected 'weave'"]),
        ("x", "annotations: {pod: both, has: {cni: {matches: ^w}}}", ["expected a match of '^w'"]),
        ("x", "annotations: {pod: both, has: {cni: {json: []}}}", ["is no JSON"]),
        ("x", "network-status: {pod: both, eth0: calico}", ["both has no annotation k8s.v1.cni.cncf.io/network-status"]),
        ("x", "events: {pod: both, message: attached}", ["no event of both with reason any", "none"]),
        ("check", "check-passes: both", ["CNI CHECK of both fails: eth0 has lost its address"]),
        ("x", "check-passes: {pods: both, fails: route}", ["CNI CHECK of both passes, expected 'route'"]),
        ("x", "status-passes: {env: {CNI_PATH: /nowhere}}", ["CNI STATUS on one fails: no plugin in /nowhere", "on two fails"]),
        ("x", "mtu: {pod: both, eth0: 1400, eth7: 1500}", ["eth0 has the MTU 1500, expected 1400", "eth7 has the MTU None"]),
        ("x", "bandwidth: {from: both, to: peer, over: weave, at-most: 9}", ["bit/s, expected at most 9"]),
        ("x", "status-ip: {pod: both, network: calico, families: [4, 6]}", ["expected IPv4 and IPv6 of calico"]),
        ("x", "service: {from: both, name: web, answered-by: peer}", ["there is no Service web"]),
        ("probe-away", "interfaces: {pod: both, eth0: calico}", ["a probe could not be asked"]),
    ],
)  # fmt: skip
def test_a_failure_shows_the_values(go, fault, check, told):
    outcome, cluster = go(two(check), faults=[fault])
    text = failing(outcome)
    for words in told:
        assert words in text
    assert cluster.store == {}, "everything is gone all the same"


def test_isolation(go):
    outcome, _ = go(two("isolated: {from: both, to: peer, over: weave}"), faults=["isolate"])
    assert outcome.verdict == "passed", outcome.failures


def test_network_status_that_is_what_the_pod_has(go):
    status = (
        '[{"name": "calico", "interface": "eth0", "ips": ["10.1.0.11"], "mac": "0a:00:00:00:00:01", "default": true},'
        ' {"name": "weave", "interface": "eth1", "ips": ["10.2.0.99"], "mac": "0A:00:00:00:00:01"}]'
    )
    steps = f"""\
scenario: x
networks: [calico, weave]
pods: {{a: {{annotations: {{cni: "calico,weave"}}}}}}
steps:
  - create: a
  - annotate: {{pod: a, annotations: {{k8s.v1.cni.cncf.io/network-status: '{status}'}}}}
  - expect: [{{network-status: {{pod: a, eth0: calico, eth1: weave}}}}]
"""
    assert "eth1: the entry's ips are ['10.2.0.99'], the interface has ['10.2.0.12']" in failing(go(steps)[0])
    assert go(steps.replace("10.2.0.99", "10.2.0.12"))[0].verdict == "passed"


def test_evidence_is_collected_while_the_pods_are_there(go, tmp_path):
    outcome, _ = go(two("default-route: {pod: both, network: weave}"))
    texts = {path: (tmp_path / path).read_text() for path in outcome.evidence}
    assert "what genie said\n" in texts.values()
    assert any("eth1 up, 10.2.0.12/16 (weave)" in text for text in texts.values())
    names = [stage.name for stage in outcome.stages]
    assert names.index("collect evidence") < names.index("delete both, peer")


def test_pods_that_never_run(go, monkeypatch):
    monkeypatch.setattr("harness.steps.scene.GIVE_UP", 0.1)
    outcome, cluster = go(TWO.replace("expect:\n", ""), faults=["never-runs"])
    text = failing(outcome)
    assert "both is Pending on" in text
    assert 'FailedCreatePodSandBox: plugin type="genie" failed (add)' in text
    assert cluster.store == {}


def test_a_leak_is_found_at_once_by_a_scenario_that_is_alone(go):
    outcome, _ = go(TWO.replace("expect:\n", ""), faults=["leak"])
    assert "left on the nodes:" in failing(outcome)
    assert "one: addresses: weave 10.2.0.12" in failing(outcome)


def test_a_leak_is_found_beside_others_and_theirs_is_not_charged(go):
    cluster = FakeCluster(faults=["leak"])
    ask = cluster.ask

    def another_comes(*args):
        cluster.stranger.add("weave 10.2.0.77 " + "b" * 64 + "/eth0")
        return ask(*args)

    cluster.ask = another_comes
    outcome, _ = go(two("interfaces: {pod: both, eth0: calico, eth1: weave}"), cluster=cluster, shared=True)
    text = failing(outcome)
    assert "10.2.0.12" in text
    assert "10.2.0.77" not in text
    assert any("10.2.0.77" in line for line in outcome.unclaimed)


def test_what_stays_is_a_leak_where_inventories_leave_out_the_living(go):
    outcome, _ = go(TWO.replace("expect:\n", ""), faults=["leak"], living_left_out=True, shared=True)
    assert "10.2.0.12" in failing(outcome)


def test_the_sweep_names_who_had_seen_what_remains():
    cluster = FakeCluster()
    sweep = Sweep(cluster)
    sweep.open()
    assert sweep.left({}, within=0) == []
    cluster.leaked = {"weave 10.2.0.99 someone/eth0", "weave 10.2.0.98 nobody/eth0"}
    noted = {"a": ["one: addresses: weave 10.2.0.99 someone/eth0"], "b": []}
    assert sweep.left(noted, within=0) == [
        "one: addresses: weave 10.2.0.98 nobody/eth0 (no scenario noted it)",
        "one: addresses: weave 10.2.0.99 someone/eth0 (a)",
    ]


def test_keep(go):
    outcome, cluster = go(TWO.replace("expect:\n", ""), keep=True)
    assert outcome.verdict == "passed"
    assert f"/api/v1/namespaces/{outcome.namespace}" in cluster.store
    assert outcome.notes == (f"kept: namespace {outcome.namespace} with both, peer",)


def test_a_backend_that_breaks_fails_the_scenario_only(go):
    cluster = FakeCluster()
    cluster.inventory = lambda node: 1 / 0
    assert "ZeroDivisionError" in failing(go(TWO.replace("expect:\n", ""), cluster=cluster)[0])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("networks: [canal]", "canal is missing: its image cannot be had"),
        ("networks: [contiv]", "no network contiv here (known: bridge, calico, canal, flannel, weave)"),
        ("networks: []\nneeds: [services]", "the fake backend cannot do this here: services"),
    ],
)
def test_what_cannot_be_done_is_skipped_with_the_reason(go, text, reason):
    outcome, _ = go(f"scenario: x\n{text}\npods: {{a: }}\n")
    assert (outcome.verdict, outcome.reason) == ("skipped", reason)


LATER = {
    "after another": '{cni: "bridge, calico@net1"}',
    "beside the default network": '{k8s.v1.cni.cncf.io/networks: "other, kube-system/calico@net1"}',
    "in JSON": "{k8s.v1.cni.cncf.io/networks: [{name: calico}]}",
}


@pytest.mark.parametrize("annotations", LATER.values(), ids=LATER)
def test_what_a_network_can_only_do_as_a_pods_first_is_skipped_elsewhere(annotations):
    offers = FakeCluster().facts.offers
    facts = FakeCluster(offers={**offers, "calico": replace(offers["calico"], first_only="by its nature")}).facts
    scenario = parse(f"scenario: x\nnetworks: [bridge, calico]\npods:\n  a: {{annotations: {annotations}}}\n")
    assert why_not(scenario, facts) == ("calico works as a pod's first network only, and a has it later: by its nature")
    assert why_not(scenario, FakeCluster().facts) == ""


@pytest.mark.parametrize("annotation", ["calico,bridge", "calico", "bridge,calico-2"])
def test_as_a_pods_first_network_it_is_not_skipped(annotation):
    offers = FakeCluster().facts.offers
    facts = FakeCluster(offers={**offers, "calico": replace(offers["calico"], first_only="by its nature")}).facts
    scenario = parse(
        f"scenario: x\nnetworks: [bridge, calico]\npods: {{a: {{annotations: {{cni: '{annotation}'}}}}}}\n"
    )
    assert why_not(scenario, facts) == ""


def test_a_misspelt_network_is_no_skip(go):
    outcome, _ = go("scenario: x\nnetworks: [wevae]\npods: {a: }\n")
    assert "unknown network 'wevae'; did you mean 'weave'?" in failing(outcome)


def test_one_node_is_not_two():
    scenario = parse(TWO.replace("expect:\n", ""))
    assert "two nodes" in why_not(scenario, FakeCluster(nodes=("one",)).facts)


def test_who_needs_the_cluster_alone():
    changed = parse("scenario: x\nnetworks: []\ngenie: {a: b}\npods: {a: }\n")
    facts = FakeCluster().facts
    assert must_be_alone(changed.needs, facts)
    assert not must_be_alone(changed.needs, FakeCluster(abilities=facts.abilities | {APART}).facts)
    assert not must_be_alone(parse(TWO.replace("expect:\n", "")).needs, facts)


def test_places():
    text = "scenario: x\nnetworks: []\npods:\n" + "".join(
        f"  {name}: {{node: {node}}}\n"
        for name, node in {
            "a": "any",
            "b": "other",
            "c": "same-as b",
            "d": "other-than c",
            "e": "first",
            "f": "second",
        }.items()
    )
    pods = parse(text).pods
    nodes = place(pods, ["one", "two"], "x")
    assert nodes["a"] != nodes["b"] == nodes["c"] != nodes["d"]
    assert (nodes["e"], nodes["f"]) == ("one", "two")
    assert place(pods, ["only"], "x") == dict.fromkeys("abcdef", "only")


def test_turns(tmp_path):
    order = []
    with turn(tmp_path, alone=False), turn(tmp_path, alone=False):
        waiting = threading.Thread(target=lambda: [order.append("alone") for _ in [0] if _taken(tmp_path, order)])
        waiting.start()
        waiting.join(0.2)
        assert order == [], "it waits for those before it"
    waiting.join(5)
    assert order == ["in", "alone"]


def _taken(path, order):
    with turn(path, alone=True):
        order.append("in")
        return True
