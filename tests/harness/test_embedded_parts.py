"""The parts of the embedded backend that need no namespaces: what is worked out, worded and parsed."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import catalog, leftovers, libcni, values
from harness.download import NotHad
from harness.embedded import apiserver, archives, binaries, inventory, kubelet, plan, rootfs, runtime, socket_api
from harness.embedded.inventory import Owned
from harness.embedded.rest import Access, Client, Refusal

ONE = catalog.Place(number=1, name="one", address="172.30.0.11")
TWO = catalog.Place(number=2, name="two", address="172.30.0.12")


class TestCatalog:
    def test_every_network_of_the_fixtures_is_valid_on_both_nodes(self) -> None:
        for network in catalog.load().values():
            if network.embedded:
                for here, other in ((ONE, TWO), (TWO, ONE)):
                    assert catalog.conf(network.embedded, here)["name"]
                    catalog.setup(network.embedded, here, [other])

    def test_subnets_of_the_fixtures_do_not_overlap(self) -> None:
        import ipaddress

        subnets = [
            ipaddress.ip_network(subnet)
            for network in catalog.load().values()
            if network.embedded
            for subnet in network.embedded.subnets
        ]
        clashes = [
            (a, b) for n, a in enumerate(subnets) for b in subnets[n + 1 :] if a.version == b.version and a.overlaps(b)
        ]
        assert not clashes

    def test_expressions_are_of_the_node_and_its_peers(self) -> None:
        network = catalog.load()["canal"].embedded
        assert network is not None
        vxlan, route = catalog.setup(network, TWO, [ONE])
        assert vxlan["address"] == "10.56.2.0/32"
        assert vxlan["peers"] == ["172.30.0.11"]
        assert (route["routes"], route["via"], route["over"]) == ("10.56.1.0/24", "10.56.1.0", "canal.1")

    def test_an_unknown_expression_is_an_error_that_names_the_file(self, tmp_path: Path) -> None:
        path = _profile(tmp_path, subnet="{{ node.colour }}")
        with pytest.raises(catalog.ProfileError, match=r"mine\.yaml: embedded: '\{\{ node.colour \}\}': .*colour"):
            catalog.read(path)

    def test_a_mistake_names_file_and_field(self, tmp_path: Path) -> None:
        path = _profile(tmp_path, file="no-suffix")
        with pytest.raises(catalog.ProfileError, match=r"mine\.yaml: embedded\.file"):
            catalog.read(path)

    def test_a_profile_replaces_a_fixture_of_its_name(self, tmp_path: Path) -> None:
        path = _profile(tmp_path, network="weave")
        replaced = catalog.load([path])["weave"].embedded
        assert replaced is not None
        assert replaced.software == "mine"


def _profile(
    tmp_path: Path, *, network: str = "mine", subnet: str = "10.99.0.0/24", file: str = "50-mine.conf"
) -> Path:
    path = tmp_path / "mine.yaml"
    conf = {"name": "mine", "cniVersion": "1.0.0", "type": "bridge", "ipam": {"type": "host-local", "subnet": subnet}}
    section = {"kind": "real", "software": "mine", "plugins": ["bridge"], "subnets": ["10.99.0.0/24"], "file": file}
    path.write_text(json.dumps({"network": network, "embedded": {**section, "conf": conf}}))
    return path


class TestRuntime:
    def test_a_change_is_merged_and_null_takes_away(self) -> None:
        conf = {"name": "g", "policy": {"a": 1, "b": 2}, "default_plugin": "weave"}
        assert values.merged(conf, {"policy": {"a": None}, "default_plugin": None, "serial": True}) == {
            "name": "g",
            "policy": {"b": 2},
            "serial": True,
        }

    def test_changes_are_for_their_namespace(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "00-genie.conf").write_text('{"name": "g", "type": "genie", "cniVersion": "1.0.0"}')
        (tmp_path / "10-other.conf").write_text('{"name": "o", "type": "bridge"}')
        monkeypatch.setattr(runtime, "CONF_DIR", tmp_path)
        engine = runtime.Runtime()
        engine.override("k", "mine", {"default_plugin": "weave"})
        assert engine._network("mine")["plugins"][0]["default_plugin"] == "weave"
        assert "default_plugin" not in engine._network("other")["plugins"][0]
        engine.restore("k")
        assert engine._network("mine") == engine._network("other")

    def test_add_keeps_the_result_for_del(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        said = tmp_path / "said"
        plugin = tmp_path / "genie"
        plugin.write_text(
            f'#!/bin/sh\necho "$CNI_COMMAND $CNI_ARGS $(cat)" >>{said}\n'
            """[ $CNI_COMMAND = ADD ] && echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24"}]}'; true\n"""
        )
        plugin.chmod(0o755)
        (tmp_path / "net.d").mkdir()
        conf = {"name": "g", "type": "genie", "cniVersion": "1.0.0", "capabilities": {"portMappings": True}}
        (tmp_path / "net.d" / "00-genie.conf").write_text(json.dumps(conf))
        monkeypatch.setattr(runtime, "CONF_DIR", tmp_path / "net.d")
        monkeypatch.setattr(runtime, "CACHE", tmp_path / "results")
        monkeypatch.setattr(runtime, "BINARIES", str(tmp_path))
        engine = runtime.Runtime()
        attachment = libcni.Attachment(
            namespace="ns",
            pod="p",
            uid="u",
            sandbox="c" * 64,
            netns="/run/netns/x",
            capabilities={"portMappings": [{"hostPort": 80}], "dns": {}},
        )
        assert engine.add(attachment)["ips"][0]["address"] == "10.1.2.3/24"
        engine.delete(attachment)
        engine.delete(attachment)
        add, first, second = said.read_text().splitlines()
        assert f"IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID={'c' * 64}" in add
        assert '"runtimeConfig": {"portMappings": [{"hostPort": 80}]}' in add
        assert '"prevResult"' in first
        assert '"prevResult"' not in second
        assert [call.env["CNI_COMMAND"] for call in engine.calls_for("ns", "p")] == ["ADD", "DEL", "DEL"]

    def test_an_error_is_worded_as_libcni_words_it(self) -> None:
        error = libcni.failure("genie", "ADD", 1, '{"code": 7, "msg": "no network", "details": "blue"}')
        assert str(error) == 'plugin type="genie" failed (add): no network: blue'
        assert error.code == 7

    def test_a_token_is_not_in_the_record(self) -> None:
        assert "s3cret" not in json.dumps(
            runtime._masked({"policy": {"k8s_auth_token": "s3cret"}, "list": [{"token": "s3cret"}]})
        )


