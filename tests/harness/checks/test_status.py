"""Checks of a pod's status in Kubernetes: passing cases, and the texts of failures."""

from __future__ import annotations

import pytest

from tests.rigs.scenarios import Runner, two


@pytest.mark.parametrize(
    ("fault", "check", "reported"),
    [
        (
            "wrong-status",
            "status-ip: {pod: both, network: calico}",
            ["status.podIP of both is 10.9.9.9, expected one of calico"],
        ),
        ("", "status-ip: {pod: both, network: calico, families: [4, 6]}", ["expected IPv4 and IPv6 of calico"]),
        (
            "",
            "annotations: {pod: both, has: {cni: weave}}",
            ["annotation cni of both is 'calico,weave', expected 'weave'"],
        ),
        ("", "annotations: {pod: both, has: {cni: {matches: ^w}}}", ["expected a match of '^w'"]),
        ("", "annotations: {pod: both, has: {cni: {json: []}}}", ["is not JSON"]),
        (
            "",
            "network-status: {pod: both, eth0: calico}",
            ["both has no annotation k8s.v1.cni.cncf.io/network-status"],
        ),
        ("", "events: {pod: both, message: attached}", ["no event of both with reason any", "none"]),
        ("", "pod-fails: {pod: both, message: x}", ["both runs, expected it to fail"]),
    ],
)
def test_a_failure_shows_the_values(go: Runner, fault: str, check: str, reported: list[str]) -> None:
    text = go.fails(two(check), faults=(fault,))
    for words in reported:
        assert words in text


def test_a_pod_that_is_to_fail(go: Runner) -> None:
    pods = "scenario: x\nnetworks: []\npods: {lost: {annotations: {cni: nowhere}}}\n"
    text = f"{pods}expect:\n  - pod-fails: {{pod: lost, message: '%s'}}\n"
    outcome, _ = go(text % "nowhere.* not found")
    assert outcome.verdict == "passed", outcome.failures
    reported = go.fails(text % "another reason")
    assert "no event of lost matches 'another reason'" in reported
    assert 'network "nowhere" not found' in reported


def test_network_status_that_is_what_the_pod_has(go: Runner) -> None:
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
    assert "eth1: the entry's ips are ['10.2.0.99'], the interface has ['10.2.0.12']" in go.fails(steps)
    assert go(steps.replace("10.2.0.99", "10.2.0.12"))[0].verdict == "passed"
