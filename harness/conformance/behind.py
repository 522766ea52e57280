"""The part of a report with genie: runs the scenarios of scenarios/conformance with a profile's network.

pytest runs them like all scenarios; this module converts their outcomes to checks of the report.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import catalog
from harness.conformance.call import Json
from harness.conformance.checks.base import Check
from harness.conformance.findings import Fault, Finding, Verdict, shown
from harness.conformance.profile import configuration
from harness.conformance.run import Checked, Trial
from harness.conformance.spec import BEHIND
from harness.conformance.subject import Unusable
from harness.download import SCENARIOS

TEMPLATES = SCENARIOS / "conformance"
_SWAP = "network-under-test"  # the network's name in the templates
PREFIX = "behind-"  # prefix of the checks' names
_CALLS = "plugin-calls.json"  # suffix of such evidence files
_OUTSIDE = "in no network of this scenario"  # in the text of a failure: an address outside of the profile's subnets
_NOT_PROVEN = (
    "No plugin's call failed, so nothing proves which component is at fault: if the plugin passes all checks of the "
    "protocol and the same scenario passes with another network (--swap), compare the two runs."
)
_ERRORS = 12  # lines of pytest's output in the report if there is nothing else


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to run."""

    profile: Path
    backend: str
    only: tuple[str, ...] = ()  # prefixes of checks' names
    churn: int = 0  # the most pods that come and go; 0: 200

    @cached_property
    def network(self) -> catalog.Network:
        """The profile's. Raises ProfileError."""
        return catalog.read(self.profile)

    @property
    def _options(self) -> list[str]:
        return ["--swap", f"{_SWAP}={self.network.network}", "--backend", self.backend]

    def command(self, report: Path) -> list[str]:
        """The command of pytest, which writes into a directory. Raises ProfileError."""
        own = ["-c", str(report / "pytest.ini"), "--rootdir", str(report), "-p", "no:cacheprovider"]
        return [
            *(sys.executable, "-m", "pytest", str(TEMPLATES), *own, "--profile", str(self.profile.resolve())),
            *(["-k", " or ".join(self._selected)] if self._selected else []),
            *(*self._options, "--report", str(report), "--churn", str(self.churn)),
        ]

    @property
    def _selected(self) -> list[str]:
        """The selection for pytest; empty for all."""
        parts = [each.removeprefix(PREFIX) for each in self.only if each.startswith(PREFIX)]
        return [] if "" in parts or any(PREFIX.startswith(each) for each in self.only) else parts

    @cached_property
    def plugins(self) -> tuple[set[str], set[str]]:
        """The types of the network's plugins, and those of its ipam plugins."""
        section = self.network.embedded
        parts = configuration.parts(section.conf) if section else []
        return {part.type for part in parts}, {str(part.ipam["type"]) for part in parts if part.ipam.get("type")}

    def wants(self, name: str) -> bool:
        """Whether a check is selected."""
        return not self.only or name.startswith(self.only)

    def by_hand(self, name: str) -> str:
        """A line of shell that runs one scenario again, with its evidence."""
        words = ["--profile", str(self.profile), *self._options, "--report", "out"]
        return shlex.join(["pytest", str(TEMPLATES), "-k", name, *words])


def run(wanted: Wanted, done: Callable[[Checked], None] = lambda _: None) -> list[Checked]:
    """Run the scenarios; `done` is called with each check.

    Raises Unusable: the profile is not valid.
    """
    with tempfile.TemporaryDirectory(prefix="genie-behind-") as place:
        report = Path(place)
        (report / "pytest.ini").write_text("[pytest]\n")
        try:
            command = wanted.command(report)
        except catalog.ProfileError as error:
            raise Unusable(str(error)) from error
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        checked = _checked(report, wanted)
        if ended.returncode and not any(each.verdict == Verdict.FAILED for each in checked):
            checked.append(_broken(ended.stdout))  # the run or a scenario ended without an outcome
    for each in checked:
        done(each)
    return checked


def _checked(report: Path, wanted: Wanted) -> list[Checked]:
    file = report / "report.json"
    if not file.is_file():
        return []
    content = json.loads(file.read_text(encoding="utf-8"))
    networks = content["networks"]
    checks = (of(outcome, wanted, report, networks) for outcome in content["scenarios"])
    return [each for each in checks if wanted.wants(each.check.name)]


def _check(name: str, sentence: str, feature: str = "") -> Check:
    return Check(name=name, sentence=sentence, section=BEHIND, run=lambda scene: None, feature=feature)


