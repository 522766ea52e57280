"""Scenario files: what is understood, and how what is not is told."""

# ruff: noqa: E501 - tables read better than lines cut short
from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import pytest

from harness.model import PodName
from harness.scenario.reading import parse, read
from harness.scenario.schema import schema
from harness.steps.expect import Expect
from harness.steps.pods import Create
from harness.yamlfile import Mistakes

ROOT = Path(__file__).parents[2]
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


def wrong(text):
    with pytest.raises(Mistakes) as caught:
        parse(text, "a.yaml")
    return [str(mistake) for mistake in caught.value.mistakes]


def test_the_short_form_is_a_straight_line_of_steps():
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


def test_nothing_left_is_expected_of_every_scenario_that_does_not_say_otherwise():
    assert [check.key for check in parse(GOOD.partition("after-delete")[0]).spec.after_delete] == ["nothing-left"]


def test_what_a_scenario_needs_follows_from_its_steps():
    text = """\
scenario: x
networks: []
pods: {a: }
steps:
  - create: a
  - with-api-server-away:
      - end-sandbox: a
  - with-settings: {genie: {default_plugin: weave}, steps: [{recreate: a}]}
  - with-restart: {of: kubelet}
  - expect: [{check-passes: a}]
"""
    assert {each.name for each in parse(text).needs} == {
        "api-outage",
        "settings",
        "end-sandbox",
        "kubelet-restart",
        "cni-calls",
    }


def test_an_annotation_given_as_json_is_a_string():
    text = GOOD.replace('cni: "calico,weave"', "k8s.v1.cni.cncf.io/networks: [{name: blue, interface: net1}]")
    value = parse(text).pods["both"].annotations["k8s.v1.cni.cncf.io/networks"]
    assert json.loads(value) == [{"name": "blue", "interface": "net1"}]


