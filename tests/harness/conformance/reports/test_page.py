"""The page: its contents, without external resources, and of limited size."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.conformance.reports import page as page_module
from harness.conformance.reports.page import render
from tests.rigs.pages import Outline
from tests.rigs.reports import checked, finding, made

CALL = {
    "binary": "/opt/cni/bin/mynet", "env": {"CNI_COMMAND": "DEL"}, "stdin": "<" * 4000, "status": 0,
    "stdout": "&" * 4000, "stderr": "é" * 4000, "seconds": 0.1,
}  # fmt: skip
NAMES = ("version-", "add-", "result-", "del-", "check-", "gc-", "status-", "chain-", "concurrent-", "strange-")


def test_matrix_findings_and_times_with_links_that_lead_somewhere() -> None:
    calls = {"ADD": [0.02, 0.03, 0.05, 0.04, 0.02], "DEL": [0.01] * 5}
    good = made(checked("add-succeeds"), checked("deterministic", calls=calls), plugin="fine")
    bad = made(checked("add-succeeds"), checked("del-twice", "failed", findings=[finding("DEL fails", call=CALL)]))
    page = render([good, bad])
    outline = Outline(page)
    assert "1 finding in 1 of 2 implementations" in page
    assert "fine v1: 5 calls of ADD from 20 ms to 50 ms, median 30 ms" in page
    local = {link[1:] for link in outline.links if link.startswith("#")}
    assert local == {"findings", "f1"}
    assert local <= set(outline.ids)
    assert len(outline.ids) == len(set(outline.ids))


def test_it_asks_nothing_of_any_host_and_makes_no_link_of_what_is_no_address() -> None:
    bad = checked("a", "failed", findings=[finding("wrong", section={"title": "S", "url": "javascript:alert(1)"})])
    page = render([made(bad), made(checked("b", "failed"))])
    outline = Outline(page)
    assert outline.loads == []
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", page)
    assert all(link.startswith(("#", "https://")) for link in outline.links)


def test_what_a_plugin_wrote_is_shown_and_not_obeyed() -> None:
    evil = "</pre><script>alert(1)</script>"
    found = finding(evil, demand=evil, reproducer=evil, call={**CALL, "stdout": evil, "env": {"A": evil}})
    page = render([made(checked("add-x", "failed", findings=[found], sentence=evil), plugin=evil, version=evil)])
    assert "<script>alert" not in page
    assert page.count("<script>") == 1


@pytest.mark.parametrize("failing", [0, 20, 500])
def test_five_hundred_checks_are_under_a_megabyte(failing: int) -> None:
    script = "#!/bin/sh\n" + "echo '<&>'\n" * 800

    def one(number: int) -> dict[str, Any]:
        name = f"{NAMES[number % len(NAMES)]}{'abcdefghij'[number // 50]}-{number:03}"
        found = [finding(f"wrong in {'x' * number}", reproducer=script, call=CALL)] if number < failing else []
        return checked(name, "failed" if found else "passed", findings=found, calls={"ADD": [0.01 + number / 1e4] * 20})

    page = render([made(*map(one, range(500)))])
    assert len(page.encode()) < 1_000_000
    assert page.count('<details id="f') == failing
    assert ("the report's JSON has it whole" in page) == bool(failing)
    assert page.count("<h3>Reproducer</h3>") == failing
    assert page.count("reproducer of finding") >= min(failing, 20)


@given(st.lists(st.lists(st.integers(0, 5000), max_size=5), max_size=30), st.integers(0, 100_000))
def test_evidence_fits_its_room_and_stays_whole_where_it_can(sizes: list[list[int]], room: int) -> None:
    limits = page_module._limits(sizes, room)
    taken = [sum(min(size, limit) for size in pieces) for pieces, limit in zip(sizes, limits, strict=True)]
    assert sum(taken) <= room
    if sum(map(sum, sizes)) <= room:
        assert taken == [sum(pieces) for pieces in sizes]


def test_many_implementations_fit_too() -> None:
    reports = [
        made(*(checked(f"{NAMES[number % 10]}{number}") for number in range(120)), plugin=f"plugin-{at}")
        for at in range(40)
    ]
    page = render(reports)
    assert len(page.encode()) < 1_000_000
    assert "All 40 implementations pass every check that applies" in page


def test_nothing_tested_is_no_success() -> None:
    page = render([made(checked("a", "skipped", reason="not claimed"))])
    assert "<h1>Nothing was tested in 1 of 1 implementation</h1>" in page
