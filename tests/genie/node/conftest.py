"""A node to install genie on."""

from __future__ import annotations

from pathlib import Path

import pytest

from genie.node.files import Node


@pytest.fixture
def machine(tmp_path: Path) -> Node:
    for name in ("bin", "net.d", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "net.d" / "10-flannel.conflist").write_text("{}")
    return Node(bin_dir=str(tmp_path / "bin"), conf_dir=str(tmp_path / "net.d"), state_dir=str(tmp_path / "state"))
