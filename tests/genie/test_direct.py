"""Direct mode end to end: genie as the runtime starts it, a process that asks an API server and runs plugins.

With plugins of one shell line, to measure the start and its imports; and with the reference plugins in temporary
network namespaces: one acts as the node, another as the pod.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import genie
from harness.waiting import until_nothing
from tests.rigs.api import POD, Api, kubeconfig, serve

ROOT = str(Path(genie.__file__).parents[1])
START = f"import sys; sys.path.insert(0, {ROOT!r}); from genie.__main__ import main; sys.exit(main())"


@dataclass
class Direct:
    """A node where genie is a plain Python executable. `within`: runs a function in the node's network namespace."""

    root: Path
    api: Api
    bin: str
    netns: str = "/var/run/netns/web"
    within: Callable[[Callable[[], Any]], Any] = lambda work: work()
    conf: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ("-IS",)
    kept: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.root / "net.d").mkdir()
        (self.root / "kubeconfig").write_text(json.dumps(kubeconfig(self.api.url, {"token": "t"})))

    def write(self, name: str, *plugins: Mapping[str, Any], **more: Any) -> None:
        config = {"cniVersion": "1.0.0", "name": name, "plugins": plugins, **more}
        (self.root / "net.d" / f"10-{name}.conflist").write_text(json.dumps(config))

    def ask(self, **annotations: str) -> None:
        meta = {"namespace": "blue", "name": "web", "uid": "u-1", "annotations": annotations}
        self.api.answers[POD] = (200, {"metadata": meta})

    def request(self, verb: str, env: Mapping[str, str]) -> tuple[list[str], bytes, dict[str, str]]:
        """A call's command, standard input and environment."""
        conf = {
            "cniVersion": "1.0.0",
            "name": "k8s",
            "type": "genie",
            "conf_dir": str(self.root / "net.d"),
            "state_dir": str(self.root / "state"),
            "kubernetes": {"kubeconfig": str(self.root / "kubeconfig")},
            **({"prevResult": self.kept} if verb in ("CHECK", "DEL") and self.kept else {}),
            **self.conf,
        }
        given = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": "c0ffee012345",
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=blue;K8S_POD_NAME=web;K8S_POD_UID=u-1",
            "CNI_PATH": self.bin,
            **env,
        }
        return [sys.executable, *self.flags, "-c", START], json.dumps(conf).encode(), given

    def start(self, verb: str, **env: str) -> subprocess.CompletedProcess[bytes]:
        command, stdin, given = self.request(verb, env)

        def run() -> subprocess.CompletedProcess[bytes]:
            return subprocess.run(command, input=stdin, env=given, capture_output=True, check=False)

        done: subprocess.CompletedProcess[bytes] = self.within(run)
        return done

    def call(self, verb: str, **env: str) -> dict[str, Any]:
        done = self.start(verb, **env)
        assert done.returncode == 0, (done.stdout, done.stderr)
        answer = json.loads(done.stdout) if done.stdout else {}
        assert isinstance(answer, dict)
        self.kept = answer if verb == "ADD" else self.kept
        return answer


SCRIPT = """#!/bin/sh
cat >/dev/null
[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/24"}]}'
exit 0
"""


