"""Networks as real software or stand-ins: the decision and the report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import catalog
from harness.backends import embedded_networks
from harness.backends.embedded_networks import Programs
from harness.embedded import binaries, rootfs

ROOT = Path(__file__).parents[3]
ONE = catalog.Place(number=1, name="one", address="172.30.0.11")
TWO = catalog.Place(number=2, name="two", address="172.30.0.12", vxlan=False)


def _flannel(**changes: Any) -> catalog.Embedded:
    network = catalog.load()["flannel"].embedded
    assert network is not None
    assert network.real is not None
    return network.model_copy(update={"real": network.real.model_copy(update={"needs": (), **changes})})


def _programs(tmp_path: Path, *, lacking: tuple[str, ...] = ()) -> Programs:
    flanneld = tmp_path / "flanneld"
    flanneld.write_text("#!/bin/sh\necho v0.28.10 >&2\n")
    flanneld.chmod(0o755)
    return Programs(plugins=(), lacking=lacking, daemons={"flanneld": str(flanneld)}, source="")


def test_a_network_is_itself_where_its_programs_are(tmp_path: Path) -> None:
    programs = _programs(tmp_path)
    chosen, notes = embedded_networks.choose({"flannel": _flannel()}, {"flannel"}, programs, ONE)
    offer = embedded_networks.offer("flannel", chosen["flannel"], programs)
    assert (offer.kind, offer.missing) == ("real", "")
    assert offer.software.startswith("flannel v0.28.10 (VXLAN)")
    assert notes == [f"flannel is itself: {offer.software} ({tmp_path / 'flanneld'})"]


def test_its_nodes_have_the_daemon_and_nothing_of_the_stand_in(tmp_path: Path) -> None:
    programs = _programs(tmp_path)
    chosen, _ = embedded_networks.choose({"flannel": _flannel()}, {"flannel"}, programs, ONE)
    network = chosen["flannel"]
    assert network is not None
    node = embedded_networks.node(TWO, [ONE, TWO], {"flannel": network}, programs)
    assert node.setup == []
    assert node.pod_subnets == ["10.244.2.0/24"]
    assert node.files["10-flannel.conflist"]["plugins"][0]["type"] == "flannel"
    [daemon] = node.daemons
    assert daemon.command[0] == f"{rootfs.HOST}{tmp_path / 'flanneld'}"
    assert f"--kubeconfig-file={node.kubeconfig}" in daemon.command
    assert daemon.environment == {"NODE_NAME": "two"}
    assert '"host-gw"' in daemon.files["/etc/kube-flannel/net-conf.json"]
    assert daemon.ready_routes == ["10.244.1.0/24"]


@pytest.mark.parametrize(
    ("found", "lacking", "why"),
    [
        ({}, (), "no flanneld in $GENIE_CNI_BIN, on PATH or in /opt/bin"),
        ({"flanneld": "/x"}, ("flannel",), "no plugin flannel in"),
    ],
)
def test_its_stand_in_is_called_one_with_the_reason(found: dict[str, str], lacking: tuple[str, ...], why: str) -> None:
    programs = Programs(plugins=(), lacking=lacking, daemons=found, source="")
    chosen, [note] = embedded_networks.choose({"flannel": _flannel()}, {"flannel"}, programs, ONE)
    assert note.startswith(f"flannel is a stand-in: {why}")
    network = chosen["flannel"]
    assert network is not None
    assert embedded_networks.offer("flannel", network, programs).kind == "stand-in"
    assert embedded_networks.node(ONE, [ONE, TWO], {"flannel": network}, programs).daemons == []


@pytest.mark.root
@pytest.mark.usefixtures("isolated")
def test_what_it_needs_is_tried(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("in isolation it is root that tries; here it is not")
    network = _flannel(needs=(("true",), ("sh", "-c", "echo no tables here >&2; exit 3"), ("false",)))
    _, [note] = embedded_networks.choose({"flannel": network}, {"flannel"}, _programs(tmp_path), ONE)
    assert note == "flannel is a stand-in: `sh -c 'echo no tables here >&2; exit 3'`: no tables here"
    network = _flannel(needs=(("no-such-program",),))
    _, [note] = embedded_networks.choose({"flannel": network}, {"flannel"}, _programs(tmp_path), ONE)
    assert note == "flannel is a stand-in: `no-such-program`: No such file or directory"


def test_what_nobody_wants_is_not_started(tmp_path: Path) -> None:
    chosen, notes = embedded_networks.choose({"flannel": _flannel()}, {"weave"}, _programs(tmp_path), ONE)
    assert chosen["flannel"] is not None
    assert chosen["flannel"].kind == "stand-in"
    assert notes == []


def test_own_software_is_looked_for_and_never_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[str] = set()

    def plugins(given: object, wanted: set[str], needed: object) -> binaries.Plugins:
        asked.update(wanted)
        return binaries.Plugins(paths=("/x/bridge", "/x/host-local", "/x/portmap"), source="x")

    monkeypatch.setattr(binaries, "plugins", plugins)
    monkeypatch.setattr(binaries, "PLACES", (tmp_path / "opt",))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    for path in (tmp_path / "path" / "flanneld", tmp_path / "opt" / "flannel"):
        path.parent.mkdir()
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    found = embedded_networks.find([catalog.load()["flannel"]], [], ["bridge"])
    assert "flannel" not in asked
    assert found.daemons == {"flanneld": str(tmp_path / "path" / "flanneld")}
    assert found.plugins[-1] == str(tmp_path / "opt" / "flannel")
    assert found.lacking == ()


def test_plugins_beside_a_profile_come_first_and_nothing_else_there(tmp_path: Path) -> None:
    known = catalog.load()["bridge"]
    given, beside = tmp_path / "given", tmp_path / "beside"
    for path in (given / "bridge", given / "host-local", given / "portmap", beside / "bridge", beside / "configure"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    found = embedded_networks.find([known], [given], ["host-local"], [beside])
    assert str(beside / "bridge") in found.plugins
    assert {Path(path).name for path in found.plugins} >= {"bridge", "host-local"}
    assert not {str(given / "bridge"), str(beside / "configure")} & set(found.plugins)
    assert "bridge" not in found.lacking


def test_a_profile_that_is_not_one_ends_the_run_with_one_error(tmp_path: Path) -> None:
    profile = tmp_path / "acme.yaml"
    profile.write_text("network: acme\nembedded: {kind: reel}\n")
    command = [sys.executable, "-m", "pytest", str(ROOT / "scenarios/flannel.yaml"), "--backend", "embedded"]
    done = subprocess.run(
        [*command, "--profile", str(profile)], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"{profile}:2:18: embedded.kind: expected 'real' or 'stand-in', got 'reel'" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_profile_names_the_plugins_that_go_by_the_container_s_id_alone(tmp_path: Path) -> None:
    """genie's default list stays; without a request, genie.conf has no list."""
    from harness.backends.embedded import _genie_conf

    network = _flannel()
    named = network.model_copy(update={"container_id_per_interface": ("mynet",)})
    assert _genie_conf([named])["container_id_per_interface"] == ["weave-net", "flannel", "mynet"]
    assert "container_id_per_interface" not in _genie_conf([network])
