"""Scenario files: accepted input, and reports of mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.model import PodName
from harness.scenario.reading import parse, read
from harness.steps.expect import Expect
from harness.steps.pods import Create
from harness.yamlfile import Mistakes

GOOD = """\
scenario: A pod on calico and weave
networks: [calico, weave]
pods:
  both: {annotations: {cni: "calico,weave"}}
  peer: {annotations: {cni: weave}, node: other}
expect:
  - interfaces: {pod: both, eth0: calico, eth1: weave}
  - reach: {from: both, to: peer, over: weave}
  - other-node: [both, peer]
after-delete:
  - nothing-left
"""
ONE = "scenario: x\nnetworks: []\npods: {a: }\n"


def wrong(text: str) -> list[str]:
    with pytest.raises(Mistakes) as caught:
        parse(text, "a.yaml")
    return [str(mistake) for mistake in caught.value.mistakes]


def test_the_short_form_is_a_straight_line_of_steps() -> None:
    scenario = parse(GOOD)
    create, expect = scenario.steps
    assert create == Create(pods=(PodName("both"), PodName("peer")))
    assert isinstance(expect, Expect)
    assert [str(check) for check in scenario.checks] == [
        "interfaces pod: both, eth0: calico, eth1: weave",
        "reach from: both, to: peer, over: weave",
        "other-node [both, peer]",
        "nothing-left",
    ]


def test_nothing_left_is_expected_of_every_scenario_that_does_not_say_otherwise() -> None:
    scenario = parse(GOOD.partition("after-delete")[0])
    assert [check.key for check in scenario.spec.after_delete] == ["nothing-left"]


def test_what_a_scenario_needs_follows_from_its_content() -> None:
    text = """\
scenario: x
networks: []
needs: [services]
net-d: {"80-blue.conf": {name: blue, type: bridge}}
pods: {a: , b: {static: true}}
steps:
  - create: a
  - with-api-server-away:
      - end-sandbox: a
  - with-settings: {genie: {default_plugin: weave}, steps: [{recreate: a}]}
  - with-restart: {of: kubelet}
  - expect: [{check-passes: a}]
