"""genie's manifests, as the harness applies them."""

from __future__ import annotations

import json

from harness.cluster import deploy, software


def test_every_container_of_genie_has_the_image() -> None:
    daemonset = next(each for each in deploy.objects("genie:test") if each["kind"] == "DaemonSet")
    assert set(software.images([daemonset])) == {"genie:test"}


def test_genie_is_not_privileged() -> None:
    daemonset = next(each for each in deploy.objects("genie:test") if each["kind"] == "DaemonSet")
    pod = daemonset["spec"]["template"]["spec"]
    for each in pod["containers"]:
        context = each["securityContext"]
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert "privileged" not in context


def test_an_update_of_genie_leaves_no_node_without_an_agent() -> None:
    """Two agents are on a node for a moment: nothing of the pod may be there only once, such as a port of the host."""
    daemonset = next(each for each in deploy.objects("genie:test") if each["kind"] == "DaemonSet")
    assert daemonset["spec"]["updateStrategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    for each in daemonset["spec"]["template"]["spec"]["containers"]:
        assert "ports" not in each
        assert "exec" in each["startupProbe"], "over HTTP on the host's network, the other agent might answer"


def test_genie_may_do_no_more_than_it_must() -> None:
    role = next(each for each in deploy.objects("genie:test") if each["kind"] == "ClusterRole")
    verbs = {resource: rule["verbs"] for rule in role["rules"] for resource in rule["resources"]}
    assert verbs.pop("pods") == ["get", "list", "watch", "patch"]
    assert verbs.pop("events") == ["create", "patch"]
    assert all(set(each) <= {"get", "list", "watch"} for each in verbs.values())


def test_all_of_genie_bears_its_label_but_its_kinds() -> None:
    things = [each for each in deploy.objects("genie:test") if each["kind"] != "CustomResourceDefinition"]
    assert all(each["metadata"]["labels"]["app.kubernetes.io/name"] == "genie" for each in things)


def test_the_component_for_policies_adds_rights_and_the_key_and_changes_nothing_else() -> None:
    before, after = deploy.objects("genie:1"), deploy.objects("genie:1", policies=True)
    changed = [(one, other) for one, other in zip(before, after, strict=False) if one != other]
    [(plain, enforcing)] = changed
    assert plain["kind"] == enforcing["kind"] == "ConfigMap"
    had, has = (json.loads(each["data"]["genie.conf"]) for each in (plain, enforcing))
    assert has == {**had, "agent": {"policy": True}}
    assert {each["metadata"]["name"] for each in after[len(before) :]} == {
        "multi-networkpolicies.k8s.cni.cncf.io", "genie-policy",
    }  # fmt: skip
