"""Outcomes and reports of runs of scenarios, made without a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.contract import Facts, Offer
from harness.report import of_run, save
from harness.report.outcome import Outcome, Run, Stage, Verdict
from harness.report.published import ScenarioReport

OFFERS = {
    "weave": Offer(network="weave", kind="real", software="weave 2.8", subnets=("10.2.0.0/16",)),
    "calico": Offer(network="calico", kind="stand-in", software="ptp + host-local", subnets=("10.1.0.0/16",)),
}
FACTS = Facts(
    backend="fake",
    why="asked for",
    api_server="in memory",
    genie="direct",
    nodes=("one",),
    image="probe",
    offers=OFFERS,
)


def outcome(verdict: Verdict, name: str = "", **more: Any) -> Outcome:
    stages = (Stage(name="create a", seconds=1.0, failure="no address"),) if verdict in ("failed", "broken") else ()
    name = name or verdict.replace(" ", "-")
    described: dict[str, Any] = {
        "name": name,
        "title": f"A pod: {name}",
        "file": f"{name}.yaml",
        "group": "one-network",
        "networks": ("weave",),
        "verdict": verdict,
        "seconds": 1.5,
        "reason": "" if stages or verdict == "passed" else f"because of {verdict}",
        "stages": stages,
    }
    return Outcome(**{**described, **more})


def ran(*outcomes: Outcome, **more: Any) -> Run:
    about: dict[str, Any] = {"leaked": (), "seconds": 9.0, "start_seconds": 1.0, "began": 1_800_000_000.0}
    about |= {"selected": tuple(sorted(each.name for each in outcomes)), "scenarios_sha256": "cd" * 32}
    about |= {"command": ("pytest", "scenarios"), "binaries": {("bridge", "ab" * 32): ("one",)}}
    return Run(facts=FACTS, outcomes=outcomes, **{**about, **more})


def report(*outcomes: Outcome, **more: Any) -> ScenarioReport:
    return of_run(ran(*outcomes, **more))


def saved(made: ScenarioReport, directory: Path) -> Path:
    """The directory of the written report."""
    save(made, directory)
    return directory
