"""Reads everything on a node that belongs to no living pod (see `leftovers.py`), over netlink and from files.

Scenarios share the nodes, so it omits everything that belongs to a living sandbox (its container ID, its addresses, the
other ends of its interfaces): that is not a leak.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from harness import leftovers
from harness.embedded.sandbox import Sandbox
from harness.waiting import limit

NETNS, STORES, RECORDS = Path("/run/netns"), Path("/var/lib/cni/networks"), Path("/var/lib/cni/genie")
_BY_KERNEL = 2  # of a route: it came with an address
_TABLE_LOCAL, _MULTICAST, _UNREACHABLE = 255, 5, 7  # unreachable: the harness uses such routes to cut off nodes


@dataclass(frozen=True)
class Owned:
    """Everything that living sandboxes have on the node."""

    namespaces: frozenset[str] = frozenset()
    peers: frozenset[int] = frozenset()  # interface numbers on the node's side
    words: frozenset[str] = field(default_factory=frozenset)  # container IDs and addresses, as rules mention them

    @classmethod
    def by(cls, sandboxes: Iterable[Sandbox]) -> Owned:
        """Read from sandboxes; one that ends during this has nothing."""
        alive = list(sandboxes)
        peers: set[int] = set()
        addresses: set[str] = set()
        for sandbox in alive:
            with suppress(OSError):
                there, here = sandbox.inside(_ends)
                peers |= there
                addresses |= here
        names = frozenset(sandbox.path.name for sandbox in alive)
        return cls(names, frozenset(peers), frozenset({*addresses, *(sandbox.id for sandbox in alive)}))

    def __or__(self, other: Owned) -> Owned:
        return Owned(self.namespaces | other.namespaces, self.peers | other.peers, self.words | other.words)

    def mentioned(self, text: str) -> bool:
        """Whether a rule or a record is about one of them."""
        return any(word in text for word in self.words)


def _ends() -> tuple[set[int], set[str]]:
    """In a pod: the numbers of the interfaces at the other ends of its own, and its addresses.

    A veth's other end belongs to the pod, a macvlan's parent interface does not.
    """
    with IPRoute() as pod:
        links = {int(link.get("link")) for link in pod.get_links() if link.get("link") and _kind(link) == "veth"}
        addresses = {str(address.get("address")) for address in pod.get_addr()}
    return links, addresses - {"127.0.0.1", "::1"}


def take(owned: Owned) -> dict[str, list[str]]:
    """Everything on this node that is not in `owned`, by the names of the fields of `harness.contract.Inventory`."""
    with IPRoute() as node:
        links = list(node.get_links())
        names = {int(link["index"]): str(link.get("ifname")) for link in links}
        mine = {names[index] for index in owned.peers if index in names}
        shared = {index for index, link in zip(names, links, strict=True) if _kind(link) in leftovers.SHARED_KINDS}
        interfaces = list(_interfaces(links, names, shared | owned.peers))
        routes = [text for text in _routes(node, names, shared) if not mine & set(text.split())]
    return {
        "interfaces": interfaces,
        "addresses": list(_addresses(owned)),
        "netfilter": [
            rule for rule in _netfilter() if not (owned.mentioned(rule) or mine & set(re.split(r"[\s\"]+", rule)))
        ],
        "namespaces": sorted(set(_names(NETNS)) - owned.namespaces),
        "records": [
            name
            for name in _names(RECORDS)
            if name.endswith(".json") and not owned.mentioned(name + _text(RECORDS / name))
        ],
        "routes": routes,
    }


def _kind(link: Any) -> str:
    info = link.get("linkinfo")
    return str(info.get("kind")) if info else ""


def _interfaces(links: Iterable[Any], names: dict[int, str], left_out: set[int] | frozenset[int]) -> Iterator[str]:
    for link in links:
        if int(link["index"]) in left_out or link.get("ifname") == "lo":
            continue
        yield leftovers.interface(str(link.get("ifname")), names.get(int(link.get("master") or 0)))


def _addresses(owned: Owned) -> Iterator[str]:
    """host-local's addresses: one file for each, with its container and interface."""
    for file in sorted(path for path in STORES.glob("*/*") if path.is_file()):
        content = _text(file)
        entry = leftovers.host_local(file.parent.name, file.name, content)
        if entry and not {file.name, *content.split()} & owned.words:
            yield entry


def _routes(node: IPRoute, names: dict[int, str], shared: set[int]) -> Iterator[str]:
    for family in (socket.AF_INET, socket.AF_INET6):
        for route in node.get_routes(family=family):
            table, dst = int(route.get("table") or route["table"]), route.get("dst")
            local = str(dst or "").startswith(("fe80:", "ff00:"))
            if table == _TABLE_LOCAL or local or int(route["type"]) in (_MULTICAST, _UNREACHABLE):
                continue
            if int(route["proto"]) == _BY_KERNEL and int(route.get("oif") or 0) in shared:
                continue  # a bridge's own subnet
            parts = [f"{dst}/{route['dst_len']}" if dst else "default"]
            parts += ["via", str(route.get("gateway"))] if route.get("gateway") else []
            parts += ["dev", names.get(int(route.get("oif") or 0), "?")] if route.get("oif") else []
            parts += ["table", str(table)] if table != 254 else []
            yield " ".join(parts)
        for rule in node.get_rules(family=family):
            source = f"{rule.get('src')}/{rule['src_len']}" if rule.get("src") else "all"
            table, version = rule.get("table") or rule["table"], 4 if family == socket.AF_INET else 6
            yield f"rule {rule.get('priority') or 0}: from {source} lookup {table} (IPv{version})"


def _netfilter() -> Iterator[str]:
    nft = _run("nft", "-s", "list", "ruleset")
    yield from leftovers.nft(nft, by_iptables=bool(shutil.which("iptables-save")))
    # iptables itself prints tables that it made through nftables, with the comments that name a container.
    for family in ("ip", "ip6"):
        if f"table {family} " in nft or not shutil.which("nft"):
            yield from leftovers.iptables(family, _run(f"{family}tables-save"))
        if _text(Path(f"/proc/net/{family}_tables_names")).strip() and shutil.which(f"{family}tables-legacy-save"):
            yield from leftovers.iptables(f"{family} legacy", _run(f"{family}tables-legacy-save"))


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=limit(10), check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*"))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def look(title: str) -> str:
    """Interfaces, addresses, routes and rules of this network namespace, for people."""
    from harness import probe

    return f"{title}\n{json.dumps(probe.look(), indent=1)}\n"
