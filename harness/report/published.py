"""The format of a run's report.json: its model, version and JSON Schema (kept as scenarios/report.schema.json)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.contract import Kind
from harness.report.outcome import VERDICTS, Outcome, Verdict
from harness.report.reading import checked, load, report_in, schema_of

API_VERSION: Literal["scenarios.genie.dev/v1alpha1"] = "scenarios.genie.dev/v1alpha1"
KIND: Literal["ScenarioReport"] = "ScenarioReport"


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        alias_generator=lambda name: name.replace("_", "-"),
        validate_by_name=True,
        validate_by_alias=True,
    )


class ProjectOf(_Part):
    """genie and the harness, which are one project."""

    version: str = Field(description="The version of genie-cni.")
    commit: str = Field(description="The commit of its checkout, with `+changes` if files differ; empty: no checkout.")


class ClusterOf(_Part):
    """The cluster of the run."""

    backend: str
    why: str = Field(description="Why this backend.")
    api_server: str
    genie: str = Field(description="The mode of genie: direct or agent.")
    nodes: tuple[str, ...]
    notes: tuple[str, ...] = Field(description="Versions, and limits of the machine.")
    features: tuple[str, ...] = Field(description="The abilities that scenarios can use.")
    start_seconds: float


class NetworkOf(_Part):
    """A network of the cluster."""

    kind: Kind = Field(description="stand-in: reference plugins, arranged to behave like software that is not there.")
    software: str = Field(description="The software that really runs.")
    subnets: tuple[str, ...]
    missing: str = Field(description="Why it is not available; empty if it is.")


class ExecutableOf(_Part):
    """A file in the plugin directory of a node."""

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    nodes: tuple[str, ...] = Field(description="The nodes with exactly this file.")


class SuiteOf(_Part):
    """The selected scenarios, those of other shards too."""

    names: tuple[str, ...]
    sha256: str = Field(description="Over their names and files: equal for equal scenarios.")


class ExitOf(_Part):
    """The end of the run."""

    code: int
    why: str = Field(description="Why it is not 0, if no scenario's failure explains it.")


class ScenarioReport(_Part):
    """One run of scenarios, or several shards of one run, merged."""

    apiVersion: Literal["scenarios.genie.dev/v1alpha1"]  # noqa: N815
    kind: Literal["ScenarioReport"]
    date: str = Field(description="The start of the run, in UTC.")
    command: tuple[str, ...]
    shard: str = Field(
        pattern="^([1-9][0-9]{0,3}/[1-9][0-9]{0,3})?$",
        description="`2/3`: the second of three parts; empty: the whole.",
    )
    project: ProjectOf
    suite: SuiteOf
    cluster: ClusterOf
    networks: dict[str, NetworkOf]
    binaries: tuple[ExecutableOf, ...]
    seconds: float
    exit: ExitOf
    counts: dict[Verdict, int]
    left_on_nodes: tuple[str, ...] = Field(description="Leftovers of all scenarios at the end of the run.")
    scenarios: tuple[Outcome, ...]

    @property
    def totals(self) -> str:
        """The counts in words: `12 passed, 3 skipped`; empty if there are none."""
        return ", ".join(f"{self.counts[verdict]} {verdict}" for verdict in VERDICTS if self.counts.get(verdict))


def schema() -> dict[str, Any]:
    """The JSON Schema of a report."""
    return schema_of(ScenarioReport)


def read(path: Path) -> ScenarioReport:
    """A report, or the report.json of a report's directory.

    Raises BadReport: it is not a report of scenarios.
    """
    path = report_in(path)
    return checked(path, load(path), ScenarioReport)


def as_json(report: ScenarioReport) -> dict[str, Any]:
    """A report as plain data."""
    return report.model_dump(mode="json", by_alias=True)
