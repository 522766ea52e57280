"""Checks: expectations about pods, networks and nodes.

A check is a small frozen model with one method, which looks at the cluster through a `View` (`view.py`) and returns the
difference from the expectation (`base.py`). To add one, write the model in the module that fits, and list it here. Its
docstring's first paragraph, its fields' descriptions and its example are its documentation: `python -m harness checks`
prints them.
"""

from __future__ import annotations

from harness.checks.attached import Addresses, Interfaces, Mtu
from harness.checks.base import Check
from harness.checks.measuring import Throughput
from harness.checks.placing import OtherNode, SameNode
from harness.checks.policy import PolicyTable
from harness.checks.reaching import Bandwidth, HostPort, Isolated, MtuPath, Reach, Service
from harness.checks.routing import DefaultRoute, Routes
from harness.checks.status import Annotations, Events, NetworkStatus, NoWarnings, PodFails, StatusIp
from harness.checks.what_remains import CheckPasses, NothingLeft, StatusPasses

CHECKS: dict[str, type[Check]] = {
    check.key: check
    for check in (
        Interfaces,
        Addresses,
        Mtu,
        DefaultRoute,
        Routes,
        StatusIp,
        Reach,
        Isolated,
        PolicyTable,
        Service,
        HostPort,
        Bandwidth,
        MtuPath,
        Throughput,
        SameNode,
        OtherNode,
        PodFails,
        Annotations,
        NetworkStatus,
        Events,
        NoWarnings,
        CheckPasses,
        StatusPasses,
        NothingLeft,
    )
}
