"""The table of limits in docs/security.md matches the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from genie import kube
from genie.agent import cache, server
from genie.cni import fields, invoke, result
from genie.config import MOST_NETWORKS, Conf
from genie.kernel import netns
from genie.select import networks
from genie.select.annotations import ADDRESSES_MAX, ANNOTATION_MAX, PORTS_MAX
from genie.verbs import results

DOCUMENT = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = {
    what.strip(): (limit.strip(), error.strip())
    for what, limit, error in re.findall(
        r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", DOCUMENT.split("## Limits")[1].split("## ")[0], re.M
    )
}

LIMITS = {
    "networks of a pod": Conf.max_networks,
    "an annotation": ANNOTATION_MAX,
    "`spec.config`": networks.CONFIG_MAX,
    "the definitions": networks.CONFIGS_MAX,
    "plugins in a definition": networks.PLUGINS_MAX,
    "nested lists": fields.DEEPEST,
    "`ips` of one network": ADDRESSES_MAX,
    "`portMappings` of one network": PORTS_MAX,
    "a plugin's result": invoke.RESULT_MAX,
    **{f"`{key}` of a result": most for key, most in result.MOST.items()},
    "addresses of all": results.ADDRESSES_MAX,
    "routes of all": results.ROUTES_MAX,
    "routes, rules": netns.MOST,
    "plugins of one network": server.CONCURRENCY,
    "calls": server.CALLS_MAX,
    "an answer": kube.ANSWER_MAX,
    "objects of one resource": cache.OBJECTS_MAX,
    "memory": cache.BUDGET,
}


@pytest.mark.parametrize("what", LIMITS)
def test_a_limit_is_the_codes(what: str) -> None:
    (row,) = (row for row in ROWS if row.startswith(what))
    limit, error = ROWS[row]
    assert int(limit.split()[0]) == LIMITS[what]
    assert error.startswith("none: ") or str(LIMITS[what]) in error, "the error names the limit"


def test_each_row_is_held_to_the_code() -> None:
    """Except for one in shim.c, which the shim's tests check."""
    rows = [row for row in ROWS if ROWS[row][0][0].isdigit()]
    held = [row for row in rows if any(row.startswith(what) for what in LIMITS)]
    assert set(rows) - set(held) == {"a plugin's standard output"} and len(held) == len(LIMITS)
    assert f"up to {MOST_NETWORKS}" in next(row for row in rows if row.startswith("networks of a pod"))
