"""Options of the fault suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--seed", type=int, default=1, help="of all that is random; a report names it")
    group.addoption("--seconds", type=float, default=30, help="of each storm, and a third of it of each kind of crash")
