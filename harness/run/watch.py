"""--watch: runs scenarios again, on the same cluster, when their files or genie change.

On the embedded backend, genie's code is read anew for each call, so a change applies at once. On kind, genie's image is
made again and its agents are replaced first.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import pytest

from harness.report.outcome import Outcome
from harness.report.words import failure
from harness.run import collect

Items = Mapping[Path, list["collect.ScenarioItem"]]  # by file


class Repeats(Protocol):
    """The part of a suite that repeating needs."""

    report: Path
    outcomes: list[Outcome]

    def genie_changed(self) -> str:
        """Bring the changed genie to the nodes; returns why this is impossible, empty if it is done."""


def follow(suite: Repeats, session: pytest.Session) -> None:
    """Run scenarios again after changes, until the user presses Ctrl-C; the last run of each counts."""
    items = _by_file(session.items)
    reporter: Any = session.config.pluginmanager.getplugin("terminalreporter")
    for item in [each for of_file in items.values() for each in of_file]:
        _explain(item, suite.report, reporter)
    try:
        for changed in _changes(items, reporter):
            begin = time.monotonic()
            reporter.write_line(f"\nchanged: {', '.join(sorted(path.name for path in changed))}")
            for path in _affected(changed, items, suite, reporter):
                items = {**items, path: _again(items[path], suite, reporter)}
            reporter.write_line(f"done {time.monotonic() - begin:.1f} s after the change")
    except KeyboardInterrupt:
        reporter.write_line("")


def _affected(changed: set[Path], items: Items, suite: Repeats, reporter: Any) -> list[Path]:
    """The files whose scenarios run again: all after a change of genie."""
    if changed <= items.keys():
        return sorted(changed)
    if reason := suite.genie_changed():
        reporter.write_line(reason)
        return sorted(changed & items.keys())
    return list(items)


def _again(old: list[collect.ScenarioItem], suite: Repeats, reporter: Any) -> list[collect.ScenarioItem]:
    """Run the scenarios of a file as it is now; the old ones stay the last good ones if it has mistakes."""
    items = _collected(old, reporter)
    for item in items:
        _run(item, suite, reporter)
    return items or old


def _by_file(items: Iterable[pytest.Item]) -> Items:
    found: dict[Path, list[collect.ScenarioItem]] = {}
    for item in items:
        if isinstance(item, collect.ScenarioItem):
            found.setdefault(item.path.resolve(), []).append(item)
    return found


def _changes(items: Items, reporter: Any) -> Iterator[set[Path]]:
    """The changed files, each time that some of them change."""
    from watchfiles import watch  # only such a run needs it

    spec = find_spec("genie")
    genie = Path(spec.origin).resolve().parent if spec and spec.origin else None
    rooms = {genie, *(path.parent for path in genie.rglob("*.py"))} if genie else set()
    places = {
        path.parent for path in items
    } | rooms  # one by one: what else lies below a scenario's folder may be large

    def matters(_: object, name: str) -> bool:
        path = Path(name)
        return path in items or (genie is not None and path.suffix == ".py" and path.is_relative_to(genie))

    waiting = False
    for changes in watch(  # the first timeout shows that the watch has begun
        *places, watch_filter=matters, debounce=400, step=50, rust_timeout=500, yield_on_timeout=True, recursive=False
    ):
        if not waiting:
            shown = ", ".join(sorted(path.name for path in items))
            reporter.write_line(f"\nwatching {shown}{f' and {genie}' if genie else ''}; Ctrl-C ends the run")
            waiting = True
        if changes:
            yield {Path(name) for _, name in changes}


def _collected(old: list[collect.ScenarioItem], reporter: Any) -> list[collect.ScenarioItem]:
    """The scenarios of a file as it is now, of those that were selected; none if it has mistakes."""
    file = old[0].parent
    assert file is not None and file.parent is not None
    try:
        made = list(collect.ScenarioFile.from_parent(file.parent, path=old[0].path).collect())
    except (pytest.Collector.CollectError, OSError) as mistakes:
        reporter.write_line(str(mistakes))
        return []
    names = {item.name for item in old}
    return [item for item in made if isinstance(item, collect.ScenarioItem) and item.name in names]


def _run(item: collect.ScenarioItem, suite: Repeats, reporter: Any) -> None:
    """Run a scenario again; then forget its earlier outcome and reports."""
    outcomes = [each for each in suite.outcomes if each.name == item.name]
    earlier = [each for reports in reporter.stats.values() for each in reports if _is_about(each, item)]
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
    suite.outcomes[:] = [each for each in suite.outcomes if each not in outcomes]
    for reports in reporter.stats.values():
        reports[:] = [each for each in reports if each not in earlier]
    _explain(item, suite.report, reporter)


def _is_about(report: object, item: pytest.Item) -> bool:
    return getattr(report, "nodeid", None) == item.nodeid


def _explain(item: collect.ScenarioItem, report: Path, reporter: Any) -> None:
    """Print the complete text of a failure: pytest would print it at the end of the run."""
    if item.outcome is not None and item.outcome.verdict == "failed":
        reporter.write_line(f"\n{failure(item.outcome, report)}")