def test_pods_that_are_to_fail_are_known():
    text = GOOD.replace(
        "  - interfaces: {pod: both, eth0: calico, eth1: weave}", "  - pod-fails: {pod: both, message: x}"
    )
    assert parse(text).failing == {"both"}


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        (("networks:", "networcs:"), "a.yaml:2:1: networcs: unknown key; did you mean 'networks'?"),
        (("node: other", "nod: other"), "a.yaml:5:37: pods.peer.nod: unknown key; did you mean 'node'?"),
        (("node: other", "node: othr"), "a.yaml:5:43: pods.peer.node: expected any, first, second, other"),
        (("eth1: weave", "eth1: weve"), "a.yaml:7:49: expect[0].interfaces.eth1: unknown network 'weve'; did you mean"),
        (("to: peer", "to: pear"), "a.yaml:8:29: expect[1].reach.to: unknown pod 'pear'; did you mean 'peer'?"),
        (("- reach:", "- raech:"), "a.yaml:8:5: expect[1]: unknown check 'raech'; did you mean 'reach'?"),
        (("over: weave}", "over: weave, protocols: [tpc]}"), "a.yaml:8:60: expect[1].reach.protocols[0]: expected 'icmp'"),
        (("{cni: weave}", "{cni: 5}"), "a.yaml:5:29: pods.peer.annotations.cni: expected a string, YAML reads 5"),
        (("{cni: weave}", "{cni: yes}"), "pods.peer.annotations.cni: expected a string, YAML reads true"),
        (("cni: weave", 'cni: "{{ nmespace }}"'), "unknown value {{ nmespace }}; did you mean 'namespace'?"),
        (("[both, peer]", "[both]"), "a.yaml:9:17: expect[2].other-node"),
        (("nothing-left", "{reach: {from: both, to: peer, within: 0}}"), "after-delete[0].reach.within: input should be"),
        (("  both: {", "  peer: {"), "a.yaml:5:3: pods.peer: said twice (first in line 4)"),
        (("networks: [", "networks: [["), "not YAML"),
        (("  both:", "  Both:"), "a.yaml:4:3: pods.Both: 'Both' does not fit"),
        (("after-delete:", "needs: [api-outtage]\nafter-delete:"), "needs[0]: unknown feature 'api-outtage'; did you mean"),
        (("node: other", "node: same-as boht"), "pods.peer.node: unknown pod 'boht'; did you mean 'both'?"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place_and_what_would_be_right(change, mistake):
    text = GOOD.replace(*change)
    assert text != GOOD
    told = wrong(text)
    assert any(mistake in line for line in told), told


def test_what_is_missing_is_told():
    assert any("networks: is missing" in line for line in wrong("scenario: x\npods: {a: }\n"))
    assert "a.yaml:1:1: the file is empty" in wrong("")
    assert "expected a mapping" in wrong("[1, 2]")[0]


def test_all_mistakes_are_told_in_the_order_of_lines():
    told = wrong(GOOD.replace("node: other", "nod: x").replace("to: peer", "too: peer"))
    assert [line.split(":")[1] for line in told] == sorted(line.split(":")[1] for line in told)
    assert len(told) == 3  # nod, too, and to is missing


@pytest.mark.parametrize(
    ("steps", "mistake"),
    [
        ("- delete: a\n", "pod 'a' is not there at this step"),
        ("- create: a\n- create: a\n", "pod 'a' is there already"),
        ("- create: a\n- delete: a\n- expect: [{check-passes: a}]\n", "pod 'a' is not there at this step"),
        ("- creat: a\n", "unknown step 'creat'; did you mean 'create'?"),
        ("- apply: [{kind: ConfigMap}]\n", "it has no apiVersion, metadata.name"),
    ],
)
def test_steps_in_an_order_that_cannot_be(steps, mistake):
    told = wrong(f"scenario: x\nnetworks: []\npods: {{a: }}\nsteps:\n{steps}")
    assert any(mistake in line for line in told), told


def test_expect_beside_steps_is_a_mistake():
    told = wrong("scenario: x\nnetworks: []\npods: {a: }\nexpect: [{check-passes: a}]\nsteps: [{create: a}]\n")
    assert any("beside steps there is no expect" in line for line in told)


def test_a_good_step_list_has_no_mistakes():
    parse("scenario: x\nnetworks: []\npods: {a: }\nsteps: [{create: a}, {delete: a}, {create: a}, {recreate: [a]}]\n")


def test_the_committed_schema_is_current():
    committed = json.loads((ROOT / "scenarios/schema.json").read_text())
    assert committed == schema(), "make it anew: python -m harness schema > scenarios/schema.json"


def test_every_scenario_is_sound_and_names_the_schema_for_editors():
    from harness.scenario.lint import mistakes

    for path in sorted((ROOT / "scenarios").glob("*.yaml")):
        assert not mistakes(path)
        assert path.read_text().startswith("# yaml-language-server: $schema=schema.json\n"), path


def test_the_examples_for_vendors_are_sound(tmp_path, capsys):
    from harness.__main__ import main

    profile, scenario = tmp_path / "mynet.yaml", tmp_path / "mynet-and-flannel.yaml"
    for example in (ROOT / "docs/vendors.md").read_text().split("```yaml\n")[1:]:
        for path in (profile, scenario):
            if example.startswith(f"# {path.name}\n"):
                path.write_text(example.partition("```")[0])
    assert main(["lint", str(scenario)]) == 1
    assert "unknown network 'mynet'" in capsys.readouterr().out
    assert main(["lint", str(scenario), "--profile", str(profile)]) == 0
    assert main(["lint", str(scenario), "--profile", str(scenario)]) == 1
    assert f"{scenario}: network: Field required" in capsys.readouterr().err


def test_the_reference_in_docs_is_current():
    from harness.scenario.reference import reference

    assert f"```text\n{reference()}\n```" in (ROOT / "docs/scenarios.md").read_text(), (
        "python -m harness checks says it"
    )


def asked_for(name):
    """The annotations of a scenario's pods, in a namespace `apps`; where one is JSON, each field by itself too."""
    for pod in read(ROOT / f"scenarios/{name}.yaml").pods.values():
        for key, text in pod.annotations.items():
            value = text.replace("{{ namespace }}", "apps")
            yield key, value
            with suppress(ValueError):
                yield from ((field, json.dumps(said)) for entry in json.loads(value) for field, said in entry.items())


def test_every_example_of_the_annotation_reference_is_a_scenarios():
    """docs/annotations.md: `| what is asked for | what comes of it | the scenario that asks for it |`."""
    rows = [row for row in (ROOT / "docs/annotations.md").read_text().splitlines() if "../scenarios/" in row]
    assert len(rows) > 15
    for row in rows:
        said, name = re.match(r"\| (.*?) \|.* \| \[([a-z-]+)\]", row).groups()
        if example := re.match(r"`([^`]*)` \| `([^`]*)` \|", row.removeprefix("| ")):
            said = (example[1], json.dumps(json.loads(example[2])))  # of the JSON form, a field and its value
        elif said.startswith("`"):
            said = tuple(part.strip() for part in said.split("`")[1].split(":", 1))
        else:
            continue  # a pod that says nothing
        assert said in set(asked_for(name)), row


def test_the_example_in_docs_is_sound():
    text = (ROOT / "docs/scenarios.md").read_text()
    parse(text.partition("```yaml\n")[2].partition("```")[0])


def test_every_example_of_a_check_or_step_is_one():
    import yaml
    from pydantic import TypeAdapter

    from harness.checks import CHECKS
    from harness.steps import STEPS
    from harness.steps.base import AnyStep
    from harness.steps.expect import AnyCheck

    for known, form in ((CHECKS, AnyCheck), (STEPS, AnyStep)):
        for key, model in known.items():
            assert model.key == key
            assert isinstance(TypeAdapter(form).validate_python(yaml.safe_load(model.example)), model)
            assert model.__doc__


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


def test_a_swap_is_of_the_network_alone(tmp_path):
    """Where `bridge` is a plugin's type or a key of its configuration, it stays."""
    path = tmp_path / "weave-bridge.yaml"
    path.write_text(SWAPPED)
    scenario = read(path, swap=("bridge", "mynet"))
    assert scenario.name == "weave-mynet"
    assert scenario.networks == ("mynet", "weave")
    assert scenario.pods["a"].annotations == {"cni": "weave,mynet", "where": "{{ subnet.mynet }}"}
    assert '"type": "bridge", "bridge": "side0"' in scenario.spec.objects[0]["spec"]["config"]