def _broken(output: str) -> Checked:
    """The run itself ended without any outcome."""
    lines = [line for line in output.splitlines() if line.strip()][-_ERRORS:]
    check = _check(f"{PREFIX}genie", "The scenarios behind genie can be run")
    return Checked(check=check, trials=[Trial(version="", verdict=Verdict.BROKEN, reason="\n".join(lines))])


def of(
    outcome: Mapping[str, Any], wanted: Wanted, report: Path, networks: Mapping[str, Mapping[str, Any]] | None = None
) -> Checked:
    """A scenario's outcome as a check.

    networks: those of the cluster; stand-ins that the scenario used are named in the check's notes.
    """
    feature = "" if outcome["group"] == "core" else str(outcome["group"])
    check = _check(f"{PREFIX}{outcome['name']}", str(outcome["title"]), feature)
    used = ((name, (networks or {}).get(name, {})) for name in outcome.get("networks") or ())
    notes = [f"{name} is a stand-in: {each['software']}" for name, each in used if each.get("kind") == "stand-in"]
    verdict, seconds = Verdict(outcome["verdict"]), float(outcome["seconds"])
    trial = Trial(version="", verdict=verdict, seconds=seconds, notes=notes)
    if outcome["verdict"] == "skipped":
        trial.reason = str(outcome["reason"])
    elif outcome["verdict"] == "failed":
        script, calls = wanted.by_hand(str(outcome["name"])), _calls(outcome, report)
        trial.findings = [
            _finding(where, what, check, script, blame(what, calls, *wanted.plugins))
            for where, what in failures(outcome)
        ]
    return Checked(check=check, trials=[trial])


def failures(outcome: Mapping[str, Any]) -> list[tuple[str, str]]:
    """All failures of a scenario, each as (place, text)."""
    found = []
    for stage in outcome["stages"]:
        parts = [{"check": stage["name"], "failure": stage["failure"]}, *stage["findings"]]
        found += [(str(each["check"]), str(each["failure"])) for each in parts if each["failure"]]
    return found


def _calls(outcome: Mapping[str, Any], report: Path) -> list[Json]:
    """The calls of plugins for a scenario's pods, as recorded by the backend."""
    files = [report / name for name in outcome.get("evidence") or () if str(name).endswith(_CALLS)]
    return [call for file in files if file.is_file() for call in json.loads(file.read_text(encoding="utf-8"))]


def _finding(where: str, what: str, check: Check, script: str, found: Blame) -> Json:
    headline, _, more = what.partition("\n")
    if found.fault == Fault.UNKNOWN:
        more = f"{more}\n{_NOT_PROVEN}".strip("\n")
    finding = Finding(
        headline=f"{where}: {headline}", demand=check.sentence, section=BEHIND, fault=found.fault,
        reproducer=f"# {script}\n" + "".join(f"#   {line}\n" for line in more.splitlines()),
    ).as_json()  # fmt: skip
    if found.call:
        call = {**found.call, **{key: shown(str(found.call[key]).encode()) for key in ("stdin", "stdout", "stderr")}}
        finding["call"] = call
    return finding


@dataclass(frozen=True, kw_only=True)
class Blame:
    """The component at fault, with the call that shows it."""

    fault: Fault
    call: Json | None = None


def blame(what: str, calls: Sequence[Json], own: Collection[str], ipam: Collection[str]) -> Blame:
    """The component at fault for a failure.

    what: the failure's text.
    calls: of plugins for the scenario's pods, oldest first.
    own: the types of the network's plugins.
    ipam: those of its ipam plugins.
    """
    if what.startswith("the harness or its backend failed"):
        return Blame(fault=Fault.ENVIRONMENT)
    for types, fault in ((ipam, Fault.IPAM), (own, Fault.PLUGIN)):
        if failed := [call for call in calls if call["status"] and call["binary"] in types]:
            return Blame(fault=fault, call=failed[0])
    if failed := [call for call in calls if call["status"]]:
        return Blame(fault=Fault.ENVIRONMENT, call=failed[0])  # a plugin of another network
    if 'type="genie" failed' in what:
        return Blame(fault=Fault.GENIE)
    adds = [call for call in calls if call["binary"] in own and call["env"].get("CNI_COMMAND") == "ADD"]
    fault = Fault.PROFILE if _OUTSIDE in what else Fault.UNKNOWN  # all calls succeeded: nothing proves more
    return Blame(fault=fault, call=adds[-1] if adds else None)
