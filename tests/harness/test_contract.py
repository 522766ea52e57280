"""Abilities: which cluster has them, their methods, and which scenarios must run alone."""

from __future__ import annotations

from typing import Any

import pytest

from harness import contract
from harness.backends import embedded_cluster, existing
from harness.cluster import real
from harness.contract import ABILITIES, APART, Ability, Unavailable, has, must_be_alone
from harness.scenario.reading import parse
from tests.rigs import fake_cluster
from tests.rigs.fake_cluster import FakeCluster, facts
from tests.rigs.scenarios import PODS

CLUSTERS: tuple[tuple[type, frozenset[Ability[Any]]], ...] = (
    (FakeCluster, fake_cluster.ABILITIES),
    (embedded_cluster.EmbeddedCluster, embedded_cluster.ABILITIES),
    (existing.ExistingCluster, existing.ABILITIES),
    (real.RealCluster, real.ABILITIES),
)


@pytest.mark.parametrize(("cluster", "abilities"), CLUSTERS, ids=lambda it: getattr(it, "__name__", ""))
def test_a_cluster_has_the_methods_of_its_abilities(cluster: type, abilities: frozenset[Ability[Any]]) -> None:
    assert [ability.name for ability in abilities if not issubclass(cluster, ability.protocol)] == []


def test_every_ability_that_a_backend_has_is_in_the_table() -> None:
    known = {*ABILITIES.values(), contract.APART, contract.LIVING_LEFT_OUT}
    assert all(abilities <= known for _, abilities in CLUSTERS)


def test_what_a_cluster_lacks_is_one_sentence(cluster: FakeCluster) -> None:
    assert has(cluster, contract.END_SANDBOX) is cluster
    with pytest.raises(Unavailable, match="the fake backend lacks tampering: parts of a pod's network"):
        has(cluster, contract.TAMPERING)


def test_who_needs_the_cluster_alone() -> None:
    changed = parse("scenario: x\nnetworks: []\ngenie: {a: b}\npods: {a: }\n").needs
    assert must_be_alone(changed, facts())
    assert not must_be_alone(changed, facts(abilities=fake_cluster.ABILITIES | {APART}))
    assert not must_be_alone(parse(PODS).needs, facts())
    assert must_be_alone({contract.GARBAGE_COLLECTION}, facts(abilities=frozenset({APART})))
