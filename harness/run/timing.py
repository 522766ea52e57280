"""How long each network's plugins took, from the lines that genie logs of its calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

VERBS = ("ADD", "DEL")


def plugin_seconds(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, tuple[float, ...]]]:
    """The seconds of each call by network and verb; the plugins of a chain are one call.

    lines: genie's log lines, each with `verb`, `selection` (pairs of network and interface) and `delegates`.
    """
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        networks = {ifname: network for network, ifname in line.get("selection") or ()}
        ms: dict[tuple[str, str], float] = defaultdict(float)
        for each in line.get("delegates") or ():
            if each["verb"] in VERBS and each["ifname"] in networks:  # a failed ADD runs DELs, too
                ms[networks[each["ifname"]], each["verb"]] += each["ms"]
        for (network, verb), took in ms.items():
            found[network][verb].append(round(took / 1000, 4))
    return {network: {verb: tuple(took) for verb, took in verbs.items()} for network, verbs in found.items()}
