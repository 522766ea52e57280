"""Reasons to skip a scenario on a cluster, before anything is created."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from harness.contract import NETWORK_RESTART, OF_GENIE, Facts
from harness.scenario.file import FIRST, Scenario
from harness.steps.base import walk
from harness.steps.states import WithNetworkRestart
from harness.yamlfile import nearest


class UnknownNetwork(Exception):
    """A scenario names a network that no cluster has; probably a misspelling."""


def why_not(scenario: Scenario, facts: Facts) -> str:
    """Why a scenario cannot run on this cluster; empty if it can.

    Raises UnknownNetwork: a network's name is misspelt.
    """
    for network in networks_of(scenario, facts):
        if reason := _why_not_on(network, scenario, facts):
            return reason
    if reason := _undeclared(scenario, facts):
        return reason
    for check in scenario.checks:
        for network, family in check.wants_families():
            if (offer := facts.offers.get(network)) and not any(
                (":" in each) == (family == 6) for each in offer.subnets
            ):
                return f"{network} has no IPv{family} subnet"
    if lacking := sorted(ability.name for ability in scenario.needs - facts.abilities - OF_GENIE):
        return f"the {facts.backend} backend cannot do this here: {', '.join(lacking)}"
    if len(facts.nodes) < 2 and any(pod.needs_second_node for pod in scenario.pods.values()):
        return "it takes two nodes, this cluster has one"
    return ""


def _undeclared(scenario: Scenario, facts: Facts) -> str:
    """What a scenario needs of a network's configuration, which has no such; empty: nothing."""
    for name, pod in scenario.pods.items():
        first = pod.annotations.get("cni", "").partition(",")[0].partition("@")[0].strip()
        offer = facts.offers.get(first)
        if pod.ports and offer and not offer.host_ports:
            return f"{first} declares no capability portMappings, and {name} has a host port"
    for plugin in _logical(scenario):
        if (offer := facts.offers.get(plugin)) and not offer.ipam:
            return f"{plugin} has no `ipam` in its configuration, where a logical network's subnet would be put"
    return ""


def _logical(scenario: Scenario) -> Iterator[str]:
    """The networks that a scenario's logical and physical networks are made from."""
    for thing in scenario.spec.objects:
        spec = thing.get("spec") or {}
        if thing.get("kind") in ("Physicalnetwork", "Logicalnetwork"):
            yield str(spec.get("plugin") or (spec.get("sharedStatus") or {}).get("plugin") or "")


def networks_of(scenario: Scenario, facts: Facts) -> tuple[str, ...]:
    """A scenario's networks by their names on this cluster; `first-of-node` becomes the name of that network."""
    return tuple(facts.first or FIRST if network == FIRST else network for network in scenario.networks)


def _why_not_on(network: str, scenario: Scenario, facts: Facts) -> str:
    """Why a scenario cannot have one of its networks here; see `why_not`."""
    if network == FIRST:
        return "the harness does not know the nodes' first network"
    offer = facts.offers.get(network)
    if offer is None:
        meant = nearest(network, facts.offers)
        if meant and meant not in scenario.networks and difflib.SequenceMatcher(None, network, meant).ratio() > 0.75:
            raise UnknownNetwork(f"unknown network {network!r}; did you mean {meant!r}?")
        return f"no network {network} here (known: {', '.join(sorted(facts.offers)) or 'none'})"
    if offer.missing:
        return f"{network} is missing: {offer.missing}"
    if offer.first_only and (pod := scenario.later(network)):
        return f"{network} works as a pod's first network only, and {pod} has it later: {offer.first_only}"
    restarted = {step.of for step in walk(scenario.steps) if isinstance(step, WithNetworkRestart)}
    if network in restarted and not offer.daemons and NETWORK_RESTART in facts.abilities:
        return f"{network} has no daemon of its own here that could be restarted"
    return ""
