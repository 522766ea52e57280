"""Makes a self-contained HTML page from reports: the matrix, then each cause with its evidence, then times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import escape

from harness.conformance.published import CallOf, CheckOf, ConformanceReport
from harness.conformance.reports.causes import Cause, causes
from harness.conformance.reports.matrix import Cell, Feature, cells, feature, features, labels, whole
from harness.conformance.reports.timing import timing
from harness.report import plots
from harness.report.template import filled

_TEMPLATE = Path(__file__).with_name("page.html.j2")
_LARGEST = 900_000  # bytes of a page, which must open on a phone; scripts, inputs and outputs that do not fit are cut
_USEFUL = 2_000  # the smallest useful size of a piece of evidence, in bytes
_OTHERS = 12  # the number of headlines of one cause


@dataclass(frozen=True, kw_only=True)
class Row:
    """An implementation."""

    name: str
    report: ConformanceReport
    whole: Cell
    cells: tuple[tuple[Feature, Cell, str], ...]  # the last is the finding's id, as a link target


@dataclass(frozen=True, kw_only=True)
class Text:
    """A piece of evidence, cut if the page has no room."""

    title: str
    shown: str
    cut: int  # the number of cut characters


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A cause on the page."""

    id: str
    cause: Cause
    where: tuple[tuple[str, tuple[str, ...]], ...]  # an implementation with its checks and versions
    blocked: tuple[str, ...]
    others: tuple[str, ...]
    script: Text | None
    evidence: tuple[Text, ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One check over all implementations."""

    check: CheckOf
    verdicts: tuple[str, ...]


def render(reports: Sequence[ConformanceReport]) -> str:
    """The page, with the reports in the given order."""
    found, room = causes(reports), _LARGEST
    while len((page := _page(reports, found, room)).encode()) > _LARGEST and room:
        room = max(0, room - (len(page.encode()) - _LARGEST) - _LARGEST // 50)
    return page


def _page(reports: Sequence[ConformanceReport], every: Sequence[Cause], room: int) -> str:
    """The page with this much evidence, in bytes."""
    names, every_column = labels(reports), features(reports)
    found = _findings(every, names, room)
    columns = [column for column in every_column if any(_says(report, column) for report in reports)]
    axis, times = plots.times(
        (name, [timing(report, verb) for verb in plots.VERBS]) for name, report in zip(names, reports, strict=True)
    )
    return filled(
        _TEMPLATE,
        rows=_rows(reports, names, columns, found),
        columns=columns,
        findings=found,
        without=[column.name for column in every_column if column not in columns],
        groups=_groups(reports, every_column),
        axis=axis,
        times=times,
        verbs=plots.VERBS,
        shown=plots.shown,
        safe_url=_safe_url,
        harness=sorted({report.environment.harness for report in reports}),
        kernels=sorted({report.environment.kernel for report in reports}),
    )


def _says(report: ConformanceReport, column: Feature) -> bool:
    """Whether a feature was tested at all, or should have been."""
    [cell] = cells(report, [column])
    return cell.verdict in ("passed", "failed", "warned", "blocked")


def _safe_url(url: str) -> str:
    """A link only for a web address, because reports may come from untrusted sources."""
    return url if url.startswith("https://") else ""


def _rows(
    reports: Sequence[ConformanceReport], names: Sequence[str], columns: Sequence[Feature], found: Sequence[Finding]
) -> list[Row]:
    first: dict[tuple[int, str], str] = {}
    for finding in found:
        for seen in finding.cause.seen:
            first.setdefault((seen.report, feature(seen.check).name), finding.id)
        for place, name in finding.cause.blocked:
            check = next(each for each in reports[place].checks if each.name == name)
            first.setdefault((place, feature(check).name), finding.id)
    return [
        Row(
            name=name,
            report=report,
            whole=whole(report),
            cells=tuple(
                (column, cell, first.get((at, column.name), ""))
                for column, cell in zip(columns, cells(report, columns), strict=True)
            ),
        )
        for at, (name, report) in enumerate(zip(names, reports, strict=True))
    ]


def _findings(found: Sequence[Cause], names: Sequence[str], room: int) -> list[Finding]:
    limits = _limits([list(_sizes(cause)) for cause in found], room)
    return [
        Finding(
            id=f"f{number}",
            cause=cause,
            where=tuple(_where(cause, names)),
            blocked=tuple(dict.fromkeys(name for _, name in cause.blocked)),
            others=cause.others[:_OTHERS],
            script=_text("Reproducer", cause.reproducer, limit) if cause.reproducer else None,
            evidence=tuple(_text(title, text, limit) for title, text in _pieces(cause.call)),
        )
        for number, (cause, limit) in enumerate(zip(found, limits, strict=True), 1)
    ]


def _where(cause: Cause, names: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for place in cause.reports:
        lines = (f"{each.check.name} ({', '.join(each.versions)})" for each in cause.seen if each.report == place)
        yield names[place], tuple(dict.fromkeys(lines))


def _pieces(call: CallOf | None) -> Iterator[tuple[str, str]]:
    if call:
        environment = "\n".join(f"{name}={value}" for name, value in sorted(call.env.items()))
        yield "Environment", environment
        yield from (("Input", call.stdin), ("Output", call.stdout), ("Standard error", call.stderr))


def _sizes(cause: Cause) -> Iterator[int]:
    for text in (cause.reproducer, *(text for _, text in _pieces(cause.call))):
        yield _size(text)


def _size(text: str) -> int:
    return len(str(escape(text)).encode())


def _limits(sizes: Sequence[Sequence[int]], room: int) -> list[int]:
    """The size limits for the pieces of each cause's evidence, so that all fit.

    Small pieces stay complete, large ones share the rest. If the shares would be too small to be useful, the first
    pieces get a useful size, and the last ones nothing.
    """
    limit = _share(sorted(size for pieces in sizes for size in pieces), room)
    if limit >= _USEFUL:
        return [limit] * len(sizes)
    limits = []
    for pieces in sizes:
        taken = sum(min(size, _USEFUL) for size in pieces)
        limits.append(_USEFUL if taken <= room else 0)
        room -= taken if taken <= room else 0
    return limits


def _share(sizes: Sequence[int], room: int) -> int:
    left = len(sizes)
    for size in sizes:
        if size * left > room:
            return room // left
        room, left = room - size, left - 1
    return max(_USEFUL, *sizes) if sizes else _USEFUL


def _text(title: str, text: str, limit: int) -> Text:
    shown = text
    while _size(shown) > limit:
        shown = shown[: int(len(shown) * min(0.9, limit / _size(shown)))]
    return Text(title=title, shown=shown, cut=len(text) - len(shown))


def _groups(reports: Sequence[ConformanceReport], columns: Sequence[Feature]) -> list[tuple[Feature, list[Line]]]:
    by_name = [{check.name: check for check in report.checks} for report in reports]
    every = {name: check for checks in reversed(by_name) for name, check in checks.items()}
    lines: dict[Feature, list[Line]] = {column: [] for column in columns}
    for name in dict.fromkeys(name for checks in by_name for name in checks):
        verdicts = tuple(checks[name].verdict.value if name in checks else "none" for checks in by_name)
        lines[feature(every[name])].append(Line(check=every[name], verdicts=verdicts))
    return [(column, found) for column, found in lines.items() if found]
