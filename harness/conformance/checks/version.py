"""VERSION."""

from __future__ import annotations

import re

from harness.conformance.checks.base import check
from harness.conformance.scene import Scene
from harness.conformance.spec import VERSION, VERSION_RESULT

_VERSION = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?")


@check(
    "version-answers",
    "VERSION succeeds and lists the versions that the plugin supports.",
    VERSION_RESULT,
    since="0.2.0",
    after=(),
)
def answers(scene: Scene) -> None:
    outcome = scene.call("VERSION", conf={"cniVersion": scene.version})
    if not scene.expect(outcome.ok, f"VERSION fails: {outcome.message}", "VERSION succeeds.", outcome, section=VERSION):
        return
    listed = outcome.object.get("supportedVersions")
    demand = "VERSION prints an object with `supportedVersions`, a list of versions."
    well = (
        isinstance(listed, list)
        and listed
        and all(isinstance(each, str) and _VERSION.fullmatch(each) for each in listed)
    )
    scene.expect(well, f"supportedVersions is {listed!r}", demand, outcome)


@check(
    "version-echoes",
    "VERSION's answer has the cniVersion of the call.",
    VERSION_RESULT,
    since="1.0.0",
    each=True,
    after=("version-answers",),
)
def echoes(scene: Scene) -> None:
    outcome = scene.call("VERSION", conf={"cniVersion": scene.version})
    found = outcome.object.get("cniVersion")
    demand = "`cniVersion` in the answer is the value that was given on input."
    scene.expect(
        found == scene.version,
        f"asked with {scene.version}, VERSION answers with cniVersion {found!r}",
        demand,
        outcome,
    )


@check(
    "version-needs-nothing-else",
    "VERSION needs no variable but CNI_COMMAND.",
    VERSION,
    since="0.2.0",
    after=("version-answers",),
)
def alone(scene: Scene) -> None:
    outcome = scene.call("VERSION", conf={"cniVersion": scene.version}, without=("CNI_PATH",))
    scene.expect(
        outcome.ok, f"VERSION without CNI_PATH fails: {outcome.message}", "CNI_COMMAND alone is required.", outcome
    )


@check(
    "version-is-constant",
    "VERSION lists the same versions whatever its input is.",
    VERSION_RESULT,
    since="0.2.0",
    after=("version-answers", "version-needs-nothing-else"),
)
def constant(scene: Scene) -> None:
    first = scene.call("VERSION", conf={"cniVersion": scene.version}).object.get("supportedVersions")
    demand = "`supportedVersions` are those of the plugin; the input only names the version of the call."
    for conf in ({"cniVersion": "0.2.0"}, scene.conf()):
        outcome = scene.call("VERSION", conf=conf)
        listed = outcome.object.get("supportedVersions")
        words = "a whole configuration" if len(conf) > 1 else "cniVersion 0.2.0"
        headline = f"asked with {words}, VERSION lists {listed}; asked with {scene.version}, {first}"
        same = isinstance(listed, list) and sorted(map(str, listed)) == sorted(map(str, first or ()))
        scene.expect(same, headline, demand, outcome)
