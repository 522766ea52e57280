"""JUnit XML of several shards, in one file. pytest writes that of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from harness.report.outcome import Outcome
from harness.report.reading import BadReport

_COUNTED = {"errors": "error", "failures": "failure", "skipped": "skipped"}


def read(path: Path) -> Element:
    """The suite of a file that pytest wrote.

    Raises BadReport: it is not such a file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        # Entities are only in files that pytest did not write; the parser would expand them without a limit.
        suite = None if "<!DOCTYPE" in text else ElementTree.fromstring(text).find("testsuite")
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise BadReport(f"{path}: expected JUnit XML of pytest: {error}") from error
    if suite is None:
        raise BadReport(f"{path}: expected JUnit XML of pytest, with one testsuite")
    return suite


def write(suites: Sequence[Element], not_run: Sequence[Outcome], path: Path) -> None:
    """Write one file with the test cases of all suites, and those of scenarios that no suite has, as errors."""
    root = Element("testsuites", name="pytest tests")
    whole = SubElement(root, "testsuite", dict(suites[0].attrib))
    for suite in suites:
        whole.extend(list(suite))
    for outcome in not_run:
        case = SubElement(whole, "testcase", classname="scenarios", name=outcome.name, time="0.000")
        SubElement(case, "error", message=f"{outcome.verdict}: {outcome.reason}")
    cases = whole.findall("testcase")
    whole.set("tests", str(len(cases)))
    for attribute, tag in _COUNTED.items():
        whole.set(attribute, str(sum(case.find(tag) is not None for case in cases)))
    whole.set("time", f"{max(float(suite.get('time') or 0) for suite in suites):.3f}")
    whole.set("timestamp", min(suite.get("timestamp") or "" for suite in suites))
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
