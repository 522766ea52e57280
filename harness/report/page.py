"""Makes a self-contained HTML page from a run's report: its findings, the matrix of networks, and all scenarios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from harness.report import plots
from harness.report.findings import Cause, causes, ranked
from harness.report.outcome import RAN, VERDICTS, Outcome, Verdict, counted
from harness.report.published import NetworkOf, ScenarioReport
from harness.report.template import filled
from harness.report.timeline import timeline

_TEMPLATE = Path(__file__).with_name("page.html.j2")
_LARGEST = 900_000  # bytes of a page, which must open on a phone
_DETAILS = (("checks", 4000), ("steps", 4000), ("none", 1000), ("none", 200))
"""What is shown of scenarios that passed, and characters of one failure: the first that makes a small enough page."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The results of one group of scenarios on one network."""

    counts: Mapping[Verdict, int]
    names: tuple[str, ...]
    link: str = ""  # the id of the finding, or of the scenario

    @property
    def verdict(self) -> str:
        """The most important verdict: a cell is green only if everything that should have run passed."""
        return next(iter(self.counts), "none")

    @property
    def text(self) -> str:
        wanted = sum(count for verdict, count in self.counts.items() if verdict != "skipped")
        return f"{self.counts.get('passed', 0)}/{wanted}" if wanted else ""

    @property
    def words(self) -> str:
        """The text for screen readers, and for a pointer."""
        return ", ".join(f"{count} {verdict}" for verdict, count in self.counts.items()) or "no scenario"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A network in the matrix, with a cell for each group."""

    network: str
    kind: str  # "real", "stand-in", "missing", "none"
    software: str
    cells: tuple[Cell, ...]


def render(report: ScenarioReport) -> str:
    found = causes(report.scenarios)
    for details, text in _DETAILS:
        page = _page(report, found, details, text)
        if len(page.encode()) <= _LARGEST:
            break
    return page


def _page(report: ScenarioReport, found: Sequence[Cause], details: str, text: int) -> str:
    """The page, with these details of scenarios that passed, and so many characters of each failure."""
    outcomes, networks = report.scenarios, report.networks
    groups = sorted({outcome.group for outcome in outcomes if outcome.group}, key=_rank)
    axis, times = _times(outcomes)
    return filled(
        _TEMPLATE,
        report=report,
        cluster=report.cluster,
        counts=counted(outcome.verdict for outcome in outcomes),
        verdicts=VERDICTS,
        ran=RAN,
        causes=found,
        groups=groups,
        columns=matrix(outcomes, groups, networks, found),
        networks=networks,
        outcomes=sorted(outcomes, key=lambda each: (VERDICTS.index(each.verdict), each.name)),
        details=details,
        cut=lambda what: what if len(what) <= text else f"{what[:text]} … ({len(what)} characters)",
        ranked=ranked,
        link=lambda file: "./" + quote(file),
        timeline=timeline(outcomes),
        axis=axis,
        times=times,
        verbs=plots.VERBS,
        shown=plots.shown,
    )


# The first groups, by importance; others follow by name.
_GROUPS = ("one-network", "across-nodes", "two-networks", "three-networks", "same-network-twice", "default-network")


def _rank(group: str) -> tuple[int, str]:
    return (_GROUPS.index(group) if group in _GROUPS else len(_GROUPS), group)


def matrix(
    outcomes: Sequence[Outcome],
    groups: Sequence[str],
    networks: Mapping[str, NetworkOf],
    found: Sequence[Cause] = (),
) -> list[Column]:
    """A column for each network that a scenario needs."""
    taken = dict.fromkeys(name for outcome in outcomes if outcome.group for name in outcome.networks or ("none",))
    links = {outcome.name: cause.id for cause in reversed(found) for outcome in cause.outcomes}
    return [
        Column(
            network=name,
            kind=_kind(name, networks),
            software=_software(name, networks),
            cells=tuple(
                _cell([each for each in outcomes if _takes(each, name) and each.group == group], links)
                for group in groups
            ),
        )
        for name in sorted(taken, key=lambda name: (name == "none", name))
    ]


def _takes(outcome: Outcome, network: str) -> bool:
    return network in (outcome.networks or ("none",))


def _cell(outcomes: Sequence[Outcome], links: Mapping[str, str]) -> Cell:
    ordered = sorted(outcomes, key=lambda each: VERDICTS.index(each.verdict))
    return Cell(
        counts=counted(outcome.verdict for outcome in ordered),
        names=tuple(f"{outcome.name}: {outcome.verdict}" for outcome in ordered),
        link=links.get(ordered[0].name, ordered[0].name) if ordered else "",
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


def _times(outcomes: Sequence[Outcome]) -> tuple[plots.Scale, list[plots.Times]]:
    """The plots of all networks, on one axis."""
    seconds: dict[str, dict[str, list[float]]] = {}
    for outcome in outcomes:
        for network, verbs in outcome.calls.items():
            for verb, took in verbs.items():
                seconds.setdefault(network, {}).setdefault(verb, []).extend(took)
    return plots.times(
        (network, [plots.timing(verb, verbs.get(verb, ())) for verb in plots.VERBS])
        for network, verbs in sorted(seconds.items())
    )
