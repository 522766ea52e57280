"""Failures with one cause are one finding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.conformance.reports.causes import causes
from harness.report.alike import alike
from tests.rigs.reports import checked, finding, made


def call(verb: str, message: str) -> dict[str, object]:
    return {
        "binary": "/opt/cni/bin/mynet", "env": {"CNI_COMMAND": verb}, "stdin": "{}", "status": 1,
        "stdout": f'{{"code": 100, "msg": "{message}"}}', "stderr": "", "seconds": 0.1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("the file /var/lib/cni/networks/br/10.1.0.3 is left", "the file /var/lib/cni/networks/my/10.2.0.9 is left"),
        ("the interface vethfa12ffba (veth) is left", "the interface veth00c1d2e3 (veth) is left"),
        ("with 1.0.0 the MAC is 0a:58:0a:01:02:03", "with 0.4.0 the MAC is 0a:58:0a:01:02:ff"),
        ("3 of 200 ADDs failed", "17 of 200 ADDs failed"),
    ],
)
def test_headlines_are_alike_but_for_what_differs_from_run_to_run(one: str, other: str) -> None:
    assert alike(one) == alike(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("an address is left", "a route is left"),
        ("del-twice failed", "del-before-add failed"),
        ("DEL fails", "ADD fails"),
    ],
)
def test_other_headlines_are_not(one: str, other: str) -> None:
    assert alike(one) != alike(other)


def test_the_same_headline_in_several_checks_and_implementations_is_one_cause() -> None:
    same = {"findings": [finding("10.1.0.2 is left")]}
    reports = [
        made(checked("a", "failed", **same), checked("b", "failed", **same)),
        made(checked("a", "failed", **same)),
    ]
    [cause] = causes(reports)
    assert cause.reports == (0, 1)
    assert [(seen.report, seen.check.name) for seen in cause.seen] == [(0, "a"), (0, "b"), (1, "a")]


def test_the_same_error_of_a_plugin_to_the_same_verb_is_one_cause() -> None:
    reports = [
        made(
            checked("a", "failed", findings=[finding("DEL twice fails", call=call("DEL", "no record"))]),
            checked("b", "failed", findings=[finding("DEL before ADD fails", call=call("DEL", "no record"))]),
            checked("c", "failed", findings=[finding("ADD fails", call=call("ADD", "no record"))]),
            checked("d", "failed", findings=[finding("DEL fails", call=call("DEL", "no permission"))]),
        )
    ]
    assert [[seen.check.name for seen in cause.seen] for cause in causes(reports)] == [["a", "b"], ["c"], ["d"]]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["x is left after DEL", "y fails", "z"])), max_size=8)
)
def test_every_finding_is_in_exactly_one_cause_whatever_the_order(found: list[tuple[str, str]]) -> None:
    checks = [
        checked(f"{name}-{at}", "failed", findings=[finding(f"the file {text}")])
        for at, (name, text) in enumerate(found)
    ]

    def parts(order: list[dict[str, object]]) -> set[frozenset[str]]:
        return {frozenset(seen.check.name for seen in cause.seen) for cause in causes([made(*order)])}

    assert parts(checks) == parts(checks[::-1])
    assert sorted(name for part in parts(checks) for name in part) == sorted(check["name"] for check in checks)


def test_two_faults_are_two_findings_even_in_one_check() -> None:
    found = causes([made(checked("a", "failed", findings=[finding("an address is left"), finding("a route is left")]))])
    assert len(found) == 2


def test_what_is_left_in_several_checks_is_one_cause_and_what_a_kill_leaves_another() -> None:
    def left(name: str, *what: str, when: str = "after DEL") -> dict[str, object]:
        return checked(
            name, "failed", findings=[finding(f"the firewall rule '{each}' is left {when}") for each in what]
        )

    first, last = (
        left("a", "chain CNI-ab12cd34", "jump CNI-ab12cd34"),
        left("c", "chain CNI-00ff00", when="after a reboot"),
    )
    killed = left("del-killed", "chain CNI-ab12cd34", when="after a DEL that was killed")
    file = checked("a", "failed", findings=[finding("the file /run/x is left after DEL")])
    found = causes([made(first, last, killed, file)])
    assert sorted([seen.check.name for seen in cause.seen] for cause in found) == [
        ["a"],
        ["a", "a", "c"],
        ["del-killed"],
    ]
    assert found[0].others == (
        "the firewall rule 'chain CNI-00ff00' is left after a reboot",
        "the firewall rule 'jump CNI-ab12cd34' is left after DEL",
    )


def test_what_a_failure_blocks_stands_with_it_over_several_steps() -> None:
    report = made(
        checked("root", "failed"),
        checked("next", "blocked", reason="root failed"),
        checked("last", "blocked", reason="next blocked"),
        checked("other", "blocked", reason="something failed"),
    )
    [cause] = causes([report])
    assert cause.blocked == ((0, "next"), (0, "last"))


def test_what_is_flaky_or_broken_is_a_finding_too_and_names_nobody() -> None:
    report = made(
        checked("a", "flaky", reason="failed once, passed when run again: an address is left"),
        checked("b", "broken", reason="Traceback\nno namespaces here"),
    )
    assert [(cause.verdict.value, cause.fault, cause.headline) for cause in causes([report])] == [
        ("flaky", None, "failed once, passed when run again: an address is left"),
        ("broken", None, "no namespaces here"),
    ]
