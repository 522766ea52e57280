"""The rules of generated policies allow exactly what the oracle allows."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.policy import rules
from genie.policy.model import Peer, Policy, Rule
from genie.policy.rules import Interface
from genie.policy.world import Allow, Workload, World, joined
from tests.rigs import policies as rig

SETS, COUNT = 12, 5


@pytest.mark.parametrize("seed", [*range(SETS), 167])  # 167: a port's name beside a block
def test_generated_policies_mean_what_the_oracle_says(seed: int) -> None:
    made = rig.generate(seed, COUNT)
    decided = rig.decided(made)
    wrong = [str(cell) for cell in rig.cells() if rig.may(made, cell) != _allowed(decided, cell)]
    assert wrong == [], f"seed {seed}, {COUNT} policies"


def test_the_generator_makes_policies_that_allow_and_policies_that_forbid() -> None:
    verdicts = [rig.may(rig.generate(seed, COUNT), cell) for seed in range(5) for cell in rig.cells()]
    assert 0.1 < sum(verdicts) / len(verdicts) < 0.95


def _allowed(decided: dict[str, tuple[Interface, ...]], cell: rig.Cell) -> bool:
    source = next(one for one in cell.source.addresses[cell.network] if (":" in one) == (":" in cell.address))
    out = _of(decided[cell.source.name], cell.network)
    into = _of(decided[cell.target.name], cell.network)
    return (out is None or out.egress is None or _any(out.egress, cell, cell.address)) and (
        into is None or into.ingress is None or _any(into.ingress, cell, source)
    )


def _of(interfaces: tuple[Interface, ...], network: str) -> Interface | None:
    name = {label: ifname for ifname, label in rig.INTERFACES}[network]
    return next((one for one in interfaces if one.ifname == name), None)


def _any(allows: tuple[Allow, ...], cell: rig.Cell, address: str) -> bool:
    value = int(ip_address(address))
    return any(
        one.protocol in ("", cell.protocol)
        and (not one.ports or any(low <= cell.port <= high for low, high in one.ports))
        and (one.anyone or any(low <= value <= high for low, high in (one.v6 if ":" in address else one.v4)))
        for one in allows
    )


RANGES = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)).map(lambda pair: (pair[0], sum(pair))))


@given(RANGES)
def test_joined_ranges_have_the_same_numbers_and_do_not_touch(ranges: list[tuple[int, int]]) -> None:
    found = joined(ranges)
    assert {n for low, high in found for n in range(low, high + 1)} == {
        n for low, high in ranges for n in range(low, high + 1)
    }
    assert all(before[1] + 1 < after[0] for before, after in pairwise(found))


def test_more_addresses_than_the_limit_are_refused() -> None:
    block = tuple((2 * n, 2 * n) for n in range(rules.RANGES_MAX + 1))
    policy = Policy(
        kind="MultiNetworkPolicy", namespace="n", name="p", networks=("x",),
        ingress=(Rule(peers=(Peer(block=block),), ports=None),),
    )  # fmt: skip
    pod = Workload(namespace="n", name="a", labels={})
    with pytest.raises(rules.TooManyError, match="more than 4096 rules or 65536 ranges"):
        rules.decide(World((policy,)), pod, [("net1", "n/x")])


def test_peer_networks_are_reached_at_their_own_addresses() -> None:
    policy = Policy(
        kind="NetworkPolicy", namespace="n", name="p", networks=("a",),
        ingress=(Rule(peers=(Peer(network="b"),), ports=None),),
    )  # fmt: skip
    pods = [
        Workload(namespace="n", name="on-both", labels={}, addresses=(("a", (1, 1), False), ("b", (2, 2), False))),
        Workload(namespace="m", name="another-b", labels={}, addresses=(("b", (3, 3), False),)),
        Workload(namespace="m", name="definition", labels={}, addresses=(("n/b", (4, 4), False),)),
    ]
    world = World((policy,), {(pod.namespace, pod.name): pod for pod in pods})
    (found,) = rules.decide(world, Workload(namespace="n", name="x", labels={}), [("i", "a")])
    assert found == Interface(ifname="i", ingress=(Allow(v4=((2, 2), (4, 4))),))
