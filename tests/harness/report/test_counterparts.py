"""docs/counterparts.md: results are filled in from reports, and every named scenario exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.report.counterparts import _LINK, mark, refresh

ROOT = Path(__file__).parents[3]
PAGE = """\
| its case | scenario | embedded | kind |
|---|---|---|---|
| a | [one](../scenarios/one.yaml), [two](../scenarios/two.yaml) | – | ✓ |
| b | – no hardware | – | – |

of 2020-01-01
"""


def report(backend: str = "embedded", **verdicts: str) -> dict[str, Any]:
    networks = {"calico": {"kind": "stand-in", "missing": ""}, "bridge": {"kind": "real", "missing": ""}}
    scenarios = [
        {
            "name": name,
            "verdict": verdict,
            "reason": "calico is missing: no manifest: https://example.com" if verdict == "skipped" else "",
            "networks": ["calico"] if name == "two" else ["bridge"],
        }
        for name, verdict in verdicts.items()
    ]
    cluster = {"backend": backend}
    return {"cluster": cluster, "date": "2026-11-24T12:00:00Z", "networks": networks, "scenarios": scenarios}


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ({"one": "passed", "two": "passed"}, "(✓)"),
        ({"one": "passed", "two": "skipped"}, "– calico is missing: no manifest"),
        ({"one": "failed", "two": "skipped"}, "✗ one"),
        ({"two": "passed"}, "– not run"),
        ({"one": "passed", "two": "broken"}, "– broken"),
        ({"one": "failed", "two": "blocked"}, "✗ one"),
    ],
)
def test_the_worst_of_a_rows_scenarios_counts(verdicts: dict[str, str], expected: str) -> None:
    assert mark(["one", "two"], report(**verdicts)) == expected


def test_only_the_columns_of_the_reports_change() -> None:
    page = refresh(PAGE, [report(one="passed", two="passed")])
    assert page == PAGE.replace(") | – | ✓ |", ") | (✓) | ✓ |").replace("2020-01-01", "2026-11-24")


def test_of_several_runs_on_a_backend_what_was_not_skipped_counts() -> None:
    for first, second in (("passed", "skipped"), ("skipped", "passed")):
        page = refresh(PAGE, [report(one=first, two="passed"), report(one=second, two="passed")])
        assert ") | (✓) | ✓ |" in page


def test_every_scenario_that_is_named_is_there() -> None:
    text = (ROOT / "docs" / "counterparts.md").read_text(encoding="utf-8")
    assert [name for name in _LINK.findall(text) if not (ROOT / "scenarios" / f"{name}.yaml").exists()] == []
