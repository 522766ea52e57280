"""What is kept from one moment to the next is what would be found anew."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from genie.policy.world import World
from tests.rigs import policies as rig

STEPS = 40


@pytest.mark.parametrize("seed", range(5))
def test_a_change_gives_the_same_rules_as_a_world_made_anew(seed: int) -> None:
    pick = random.Random(seed)
    all_pods = {(pod.namespace, pod.name): rig.workload(pod) for pod in rig.PODS}
    objects = rig.generate(seed, 5)
    policies, pods, namespaces = rig.read(objects), dict(all_pods), dict(rig.NAMESPACES)
    now = World(policies, pods, namespaces)
    kept = 0
    for _ in range(STEPS):
        now.used.clear()
        rig.decided_in(now)
        now.forget_unused()
        pods = dict(pods)
        match pick.choice(("pod", "pod", "pod", "namespace", "policy")):
            case "pod":
                key = pick.choice(list(all_pods))
                labels = {"app": pick.choice("abc"), **({"tier": "front"} if pick.random() < 0.5 else {})}
                changed = replace(all_pods[key], labels=labels)
                if pick.random() < 0.3:
                    changed = replace(changed, addresses=changed.addresses[: pick.randint(0, 2)])
                if pods.pop(key, None) is None or pick.random() < 0.6:
                    pods[key] = changed
            case "namespace":
                namespaces = {
                    **rig.NAMESPACES,
                    pick.choice(list(rig.NAMESPACES)): {"team": pick.choice(("one", "two"))},
                }
            case "policy":
                objects = [*pick.sample(objects, 4), *rig.generate(pick.randrange(1000), 1)]
                policies = tuple({policy.name: policy for policy in (*now.policies, *rig.read(objects))}.values())
        now = now.after(policies, pods, namespaces)
        kept += len(now.kept)
        assert rig.decided_in(now) == rig.decided_in(World(policies, pods, namespaces))
    assert kept > STEPS, "there is something to be kept"


def test_answers_that_no_pod_needs_are_dropped() -> None:
    pods = {(pod.namespace, pod.name): rig.workload(pod) for pod in rig.PODS}
    now = World(rig.read(rig.generate(1, 5)), pods, rig.NAMESPACES)
    rig.decided_in(now)
    kept = dict(now.kept)
    now.used.clear()
    found = rig.decided_in(now)
    now.forget_unused()
    assert now.kept == kept and rig.decided_in(now) == found
    now.used.clear()
    now.forget_unused()
    assert not now.kept and rig.decided_in(now) == found


def test_without_a_difference_nothing_is_made_anew() -> None:
    pods = {(pod.namespace, pod.name): rig.workload(pod) for pod in rig.PODS}
    now = World(rig.read(rig.generate(1, 5)), pods, rig.NAMESPACES)
    equal = {(pod.namespace, pod.name): rig.workload(pod) for pod in rig.PODS}
    assert now.after(rig.read(rig.generate(1, 5)), equal, dict(rig.NAMESPACES)) is now
