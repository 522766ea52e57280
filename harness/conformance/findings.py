"""The findings of checks, and the component at fault."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from harness.conformance.call import Outcome
from harness.conformance.spec import Section

_SHOWN = 4000  # characters of input or output in a report


class Fault(enum.StrEnum):
    """The component at fault."""

    PLUGIN = "plugin"
    IPAM = "ipam plugin"
    PROFILE = "profile"
    GENIE = "genie"
    ENVIRONMENT = "environment"
    UNKNOWN = "unknown"  # nothing proves which one it is


class Verdict(enum.StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    WARNED = "warned"  # not as the specification recommends; it does not demand it
    FLAKY = "flaky"  # failed, but passed when it was run again
    BLOCKED = "blocked"  # a check that it depends on failed, which has a separate finding
    SKIPPED = "skipped"  # does not apply to this plugin, for the given reason
    BROKEN = "broken"  # the environment made it impossible


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One violation of the specification."""

    headline: str
    demand: str  # the requirement of the specification, in our words
    section: Section
    fault: Fault = Fault.PLUGIN
    should: bool = False  # the specification recommends it, and does not demand it
    outcome: Outcome | None = None
    reproducer: str = ""

    def as_json(self) -> dict[str, Any]:
        """For a report."""
        found: dict[str, Any] = {
            "fault": self.fault.value,
            "strength": "should" if self.should else "must",
            "headline": self.headline,
            "demand": self.demand,
            "section": {"title": self.section.title, "url": self.section.url},
        }
        if self.outcome:
            found["call"] = evidence(self.outcome)
        return {**found, "reproducer": self.reproducer}


def evidence(outcome: Outcome) -> dict[str, Any]:
    """A call with its input and output, for a report."""
    return {
        "binary": outcome.call.binary,
        "env": dict(outcome.call.env),
        "stdin": shown(outcome.call.stdin),
        "status": outcome.status,
        "stdout": shown(outcome.stdout),
        "stderr": shown(outcome.stderr),
        "seconds": round(outcome.seconds, 4),
        **({"late": True} if outcome.late else {}),
    }


def shown(content: bytes) -> str:
    """Bytes as text, shortened if too long."""
    text = content.decode(errors="backslashreplace")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} … ({len(text)} characters)"
