"""Blocks the other scenarios of a network with which no ADD succeeds: each would wait for the same failure.

All processes of a run share a folder with what they saw: networks that pods ran on, and networks of which a scenario's
pods all failed, with the plugin's words. Two scenarios with the same words, and no pod that ever ran, block the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from harness.report.outcome import Outcome
from harness.report.words import BEFORE_WORDS
from harness.values import in_general

_NAMED = re.compile(r"network '([^']+)': ")  # by genie, of several networks
_ENOUGH = 2  # scenarios


def failing(outcome: Outcome) -> tuple[str, str]:
    """The network whose ADDs failed in a scenario, and the plugin's words, if all its failures to create pods have the
    same; else two empty texts."""
    texts = [stage.failure for stage in outcome.stages if stage.failure and "create" in stage.name]
    said = [parts[-1] for text in texts for line in text.splitlines() if len(parts := BEFORE_WORDS.split(line)) > 1]
    words = {in_general(each) for each in said}
    networks = set(outcome.networks)
    if len(networks) > 1:
        networks = {named[1] if (named := _NAMED.search(each)) else "" for each in said}
    is_one = len(words) == len(networks) == 1 and networks <= set(outcome.networks)
    return (networks.pop(), words.pop()) if is_one else ("", "")


class Blocking:
    """The networks of one run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, outcome: Outcome, *, may_fail: bool) -> None:
        """Learn from a scenario; `may_fail`: whether it expects that pods fail."""
        made = [stage for stage in outcome.stages if "create" in stage.name]
        if made and not may_fail and not any(stage.failure for stage in made):
            for network in outcome.networks:
                self._add(network, "", outcome.name)
        elif outcome.verdict == "failed":
            network, words = failing(outcome)
            if network:
                self._add(network, words, outcome.name)

    def reason(self, networks: Iterable[str]) -> str:
        """Why a scenario of these networks cannot succeed; empty if it may."""
        for network in networks:
            seen = self._seen(network)
            by_words: dict[str, list[str]] = {}
            for words, scenario in seen:
                by_words.setdefault(words, []).append(scenario)
            if len(by_words) == 1 and "" not in by_words:
                [(words, scenarios)] = by_words.items()
                if len(set(scenarios)) >= _ENOUGH:
                    named = " and ".join(sorted(set(scenarios))[:_ENOUGH])
                    return f"every ADD of {network} failed in the same way, in {named}: {words}"
        return ""

    def _add(self, network: str, words: str, scenario: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{network}.seen").open("a", encoding="utf-8") as file:
            file.write(json.dumps([words, scenario]) + "\n")

    def _seen(self, network: str) -> list[tuple[str, str]]:
        try:
            lines = (self._folder / f"{network}.seen").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [(str(words), str(scenario)) for words, scenario in map(json.loads, lines)]
