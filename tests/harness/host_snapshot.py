"""What of the host a run must not change."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

#: What a container engine makes and takes away for its own containers, at any time.
_ENGINES = re.compile(r"docker|containerd|podman|br-[0-9a-f]{12}|veth[0-9a-f]{7}", re.IGNORECASE)


def snapshot_host() -> dict[str, list[str]]:
    """What of the host a run must not change; compare one from before with one from after.

    Interfaces, mounts, rules, named network namespaces; without those of a container engine, which come and go.
    """
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    seen = {
        "interfaces": [path.name for path in Path("/sys/class/net").iterdir()],
        "mounts": mounts,
        "rules": _host_rules(),
        "namespaces": _host_namespaces(),
    }
    return {kind: sorted(item for item in items if not _ENGINES.search(item)) for kind, items in seen.items()}


def _host_rules() -> list[str]:
    rules = []
    for command in (["nft", "-s", "list", "ruleset"], ["iptables-save"], ["ip6tables-save"]):
        try:
            said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        rules += [
            re.sub(r" ?\[\d+:\d+\]", "", line)
            for line in said.splitlines()
            if line.strip() and not line.startswith("#")
        ]
    return rules


def _host_namespaces() -> list[str]:
    place = Path("/run/netns")
    return [path.name for path in place.iterdir()] if place.is_dir() else []
