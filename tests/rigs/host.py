"""The parts of the host that an embedded run must not change, for comparisons before and after.

Other programs change the machine at the same time: another run, a container engine, a kind cluster. So only objects
count that could belong to a run, by the names of interfaces, mounts and namespaces, and by the addresses of its
networks.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from ipaddress import ip_interface, ip_network
from pathlib import Path

from harness import catalog

_UNDERLAY = "172.30.0.0/24"
_EMBEDDED = [network.embedded for network in catalog.load().values() if network.embedded]
_SUBNETS = [ip_network(subnet) for network in _EMBEDDED for subnet in (*network.subnets, _UNDERLAY)]
_DEVICES = {getattr(step, kind, "") for network in _EMBEDDED for step in network.setup for kind in ("bridge", "vxlan")}
#: Nodes' links to the underlay, and interfaces that plugins name; a container engine's `veth` has seven digits.
_INTERFACE = re.compile(r"underlay|node\d+|veth[0-9a-f]{8}|flannel\.\d+|cni\d+")
_ADDRESS = re.compile(r"[0-9a-f.:]+(/\d+)?")


def snapshot() -> dict[str, list[str]]:
    """Objects on this host that could belong to a run."""
    return {
        "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir() if _is_interface(path.name)),
        "mounts": sorted(_mounts()),
        "rules": sorted(_rules()),
        "namespaces": sorted(path.name for path in Path("/run/netns").glob("cni-*")),
        "files": [path for path in ("/etc/cni/net.d/00-genie.conflist", "/opt/cni/bin/genie") if Path(path).exists()],
    }


def _is_interface(name: str) -> bool:
    return name in _DEVICES or _INTERFACE.fullmatch(name) is not None


def _mounts() -> Iterator[str]:
    """Mounts of a run's file systems, and of pods' namespaces."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        place, source = before.split()[4], after.split()[1]
        if source in ("genie", "node") or "genie-run" in place or "/netns/cni-" in place:
            yield place


def _rules() -> Iterator[str]:
    for command in (["nft", "-s", "list", "ruleset"], ["iptables-save"], ["ip6tables-save"]):
        try:
            printed = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        for line in printed.splitlines():
            if any(word.startswith("CNI-") or _is_ours(word) for word in line.split()):
                yield re.sub(r" ?\[\d+:\d+\]", "", line.strip())


def _is_ours(word: str) -> bool:
    if not _ADDRESS.fullmatch(word):
        return False
    try:
        address = ip_interface(word).ip
    except ValueError:
        return False
    return any(address in subnet for subnet in _SUBNETS if subnet.version == address.version)


def added(before: dict[str, list[str]]) -> dict[str, list[str]]:
    """The objects that are on this host now, and were not there before. Others' may disappear meanwhile."""
    now = {kind: sorted(set(found) - set(before[kind])) for kind, found in snapshot().items()}
    return {kind: found for kind, found in now.items() if found}


if __name__ == "__main__":
    print(json.dumps(snapshot()))
