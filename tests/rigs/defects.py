"""The example plugin with a defect, as a subject for the conformance suite."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import run
from typing import Any

from harness.conformance.subject import Subject, of

PLUGINS = Path(__file__).parents[2] / "fixtures" / "plugins"
SUBNET = {
    "type": "example-veth",
    "subnet": "10.88.0.0/24",
    "capabilities": {"mac": True, "ips": True},
    "dns": {"nameservers": ["198.51.100.53"]},
}
RANGES = {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
CONFS: dict[str, list[dict[str, Any]]] = {
    "subnet": [SUBNET],
    "host-local": [{"type": "example-veth", "ipam": RANGES}],
}


@dataclass(frozen=True, kw_only=True)
class Defect:
    """A defect as listed by fixtures/plugins/defects.py."""

    name: str
    sentence: str
    check: str
    blame: str
    also: tuple[str, ...]
    conf: str
    version: str
    rounds: int


def table() -> list[Defect]:
    """All defects."""
    listed = run([sys.executable, PLUGINS / "defects.py", "--json"], capture_output=True, check=True).stdout
    return [Defect(**{**each, "also": tuple(each["also"])}) for each in json.loads(listed)]


def subject(
    directory: Path, name: str = "", conf: str = "subnet", version: str = "", paths: Sequence[Path] = ()
) -> Subject:
    """The example plugin with a defect, to be tested in one version; without a defect, in all its versions.

    Args:
        directory: an empty one, for the executable.
        paths: directories with the reference plugins.
    """
    target = f"{PLUGINS / 'defects.py'} {name}" if name else str(PLUGINS / "example_veth.py")
    binary = directory / "example-veth"
    binary.write_text(f"#!/bin/sh\nexec /usr/bin/env python3 {target}\n")
    binary.chmod(0o755)
    network = {"cniVersion": version or "1.1.0", "name": "example", "plugins": CONFS[conf]}
    found = of(network, "the example's configuration", binary, paths=paths)
    return replace(found, supported=(version,)) if version else found
