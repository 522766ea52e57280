"""What a preflight found: plain data, with what is wrong in each part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from harness.values import in_bits

API_VERSION, KIND = "preflight.genie.dev/v1alpha1", "PreflightReport"
SLOW = 0.5  # of the network's median throughput: below, a pair is noted as slow


@dataclass(frozen=True, kw_only=True)
class Way:
    """From a pod on one node to a pod on another, over one network."""

    network: str
    one: str
    other: str
    wrong: tuple[str, ...] = ()  # what fails: "tcp to 10.1.2.3: no answer within 2 s"
    mtu: int = 0  # of the path; 0: not measured
    interface_mtu: int = 0
    latency_ms: float | None = None  # the median round trip
    bits_per_second: int | None = None
    tool: str = ""  # that measured the throughput


@dataclass(frozen=True, kw_only=True)
class Spot:
    """What a pod on one node sees of the cluster. "" if it works, None if it does not apply, else the reason."""

    network: str
    node: str
    dns: str | None
    service: str | None
    hairpin: str | None

    def wrong(self) -> Iterator[str]:
        """What does not work."""
        for what in ("dns", "service", "hairpin"):
            if reason := getattr(self, what):
                yield f"{what} on {self.node}: {reason}"


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network."""

    name: str
    software: str
    kind: str  # "real", "stand-in"
    ways: tuple[Way, ...] = ()
    spots: tuple[Spot, ...] = ()
    broken: tuple[str, ...] = ()  # why pods on it do not run
    notes: tuple[str, ...] = ()  # what was not measured, and why

    @property
    def by_pair(self) -> dict[tuple[str, str], Way]:
        return {(way.one, way.other): way for way in self.ways}

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes of measured pairs, sorted."""
        return tuple(sorted({node for pair in self.by_pair for node in pair}))

    @property
    def wrong(self) -> list[str]:
        """Everything that is wrong, one line each."""
        found = list(self.broken)
        for way in self.ways:
            found += [f"{way.one} to {way.other}: {each}" for each in way.wrong]
        return found + [line for spot in self.spots for line in spot.wrong()]

    @property
    def slow(self) -> list[str]:
        """Pairs that are much slower than the others: worth a look, no failure."""
        rates = [way.bits_per_second for way in self.ways if way.bits_per_second]
        usual = median(rates) if len(rates) > 2 else 0.0
        slow = [way for way in self.ways if way.bits_per_second and way.bits_per_second < usual * SLOW]
        return list(_grouped(slow, self.ways, usual))


def _grouped(slow: Sequence[Way], ways: Sequence[Way], usual: float) -> Iterator[str]:
    """The slow pairs; those that a node has in common are one line if all of the node's are slow in that direction."""
    rest = list(slow)
    for side, words in (("other", "everything to"), ("one", "everything from")):
        for node in sorted({getattr(way, side) for way in slow}):
            its = [way for way in slow if getattr(way, side) == node]
            if len(its) > 1 and len(its) == sum(getattr(way, side) == node for way in ways):
                best = max(way.bits_per_second or 0 for way in its)
                yield f"{words} {node} is slow: {rate(best)} at most, usual is {rate(usual)}"
                rest = [way for way in rest if way not in its]
    for way in rest:
        yield f"{way.one} to {way.other} is slow: {rate(way.bits_per_second)}, usual is {rate(usual)}"


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """All of it."""

    backend: str
    genie: str
    api_server: str
    nodes: tuple[str, ...]
    networks: tuple[Network, ...]
    missing: dict[str, str]  # networks that the cluster does not have, with the reason
    sampled: bool  # whether only a sample of pairs was measured
    seconds: float
    made: str

    @property
    def passed(self) -> bool:
        return bool(self.networks) and not any(network.wrong for network in self.networks)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        networks = [{**asdict(each), "wrong": each.wrong, "slow": each.slow} for each in self.networks]
        return {"apiVersion": API_VERSION, "kind": KIND, "passed": self.passed, **asdict(self), "networks": networks}


def rate(bits: float | None) -> str:
    """Bits per second for people: 7.1 Gbit/s."""
    return "" if bits is None else in_bits(bits, 3)
