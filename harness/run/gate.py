"""Checks that a run tested the requested networks: a run without tests must not look like a success."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness import catalog
from harness.contract import Offer
from harness.report.outcome import Outcome
from harness.yamlfile import hint


def asked(profiles: Iterable[str], swap: tuple[str, str] | None) -> dict[str, str]:
    """The requested networks of a run, each with the option that requests it.

    Raises ProfileError: a profile cannot be used.
    """
    named = {catalog.read(Path(profile)).network: f"--profile {profile}" for profile in profiles}
    return named | ({swap[1]: f"--swap {swap[0]}={swap[1]}"} if swap else {})


def unknown(networks: Mapping[str, str], limit: Iterable[str], profiles: Iterable[str]) -> str:
    """The error for a requested network, or one of --networks, without a description; empty if all have one.

    Raises ProfileError: a profile cannot be used.
    """
    known = catalog.load(map(Path, profiles))
    for network, option in [*networks.items(), *((name, f"--networks {name}") for name in limit)]:
        if network not in known:
            return f"{option}: expected --profile FILE that describes {network}{hint(network, known)}"
    return ""


def unselected(
    networks: Mapping[str, str], taken: Iterable[str], swap: tuple[str, str] | None, limit: Iterable[str]
) -> str:
    """Why no scenario tests the requested networks; empty if some do.

    networks: as `asked` returns them.
    taken: the networks that the selected scenarios need.
    swap: the value of --swap.
    limit: the names of --networks.
    """
    there = set(taken)
    for network, option in networks.items():
        if network in there:
            continue
        if swap and swap[1] == network:
            return f"{option}: expected the name of a network that a selected scenario takes, got {swap[0]!r}"
        return f"{option}: no selected scenario takes {network}: expected --swap OLD={network}, or a scenario of it"
    for network in limit:
        if network not in there:
            return f"--networks: no selected scenario takes {network}, and no network that is not named there"
    return ""


def impossible(networks: Mapping[str, str], offers: Mapping[str, Offer]) -> str:
    """Why the cluster lacks a requested network; empty if it has all."""
    for network, option in networks.items():
        offer = offers.get(network)
        if offer is None:
            return f"{option}: no network {network} on this cluster{hint(network, offers)}"
        if offer.missing:
            return f"{option}: {network} is missing: {offer.missing}"
    return ""


def untested(networks: Mapping[str, str], limit: Iterable[str], outcomes: Sequence[Outcome]) -> str:
    """Why a completed run tested nothing, or not the requested networks; empty if it did.

    networks: as `asked` returns them.
    limit: the names of --networks.
    """
    if not outcomes:
        return "nothing was tested: no scenario is selected"
    named = {name: f"--networks {name}" for name in limit} | dict(networks)
    for network, option in {"": "nothing was tested", **named}.items():
        about = [each for each in outcomes if not network or network in each.networks]
        if about and all(each.verdict == "skipped" for each in about):
            reasons = Counter(each.reason for each in about).most_common()
            shown = "; ".join(f"{reason} ({count})" for reason, count in reasons[:3])
            of = f" of {network}" if network else ""
            return f"{option}: skipped {len(about)} of {len(about)} scenarios{of}: {shown}"
    return ""
