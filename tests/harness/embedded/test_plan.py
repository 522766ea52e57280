"""The plan of a cluster, from one process to the next."""

from __future__ import annotations

from pathlib import Path

from harness.embedded import plan


def test_a_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    node = plan.NodePlan(name="n", number=1, address="172.30.0.11", files={"a.conf": {"name": "a"}})
    layout = plan.Plan(
        place="/x", address="a", nowhere="b", emulated=True, nodes=(node,), plugins=("/p",), genie_conf={}
    )
    layout.write(tmp_path / "plan")
    assert plan.Plan.read(tmp_path / "plan") == layout
