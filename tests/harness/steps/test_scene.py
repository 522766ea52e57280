"""Steps in order, on a cluster in memory."""

from __future__ import annotations

import pytest

from harness.report.words import in_one_line
from tests.rigs.scenarios import PODS, Runner


def test_steps_in_turn(go: Runner) -> None:
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
    assert [output for output in cluster.history if output in order] == order
    assert cluster.store == {}
    assert [stage.name for stage in outcome.stages][1:-2] == [
        *("create a", "annotate a", "expect", "recreate a"),
        *("take the API server away", "end the sandbox of a", "end: take the API server away"),
        *("apply ConfigMap {{ scenario }}", "remove ConfigMap {{ scenario }}", "delete a"),
    ]


def test_a_static_pod_goes_by_its_mirrors_name(go: Runner) -> None:
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


def test_pods_that_never_run(go: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.steps.scene.GIVE_UP", 0.1)
    text = go.fails(PODS, faults=("never-runs",))
    assert "both is Pending on" in text
    assert "FailedCreatePodSandBox: Failed to create pod sandbox: rpc error: failed to setup network" in text
    line = in_one_line(text[text.index("both is Pending") :])
    assert line == 'both is Pending on one: network "?" not found', "the plugin's words are enough"


CHURN = """\
scenario: x
networks: [weave]
pods: {a: {annotations: {cni: weave}}}
steps:
  - create: a
  - churn: {like: a, count: 7, at-once: 3}
  - expect: [{addresses: {pods: a, network: weave}}]
"""


def test_churn_makes_pods_and_leaves_none_of_them(go: Runner) -> None:
    outcome, cluster = go(CHURN)
    assert outcome.verdict == "passed", outcome.failures
    assert "make and delete up to 7 pods like a, 3 at once" in [stage.name for stage in outcome.stages]
    assert cluster.store == {}


def test_churn_refuses_two_pods_of_one_address(go: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    same = [{"ip": "10.2.0.9"}]
    twins = {name: {"status": {"podIPs": same}} for name in ("churn-0", "churn-1", "churn-2")}
    monkeypatch.setattr("harness.steps.scene.Scene._wait_running", lambda scene, names: None)
    monkeypatch.setattr("harness.steps.scene.Scene.listed", lambda scene: twins if scene.there else {})
    outcome, _ = go(CHURN)
    assert "churn-1 and churn-0 both have 10.2.0.9" in str(outcome.failures)