@pytest.fixture
def shell(tmp_path: Path, api: Api) -> Direct:
    """Calico as a line of shell."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "calico").write_text(SCRIPT)
    (tmp_path / "bin" / "calico").chmod(0o755)
    node = Direct(tmp_path, api, str(tmp_path / "bin"))
    node.write("calico", {"type": "calico"})
    return node


def test_an_add_and_a_del(shell: Direct) -> None:
    shell.ask(cni="calico")
    result = shell.call("ADD")
    assert result["ips"] == [{"address": "10.1.0.2/24", "interface": 0}]
    assert result["interfaces"] == [{"name": "eth0", "sandbox": "/var/run/netns/web"}]
    ((_, _, headers, body),) = [request for request in shell.api.requests if request[0] == "PATCH"]
    assert headers["Authorization"] == "Bearer t"
    assert set(body["metadata"]["annotations"]) == {"k8s.v1.cni.cncf.io/network-status", "multi-ip-preferences"}
    assert shell.start("DEL").stdout == b""
    assert list((shell.root / "state").iterdir()) == []


def test_genie_as_its_own_delegate_is_refused(shell: Direct) -> None:
    (shell.root / "bin" / "calico").write_text(f"#!/bin/sh\nexec {sys.executable} -IS -c {shlex.quote(START)}\n")
    shell.ask(cni="calico")
    error = json.loads(shell.start("ADD").stdout)
    assert "genie is called by a plugin that it called itself" in error["msg"] and error["code"] == 7
    assert shell.call("DEL") == {} and list((shell.root / "state").iterdir()) == []


def test_an_error_is_one_object_on_standard_output(shell: Direct) -> None:
    shell.ask(cni="calico,nowhere")
    done = shell.start("ADD")
    assert done.returncode == 1
    assert json.loads(done.stdout)["msg"].startswith('annotation cni, item 2 ("nowhere"): no network')
    assert json.loads(done.stderr)["error"].startswith("annotation cni"), "and a line for the runtime's log"


def test_network_policies_need_the_agent(shell: Direct) -> None:
    shell.ask(cni="calico")
    shell.conf = {"agent": {"policy": True}}
    done = shell.start("ADD")
    assert done.returncode == 1
    assert "direct mode enforces no network policies; run the agent" in json.loads(done.stdout)["msg"]
    assert shell.start("DEL").returncode == 0 and list((shell.root / "state").iterdir()) == []


def test_a_pod_that_is_gone_and_an_api_server_that_is_away(shell: Direct) -> None:
    del shell.api.answers[POD]
    assert json.loads(shell.start("ADD").stdout)["code"] == 3
    (shell.root / "kubeconfig").write_text(json.dumps(kubeconfig("http://127.0.0.1:1")))
    assert json.loads(shell.start("ADD").stdout)["code"] == 11
    shell.ask(cni="calico")
    (shell.root / "kubeconfig").unlink()
    assert json.loads(shell.start("ADD").stdout)["code"] == 7
    assert shell.call("DEL") == {}


@pytest.mark.parametrize("verb", ["DEL", "ADD"])
def test_nothing_is_attached_after_the_call_that_follows_a_killed_one(shell: Direct, verb: str) -> None:
    """The runtime kills genie, but not the plugin, which runs another one, as plugins do with their ipam."""
    work = f"touch {shell.root}/begun; until [ -e {shell.root}/go ]; do sleep 0.02; done; touch {shell.root}/attached"
    (shell.root / "bin" / "calico").write_text(
        f"#!/bin/sh\n[ -e {shell.root}/begun ] || (setsid sh -c '{work}')\n{SCRIPT}"
    )
    shell.ask(cni="calico")
    command, stdin, env = shell.request("ADD", {})
    call = subprocess.Popen(command, stdin=subprocess.PIPE, env=env)
    assert call.stdin
    call.stdin.write(stdin)
    call.stdin.close()
    assert not until_nothing(lambda: not (shell.root / "begun").exists(), 20)
    call.kill()
    call.wait()
    shell.call(verb)
    (shell.root / "go").touch()
    time.sleep(0.2)  # remaining processes would use it
    assert not (shell.root / "attached").exists()
    assert [path.suffix for path in (shell.root / "state").iterdir()] == ([".json"] if verb == "ADD" else [])


def test_the_log_goes_to_its_file(shell: Direct) -> None:
    shell.ask(cni="calico")
    shell.conf["log_file"] = str(shell.root / "genie.log")
    assert shell.start("ADD").stderr == b""
    (line,) = (shell.root / "genie.log").read_text().splitlines()
    assert json.loads(line)["selection"] == [["calico", "eth0"]]


def test_the_log_level(shell: Direct) -> None:
    shell.conf.update(log_level="error", cniVersion="1.1.0")
    assert shell.start("STATUS").stderr == b""


def test_refused_annotations_are_logged_whatever_the_level(shell: Direct) -> None:
    shell.conf["log_level"] = "error"
    answer = shell.api.answers[POD]
    shell.api.answers[POD] = lambda: (
        (422, {"message": "annotations: Too long"}) if shell.api.requests[-1][0] == "PATCH" else answer
    )
    done = shell.start("ADD")
    assert done.returncode == 0, done.stdout
    assert "422 annotations: Too long" in json.loads(done.stderr)["annotate"]
    assert shell.api.requests[-1][3]["reason"] == "NetworkStatusRefused"


def test_version_and_garbage(shell: Direct) -> None:
    assert shell.call("VERSION", CNI_PATH="")["supportedVersions"][-1] == "1.1.0"
    assert json.loads(shell.start("PLAY").stdout)["code"] == 4
    shell.conf["name"] = 5
    assert json.loads(shell.start("ADD").stdout)["code"] == 7


# --- the cost of a start ---------------------------------------------------------------------------------------------

#: Modules that an ADD must not import: each costs more than all of genie.
FORBIDDEN = {"asyncio", "subprocess", "logging", "argparse", "yaml", "pydantic", "kubernetes", "pyroute2", "unittest"}
FORBIDDEN |= {"concurrent", "multiprocessing", "tempfile", "shutil", "socketserver", "xml", "importlib.metadata"}
#: What an ADD of one network may import besides genie, by first name; the standard library's own needs are in here.
ALLOWED = """
    __future__ __main__ _abc _ast _bisect _blake2 _codecs _collections _collections_abc _contextvars _datetime
    _frozen_importlib _frozen_importlib_external _functools _hashlib _heapq _imp _io _json _locale _opcode _operator
    _random _sha2 _sha512 _signal _socket _sre _ssl _stat _string _struct _thread _typing _uuid _warnings _weakref
    _weakrefset _winapi abc array ast base64 binascii bisect builtins calendar codecs collections contextlib copy
    copyreg dataclasses datetime dis email encodings enum errno fcntl fnmatch functools genericpath genie hashlib
    heapq hmac http importlib inspect io ipaddress itertools json keyword linecache locale marshal math nt ntpath
    opcode operator org os pathlib posix posixpath quopri random re reprlib select selectors signal socket ssl stat
    string stringprep struct sys textwrap threading time token tokenize types typing unicodedata urllib uu warnings
    weakref winreg zipimport zlib
