"""docs/annotations.md: every example is used in a scenario."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harness.scenario.reading import read

ROOT = Path(__file__).parents[3]


def asked_for(name: str) -> Iterator[tuple[str, ...]]:
    """The annotations of a scenario's pods, in a namespace `apps`; where one is JSON, each field by itself too."""
    for pod in read(ROOT / f"scenarios/{name}.yaml").pods.values():
        for key, text in pod.annotations.items():
            value = text.replace("{{ namespace }}", "apps")
            yield key, value
            with suppress(ValueError):
                yield from (
                    (field, json.dumps(output)) for entry in json.loads(value) for field, output in entry.items()
                )


def test_every_example_of_the_annotation_reference_is_a_scenarios() -> None:
    """The rows are `| request | effect | scenario with the request |`."""
    rows = [row for row in (ROOT / "docs/annotations.md").read_text().splitlines() if "../scenarios/" in row]
    assert len(rows) > 15
    for row in rows:
        found = re.match(r"\| (.*?) \|.* \| \[([a-z-]+)\]", row)
        assert found, row
        asked, name = found.groups()
        if example := re.match(r"`([^`]*)` \| `([^`]*)` \|", row.removeprefix("| ")):
            output: tuple[str, ...] = (example[1], json.dumps(json.loads(example[2])))  # a field of the JSON form
        elif asked.startswith("`"):
            output = tuple(part.strip() for part in asked.split("`")[1].split(":", 1))
        else:
            continue  # a pod that has no annotation
        assert output in set(asked_for(name)), row
