"""Implementations by features, and the badge."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from harness.conformance.checks import CHECKS
from harness.conformance.reports.badge import svg, verdict
from harness.conformance.reports.matrix import as_json, feature, in_order, labels
from tests.rigs.reports import checked, made


def test_every_check_of_ours_belongs_to_a_feature_with_a_name_of_its_own() -> None:
    found = {
        check.name: feature(made(checked(check.name, level=check.describe()["level"])).checks[0]) for check in CHECKS
    }
    assert [name for name, each in found.items() if each.name == "more"] == []
    assert found["del-asks-ipam"].name == "ipam"
    assert found["capability-mac"].name == "mac"


def test_releases_stand_in_their_order_and_have_names_of_their_own() -> None:
    reports = [made(version=version) for version in ("v1.10.0", "v1.9.1", "v0.8.6", "v1.9.1", "debian")]
    assert labels(in_order(reports)) == [
        "mynet v0.8.6", "mynet v1.9.1 (net) (1)", "mynet v1.9.1 (net) (2)", "mynet v1.10.0", "mynet debian",
    ]  # fmt: skip
    assert labels([made(version="")]) == ["mynet abababa"]


def test_a_matrix_as_data() -> None:
    matrix = as_json([made(checked("del-twice", "failed"), checked("add-x"), checked("add-y", "blocked"))])
    assert matrix["features"] == ["ADD", "DEL"]
    assert matrix["implementations"][0]["features"] == {"ADD": "blocked", "DEL": "failed"}
    assert matrix["implementations"][0]["checks"]["del-twice"] == "failed"


@pytest.mark.parametrize(
    ("checks", "message", "kind"),
    [
        ([("add-x", "passed", "core")], "core", "passed"),
        ([("add-x", "passed", "core"), ("a", "passed", "extended: dns"), ("b", "skipped", "extended: pool")],
         "core + 1 extended", "passed"),
        ([("add-x", "failed", "core"), ("add-y", "passed", "core")], "1 of 2 fail", "failed"),
        ([("add-x", "flaky", "core")], "1 of 1 fail", "failed"),
        ([("add-x", "skipped", "core")], "not tested", "none"),
        ([], "not tested", "none"),
    ],
)  # fmt: skip
def test_the_badge_says_what_the_report_does(checks: list[tuple[str, str, str]], message: str, kind: str) -> None:
    report = made(*(checked(name, found, level=level) for name, found, level in checks))
    assert verdict(report) == (message, kind)
    picture = ElementTree.fromstring(svg(report))
    assert picture.get("aria-label") == f"CNI conformance: {message}"
