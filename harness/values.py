"""Functions for plain JSON values of files and API servers, and for texts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Place = tuple[str | int, ...]
"""The keys and positions that lead to a value."""


def change_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A value with a function applied to every text in it, also inside objects and lists, but not to keys."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: change_texts(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [change_texts(inner, change) for inner in value]
    return value


def texts(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every text in a value, with its place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from texts(inner, (*place, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from texts(inner, (*place, index))


def ipv6_of(address: str) -> str:
    """The IPv6 address that a node of the embedded cluster has beside its IPv4 address on the underlay."""
    return str(ipaddress.IPv6Address(f"fd00::{address}"))


def subnets(conf: Any) -> Iterator[str]:
    """The subnets that a CNI configuration names, of both families."""
    return (text for place, text in texts(conf) if place[-1:] == ("subnet",) and "/" in text)


def merged(
    value: Mapping[str, Any], change: Mapping[str, Any], lists: Callable[[Any, list[Any]], Any] = lambda _, new: new
) -> dict[str, Any]:
    """A value with a change merged into it; objects are merged by key, null removes a key (RFC 7396).

    lists: merges an old value and a new list; by default, returns the new list.
    """
    result = dict(value)
    for key, new in change.items():
        if new is None:
            result.pop(key, None)
        elif isinstance(new, Mapping):
            old = result.get(key)
            result[key] = merged(old if isinstance(old, Mapping) else {}, new, lists)
        else:
            result[key] = lists(result.get(key), new) if isinstance(new, list) else new
    return result


def in_general(message: str) -> str:
    """A message without what differs from pod to pod and from try to try: IDs, numbers, quoted names, paths."""
    return re.sub(r'"[^"]*"|\S*/\S*|[0-9a-f]*[0-9][0-9a-f]*', "…", message).strip()


def listed(text: str) -> tuple[str, ...]:
    """The names in an option such as `A,B`."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def in_bits(per_second: float, digits: int) -> str:
    """A rate for people, with so many significant digits: 7.1 Gbit/s."""
    by, prefix = next((each for each in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if per_second >= each[0]), (1.0, ""))
    return f"{per_second / by:.{digits}g} {prefix}bit/s"
