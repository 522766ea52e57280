"""Wording of leftovers of pods on nodes, the same in the inventories of all backends.

Inventories omit objects that all pods share, because they come with the first pod and stay by design: bridges and
tunnels; built-in chains, those of kube-proxy, of the harness, and those that plugins set up once. They also omit
counters and handles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

#: Kinds of interfaces that all pods of a network share.
SHARED_KINDS = ("bridge", "vxlan", "dummy", "openvswitch", "nlmon")
#: The comment of rules that the harness itself temporarily adds on nodes.
OWN = "genie-harness"
#: Chains of kube-proxy, of the engine, and of weave's policy controller for every namespace.
_KUBE = re.compile(r"(^|\s)(-A |-N |-j |:)?(KUBE-|DOCKER_|WEAVE-NPC)")
#: Shared chains of the portmap and firewall plugins.
_BASE = re.compile(
    r":CNI-(HOSTPORT|ADMIN|FORWARD)|-A (PREROUTING|OUTPUT|POSTROUTING|FORWARD) .*-j CNI-(HOSTPORT-|ADMIN|FORWARD)"
    r"|-A CNI-HOSTPORT-(SETMARK|MASQ) |-A CNI-FORWARD .*-j CNI-ADMIN"
)
_BASE_CHAINS = ("masq_checks", "hostports", "hostip_hostports", "prerouting", "output", "postrouting")
_OF_IPTABLES = re.compile(r"ip6? (filter|nat|mangle|raw|security)")
_CHANGING = re.compile(r" ?\[\d+:\d+\]| # handle \d+")


def interface(name: str, master: str | None) -> str:
    """An interface, with its bridge if it is a port of one."""
    return f"{name} (bridge {master})" if master else name


def host_local(network: str, file: str, content: str) -> str:
    """The address that a file of host-local reserves; empty for its other files."""
    kept_besides = file.startswith(("last_reserved_ip", "lock"))
    return "" if kept_besides else f"{network} {file} {'/'.join(content.split())}"


def iptables(family: str, text: str) -> Iterator[str]:
    """Chains and rules of `iptables-save`, each with the given name of the family and its table."""
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif _of_pods(line):
            yield f"{family} {table} {_CHANGING.sub('', line)}"


def _of_pods(line: str) -> bool:
    built_in = line.startswith(":") and " - " not in line
    shared = built_in or OWN in line or _KUBE.search(line) or _BASE.match(line)
    return line.startswith(("-A ", ":")) and not shared


def nft(text: str, *, by_iptables: bool = True) -> Iterator[str]:
    """Rules, sets and chains of `nft list ruleset`, each with its table; without those of kube-proxy, and without those
    of iptables if that program can print them.
    """
    table, inner, foreign, skip = "", "", False, False
    for line in (line.strip() for line in text.splitlines()):
        words = line.split()
        if line.startswith("#"):
            foreign = "iptables" in line  # "table ip nat is managed by iptables-nft, do not touch!"
        elif words[:1] == ["table"]:
            table = " ".join(words[1:3])
            skip = "kube-proxy" in table or (by_iptables and (foreign or bool(_OF_IPTABLES.fullmatch(table))))
            foreign = False
        elif not words or line == "}" or skip or line.startswith(("type ", "policy ")):
            continue
        elif words[0] in ("chain", "set", "map"):
            inner = " ".join(words[:2])
            if words[1] not in _BASE_CHAINS:
                yield f"nft {table} {inner}"
        else:
            yield f"nft {table} {inner}: {_CHANGING.sub('', line)}"
