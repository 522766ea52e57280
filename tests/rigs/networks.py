"""Looks up networks by name, as for a pod."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from genie.cni.config import NetworkConfig
from genie.cni.execute import run_sync
from genie.select import networks
from genie.select.annotations import Ask, SelectionError
from genie.select.networks import Directory
from tests.rigs.core import Node


def ask(name: str, lookup: str = "named", namespace: str = "") -> Ask:
    return Ask(name=name, where=f'annotation cni, item 1 ("{name}")', lookup=lookup, namespace=namespace)


def labels(node: Node, *asks: Ask) -> list[str]:
    """Their names in status and errors."""
    found = networks.find(asks, node.kube, Directory(str(node.net_d)), "blue", (str(node.root / "bin"),))
    return [each.label for each in run_sync(found)]


def find(node: Node, *asks: Ask) -> list[NetworkConfig]:
    path: Sequence[str] = (str(node.root / "bin"),)
    found = run_sync(networks.find(asks, node.kube, Directory(str(node.net_d)), "blue", path))
    return [each.network for each in found]


def one(node: Node, name: str, lookup: str = "named", namespace: str = "") -> NetworkConfig:
    (found,) = find(node, ask(name, lookup, namespace))
    return found


def refused(node: Node, name: str, lookup: str = "named", code: int = 7) -> str:
    with pytest.raises(SelectionError) as caught:
        one(node, name, lookup)
    assert caught.value.code == code
    assert str(caught.value).startswith("annotation cni, item 1")
    return str(caught.value)


def conf(name: str, kind: str = "bridge", **keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": name, "type": kind, **keys}
