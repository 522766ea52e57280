"""Networks as themselves or by their stand-ins: what decides, what is told, and the daemons that they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from host_snapshot import snapshot_host

from harness import catalog
from harness.backends import embedded, embedded_networks
from harness.backends.embedded_networks import Programs
from harness.embedded import binaries, daemons, isolation, rootfs
from harness.embedded.daemons import Daemons
from harness.embedded.plan import DaemonPlan

SCENARIOS = Path(__file__).parents[2] / "scenarios"
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


class TestChoice:
    def test_a_network_is_itself_where_its_programs_are(self, tmp_path: Path) -> None:
        programs = _programs(tmp_path)
        chosen, notes = embedded_networks.choose({"flannel": _flannel()}, {"flannel"}, programs, ONE)
        offer = embedded_networks.offer("flannel", chosen["flannel"], programs)
        assert (offer.kind, offer.missing) == ("real", "")
        assert offer.software.startswith("flannel v0.28.10 (VXLAN)")
        assert notes == [f"flannel is itself: {offer.software} ({tmp_path / 'flanneld'})"]

    def test_its_nodes_have_the_daemon_and_nothing_of_the_stand_in(self, tmp_path: Path) -> None:
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
    def test_its_stand_in_is_called_one_with_the_reason(
        self, found: dict[str, str], lacking: tuple[str, ...], why: str
    ) -> None:
        programs = Programs(plugins=(), lacking=lacking, daemons=found, source="")
        chosen, [note] = embedded_networks.choose({"flannel": _flannel()}, {"flannel"}, programs, ONE)
        assert note.startswith(f"flannel is a stand-in: {why}")
        network = chosen["flannel"]
        assert network is not None
        assert embedded_networks.offer("flannel", network, programs).kind == "stand-in"
        assert embedded_networks.node(ONE, [ONE, TWO], {"flannel": network}, programs).daemons == []

    @pytest.mark.root
    def test_what_it_needs_is_tried(self, tmp_path: Path) -> None:
        try:
            isolation.probe()
        except isolation.Refused as error:
            pytest.skip(str(error))
        if os.geteuid() != 0:
            pytest.skip("in a cage it is root that tries; here it is not")
        network = _flannel(needs=(("true",), ("sh", "-c", "echo no tables here >&2; exit 3"), ("false",)))
        _, [note] = embedded_networks.choose({"flannel": network}, {"flannel"}, _programs(tmp_path), ONE)
        assert note == "flannel is a stand-in: `sh -c 'echo no tables here >&2; exit 3'`: no tables here"
        network = _flannel(needs=(("no-such-program",),))
        _, [note] = embedded_networks.choose({"flannel": network}, {"flannel"}, _programs(tmp_path), ONE)
        assert note == "flannel is a stand-in: `no-such-program`: No such file or directory"

    def test_what_nobody_wants_is_not_started(self, tmp_path: Path) -> None:
        chosen, notes = embedded_networks.choose({"flannel": _flannel()}, {"weave"}, _programs(tmp_path), ONE)
        assert chosen["flannel"] is not None
        assert chosen["flannel"].kind == "stand-in"
        assert notes == []


class TestPrograms:
    def test_own_software_is_looked_for_and_never_fetched(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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

    @pytest.mark.parametrize(
        ("script", "version"),
        [
            ("echo v0.28.10 >&2", "v0.28.10"),
            ("echo 'thing version 1.2.3-rc.1, commit abc'", "1.2.3-rc.1"),
            ("echo dev\nexit\n\npath\tx\nmod\texample.com/thing\tv0.9.0\th1:abc=\n", "v0.9.0"),
            ("exit 1", "of unknown version"),
        ],
    )
    def test_a_programs_version_is_told_by_it_or_by_go(self, tmp_path: Path, script: str, version: str) -> None:
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        assert binaries.version(program) == version

    def test_a_plugin_is_linked_to_where_the_hosts_is_even_if_a_node_has_that_directory_for_itself(
        self, tmp_path: Path
    ) -> None:
        rootfs.install(str(tmp_path), ["/opt/cni/bin/bridge"])
        assert (tmp_path / "bridge").readlink() == Path("/.host/opt/cni/bin/bridge")


class TestDaemons:
    @pytest.fixture(autouse=True)
    def _logs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(daemons, "LOGS", tmp_path)

    def _daemons(self, tmp_path: Path, script: str, ready: str = "") -> Daemons:
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

    def test_one_is_ready_when_it_has_made_what_it_says(self, tmp_path: Path) -> None:
        one = self._daemons(
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
        with pytest.raises(
            daemons.Died, match="network acme: its daemon acmed on node one has ended with status -9: x=1"
        ):
            one.check()

    def test_one_that_dies_first_is_told_with_the_end_of_its_log(self, tmp_path: Path) -> None:
        one = self._daemons(tmp_path, "echo no such thing; exit 4", "never")
        one.start()
        with pytest.raises(daemons.Died, match="acmed on node one has ended with status 4: no such thing"):
            one.await_ready(10)

    def test_one_that_does_not_its_part_is_told_with_what_lacks(self, tmp_path: Path) -> None:
        one = self._daemons(tmp_path, "exec sleep 60", "never")
        one.start()
        with pytest.raises(daemons.Died, match=f"has not made {tmp_path}/never in 0 s: it logged nothing"):
            one.await_ready(0.1)
        one._running[0][1].kill()
        one._running[0][1].wait()


def test_a_profile_that_is_not_one_ends_the_run_with_one_error(tmp_path: Path) -> None:
    profile = tmp_path / "acme.yaml"
    profile.write_text("network: acme\nembedded: {kind: reel}\n")
    command = [sys.executable, "-m", "pytest", str(SCENARIOS / "flannel.yaml"), "--backend", "embedded"]
    done = subprocess.run(
        [*command, "--profile", str(profile)], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: {profile}: embedded.kind: Input should be 'real' or 'stand-in'" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.root
class TestRuns:
    """Whole runs of one scenario."""

    @pytest.fixture(autouse=True)
    def _possible(self) -> None:
        try:
            isolation.probe()
            binaries.plugins(binaries.given(), (), embedded.CORE)
        except (isolation.Refused, binaries.NotFound) as error:
            pytest.skip(str(error))

    def _run(self, tmp_path: Path, scenario: Path, *more: str, api: str = "kmock", **env: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "pytest", str(scenario), "--backend", "embedded", "--report", str(tmp_path)]
        done = subprocess.run(
            [*command, "-p", "no:cacheprovider", *more], capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "GENIE_API": api, **env}, cwd=SCENARIOS.parent,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    @pytest.mark.parametrize("api", ["kmock", ""], ids=["kmock", "kube-apiserver"])
    def test_flannel_is_itself_where_it_is_found(self, api: str, tmp_path: Path) -> None:
        found = embedded_networks.find([catalog.load()["flannel"]], binaries.given(), ())
        if found.lacking or not found.daemons:
            pytest.skip("no flanneld here, or no plugin of it")
        if not api and not binaries.api_server("")[0].real:
            pytest.skip("no kube-apiserver here")
        before = snapshot_host()
        status, said = self._run(tmp_path, SCENARIOS / "flannel-across-nodes.yaml", api=api)
        assert status == 0, said
        report = json.loads((tmp_path / "report.json").read_text())
        assert report["networks"]["flannel"]["kind"] == "real"
        assert report["networks"]["flannel"]["software"].startswith("flannel v0.")
        assert any(note.startswith("flannel is itself: flannel v0.") for note in report["cluster"]["notes"])
        assert snapshot_host() == before

    def test_without_its_daemon_it_is_a_stand_in_and_called_one(self, tmp_path: Path) -> None:
        path = os.pathsep.join(part for part in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"))
        if binaries.look(["flanneld"], [*binaries.given(), *map(Path, path.split(":")), *binaries.PLACES]):
            pytest.skip("flanneld is where it cannot be hidden")
        status, said = self._run(tmp_path, SCENARIOS / "flannel.yaml", PATH=path)
        assert status == 0, said
        assert "flannel is a stand-in: no flanneld" in said
        assert "a stand-in: bridge + host-local" in said

    def test_a_daemon_that_dies_before_pods_come_ends_the_run_with_one_error(self, tmp_path: Path) -> None:
        scenario, more, env = self._acme(tmp_path, "echo no licence; exit 4")
        status, said = self._run(tmp_path, scenario, *more, **env)
        assert status != 0
        [line] = [line for line in said.splitlines() if "no licence" in line]
        assert "the embedded cluster did not start: network acme: its daemon acmed on node worker-" in line
        assert "has ended with status 4: no licence" in line
        assert "Traceback" not in said

    def test_a_daemon_that_dies_later_is_what_its_scenarios_say(self, tmp_path: Path) -> None:
        dies = "touch /run/acme; until [ -e /var/lib/cni/networks/acme ]; do sleep 0.02; done; echo gone >&2; exit 4"
        scenario, more, env = self._acme(tmp_path, dies)
        status, said = self._run(tmp_path, scenario, *more, **env)
        assert status == 1
        assert "network acme: its daemon acmed on node worker-1 has ended with status 4: gone" in said
        assert "gone\n" in [path.read_text() for path in tmp_path.rglob("*acmed.log")]  # as evidence

    def _acme(self, tmp_path: Path, script: str) -> tuple[Path, list[str], dict[str, str]]:
        """A network with a daemon, a scenario on it, and how to run that."""
        daemon = tmp_path / "bin" / "acmed"
        daemon.parent.mkdir()
        daemon.write_text(f"#!/bin/sh\n{script}\n")
        daemon.chmod(0o755)
        conf = {"name": "acme", "cniVersion": "1.0.0", "type": "bridge", "bridge": "acme"}
        conf["ipam"] = {"type": "host-local", "subnet": "10.99.0.0/24"}
        part = {"software": "acme {{ version }}", "plugins": ["bridge", "host-local"], "conf": conf}
        real = {**part, "daemon": ["acmed"], "ready": {"files": ["/run/acme"]}}
        section = {**part, "kind": "stand-in", "subnets": ["10.99.0.0/24"], "file": "acme.conf", "real": real}
        profile = tmp_path / "acme.yaml"
        profile.write_text(json.dumps({"network": "acme", "embedded": section}))
        scenario = tmp_path / "scenarios" / "acme.yaml"
        scenario.parent.mkdir()
        pods = {"one": {"annotations": {"cni": "acme"}, "node": "first"}}
        expect = [{"interfaces": {"pod": "one", "eth0": "acme"}}]
        scenario.write_text(json.dumps({"scenario": "x", "networks": ["acme"], "pods": pods, "expect": expect}))
        given = os.pathsep.join([str(daemon.parent), os.environ.get("GENIE_CNI_BIN", "")])
        return scenario, ["--profile", str(profile)], {"GENIE_CNI_BIN": given}