"""
    assert {ability.name for ability in parse(text).needs} == {
        *("services", "net-d", "static-pods", "api-outage", "settings", "end-sandbox", "kubelet-restart", "cni-calls")
    }


def test_an_annotation_given_as_json_is_a_string() -> None:
    text = GOOD.replace('cni: "calico,weave"', "k8s.v1.cni.cncf.io/networks: [{name: blue, interface: net1}]")
    value = parse(text).pods["both"].annotations["k8s.v1.cni.cncf.io/networks"]
    assert json.loads(value) == [{"name": "blue", "interface": "net1"}]


def test_pods_that_are_to_fail_are_known() -> None:
    check = "  - interfaces: {pod: both, eth0: calico, eth1: weave}"
    assert parse(GOOD.replace(check, "  - pod-fails: {pod: both, message: x}")).failing == {"both"}


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        (("networks:", "networcs:"), "a.yaml:2:1: networcs: unknown key; did you mean 'networks'?"),
        (("node: other", "nod: other"), "a.yaml:5:37: pods.peer.nod: unknown key; did you mean 'node'?"),
        (("node: other", "node: othr"), "a.yaml:5:43: pods.peer.node: expected any, first, second, other"),
        (
            ("eth1: weave", "eth1: weve"),
            "a.yaml:7:49: expect[0].interfaces.eth1: unknown network 'weve'; did you mean",
        ),
        (("to: peer", "to: pear"), "a.yaml:8:29: expect[1].reach.to: unknown pod 'pear'; did you mean 'peer'?"),
        (("- reach:", "- raech:"), "a.yaml:8:5: expect[1]: unknown check 'raech'; did you mean 'reach'?"),
        (
            ("over: weave}", "over: weave, protocols: [tpc]}"),
            "a.yaml:8:60: expect[1].reach.protocols[0]: expected 'icmp'",
        ),
        (
            ("over: weave}", "over: weave, form: x}"),
            "a.yaml:8:48: expect[1].reach.form: unknown key; did you mean 'from'?",
        ),
        (("{cni: weave}", "{cni: 5}"), "a.yaml:5:29: pods.peer.annotations.cni: expected a string, YAML reads 5"),
        (("{cni: weave}", "{cni: yes}"), "pods.peer.annotations.cni: expected a string, YAML reads true"),
        (("cni: weave", 'cni: "{{ nmespace }}"'), "unknown value {{ nmespace }}; did you mean 'namespace'?"),
        (("[both, peer]", "[both]"), "a.yaml:9:17: expect[2].other-node"),
        (
            ("nothing-left", "{reach: {from: both, to: peer, within: 0}}"),
            "after-delete[0].reach.within: input should be",
        ),
        (("  both: {", "  peer: {"), "a.yaml:5:3: pods.peer: given twice (first in line 4)"),
        (("networks: [", "networks: [["), "not YAML"),
        (("  both:", "  Both:"), "a.yaml:4:3: pods.Both: 'Both' does not fit"),
        (
            ("after-delete:", "needs: [api-outtage]\nafter-delete:"),
            "needs[0]: unknown feature 'api-outtage'; did you mean",
        ),
        (("node: other", "node: same-as boht"), "pods.peer.node: unknown pod 'boht'; did you mean 'both'?"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_would_be_right(change: tuple[str, str], mistake: str) -> None:
    text = GOOD.replace(*change)
    assert text != GOOD
    reported = wrong(text)
    assert any(mistake in line for line in reported), reported


def test_what_is_missing_is_told() -> None:
    assert any("networks: is missing" in line for line in wrong("scenario: x\npods: {a: }\n"))
    assert "a.yaml:1:1: the file is empty" in wrong("")
    assert "expected a mapping" in wrong("[1, 2]")[0]


def test_all_mistakes_are_told_in_the_order_of_lines() -> None:
    reported = wrong(GOOD.replace("node: other", "nod: x").replace("to: peer", "too: peer"))
    assert [line.split(":")[1] for line in reported] == sorted(line.split(":")[1] for line in reported)
    assert len(reported) == 3  # nod, too, and to is missing


@pytest.mark.parametrize(
    ("steps", "mistake"),
    [
        ("- delete: a\n", "pod 'a' does not exist at this step"),
        ("- create: a\n- create: a\n", "pod 'a' exists already"),
        ("- create: a\n- delete: a\n- expect: [{check-passes: a}]\n", "pod 'a' does not exist at this step"),
        ("- creat: a\n", "unknown step 'creat'; did you mean 'create'?"),
        ("- apply: [{kind: ConfigMap}]\n", "it has no apiVersion, metadata.name"),
    ],
)
def test_steps_in_an_order_that_cannot_be(steps: str, mistake: str) -> None:
    reported = wrong(f"{ONE}steps:\n{steps}")
    assert any(mistake in line for line in reported), reported


def test_expect_beside_steps_is_a_mistake() -> None:
    reported = wrong(f"{ONE}expect: [{{check-passes: a}}]\nsteps: [{{create: a}}]\n")
    assert any("with steps, expect must be a step" in line for line in reported)


def test_a_good_step_list_has_no_mistakes() -> None:
    parse(f"{ONE}steps: [{{create: a}}, {{delete: a}}, {{create: a}}, {{recreate: [a]}}]\n")


SWAPPED = """\
scenario: A pod on bridge
networks: [bridge, weave]
objects:
  - apiVersion: k8s.cni.cncf.io/v1
    kind: NetworkAttachmentDefinition
    metadata: {name: side}
    spec: {config: '{"cniVersion": "1.0.0", "type": "bridge", "bridge": "side0", "ipam": {"subnet": "10.1.0.0/24"}}'}
pods: {a: {annotations: {cni: "weave,bridge", where: "{{ subnet.bridge }}"}}}
expect:
  - interfaces: {pod: a, eth0: weave, eth1: bridge}
"""


def test_a_swap_is_of_the_network_alone(tmp_path: Path) -> None:
    """`bridge` stays if it is a plugin's type or a key of its configuration."""
    path = tmp_path / "weave-bridge.yaml"
    path.write_text(SWAPPED)
    scenario = read(path, swaps={"bridge": "mynet"})
    assert scenario.name == "weave-mynet"
    assert scenario.networks == ("mynet", "weave")
    assert scenario.pods["a"].annotations == {"cni": "weave,mynet", "where": "{{ subnet.mynet }}"}
    assert '"type": "bridge", "bridge": "side0"' in scenario.spec.objects[0]["spec"]["config"]


def test_a_mistyped_network_is_blamed_where_it_is_mistyped() -> None:
    """The list has `calcio`; all uses are correct, so they are not reported."""
    [reported] = wrong(GOOD.replace("[calico, weave]", "[calcio, weave]"))
    assert reported.startswith("a.yaml:2:12: networks[0]: ")
    assert "'calcio'; did you mean 'calico'?" in reported
