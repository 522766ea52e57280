"""Every page that the harness writes, in a browser: axe finds nothing, wide and narrow, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.conformance.reports import page as conformance
from harness.preflight import page as preflight
from harness.preflight.result import Network, Preflight, Spot, Way
from harness.report.page import render
from tests.rigs import reports, runs
from tests.rigs.browser import axe

WAYS = (
    Way(network="weave", one="a", other="b", bits_per_second=10**9, latency_ms=0.1, mtu=1450),
    Way(network="weave", one="b", other="a", wrong=("tcp to 10.2.0.3: no answer within 2 s",)),
)
SPOT = Spot(network="weave", node="a", dns="", service=None, hairpin="no answer within 2 s")


def pages() -> dict[str, str]:
    """One of each kind, with everything that it can show."""
    failed = reports.checked("del-twice", "failed", findings=[reports.finding("DEL fails")])
    bad, good = reports.made(reports.checked("add"), failed), reports.made(reports.checked("add"), plugin="fine")
    weave = Network(name="weave", software="weave 2.8", kind="stand-in", ways=WAYS, spots=(SPOT,))
    verdicts = [runs.outcome(each) for each in ("passed", "failed", "blocked", "broken", "not run", "skipped")]
    calls = {"weave": {"ADD": (0.1, 0.2), "DEL": (0.1,)}, "calico": {"ADD": (0.4,), "DEL": (0.2,)}}
    stand_in = runs.outcome("passed", "stand-in", networks=("calico",), calls=calls, began=3.0)
    return {
        "a run": render(runs.report(*verdicts, stand_in, leaked=("one: addresses: weave 10.2.0.5",))),
        "a conformance page": conformance.render([bad]),
        "the matrix": conformance.render([bad, good]),
        "a preflight": preflight.render(
            Preflight(
                backend="kind", genie="agent", api_server="v1", nodes=("a", "b"), networks=(weave,),
                missing={"canal": "not here"}, sampled=False, seconds=2.0, made="2026-01-02T03:04:05Z",
            )
        ),
    }  # fmt: skip


@pytest.mark.parametrize(
    "how",
    [{"widths": [1400, 400]}, {"widths": [1400], "dark": True, "rules": ["color-contrast"]}],
    ids=["light", "dark"],
)
def test_axe_finds_nothing_on_any_page(tmp_path: Path, how: dict[str, Any]) -> None:
    found = axe(pages(), tmp_path, **how)
    assert len(found) == len(pages()) * len(how["widths"])
    assert {name: each["violations"] for name, each in found.items() if each["violations"]} == {}
    assert all("color-contrast" in each["passes"] for each in found.values()), "it has really looked"
