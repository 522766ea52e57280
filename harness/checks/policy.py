"""A check of network policies: who reaches whom, at which ports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from harness.checks.base import Check, join
from harness.checks.reaching import targets_of
from harness.model import Many, NetworkName, PodName
from harness.probe import OTHER_PORT, PORT

if TYPE_CHECKING:
    from harness.checks.view import View

Way = Literal["icmp", "tcp 8472", "tcp 8474", "udp 8472", "udp 8474"]
WAYS: tuple[Way, ...] = get_args(Way)
assert {str(PORT), str(OTHER_PORT)} == {way.partition(" ")[2] for way in WAYS} - {""}
Ways = Annotated[
    Many[Way],
    BeforeValidator(
        lambda value: {"all": WAYS, "none": ()}.get(value, [value]) if isinstance(value, str) else value,
        json_schema_input_type=Literal["all", "none"] | Way | list[Way],
    ),
]


class PolicyTable(Check):
    """Who reaches whom (over a network), at which ports: exactly this table. Each pod of it is tried with each other
    one, by each way; a pair that is not in it must not reach each other. The probes answer at 8472 and 8474.
    """

    key = "policy-table"
    example = "policy-table: {over: blue, table: {one: {two: [tcp 8472, icmp]}, two: {one: all}}}"

    over: NetworkName | None = Field(
        default=None, description="Connect from and to the addresses in this network, or to pod IPs."
    )
    table: dict[PodName, dict[PodName, Ways]] = Field(description="From a pod, to a pod: all, none, or the ways.")

    def attempt(self, view: View) -> str | None:
        pods = sorted({*self.table, *(pod for row in self.table.values() for pod in row)})
        looks = {pod: view.look(pod) for pod in pods}
        addresses = {pod: [str(each) for each in targets_of(view, looks[pod], self.over)] for pod in pods}
        if missing := [pod for pod in pods if not addresses[pod]]:
            return f"{', '.join(missing)} has no address {f'of {self.over}' if self.over else 'in its status'}"
        cells = [
            (one, other, way, address)
            for one, other in product(pods, pods)
            if one != other
            for way, address in product(WAYS, addresses[other])
        ]
        # From an address of the network: another one's route may lead there, too, on which its policies do not act.
        sources = {(pod, ":" in each): each for pod in pods for each in reversed(addresses[pod]) if self.over}
        answers = view.all_at_once(
            partial(_dial, view, one, way, address, sources.get((one, ":" in address)))
            for one, _, way, address in cells
        )
        wrong: dict[tuple[str, str], list[str]] = {}
        for (one, other, way, address), answer in zip(cells, answers, strict=True):
            reached = answer["ok"] and answer["name"].rpartition("/")[2] in ("", other)
            if reached != (way in self._expected(one, other)):
                found = "reached" if reached else f"not reached ({answer['error'] or answer['name']})"
                wrong.setdefault((one, other), []).append(f"{way} at {address} {found}")
        return (
            join(*_lines(pods, wrong), view.describe(*looks.values(), networks=[self.over] if self.over else []))
            if wrong
            else None
        )

    def _expected(self, one: str, other: str) -> tuple[Way, ...]:
        return self.table.get(PodName(one), {}).get(PodName(other), ())


def _dial(view: View, pod: str, way: str, address: str, source: str | None) -> dict[str, Any]:
    protocol, _, port = way.partition(" ")
    return view.dial(
        pod, protocol=protocol, address=address, port=int(port) if port else None, source=source, timeout=1.0
    )


def _lines(pods: Sequence[str], wrong: Mapping[tuple[str, str], list[str]]) -> Iterator[str]:
    """A table of all pairs, with the number of differences, and then each difference."""
    width = max(map(len, (*pods, "from \\ to"))) + 2
    yield "".join(text.ljust(width) for text in ("from \\ to", *pods)).rstrip()
    for one in pods:
        counts = ("-" if one == other else f"{len(wrong.get((one, other), ()))} wrong" for other in pods)
        yield "".join(text.ljust(width) for text in (one, *counts)).rstrip()
    for (one, other), texts in wrong.items():
        yield from (f"{one} → {other}: {text}" for text in texts)
