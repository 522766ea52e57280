"""Writes the rules of a pod as input for `nft -j` (libnftables-json(5)). Pure.

One table of genie's own, replaced as a whole in one transaction. Its chains look only at packets of the interfaces that
have rules. Every packet of a connection is judged by the present rules, in both directions: a connection that is no
longer allowed ends at once, and no entry of conntrack has to be deleted. Conntrack is asked only who began it.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from genie.policy.model import Range
from genie.policy.rules import Interface
from genie.policy.world import Allow

TABLE = "genie"
FAMILY = "inet"

_Json = dict[str, Any]
_Sets = Mapping[tuple[str, tuple[Range, ...]], str]
"""The name of each set, by family and addresses."""


def script(interfaces: Iterable[Interface]) -> str:
    """The commands that fill genie's table, separated by commas; "" without interfaces."""
    found = list(interfaces)
    commands = [command for number, each in enumerate(found) for command in _of_interface(number, each)]
    return json.dumps(commands + _hooks(found))[1:-1] if found else ""


def replacing(script: str) -> str:
    """The transaction that replaces all of genie's rules in a namespace; without a script, it removes them."""
    return _transaction(_ADD, f'{{"delete": {_TABLE}}}', *((_ADD, script) if script else ()))


def first(script: str) -> str:
    """The transaction for a namespace without rules of genie; with some, it fails. The kernel waits for all of its
    readers when a table is deleted, so `replacing` takes several milliseconds longer.
    """
    return _transaction(f'{{"create": {_TABLE}}}', script)


def _transaction(*commands: str) -> str:
    return f'{{"nftables": [{", ".join(commands)}]}}'


_TABLE = json.dumps({"table": {"family": FAMILY, "name": TABLE}})
_ADD = f'{{"add": {_TABLE}}}'


def _add(what: str, **fields: Any) -> _Json:
    return {"add": {what: {"family": FAMILY, "table": TABLE, **fields}}}


def _rule(chain: str, *expressions: _Json) -> _Json:
    return _add("rule", chain=chain, expr=list(expressions))


def _match(left: _Json, right: Any, op: str = "==") -> _Json:
    return {"match": {"op": op, "left": left, "right": right}}


def _meta(key: str) -> _Json:
    return {"meta": {"key": key}}


_RETURN: _Json = {"return": None}
_DROP: _Json = {"drop": None}
_REPLY = _match({"ct": {"key": "direction"}}, "reply")
_RELATED = _match({"ct": {"key": "state"}}, "related", "in")
#: Without these, IPv6 does not work at all: neighbour discovery, router discovery, multicast listeners (their types).
_DISCOVERY = _match(
    {"payload": {"protocol": "icmpv6", "field": "type"}}, {"set": [130, 131, 132, 133, 134, 135, 136, 137, 143]}
)
#: Numbers, because nft takes a millisecond to look a name up.
_PROTOCOLS = {"TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP, "SCTP": socket.IPPROTO_SCTP}
_OF_ICMP = _match(_meta("l4proto"), {"set": [socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6]})


def _hooks(interfaces: list[Interface]) -> list[_Json]:
    """What comes in and what goes out. `forward` is for pods that pass on what they get, such as one with a virtual
    machine.
    """
    commands = []
    for hook, ways in (("input", ("iifname",)), ("output", ("oifname",)), ("forward", ("iifname", "oifname"))):
        commands.append(_add("chain", name=hook, type="filter", hook=hook, prio=0, policy="accept"))
        for number, interface in enumerate(interfaces):
            for way in ways:
                target = f"{'from' if way == 'iifname' else 'to'}{number}"
                commands.append(_rule(hook, _match(_meta(way), interface.ifname), {"jump": {"target": target}}))
    return commands


def _of_interface(number: int, interface: Interface) -> list[_Json]:
    """Four chains: from it and to it, each for the connections that peers began and for those that the pod began."""
    sides = {"ingress": interface.ingress, "egress": interface.egress}
    sets = {side: _sets(f"{side}{number}", allows or ()) for side, allows in sides.items()}
    commands = [_set(name, *of) for named in sets.values() for of, name in named.items()]
    # In the order of their use: a chain must exist before a rule names it.
    for way, began, replies in (("from", "ingress", "egress"), ("to", "egress", "ingress")):
        ends = "saddr" if way == "from" else "daddr"
        reply, chain = f"{way}{number}-replies", f"{way}{number}"
        commands += [_add("chain", name=reply), _add("chain", name=chain)]
        commands += _judged(reply, sets[replies], sides[replies], ends, "sport")
        commands.append(_rule(chain, _DISCOVERY, _RETURN))
        commands.append(_rule(chain, _OF_ICMP, _RELATED, _RETURN))
        commands.append(_rule(chain, _REPLY, {"goto": {"target": reply}}))
        commands += _judged(chain, sets[began], sides[began], ends, "dport")
    return commands


def _judged(chain: str, sets: _Sets, allows: tuple[Allow, ...] | None, end: str, port: str) -> list[_Json]:
    """The rules of one side in a chain. sets: their names. end: the peer's address in the packet. port: the place of
    the port that the connection goes to.
    """
    if allows is None:
        return []
    commands = []
    for allow in allows:
        of_port = _ports(allow, port)
        if allow.anyone:
            commands.append(_rule(chain, *of_port, _RETURN))
        for family, ranges in (("ip", allow.v4), ("ip6", allow.v6)):
            if ranges:
                address = {"payload": {"protocol": family, "field": end}}
                known = _match(address, f"@{sets[family, ranges]}")
                commands.append(_rule(chain, known, *of_port, _RETURN))
    return [*commands, _rule(chain, _DROP)]


def _ports(allow: Allow, port: str) -> list[_Json]:
    if not allow.protocol:
        return []
    of_protocol = _match(_meta("l4proto"), _PROTOCOLS[allow.protocol])
    if not allow.ports:
        return [of_protocol]
    ranges = [low if low == high else {"range": [low, high]} for low, high in allow.ports]
    return [of_protocol, _match({"payload": {"protocol": "th", "field": port}}, {"set": ranges})]


_TYPES: Mapping[str, tuple[str, int, int]] = {
    "ip": ("ipv4_addr", socket.AF_INET, 4),
    "ip6": ("ipv6_addr", socket.AF_INET6, 16),
}


def _sets(side: str, allows: Iterable[Allow]) -> _Sets:
    """A name for each set of addresses; often several rules have the same."""
    named: dict[tuple[str, tuple[Range, ...]], str] = {}
    for allow in allows:
        for family, ranges in (("ip", allow.v4), ("ip6", allow.v6)):
            if ranges:
                named.setdefault((family, ranges), f"{side}-{len(named)}-{family}")
    return named


def _set(name: str, family: str, ranges: Iterable[Range]) -> _Json:
    kind, af, width = _TYPES[family]
    elements = [_element(each, af, width) for each in ranges]
    return _add("set", name=name, type=kind, flags=["interval"], elem=elements)


def _element(addresses: Range, family: int, width: int) -> Any:
    texts = [socket.inet_ntop(family, value.to_bytes(width, "big")) for value in dict.fromkeys(addresses)]
    return texts[0] if len(texts) == 1 else {"range": texts}
