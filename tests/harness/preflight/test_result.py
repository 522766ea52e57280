"""What a preflight says of its figures."""

from __future__ import annotations

from collections.abc import Mapping

from harness.preflight.result import Network, Way


def network(rates: Mapping[tuple[str, str], int]) -> Network:
    ways = tuple(Way(network="n", one=one, other=other, bits_per_second=bits) for (one, other), bits in rates.items())
    return Network(name="n", software="", kind="real", ways=ways)


def all_pairs(usual: int, **changed: int) -> dict[tuple[str, str], int]:
    """The pairs of four nodes with this rate, but for `a_b=…`."""
    pairs = [(one, other) for one in "abcd" for other in "abcd" if one != other]
    return {(one, other): changed.get(f"{one}_{other}", usual) for one, other in pairs}


def test_a_slow_pair_is_noted_and_is_no_failure() -> None:
    found = network(all_pairs(10**9, a_b=10**8))
    assert found.slow == ["a to b is slow: 100 Mbit/s, usual is 1 Gbit/s"]
    assert found.wrong == []


def test_a_slow_node_is_one_line() -> None:
    found = network(all_pairs(10**9, a_c=10**8, b_c=2 * 10**8, d_c=3 * 10**8, d_a=4 * 10**8))
    assert found.slow == [
        "everything to c is slow: 300 Mbit/s at most, usual is 1 Gbit/s",
        "d to a is slow: 400 Mbit/s, usual is 1 Gbit/s",
    ]
    found = network(all_pairs(10**9, a_b=1, a_c=1, a_d=1))
    assert found.slow == ["everything from a is slow: 1 bit/s at most, usual is 1 Gbit/s"]


def test_rates_that_hardly_differ_are_not_slow() -> None:
    assert network(all_pairs(10**9, a_b=6 * 10**8)).slow == []
    assert network({("a", "b"): 1, ("b", "a"): 10**9}).slow == [], "two pairs have no usual rate"
