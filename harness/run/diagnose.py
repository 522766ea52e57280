"""Collects evidence of a failed scenario, while its pods still exist.

It writes files into the report's directory, so that CI's artifacts explain a failure. An error never fails the run: it
is written into the file instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.checks.view import View


def collect(view: View, pods: Iterable[str], into: Path) -> list[Path]:
    """Write evidence about these pods: objects, events, reports of probes, and evidence of the backend."""
    into.mkdir(parents=True, exist_ok=True)
    base = f"/api/v1/namespaces/{view.namespace}"
    wanted: list[tuple[str, Callable[[], object]]] = [
        ("pods.json", lambda: view.objects.get(f"{base}/pods").get("items")),
        ("events.txt", lambda: _events(view, base)),
    ]
    files = [_write(into / name, make) for name, make in wanted]
    with ThreadPoolExecutor(max_workers=4) as pool:
        for found in pool.map(lambda pod: _pod(view, pod, into / pod), pods):
            files += found
    return files


def _pod(view: View, pod: str, into: Path) -> list[Path]:
    into.mkdir(parents=True, exist_ok=True)
    files = [_write(into / "seen.txt", lambda: view.describe(view.look(pod), networks=view.networks))]
    try:
        files += view.cluster.evidence(view.namespace, view.name(pod), into)
    except Exception as error:  # an error here must not hide the failure of the scenario
        files.append(_write(into / "evidence.txt", lambda error=error: f"could not be collected: {error!r}"))  # type: ignore[misc]
    return files


def _events(view: View, base: str) -> str:
    listed = view.objects.get(f"{base}/events").get("items") or []
    lines = []
    for event in sorted(listed, key=lambda each: str(each.get("lastTimestamp") or each.get("eventTime") or "")):
        about = (event.get("involvedObject") or event.get("regarding") or {}).get("name")
        when = event.get("lastTimestamp") or event.get("eventTime") or ""
        message = event.get("message") or event.get("note")
        lines.append(f"{when} {about} {event.get('type')} {event.get('reason')} ×{event.get('count') or 1}: {message}")
    return "\n".join(lines) or "no events"


def _write(path: Path, make: Callable[[], object]) -> Path:
    try:
        made = make()
        text = made if isinstance(made, str) else json.dumps(made, indent=2)
    except Exception as error:
        text = f"not available: {error!r}"
    path.write_text(text + "\n", encoding="utf-8")
    return path
