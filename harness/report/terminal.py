"""The terminal: one line a scenario while they run, and at the end what each network can be said to do.

pytest's own reporter goes on doing its part (errors, FAILURES, the last line); this one replaces its dots for
scenarios. Colours and symbols are for terminals: NO_COLOR, a pipe and a narrow window are all respected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from harness.report.outcome import Outcome
from harness.report.words import short

if TYPE_CHECKING:
    from harness.backends import Offer
    from harness.run.session import Suite

MARKS = {"passed": ("✓", "green"), "failed": ("✗", "bold red"), "skipped": ("-", "yellow")}


def install(config: pytest.Config, suite: Suite) -> Lines | None:
    """Beside pytest's terminal reporter, if there is one."""
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    if reporter is None:
        return None
    reporter.showfspath = False  # a scenario's line says more than its file's name
    reporter._show_progress_info = False
    lines = Lines(reporter, suite)
    config.pluginmanager.register(lines, "genie_lines")
    return lines


class Lines:
    """What pytest's reporter does not know to say of scenarios."""

    def __init__(self, reporter: Any, suite: Suite) -> None:
        self._reporter, self._suite = reporter, suite
        self._tw = reporter._tw

    # --- while they run

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """No letter for a scenario: it has its own line."""
        return (report.outcome, "", report.outcome.upper()) if hasattr(report, "genie") else None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The line."""
        said = getattr(report, "genie", None)
        if said is not None:
            self._show(_line(Outcome.from_json(said), self._width()))

    def say_cluster(self) -> None:
        """The cluster is there: what it is."""
        facts = self._suite.facts
        self._reporter.ensure_newline()
        for line in (
            f"{facts.api_server}; genie: {facts.genie}",
            f"cluster ready in {self._suite.start_seconds:.1f} s, nodes {', '.join(facts.nodes)}",
            *facts.notes,
        ):
            self._show(Text(line, style="dim"))

    # --- at the end

    def pytest_terminal_summary(self) -> None:
        """What each network can be said to do."""
        if self._suite.outcomes:
            self._reporter.section("scenarios by network")
            for part in self._summary():
                self._show(part)

    def _summary(self) -> Iterator[RenderableType]:
        suite = self._suite
        yield by_network(suite.outcomes, suite.facts.offers)
        if suite.leaked:
            yield Text("left on the nodes at the end of the run:", style="bold red")
            yield Text("\n".join(f"  {line}" for line in suite.leaked))
        slowest = sorted(suite.outcomes, key=lambda each: -each.seconds)[:3]
        yield Text(
            f"cluster start {suite.start_seconds:.1f} s, all {suite.seconds:.1f} s; slowest: "
            + ", ".join(f"{each.name} {each.seconds:.1f} s" for each in slowest)
        )
        if suite.written:
            yield Text(f"report: {suite.written}")
        if suite.config.option.keep:
            yield Text("\n".join(note for each in suite.outcomes for note in each.notes))

    # --- how

    def _width(self) -> int:
        return int(self._tw.fullwidth) if self._tw._file.isatty() else 0

    def _show(self, what: RenderableType) -> None:
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
    """One scenario on one line; in a narrow terminal what is said last is cut off, elsewhere nothing is."""
    mark, style = MARKS[outcome.verdict]
    time = f"{outcome.seconds:5.1f} s" if outcome.verdict != "skipped" else "       "
    line = Text.assemble(
        (f" {mark} ", style),
        f"{outcome.name:<32} ",
        (time, "dim"),
        "  ",
        (f"{', '.join(outcome.networks) or '-':<22}", "cyan"),
        (f"  {short(outcome)}" if short(outcome) else "", style),
    )
    line.rstrip()
    if width:
        line.truncate(width - 1, overflow="ellipsis")
    return line


def by_network(outcomes: list[Outcome], offers: Mapping[str, Offer]) -> Table:
    """What was seen of each network, and what its software really was."""
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        for network in outcome.networks or ("none",):
            counts.setdefault(network, Counter())[outcome.verdict] += 1
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("network", "passed", "failed", "skipped"):
        table.add_column(name, justify="left" if name == "network" else "right", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for network, count in sorted(counts.items()):
        numbers = [
            Text(str(count[verdict] or "·"), style=MARKS[verdict][1] if count[verdict] else "dim")
            for verdict in ("passed", "failed", "skipped")
        ]
        table.add_row(network, *numbers, what_it_is(network, offers))
    return table


def what_it_is(network: str, offers: Mapping[str, Offer]) -> str:
    """Real or a stand-in, and what runs; or why it is not here."""
    offer = offers.get(network)
    if offer is None:
        return "no network of its own" if network == "none" else "not known here"
    if offer.missing:
        return f"missing: {offer.missing}"
    return f"{'real' if offer.kind == 'real' else 'a stand-in'}: {offer.software}"
