"""The format of a published report: its model, version and JSON Schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.conformance.findings import Fault, Verdict
from harness.report.reading import checked, load, schema_of


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Binary(_Part):
    """An executable that was really run."""

    type: str
    path: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Implementation(_Part):
    """What was tested."""

    name: str = Field(description="The network's.")
    type: str = Field(description="The tested plugin's.")
    version: str = Field(default="", description="The release, as given by the tester.")
    network: dict[str, Any] = Field(description="The configuration, as a list of plugins.")
    binaries: tuple[Binary, ...] = Field(description="The plugin, its ipam plugin and the plugins around it.")
    supportedVersions: tuple[str, ...] = Field(description="The plugin's answer to VERSION.")  # noqa: N815


class Environment(_Part):
    """The machine of the test."""

    kernel: str
    machine: str
    harness: str = Field(description="The version of genie-cni.")


class Extent(_Part):
    """How much was tested."""

    checks: int = Field(description="How many checks there were, those that were skipped too.")
    versions: tuple[str, ...] = Field(description="Of the specification; a check's own are in `versions` of it.")
    rounds: int = Field(description="The number of rounds of ADD and DEL, to find occasional failures.")
    kills: int = Field(description="At most so many moments at which an ADD, and a DEL, was killed.")
    atOnce: int = Field(description="ADDs, and DELs, of so many containers at once.")  # noqa: N815


class SectionOf(_Part):
    """A part of the specification."""

    title: str
    url: str


class CallOf(_Part):
    """One call of a plugin."""

    binary: str
    env: dict[str, str]
    stdin: str
    status: int = Field(description="The exit status; negative: the signal that ended it.")
    stdout: str
    stderr: str
    seconds: float
    late: bool = Field(default=False, description="Whether the harness killed it because it took too long.")


class FindingOf(_Part):
    """One violation of the specification."""

    fault: Fault = Field(description="The component at fault.")
    strength: Literal["must", "should"] = Field(default="must", description="Whether it is demanded or recommended.")
    headline: str
    demand: str = Field(description="The requirement of the specification, in other words.")
    section: SectionOf
    call: CallOf | None = None
    reproducer: str = Field(description="A shell script that reproduces it without the harness.")
    versions: tuple[str, ...] = Field(description="With which it was found.")


class CheckOf(_Part):
    """A check with its verdict."""

    name: str
    sentence: str
    section: str
    url: str
    level: str = Field(description="core, or extended with the feature.")
    strength: Literal["must", "should"]
    verdict: Verdict
    versions: dict[str, Verdict]
    seconds: float
    reason: str = ""
    findings: tuple[FindingOf, ...]
    calls: dict[str, tuple[float, ...]] = Field(description="The times of the plugin by verb.")
    notes: tuple[str, ...]


class ConformanceReport(_Part):
    """One run of `harness conformance`."""

    apiVersion: Literal["conformance.genie.dev/v1alpha1"]  # noqa: N815
    kind: Literal["ConformanceReport"]
    date: str
    implementation: Implementation
    environment: Environment
    extent: Extent | None = None
    seconds: float
    summary: dict[Verdict, int]
    checks: tuple[CheckOf, ...]


def schema() -> dict[str, Any]:
    """The JSON Schema of a report."""
    return schema_of(ConformanceReport)


def read(path: Path) -> ConformanceReport:
    """A report in JSON or YAML.

    Raises BadReport: it is not a report.
    """
    return checked(path, load(path), ConformanceReport)
