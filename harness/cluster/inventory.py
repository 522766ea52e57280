"""Reads everything on a node that pods may leave behind (see `leftovers.py`), with one command on the node."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from harness import leftovers
from harness.cluster import ipam
from harness.cluster.nodes import Nodes
from harness.contract import Inventory

#: Prints sections, each after a line "#### NAME".
SCRIPT = (
    r"""
section() { printf '\n#### %s\n' "$1"; }
section links;      ip -d -j link show
section routes;     ip route show table all; ip -6 route show table all
section rules;      ip rule; ip -6 rule
section iptables;   for v in '' 6; do for b in nft legacy; do
                      if command -v ip${v}tables-$b-save >/dev/null; then
                        ip${v}tables-$b-save 2>/dev/null | sed "s/^/ip${v}tables-$b /"; fi; done; done
section nft;        nft -s list ruleset 2>/dev/null
section ipsets;     ipset list -n 2>/dev/null
section namespaces; ls -1 /run/netns 2>/dev/null
section records;    cd /var/lib/cni/genie 2>/dev/null && ls -1 -- *.json 2>/dev/null
"""
    + ipam.SCRIPT
    + "exit 0"
)

_NOT_UNICAST = ("broadcast", "multicast", "anycast")
_LIFETIME = re.compile(r"\s(expires|hoplimit|age) \S+|\s\[\d+:\d+\]|\slinkdown|\spref medium")


def take(nodes: Nodes, node: str) -> Inventory:
    """The inventory of a node now."""
    return parse(nodes.run(node, "sh", "-c", SCRIPT, "sh", *ipam.arguments(), timeout=60), node)


def parse(printed: str, node: str) -> Inventory:
    """Parse the output of SCRIPT on a node."""
    parts = dict(_sections(printed))
    links = json.loads(parts.get("links") or "[]")
    shared = {link["ifname"] for link in links if _kind(link) in leftovers.SHARED_KINDS}
    return Inventory(
        interfaces=frozenset(_interfaces(links, shared)),
        addresses=frozenset(ipam.printed(parts, node)),
        netfilter=frozenset(_netfilter(parts)),
        namespaces=frozenset(parts.get("namespaces", "").split()),
        records=frozenset(parts.get("records", "").split()),
        routes=frozenset([*_routes(parts.get("routes", ""), shared), *_rules(parts.get("rules", ""))]),
    )


def _sections(printed: str) -> Iterator[tuple[str, str]]:
    for part in printed.split("\n#### ")[1:]:
        name, _, body = part.partition("\n")
        yield name.strip(), body.strip()


def _kind(link: dict[str, Any]) -> str:
    return str(link.get("linkinfo", {}).get("info_kind", ""))


def _interfaces(links: list[dict[str, Any]], shared: set[str]) -> Iterator[str]:
    for link in links:
        if link["ifname"] not in shared | {"lo"}:
            yield leftovers.interface(link["ifname"], link.get("master"))


def _netfilter(parts: Mapping[str, str]) -> Iterator[str]:
    saved = parts.get("iptables", "").splitlines()  # each line after the command that printed it
    for command, lines in groupby(saved, key=lambda line: line.partition(" ")[0]):
        printed = "\n".join(line.partition(" ")[2] for line in lines)
        yield from leftovers.iptables(command.partition("-")[0], printed)
    yield from leftovers.nft(parts.get("nft", ""))
    sets = parts.get("ipsets", "").split()
    yield from (f"ipset {name}" for name in sets if not name.startswith(("KUBE-", "weave-")))


def _routes(text: str, shared: set[str]) -> Iterator[str]:
    for line in text.splitlines():
        words = _LIFETIME.sub("", line).split()
        if not words or "local" in words[:1] + _after(words, "table") or words[0] in _NOT_UNICAST:
            continue
        if words[0].startswith("fe80:") or ("kernel" in _after(words, "proto") and shared & set(_after(words, "dev"))):
            continue
        yield " ".join(words)


def _after(words: list[str], word: str) -> list[str]:
    return words[words.index(word) + 1 :][:1] if word in words else []


def _rules(text: str) -> Iterator[str]:
    return (f"rule {' '.join(line.split())}" for line in text.splitlines() if line.strip())
