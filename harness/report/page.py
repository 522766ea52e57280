"""Makes a self-contained HTML page from a run's JSON: the compatibility matrix, then all scenarios with their steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from harness.report.outcome import RAN, VERDICTS, Outcome, Verdict, counted
from harness.report.published import NetworkOf, ScenarioReport

_TEMPLATE = Path(__file__).with_name("page.html.j2")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The results of one group of scenarios on one network."""

    counts: Mapping[Verdict, int]
    names: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The most important verdict: a cell is green only if everything that should have run passed."""
        return next(iter(self.counts), "none")

    @property
    def text(self) -> str:
        wanted = sum(count for verdict, count in self.counts.items() if verdict != "skipped")
        if wanted:
            return f"{self.counts.get('passed', 0)}/{wanted}"
        return "".join(f"{count} {verdict}" for verdict, count in self.counts.items())


@dataclass(frozen=True, kw_only=True)
class Row:
    """A network in the matrix."""

    network: str
    kind: str  # "real", "stand-in", "missing", "none"
    software: str
    cells: tuple[Cell, ...]


def render(report: ScenarioReport) -> str:
    """The page."""
    outcomes, networks = report.scenarios, report.networks
    groups = sorted({outcome.group for outcome in outcomes}, key=_rank)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        report=report,
        cluster=report.cluster,
        counts=counted(outcome.verdict for outcome in outcomes),
        verdicts=VERDICTS,
        ran=RAN,
        groups=groups,
        rows=matrix(outcomes, groups, networks),
        outcomes=sorted(outcomes, key=lambda each: (VERDICTS.index(each.verdict), each.name)),
        longest=max((stage.seconds for each in outcomes for stage in each.stages), default=1.0) or 1.0,
    )


# The first groups, by importance; others follow by name.
_GROUPS = ("one-network", "across-nodes", "two-networks", "three-networks", "same-network-twice", "default-network")


def _rank(group: str) -> tuple[int, str]:
    return (_GROUPS.index(group) if group in _GROUPS else len(_GROUPS), group)


def matrix(outcomes: Sequence[Outcome], groups: Sequence[str], networks: Mapping[str, NetworkOf]) -> list[Row]:
    """A row for each network that a scenario needs."""
    taken = dict.fromkeys(name for outcome in outcomes for name in outcome.networks or ("none",))
    return [
        Row(
            network=name,
            kind=_kind(name, networks),
            software=_software(name, networks),
            cells=tuple(
                _cell([each for each in outcomes if _takes(each, name) and each.group == group]) for group in groups
            ),
        )
        for name in sorted(taken, key=lambda name: (name == "none", name))
    ]


def _takes(outcome: Outcome, network: str) -> bool:
    return network in (outcome.networks or ("none",))


def _cell(outcomes: list[Outcome]) -> Cell:
    return Cell(
        counts=counted(outcome.verdict for outcome in outcomes),
        names=tuple(f"{outcome.name}: {outcome.verdict}" for outcome in outcomes),
    )


def _kind(name: str, networks: Mapping[str, NetworkOf]) -> str:
    network = networks.get(name)
    if network is None:
        return "none"
    return "missing" if network.missing else network.kind


def _software(name: str, networks: Mapping[str, NetworkOf]) -> str:
    network = networks.get(name)
    if network is None:
        return "scenarios that need no network" if name == "none" else "not known on this cluster"
    return network.missing or network.software
