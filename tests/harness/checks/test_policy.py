"""The table of who reaches whom: it passes as a whole, and shows each difference."""

from __future__ import annotations

from tests.rigs.scenarios import Runner, two


def test_a_table_that_holds(go: Runner) -> None:
    assert go(two("policy-table: {over: weave, table: {both: {peer: all}, peer: {both: all}}}"))[0].verdict == "passed"


def test_what_is_reached_and_should_not_be(go: Runner) -> None:
    text = go.fails(two("policy-table: {over: weave, table: {both: {peer: [icmp, udp 8472]}, peer: {both: all}}}"))
    assert "both       -          3 wrong" in text
    assert "both → peer: tcp 8474 at 10.2.0.13 reached" in text and "peer → both" not in text


def test_what_is_not_reached_and_should_be(go: Runner) -> None:
    check = "policy-table: {over: weave, table: {both: {peer: none}, peer: {both: tcp 8472}}}"
    text = go.fails(two(check), faults=("unreachable",))
    assert "peer → both: tcp 8472 at 10.2.0.12 not reached (no answer" in text and "both → peer" not in text


def test_packets_take_the_network_that_the_table_is_about(go: Runner) -> None:
    _, cluster = go(two("policy-table: {over: weave, table: {both: {peer: all}, peer: {both: all}}}"))
    assert cluster.sources == {"10.2.0.12", "10.2.0.13"}
