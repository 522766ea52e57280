"""The part behind genie: the scenarios of scenarios/conformance with a profile's network, and what comes of them.

pytest runs them, as it runs all scenarios; here their outcomes become checks of the report.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import catalog
from harness.conformance.checks.base import Check
from harness.conformance.findings import Fault, Finding, Verdict
from harness.conformance.run import Checked, Trial
from harness.conformance.spec import BEHIND
from harness.conformance.subject import Unusable
from harness.download import SCENARIOS

TEMPLATES = SCENARIOS / "conformance"
_SWAP = "network-under-test"  # as the templates name the network
PREFIX = "behind-"  # of the checks' names
_ERRORS = 12  # lines of pytest's output that a report keeps if there is no more


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to run."""

    profile: Path
    backend: str
    only: tuple[str, ...] = ()  # beginnings of checks' names

    def command(self, report: Path) -> list[str]:
        """pytest's, which writes into a directory."""
        network = catalog.read(self.profile).network
        own = ["-c", str(report / "pytest.ini"), "--rootdir", str(report), "-p", "no:cacheprovider"]
        return [
            *(sys.executable, "-m", "pytest", str(TEMPLATES), *own, "--profile", str(self.profile.resolve())),
            *(["-k", " or ".join(self._selected)] if self._selected else []),
            *("--swap", f"{_SWAP}={network}", "--backend", self.backend, "--report", str(report)),
        ]

    @property
    def _selected(self) -> list[str]:
        """What pytest is to select; nothing: all."""
        parts = [each.removeprefix(PREFIX) for each in self.only if each.startswith(PREFIX)]
        return [] if "" in parts or any(PREFIX.startswith(each) for each in self.only) else parts

    def wants(self, name: str) -> bool:
        """Whether a check is asked for."""
        return not self.only or name.startswith(self.only)

    def by_hand(self, name: str) -> str:
        """A line of shell that runs one scenario again, with its evidence."""
        network, profile = catalog.read(self.profile).network, str(self.profile)
        words = ["--profile", profile, "--swap", f"{_SWAP}={network}", "--backend", self.backend, "--report", "out"]
        return shlex.join(["pytest", str(TEMPLATES), "-k", name, *words])


def run(wanted: Wanted, done: Callable[[Checked], None] = lambda _: None) -> list[Checked]:
    """Run the scenarios; `done` gets each as it is understood.

    Raises:
        Unusable: the profile is not valid.
    """
    with tempfile.TemporaryDirectory(prefix="genie-behind-") as place:
        report = Path(place)
        (report / "pytest.ini").write_text("[pytest]\n")
        try:
            command = wanted.command(report)
        except catalog.ProfileError as error:
            raise Unusable(str(error)) from error
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        checked = _checked(report, wanted) or [_broken(ended.stdout)]
    for each in checked:
        done(each)
    return checked


def _checked(report: Path, wanted: Wanted) -> list[Checked]:
    file = report / "report.json"
    if not file.is_file():
        return []
    outcomes = json.loads(file.read_text(encoding="utf-8"))["scenarios"]
    return [each for outcome in outcomes if wanted.wants((each := of(outcome, wanted)).check.name)]


def _check(name: str, sentence: str, feature: str = "") -> Check:
    return Check(name=name, sentence=sentence, section=BEHIND, run=lambda scene: None, feature=feature)


def _broken(output: str) -> Checked:
    """The run itself ended without any outcome."""
    lines = [line for line in output.splitlines() if line.strip()][-_ERRORS:]
    check = _check(f"{PREFIX}genie", "The scenarios behind genie can be run")
    return Checked(check=check, trials=[Trial(version="", verdict=Verdict.BROKEN, reason="\n".join(lines))])


def of(outcome: Mapping[str, Any], wanted: Wanted) -> Checked:
    """A scenario's outcome as a check."""
    feature = "" if outcome["group"] == "core" else str(outcome["group"])
    check = _check(f"{PREFIX}{outcome['name']}", str(outcome["title"]), feature)
    trial = Trial(version="", verdict=Verdict(outcome["verdict"]), seconds=float(outcome["seconds"]))
    if outcome["verdict"] == "skipped":
        trial.reason = str(outcome["reason"])
    elif outcome["verdict"] == "failed":
        script = wanted.by_hand(str(outcome["name"]))
        trial.findings = [_finding(where, what, check, script).as_json() for where, what in failures(outcome)]
    return Checked(check=check, trials=[trial])


def failures(outcome: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(where, what) for all that was wrong in a scenario."""
    found = []
    for stage in outcome["stages"]:
        parts = [{"check": stage["name"], "failure": stage["failure"]}, *stage["findings"]]
        found += [(str(each["check"]), str(each["failure"])) for each in parts if each["failure"]]
    return found


def _finding(where: str, what: str, check: Check, script: str) -> Finding:
    headline, _, more = what.partition("\n")
    return Finding(
        headline=f"{where}: {headline}", demand=check.sentence, section=BEHIND, fault=blame(what),
        reproducer=f"# {script}\n" + "".join(f"# {line}\n" for line in more.splitlines()),
    )  # fmt: skip


def blame(what: str) -> Fault:
    """Who is at fault."""
    return Fault.ENVIRONMENT if what.startswith("the harness or its backend failed") else Fault.PLUGIN
