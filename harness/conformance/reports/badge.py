"""A report's verdict as a small picture for a README."""

from __future__ import annotations

from html import escape

from harness.conformance.findings import Verdict
from harness.conformance.published import ConformanceReport
from harness.conformance.reports.matrix import Cell, cells, features, whole

_TITLE = "CNI conformance"
_COLOURS = {"passed": "#17713d", "failed": "#b3261e", "none": "#5d646c"}


def verdict(report: ConformanceReport) -> tuple[str, str]:
    """The text of the badge, and its kind: passed, failed or none."""
    found = whole(report)
    if found.failed:
        return f"{found.failed} of {found.tested} fail", "failed"
    if found.counts[Verdict.BLOCKED] or not found.counts[Verdict.PASSED]:
        return "not tested", "none"
    columns = features([report])
    row = zip(columns, cells(report, columns), strict=True)
    extended = sum(1 for column, cell in row if not column.core and _passes(cell))
    return f"core + {extended} extended" if extended else "core", "passed"


def _passes(cell: Cell) -> bool:
    return cell.verdict in ("passed", "warned")


def svg(report: ConformanceReport) -> str:
    """The badge as SVG, with a text for screen readers."""
    message, kind = verdict(report)
    left, right = _width(_TITLE), _width(message)
    words = escape(f"{_TITLE}: {message}")
    texts = "".join(
        f'<text x="{x}" y="14" textLength="{width - 12}" lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'
        for x, width, text in ((left / 2, left, _TITLE), (left + right / 2, right, message))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label="{words}">'
        f'<title>{words}</title><clipPath id="r"><rect width="{left + right}" height="20" rx="3"/></clipPath>'
        f'<g clip-path="url(#r)"><rect width="{left}" height="20" fill="#3a3f45"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{_COLOURS[kind]}"/></g>'
        f'<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">{texts}</g>'
        "</svg>\n"
    )


def _width(text: str) -> int:
    return 12 + round(6.4 * len(text))
