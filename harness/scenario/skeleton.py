"""The first version of a new scenario file: it has no mistakes and passes, and its comments show how to go on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.exits import Ended, Exit
from harness.yamlfile import hint

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")


def write(folder: Path, name: str, networks: Sequence[str], known: Iterable[str]) -> Path:
    """Write FOLDER/NAME.yaml and return its path.

    Raises Ended: the name is not valid, the file exists, or a network has no description among `known`.
    """
    if not _NAME.fullmatch(name):
        expected = "a name of at most 40 lower-case letters, digits and '-', as in 'my-case'"
        raise Ended(Exit.USAGE, f"{name!r}: expected {expected}")
    names = frozenset(known)
    for network in networks:
        if network not in names:
            raise Ended(Exit.USAGE, f"unknown network {network!r}{hint(network, names)}")
    if not networks or len(set(networks)) < len(networks):
        raise Ended(Exit.USAGE, f"--networks {','.join(networks)}: expected names of networks, each once")
    path = folder / f"{name}.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(_text(networks, schema=(folder / "schema.json").exists()))
    except OSError as error:
        raise Ended(Exit.USAGE, f"{path}: {error.strerror}") from error
    return path


def _text(networks: Sequence[str], *, schema: bool) -> str:
    """A pod with all networks, and a peer on each."""
    numbered = list(enumerate(networks))
    interfaces = ", ".join(f"eth{number}: {network}" for number, network in numbered)
    peers = "".join(
        f"  {network}-peer: {{annotations: {{cni: {network}}}, node: same-as one}}\n" for network in networks
    )
    reaches = "".join(f"  - reach: {{from: {network}-peer, to: one, over: {network}}}\n" for network in networks)
    return (
        ("# yaml-language-server: $schema=schema.json\n" if schema else "")
        + "# This sentence must be true if the scenario passes.\n"
        f"scenario: A pod on {' and '.join(networks)} answers on each of its addresses\n"
        f"networks: [{', '.join(networks)}]\n"
        "labels: [new]\n"
        "pods:\n"
        f'  one: {{annotations: {{cni: "{",".join(networks)}"}}}}\n'
        f"{peers}"
        "expect:  # `harness checks` shows all checks; use `steps` in place of `expect` if things happen in order\n"
        f"  - interfaces: {{pod: one, {interfaces}}}\n"
        f"  - status-ip: {{pod: one, network: {networks[0]}}}\n"
        f"{reaches}"
        "after-delete:\n"
        "  - nothing-left\n"
    )