class TestKubelet:
    def test_capabilities_are_what_the_pod_has(self) -> None:
        pod = {
            "metadata": {"annotations": {"kubernetes.io/ingress-bandwidth": "10M"}},
            "spec": {
                "containers": [{"ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}],
                "dnsConfig": {"nameservers": ["10.0.0.1"]},
            },
        }
        offered = kubelet.capabilities(pod)
        assert offered["portMappings"] == [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}]
        assert offered["bandwidth"] == {"ingressRate": 10_000_000, "ingressBurst": 2**31 - 1}
        assert offered["dns"] == {"servers": ["10.0.0.1"], "searches": []}

    @pytest.mark.parametrize(
        ("addresses", "expected"),
        [
            ([], []),
            (["10.0.0.1", "10.0.0.2"], ["10.0.0.1"]),
            (["fd00::1", "10.0.0.2", "fd00::2"], ["fd00::1", "10.0.0.2"]),
        ],
    )
    def test_pod_ips_are_one_a_family(self, addresses: list[str], expected: list[str]) -> None:
        assert kubelet._one_a_family(addresses) == expected


class TestInventory:
    def test_nft_rules_are_told_with_their_chains(self) -> None:
        text = (
            "table inet plugins {\n\tchain c1 {\n\t\tip saddr 10.0.0.1 accept\n\t}\n}\n"
            "# Warning: table ip nat is managed by iptables-nft, do not touch!\n"
            "table ip nat {\n\tchain CNI-x {\n\t\tcounter accept\n\t}\n}\n"
        )
        assert list(leftovers.nft(text, by_iptables=True)) == [
            "nft inet plugins chain c1",
            "nft inet plugins chain c1: ip saddr 10.0.0.1 accept",
        ]

    def test_iptables_rules_leave_out_what_stands_for_all(self) -> None:
        text = (
            "*nat\n:PREROUTING ACCEPT [0:0]\n:CNI-HOSTPORT-DNAT - [0:0]\n:CNI-DN-abc - [0:0]\n"
            "-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT\n[3:4] -A CNI-DN-abc -j DNAT\n"
            '-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "id: \\"c1\\"" -j CNI-DN-abc\nCOMMIT\n'
        )
        assert list(leftovers.iptables("ip", text)) == [
            "ip nat :CNI-DN-abc -",
            'ip nat -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "id: \\"c1\\"" -j CNI-DN-abc',
        ]

    def test_what_a_living_sandbox_has_is_no_leak(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = tmp_path / "weave"
        store.mkdir()
        (store / "10.32.0.2").write_text("alive\r\neth0")
        (store / "10.32.0.3").write_text("dead\r\neth0")
        (store / "10.32.0.4").write_text("derived\r\neth1")  # genie's, of a plugin that knows a container's ID alone
        (store / "last_reserved_ip.0").write_text("10.32.0.3")
        (store / "lock").touch()
        monkeypatch.setattr(inventory, "STORES", tmp_path)
        owned = Owned(words=frozenset({"alive", "10.32.0.2", "10.32.0.4"}))
        assert list(inventory._addresses(owned)) == ["weave 10.32.0.3 dead/eth0"]


class TestPrograms:
    def test_given_directories_come_first_and_all_is_told_when_nothing_has_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _executable(tmp_path / "given" / "bridge")
        _executable(tmp_path / "installed" / "bridge")
        _executable(tmp_path / "installed" / "host-local")
        monkeypatch.setattr(binaries, "INSTALLED", (tmp_path / "installed",))
        found = binaries.plugins([tmp_path / "given"], ["bridge", "host-local"], ["bridge", "host-local"])
        assert found.paths == (str(tmp_path / "given" / "bridge"), str(tmp_path / "installed" / "host-local"))

    def test_one_error_tells_all_that_was_tried(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(binaries, "INSTALLED", (tmp_path / "installed",))
        monkeypatch.setattr(archives, "programs", _raise(NotHad("no network")))
        monkeypatch.setattr(binaries, "_debian", _raise(NotHad("no apt-get here")))
        monkeypatch.setattr(binaries, "_go", _raise(subprocess.CalledProcessError(1, ["go"], stderr="no such module")))
        with pytest.raises(binaries.NotFound) as caught:
            binaries.plugins([tmp_path], ["bridge"], ["bridge"])
        said = str(caught.value)
        for part in (
            f"given: {tmp_path}",
            "installed",
            "no network",
            "no apt-get here",
            "no such module",
            "GENIE_CNI_BIN",
        ):
            assert part in said

    def test_a_vendors_plugin_that_is_nowhere_is_lacking_and_no_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _executable(tmp_path / "bridge")
        monkeypatch.setattr(binaries, "_places", lambda given, tried, missing: iter([(given[0], "given")]))
        found = binaries.plugins([tmp_path], ["bridge", "acme"], ["bridge"])
        assert found.lacking == {"acme"}

    def test_the_mirror_comes_first_and_is_unpacked_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pinned = _pin("0" * 64)
        _archive(tmp_path / "mirror" / "example.com" / "a.tgz")
        monkeypatch.setenv("GENIE_MIRROR", str(tmp_path / "mirror"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        place = archives.programs(pinned)
        assert (place / "bridge").read_text() == "#!"
        assert archives.programs(pinned) == place

    def test_a_cached_archive_needs_no_network(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _archive(tmp_path / "a.tgz")
        digest = hashlib.sha256((tmp_path / "a.tgz").read_bytes()).hexdigest()
        cached = tmp_path / "cache" / "genie" / "sha256" / digest
        cached.parent.mkdir(parents=True)
        (tmp_path / "a.tgz").rename(cached)
        monkeypatch.delenv("GENIE_MIRROR", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        assert (archives.programs(_pin(digest)) / "bridge").exists()

    def test_pins_are_whole(self) -> None:
        for name in ("cni-plugins", "envtest"):
            pinned = archives.pin(name)
            assert pinned.url.startswith("https://")
            assert "{" not in pinned.url


def _executable(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def _raise(error: Exception) -> object:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def _pin(digest: str) -> archives.Pin:
    return archives.Pin(name="a", version="v1", url="https://example.com/a.tgz", checksum=f"sha256:{digest}", more={})


def _archive(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as file:
        for name, mode in (("bin/bridge", 0o755), ("README", 0o644)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = 2, mode
            file.addfile(entry, io.BytesIO(b"#!"))


class TestEmulator:
    def test_lists_and_watches_are_such_that_gos_clients_read_them(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        command = [sys.executable, "-m", "harness.embedded.emulator", str(port)]
        with subprocess.Popen(command, stderr=(tmp_path / "log").open("w")) as server:
            try:
                self._see(port, lambda: server.poll() is None)
            finally:
                server.kill()

    def _see(self, port: int, alive: Callable[[], bool]) -> None:
        client = Client(Access(server=f"http://127.0.0.1:{port}"))
        while True:
            assert alive()
            try:
                client.post("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"}})
                break
            except OSError:
                time.sleep(0.02)
        self._see_definition(client)
        listed = client.get("/api/v1/nodes")
        assert (listed["apiVersion"], listed["kind"]) == ("v1", "NodeList")
        assert int(listed["metadata"]["resourceVersion"]) > 0
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/nodes?watch=true", timeout=10) as watch:
            assert watch.headers["Content-Type"] == "application/json"
            assert json.loads(watch.readline())["object"]["metadata"]["name"] == "one"

    def _see_definition(self, client: Client) -> None:
        """A kind is served as long as its definition is there, and its objects go with it."""
        definitions, served = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "/apis/acme.example/v1/nets"
        spec = {"group": "acme.example", "versions": [{"name": "v1"}], "names": {"plural": "nets", "kind": "Net"}}
        with pytest.raises(Refusal, match="404"):
            client.get(served)
        for _ in range(2):
            client.post(definitions, {"metadata": {"name": "nets.acme.example"}, "spec": spec})
            empty = client.get(served)
            assert (empty["apiVersion"], empty["kind"], empty["items"]) == ("acme.example/v1", "NetList", [])
            client.post("/apis/acme.example/v1/namespaces/a/nets", {"metadata": {"name": "blue"}})
            assert len(client.get(served)["items"]) == 1
            client.delete(f"{definitions}/nets.acme.example")
            with pytest.raises(Refusal, match="404"):
                client.get(served)


class TestSmallThings:
    def test_the_key_is_one_that_openssl_takes(self, tmp_path: Path) -> None:
        key = tmp_path / "key"
        key.write_text(apiserver._ec_key())
        try:
            subprocess.run(["openssl", "ec", "-in", key, "-noout"], check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("no openssl here")

    def test_a_kubeconfig_holds_no_empty_token(self) -> None:
        assert Access(server="http://x").kubeconfig()["users"][0]["user"] == {}

    def test_a_plan_comes_back_from_its_file(self, tmp_path: Path) -> None:
        node = plan.NodePlan(name="n", number=1, address="172.30.0.11", files={"a.conf": {"name": "a"}})
        layout = plan.Plan(
            place="/x", address="a", nowhere="b", emulated=True, nodes=(node,), plugins=("/p",), genie_conf={}
        )
        layout.write(tmp_path / "plan")
        assert plan.Plan.read(tmp_path / "plan") == layout

    def test_links_lead_to_the_hosts_entries(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "link").symlink_to("../etc/file")
        assert rootfs._target(tmp_path / "file") == tmp_path / "file"
        assert rootfs._target(tmp_path / "link") == Path("../etc/file")

    def test_what_is_held_is_let_go_when_the_holder_goes(self, tmp_path: Path) -> None:
        import threading

        held: list[str] = []
        gone = threading.Event()

        def hold(request: dict[str, object]) -> object:
            held.append(str(request["what"]))

            def undo() -> None:
                held.clear()
                gone.set()

            return undo

        path = tmp_path / "s"
        socket_api.serve(path, {"fail": _raise(KeyError("no such pod"))}, {"hold": hold})  # type: ignore[dict-item]
        line = socket_api.Line(path)
        line.ask("hold", what="it")
        assert held == ["it"]
        line.close()
        assert gone.wait(5)
        with pytest.raises(socket_api.Failed, match="no such pod"):
            socket_api.ask(path, "fail")
        with socket_api.hold({"n": path}, "hold", what="again"):
            assert held == ["again"]
        assert not held
