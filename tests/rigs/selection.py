"""Pods with annotations, and their selections."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from genie.cni.config import NetworkConfig
from genie.config import Conf
from genie.kube import Pod
from genie.select import selection
from genie.select.annotations import ATTACHMENTS, Asked, asks
from genie.select.selection import Found, assemble
from tests.rigs.core import network

CONF = Conf(name="k8s", cni_version="1.0.0")
ABLE = network(
    "able",
    {
        "type": "able",
        "capabilities": dict.fromkeys(["ips", "mac", "bandwidth", "portMappings", "infinibandGUID"], True),
        "args": {"cni": {"kept": "yes"}},
    },
)


def pod(annotations: dict[str, str]) -> Pod:
    return Pod(namespace="blue", name="web", annotations=annotations)


def ask(conf: Conf = CONF, /, **annotations: str) -> Asked:
    return asks(pod(annotations), conf)


def attachments(items: Any, conf: Conf = CONF, /, **annotations: str) -> Asked:
    text = items if isinstance(items, str) else json.dumps(items)
    return asks(pod({**annotations, ATTACHMENTS: text}), conf)


def found(*networks: NetworkConfig) -> list[Found]:
    """As they are looked up."""
    return [Found(network=each, label=each.name) for each in networks]


def names_of(asked: Asked) -> list[str]:
    return [one.name for one in asked.primary + asked.extra]


def ifnames(asked: Asked, ifname: str = "eth0") -> list[str]:
    return list(selection.interface_names(asked, ifname))


def chosen(item: dict[str, Any], net: NetworkConfig = ABLE) -> selection.Choice:
    asked = attachments([{"name": "net-a", **item}])
    return assemble(asked, found(network("calico"), net)).choices[1]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