"""


def imported(stderr: bytes) -> dict[str, int]:
    """The report of `-X importtime`: microseconds by module, without its imports."""
    lines = [line[12:].split("|") for line in stderr.decode().splitlines() if line.startswith("import time:")]
    return {name.strip(): int(own) for own, _, name in lines if own.strip().isdigit()}


def test_what_an_add_imports(shell: Direct) -> None:
    shell.ask(cni="calico")
    shell.flags = ("-IS", "-X", "importtime")
    modules = imported(shell.start("ADD").stderr)
    assert "genie.verbs.add" in modules
    heavy = {name for name in modules if name in FORBIDDEN or name.partition(".")[0] in FORBIDDEN}
    assert not heavy
    assert {name.partition(".")[0] for name in modules} <= set(ALLOWED.split())
    rooms = {name.removeprefix("genie.") for name in modules if name.startswith("genie.")}
    dear = {"cli", "inspect", "agent", "load", "verbs.gc", "footprint", "routes", "netlink", "devices"}
    assert not rooms & dear, "a pod of one network does not pay for these"


# --- with the reference plugins -------------------------------------------------------------------------------------


@pytest.fixture
def real(tmp_path: Path, namespace: Callable[[], Any], cni_bin: str) -> Any:
    """A node with a calico that is ptp and a weave that is bridge, and a pod on both: (the node, its host, the pod)."""
    if not os.access(f"{cni_bin}/ptp", os.X_OK):
        pytest.skip(f"no ptp plugin in {cni_bin}")
    host, pod = namespace(), namespace()
    (tmp_path / "bin").mkdir()
    for name, plugin in (("calico", "ptp"), ("weave-net", "bridge"), ("host-local", "host-local")):
        (tmp_path / "bin" / name).symlink_to(f"{cni_bin}/{plugin}")
    api = Api("")
    server = host.run(lambda: serve(api))
    node = Direct(tmp_path, api, str(tmp_path / "bin"), netns=pod.path, within=host.run)

    def ipam(subnet: str) -> dict[str, Any]:
        data = str(tmp_path / "leases")
        return {"type": "host-local", "subnet": subnet, "dataDir": data, "routes": [{"dst": "0.0.0.0/0"}]}

    node.write("calico", {"type": "calico", "ipam": ipam("10.1.0.0/24")})
    node.write("weave", {"type": "weave-net", "bridge": "weave", "isGateway": True, "ipam": ipam("10.2.0.0/24")})
    yield node, host, pod
    server.shutdown()
    server.server_close()


def answers(address: str) -> bool:
    """Whether an address exists: its owner refuses a connection to a closed port."""
    try:
        socket.create_connection((address, 9), timeout=3).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


def leases(node: Direct) -> list[str]:
    return sorted(path.name for path in (node.root / "leases").rglob("10.*"))


def links(namespace: Any) -> list[str]:
    return sorted(link["ifname"] for link in json.loads(namespace.ip("-j link")))


@pytest.mark.root
@pytest.mark.parametrize("device", ["nowhere", "up0"])
def test_a_plugin_that_needs_its_interface_for_a_del_keeps_no_pod(real: Any, cni_bin: str, device: str) -> None:
    node, host, pod = real
    (node.root / "bin" / "host-device").symlink_to(f"{cni_bin}/host-device")
    host.ip("link add up0 type veth peer name up1")
    node.write("side", {"type": "host-device", "device": device})
    node.ask(cni="calico,side")
    added = node.start("ADD")
    assert added.returncode == (device == "nowhere"), added.stdout
    if device == "up0":
        pod.ip("link set eth1 down")
        pod.ip("link set eth1 name renamed")
    assert node.call("DEL") == {} and not leases(node)
    assert list((node.root / "state").iterdir()) == []


@pytest.mark.root
@pytest.mark.parametrize("place", ["file", "folder"])
@pytest.mark.parametrize("attached", [True, False])
def test_what_is_no_namespace_any_more_keeps_no_address(real: Any, place: str, attached: bool) -> None:
    """As after an umount: the reference plugins refuse any CNI_NETNS that is there and is no namespace."""
    node, _, _ = real
    other = node.root / "other"
    other.touch() if place == "file" else other.mkdir()
    node.ask(cni="calico,weave")
    if attached:
        node.call("ADD")
        assert len(leases(node)) == 2
    else:
        assert json.loads(node.start("ADD", CNI_NETNS=str(other)).stdout)["code"] == 999
    assert node.call("DEL", CNI_NETNS=str(other)) == {} and not leases(node)
    assert list((node.root / "state").iterdir()) == []


@pytest.mark.root
def test_calico_and_weave_twice_with_the_reference_plugins(real: Any) -> None:
    node, host, pod = real
    before = links(host)
    node.ask(cni="calico,weave,weave@data0")
    result = node.call("ADD")
    assert [ip["address"] for ip in result["ips"]] == ["10.1.0.2/24", "10.2.0.2/24", "10.2.0.3/24"]
    assert [result["interfaces"][ip["interface"]]["name"] for ip in result["ips"]] == ["eth0", "eth1", "data0"]
    assert links(pod) == ["data0", "eth0", "eth1", "lo"]
    (default,) = [route for route in json.loads(pod.ip("-j route")) if route["dst"] == "default"]
    assert (default["gateway"], default["dev"]) == ("10.1.0.1", "eth0")
    for address in ("10.1.0.2", "10.2.0.2", "10.2.0.3"):
        assert address in json.dumps(json.loads(pod.ip("-j addr")))
        assert host.run(lambda at=address: answers(at)), f"{address} cannot be reached from the node"
    assert leases(node) == ["10.1.0.2", "10.2.0.2", "10.2.0.3"]

    assert node.call("CHECK") == {}
    pod.ip("route del default")
    assert node.start("CHECK").returncode == 1
    pod.ip("route add default via 10.1.0.1 dev eth0")
    pod.ip("addr del 10.2.0.3/24 dev data0")
    assert "plugin 'weave-net': CHECK" in json.loads(node.start("CHECK").stdout)["msg"]

    del node.api.answers[POD]
    node.call("DEL")
    node.call("DEL")
    assert links(pod) == ["lo"] and leases(node) == []
    assert set(links(host)) - set(before) == {"weave"}, "a bridge stays with its network"
    assert list((node.root / "state").iterdir()) == []
    assert "proto 71" not in pod.ip("rule")


@dataclass(frozen=True, kw_only=True)
class BySbr:
    """A network with sbr after it. addresses: each with its gateway. by: the expected gateway of each address."""

    addresses: Mapping[str, str]
    routes: tuple[Mapping[str, Any], ...] = ()
    sbr: Mapping[str, Any] = field(default_factory=dict)
    asked: str = "calico,side"
    by: Mapping[str, str]


TWO = {"10.21.0.5/24": "10.21.0.1", "10.22.0.5/24": "10.22.0.1"}
BY_SBR = {
    "a gateway for each address": BySbr(addresses=TWO, by={"10.21.0.5": "10.21.0.1", "10.22.0.5": "10.22.0.1"}),
    "both families": BySbr(
        addresses={"10.21.0.5/24": "10.21.0.1", "fd21::5/64": "fd21::1"},
        asked="side,calico",
        by={"10.21.0.5": "10.21.0.1", "fd21::5": "fd21::1"},
    ),
    "a default route of its own": BySbr(
        addresses={"10.21.0.5/24": "10.21.0.1"},
        routes=({"dst": "0.0.0.0/0", "gw": "10.21.0.9"},),
        asked="calico,side,weave",
        by={"10.21.0.5": "10.21.0.9"},
    ),
    "a table of its own": BySbr(
        addresses={"10.21.0.5/24": "10.21.0.1"},
        routes=({"dst": "0.0.0.0/0", "gw": "10.21.0.7", "table": 300},),
        sbr={"table": 300},
        by={"10.21.0.5": "10.21.0.7"},
    ),
}


@pytest.mark.root
@pytest.mark.parametrize("network", BY_SBR.values(), ids=BY_SBR)
def test_the_reference_plugin_sbr_keeps_its_gateways(real: Any, cni_bin: str, network: BySbr) -> None:
    node, _, pod = real
    for name in ("bridge", "sbr", "static"):
        (node.root / "bin" / name).symlink_to(f"{cni_bin}/{name}")
    given = [{"address": address, "gateway": gateway} for address, gateway in network.addresses.items()]
    ipam = {"type": "static", "addresses": given, "routes": network.routes}
    # bridge's CHECK fails with sbr, which moves the routes that bridge expects
    node.write(
        "side", {"type": "bridge", "bridge": "side", "ipam": ipam}, {"type": "sbr", **network.sbr}, disableCheck=True
    )
    node.ask(cni=network.asked)
    node.call("ADD")
    for source, gateway in network.by.items():
        far = "2001:db8::1" if ":" in source else "198.51.100.1"
        assert f"via {gateway} " in pod.ip(f"route get {far} from {source}")
    assert "via 10.1.0.1 dev" in pod.ip("route get 198.51.100.1 from 10.1.0.2")
    assert node.call("CHECK") == {}
    node.call("DEL")
    assert len(json.loads(pod.ip("-j rule"))) == 3


@pytest.mark.root
def test_the_second_network_has_no_address_left(real: Any) -> None:
    node, host, pod = real
    ipam = {"type": "host-local", "subnet": "10.2.0.0/30", "dataDir": str(node.root / "leases")}
    node.write("weave", {"type": "weave-net", "bridge": "weave", "isGateway": True, "ipam": ipam})
    node.ask(cni="calico,weave,weave")
    done = node.start("ADD")
    error = json.loads(done.stdout)
    assert done.returncode == 1 and error["msg"].startswith("network 'weave': plugin 'weave-net': ADD: ")
    assert "no IP addresses available" in error["msg"]
    assert links(pod) == ["lo"] and leases(node) == []
    assert not [name for name in links(host) if name.startswith("veth")]
    assert list((node.root / "state").iterdir()) == []


@pytest.mark.root
def test_a_network_that_refuses_its_configuration_keeps_no_pod_from_being_deleted(real: Any) -> None:
    node, _, pod = real
    node.write("weave", {"type": "weave-net", "bridge": "weave", "ipam": {"type": "host-local", "ranges": []}})
    node.ask(cni="calico,weave")
    error = json.loads(node.start("ADD").stdout)
    assert error["msg"].startswith("network 'weave': plugin 'weave-net': ADD: ")
    assert links(pod) == ["lo"] and leases(node) == []
    assert list((node.root / "state").iterdir()) == []


@pytest.mark.root
def test_a_del_after_the_pods_namespace_is_gone(real: Any) -> None:
    node, _, pod = real
    node.ask(cni="calico,weave")
    node.call("ADD")
    pod.close()
    node.call("DEL", CNI_NETNS="")
    assert leases(node) == []
    assert list((node.root / "state").iterdir()) == []
