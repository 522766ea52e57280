"""The terminal reporter: one line for each scenario during the run, and a summary of each network at the end.

pytest's reporter still shows errors, FAILURES and the last line; this replaces its dots for scenarios. Colours and
symbols depend on the terminal: it respects NO_COLOR, pipes and narrow windows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from harness.contract import Facts, Offer
from harness.report.outcome import RAN, VERDICTS, Outcome, Run
from harness.report.words import short

MARKS = {
    "passed": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "broken": ("!", "bold magenta"),
    "blocked": ("✗", "red"),
    "not run": ("·", "bold yellow"),
    "skipped": ("-", "yellow"),
}


class Terminal:
    """Prints scenarios' lines to pytest's terminal."""

    def __init__(self, reporter: Any) -> None:
        reporter.showfspath = False  # a scenario's line has more than the file's name
        reporter._show_progress_info = False
        self._reporter, self._tw = reporter, reporter._tw

    def show_cluster(self, facts: Facts, seconds: float) -> None:
        """Print that the cluster is ready, with its facts and the seconds of its start."""
        self._reporter.ensure_newline()
        for line in (
            f"{facts.api_server}; genie: {facts.genie}",
            f"cluster ready in {seconds:.1f} s, nodes {', '.join(facts.nodes)}",
            *facts.notes,
        ):
            self._print(Text(line, style="dim"))

    def show(self, outcome: Outcome) -> None:
        """A scenario's line."""
        self._print(_line(outcome, self._width()))

    def show_summary(self, run: Run, page: Path | None, *, notes: bool) -> None:
        """Print the summary of each network; with `notes`, also kept pods."""
        self._reporter.section("scenarios by network")
        self._print(by_network(run.outcomes, run.facts.offers))
        if run.leaked:
            self._print(Text("left on the nodes at the end of the run:", style="bold red"))
            self._print(Text("\n".join(f"  {line}" for line in run.leaked)))
        if figures := [f"  {each.name}: {figure}" for each in run.outcomes for figure in each.figures]:
            self._print(Text("\n".join(("measured:", *figures))))
        slowest = sorted(run.outcomes, key=lambda each: -each.seconds)[:3]
        self._print(
            Text(
                f"cluster start {run.start_seconds:.1f} s, all {run.seconds:.1f} s; slowest: "
                + ", ".join(f"{each.name} {each.seconds:.1f} s" for each in slowest)
            )
        )
        if page:
            self._print(Text(f"report: {page}"))
        if notes:
            self._print(Text("\n".join(note for each in run.outcomes for note in each.notes)))

    def show_error(self, text: str) -> None:
        """Print why the run fails although no scenario failed."""
        self._print(Text(f"ERROR: {text}", style="bold red"))

    def _width(self) -> int:
        return int(self._tw.fullwidth) if self._tw._file.isatty() else 0

    def _print(self, what: RenderableType) -> None:
        width = self._width()
        console = Console(
            file=self._tw._file,
            force_terminal=bool(self._tw.hasmarkup),
            no_color=not self._tw.hasmarkup,
            width=width or max(int(self._tw.fullwidth), 120),
            highlight=False,
        )
        console.print(what, soft_wrap=isinstance(what, Text))


def _line(outcome: Outcome, width: int) -> Text:
    """One scenario on one line; only a narrow terminal cuts off its end."""
    mark, style = MARKS[outcome.verdict]
    time = f"{outcome.seconds:5.1f} s" if outcome.verdict in RAN else "       "
    line = Text.assemble(
        (f" {mark} ", style),
        f"{outcome.name:<32} ",
        (time, "dim"),
        "  ",
        (f"{', '.join(outcome.networks) or '-':<22}", "cyan"),
        (f"  {_word(outcome)}{short(outcome)}" if short(outcome) else "", style),
    )
    line.rstrip()
    if width:
        line.truncate(width - 1, overflow="ellipsis")
    return line


def _word(outcome: Outcome) -> str:
    """The verdict as a word, if it is one of the rare ones."""
    return "" if outcome.verdict in ("passed", "failed", "skipped") else f"{outcome.verdict}: "


def by_network(outcomes: Iterable[Outcome], offers: Mapping[str, Offer]) -> Table:
    """The results of each network, and its real software."""
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        for network in outcome.networks or ("none",):
            counts.setdefault(network, Counter())[outcome.verdict] += 1
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    seen = {verdict for count in counts.values() for verdict in count}
    shown = ["passed", "failed", "skipped", *(each for each in VERDICTS if each in seen)]
    shown = list(dict.fromkeys(shown))
    for name in ("network", *shown):
        table.add_column(name, justify="left" if name == "network" else "right", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for network, count in sorted(counts.items()):
        numbers = [
            Text(str(count[verdict] or "·"), style=MARKS[verdict][1] if count[verdict] else "dim") for verdict in shown
        ]
        table.add_row(network, *numbers, what_it_is(network, offers))
    return table


def what_it_is(network: str, offers: Mapping[str, Offer]) -> str:
    """Real or a stand-in, with its software; or why it is missing."""
    offer = offers.get(network)
    if offer is None:
        return "not a separate network" if network == "none" else "not known here"
    if offer.missing:
        return f"missing: {offer.missing}"
    return f"{'real' if offer.kind == 'real' else 'a stand-in'}: {offer.software}"
