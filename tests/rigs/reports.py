"""Reports in the form of `harness conformance`, made without a run."""

from __future__ import annotations

from typing import Any

from harness.conformance.published import ConformanceReport

SECTION = {"title": "Section 2: DEL", "url": "https://example.org/SPEC.md#del"}


def finding(headline: str, **more: Any) -> dict[str, Any]:
    return {
        "fault": "plugin", "headline": headline, "demand": "It must not.", "section": SECTION,
        "reproducer": "#!/bin/sh\ntrue\n", "versions": ["1.0.0"], **more,
    }  # fmt: skip


def checked(name: str, verdict: str = "passed", **more: Any) -> dict[str, Any]:
    return {
        "name": name, "sentence": f"{name} holds.", "section": SECTION["title"], "url": SECTION["url"],
        "level": "core", "strength": "must", "verdict": verdict, "versions": {"1.0.0": verdict}, "seconds": 0.1,
        "findings": [finding(f"{name} does not hold")] if verdict == "failed" else [], "calls": {}, "notes": [], **more,
    }  # fmt: skip


def report(*checks: dict[str, Any], plugin: str = "mynet", version: str = "v1") -> dict[str, Any]:
    verdicts = [check["verdict"] for check in checks]
    return {
        "apiVersion": "conformance.genie.dev/v1alpha1",
        "kind": "ConformanceReport",
        "date": "2026-01-02T03:04:05Z",
        "implementation": {
            "name": "net", "type": plugin, "version": version,
            "network": {"name": "net", "plugins": [{"type": plugin}]},
            "binaries": [{"type": plugin, "path": f"/opt/cni/bin/{plugin}", "sha256": "ab" * 32}],
            "supportedVersions": ["1.0.0"],
        },
        "environment": {"kernel": "6.1", "machine": "x86_64", "harness": "1"},
        "seconds": 1.0,
        "summary": {verdict: verdicts.count(verdict) for verdict in set(verdicts)},
        "checks": list(checks),
    }  # fmt: skip


def made(*checks: dict[str, Any], **more: str) -> ConformanceReport:
    """The same, read."""
    return ConformanceReport.model_validate(report(*checks, **more))
