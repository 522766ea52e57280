"""The daemons of networks: start, readiness, and the message about one that is not ready."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.embedded import daemons
from harness.embedded.daemons import Daemons
from harness.embedded.plan import DaemonPlan
from harness.waiting import until_nothing


@pytest.fixture(autouse=True)
def _logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemons, "LOGS", tmp_path)


def _daemons(tmp_path: Path, script: str, ready: str = "") -> Daemons:
    program = tmp_path / "acmed"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    plan = DaemonPlan(
        network="acme",
        command=[str(program), "now"],
        environment={"NODE_NAME": "one"},
        files={str(tmp_path / "etc" / "acme"): "x=1"},
        ready_files=[str(tmp_path / ready)] if ready else [],
        ready_routes=[],
    )
    return Daemons("one", [plan])


def test_one_is_ready_when_it_has_made_what_it_says(tmp_path: Path) -> None:
    one = _daemons(
        tmp_path,
        f"cd {tmp_path}; cat etc/acme; echo $NODE_NAME $1 >new; mv new made; exec sleep 60",
        "made",
    )
    one.start()
    one.await_ready(10)
    one.check()
    assert (tmp_path / "made").read_text() == "one now\n"
    assert one.logs() == {"acmed.log": "x=1"}
    one._running[0][1].kill()
    one._running[0][1].wait()
    with pytest.raises(daemons.Died, match="network acme: its daemon acmed on node one has ended with status -9: x=1"):
        one.check()


def test_a_restarted_one_is_another_process_with_the_same_plan(tmp_path: Path) -> None:
    one = _daemons(tmp_path, f"echo $$ >>{tmp_path}/made; exec sleep 60", "made")
    one.start()
    one.await_ready(10)
    one.restart("other")
    assert len((tmp_path / "made").read_text().split()) == 1
    first = one._running[0][1]
    one.restart("acme")
    assert first.returncode == -15
    assert not until_nothing(lambda: len((tmp_path / "made").read_text().split()) != 2, 10)
    one.check()
    one._running[0][1].kill()
    one._running[0][1].wait()


def test_one_that_dies_first_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    one = _daemons(tmp_path, "echo no such thing; exit 4", "never")
    one.start()
    with pytest.raises(daemons.Died, match="acmed on node one has ended with status 4: no such thing"):
        one.await_ready(10)


def test_one_that_does_not_its_part_is_told_with_what_lacks(tmp_path: Path) -> None:
    one = _daemons(tmp_path, "exec sleep 60", "never")
    one.start()
    with pytest.raises(daemons.Died, match=f"has not made {tmp_path}/never in \\d+ s: it logged nothing"):
        one.await_ready(0.1)
    one._running[0][1].kill()
    one._running[0][1].wait()
