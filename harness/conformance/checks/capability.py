"""Capabilities that the configuration declares: the plugin fulfils runtimeConfig, or refuses it."""

from __future__ import annotations

import ipaddress
import socket
import threading

from harness.conformance.call import Json
from harness.conformance.checks.base import check
from harness.conformance.checks.errors import expect_error
from harness.conformance.findings import Fault
from harness.conformance.kernel import queueing
from harness.conformance.results import parse
from harness.conformance.scene import Attachment, Blocked, Scene, Skipped
from harness.conformance.spec import RUNTIME_CONFIG

_DEMAND = "If the configuration declares a capability, the plugin fulfils its runtimeConfig or returns an error."
_MAC = "02:42:c6:12:00:07"
_GUID = "c2:11:22:33:44:55:66:77"
_DEVICE = "ffff:1f:1f.7"


def _asked(scene: Scene, **wanted: object) -> Attachment | None:
    """An attachment with runtimeConfig; None if the plugin refused correctly."""
    attachment = scene.container(runtime=dict(wanted))
    outcome = scene.add(attachment)
    if not outcome.ok:
        expect_error(scene, outcome, f"ADD with runtimeConfig.{next(iter(wanted))}")
        return None
    if attachment.result is None:
        raise Blocked("ADD printed no result")
    return attachment


def _given(scene: Scene, attachment: Attachment) -> list[str]:
    """The container's addresses; for an ipam plugin alone, those of its result."""
    if scene.subject.assigns:
        return [ip.cidr for ip in parse(attachment.result or {}).ips]
    inside = scene.inside(attachment)
    link = inside.link("eth0")
    return inside.of(link) if link else []


@check(
    "capability-mac",
    "A MAC address that is asked for is the interface's, or refused.",
    RUNTIME_CONFIG,
    feature="capability:mac",
)
def mac(scene: Scene) -> None:
    if attachment := _asked(scene, mac=_MAC):
        link = scene.inside(attachment).link("eth0")
        found = link.mac if link else "no eth0"
        scene.expect(found == _MAC, f"asked for MAC {_MAC}, ADD gave {found} and reported success", _DEMAND)
        listed = [each.mac for each in parse(attachment.result or {}).interfaces if each.name == "eth0"]
        scene.expect(
            not listed or _MAC in listed or found != _MAC,
            f"eth0 has the MAC asked for; the result says {listed}",
            _DEMAND,
        )


@check(
    "capability-ips",
    "Addresses that are asked for are the interface's, or refused.",
    RUNTIME_CONFIG,
    feature="capability:ips",
)
def ips(scene: Scene) -> None:
    first = scene.added(scene.container())
    found = [ip for ip in parse(first.result or {}).ips if ip.cidr and "." in ip.cidr]
    if not found:
        raise Skipped("the result has no IPv4 address to choose another one near")
    near = ipaddress.ip_interface(found[0].cidr)
    wanted = f"{near.ip + 20}/{near.network.prefixlen}"
    scene.deleted(first)
    if attachment := _asked(scene, ips=[wanted]):
        has = _given(scene, attachment)
        scene.expect(
            wanted in has, f"asked for {wanted}, ADD gave {', '.join(has) or 'nothing'} and reported success", _DEMAND
        )


@check(
    "capability-ip-ranges",
    "Addresses come from the ranges that are asked for, or these are refused.",
    RUNTIME_CONFIG,
    feature="capability:ipRanges",
)
def ip_ranges(scene: Scene) -> None:
    wanted = ipaddress.ip_network("198.18.7.0/24")
    if attachment := _asked(scene, ipRanges=[[{"subnet": str(wanted)}]]):
        has = _given(scene, attachment)
        near = any(ipaddress.ip_interface(cidr).ip in wanted for cidr in has)
        scene.expect(near, f"asked for an address of {wanted}, ADD gave {', '.join(has)} and reported success", _DEMAND)


@check(
    "capability-dns",
    "DNS settings that are asked for are in the result, or refused.",
    RUNTIME_CONFIG,
    feature="capability:dns",
)
def dns(scene: Scene) -> None:
    if attachment := _asked(scene, dns={"servers": ["198.51.100.53"], "searches": ["conformance.test"], "options": []}):
        found = parse(attachment.result or {}).dns
        scene.expect(
            "198.51.100.53" in (found.get("nameservers") or []),
            f"asked for a name server, the result has dns {found}",
            _DEMAND,
        )


@check(
    "capability-port-mappings",
    "A port of the host that is asked for leads to the container, and no more after DEL.",
    RUNTIME_CONFIG,
    feature="capability:portMappings",
    after=("del-succeeds",),
)
def port_mappings(scene: Scene) -> None:
    mapping: Json = {"hostPort": 18080, "containerPort": 8080, "protocol": "tcp"}
    attachment = _asked(scene, portMappings=[mapping])
    if not attachment:
        return
    with _Listener(attachment, 8080):
        scene.expect(_answers(18080), "port 18080 of the host does not lead to port 8080 of the container", _DEMAND)
    scene.deleted(attachment)
    for rule in scene.snapshot().firewall:
        scene.expect("18080" not in rule, f"the firewall rule {rule!r} is left after DEL", _DEMAND)


class _Listener:
    """A server in a container that accepts connections and sends a word."""

    def __init__(self, attachment: Attachment, port: int) -> None:
        assert attachment.sandbox is not None
        self._socket = attachment.sandbox.inside(socket.socket, socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("0.0.0.0", port))
        self._socket.listen()
        self._socket.settimeout(0.2)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            with connection:
                connection.sendall(b"conformance")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()


def _answers(port: int) -> bool:
    """Whether a container answers at a port of the host's address."""
    for host in ("192.0.2.10", "127.0.0.1"):
        try:
            with socket.create_connection((host, port), timeout=3) as connection:
                if connection.recv(32) == b"conformance":
                    return True
        except OSError:
            continue
    return False


@check(
    "capability-bandwidth",
    "A bandwidth that is asked for is a queueing discipline of the kernel's, or refused.",
    RUNTIME_CONFIG,
    feature="capability:bandwidth",
)
def bandwidth(scene: Scene) -> None:
    limits = {"ingressRate": 8_000_000, "ingressBurst": 8_000_000, "egressRate": 4_000_000, "egressBurst": 4_000_000}
    before = set(queueing())
    if attachment := _asked(scene, bandwidth=limits):
        assert attachment.sandbox is not None
        found = [*(set(queueing()) - before), *attachment.sandbox.inside(queueing)]
        shaped = [kind for _, kind in found if kind in ("tbf", "htb", "hfsc", "cake", "fq", "clsact", "ingress")]
        scene.expect(shaped, "asked for a bandwidth, ADD made no queueing discipline and reported success", _DEMAND)


@check(
    "capability-infiniband-guid",
    "An InfiniBand GUID that is asked for is the interface's, or refused: an Ethernet interface has none.",
    RUNTIME_CONFIG,
    feature="capability:infinibandGUID",
)
def infiniband_guid(scene: Scene) -> None:
    if attachment := _asked(scene, infinibandGUID=_GUID):
        link = scene.inside(attachment).link("eth0")
        found = link.mac if link else "no eth0"
        headline = f"asked for GUID {_GUID}, ADD gave an interface with hardware address {found} and reported success"
        scene.expect(found.endswith(_GUID), headline, _DEMAND)


@check(
    "capability-device-id",
    "A device that does not exist is refused.",
    RUNTIME_CONFIG,
    feature="capability:deviceID",
)
def device_id(scene: Scene) -> None:
    headline = f"asked for device {_DEVICE}, which the machine does not have, ADD reported success"
    scene.expect(_asked(scene, deviceID=_DEVICE) is None, headline, _DEMAND)


@check(
    "capability-aliases",
    "Aliases that are asked for are accepted, or refused with an error.",
    RUNTIME_CONFIG,
    feature="capability:aliases",
)
def aliases(scene: Scene) -> None:
    if _asked(scene, aliases=["conformance", "web-0"]):
        scene.notes.append("ADD accepts aliases; whether names lead to the container depends on a name server")


_MALFORMED: dict[str, object] = {
    "mac": "not a MAC",
    "ips": ["not an address"],
    "portMappings": "not a list",
    "bandwidth": "not an object",
    "ipRanges": "not a list",
    "dns": "not an object",
    "infinibandGUID": "not a GUID",
    "aliases": "not a list",
}


@check(
    "capability-malformed", "A capability's value that is malformed is refused.", RUNTIME_CONFIG, feature="capabilities"
)
def malformed(scene: Scene) -> None:
    for name, value in _MALFORMED.items():
        if f"capability:{name}" in scene.subject.features:
            attachment = scene.container()
            scene.prepare(attachment)
            attachment.runtime = {name: value}
            outcome = scene.add(attachment)
            if scene.expect(not outcome.ok, f"runtimeConfig.{name} {value!r} is accepted", _DEMAND, outcome):
                expect_error(scene, outcome, f"ADD with runtimeConfig.{name} {value!r}")


@check("args-ips", "An address in args.cni.ips is given, or refused.", RUNTIME_CONFIG, feature="args.ips")
def args_ips(scene: Scene) -> None:
    first = scene.added(scene.container())
    found = [ip for ip in parse(first.result or {}).ips if ip.cidr and "." in ip.cidr]
    if not found:
        raise Skipped("the result has no IPv4 address to choose another one near")
    near = ipaddress.ip_interface(found[0].cidr)
    wanted = f"{near.ip + 21}/{near.network.prefixlen}"
    scene.changes = {"args": {"cni": {"ips": [wanted]}}}
    attachment = scene.container()
    outcome = scene.add(attachment)
    if not outcome.ok:
        expect_error(scene, outcome, f"ADD with args.cni.ips {wanted}")
        return
    has = _given(scene, attachment)
    headline = f"args.ips is claimed; args.cni.ips has {wanted}, ADD gave {', '.join(has)}"
    demand = "No plugin must know `args`: to claim args.ips is right only for one that does."
    scene.expect(wanted in has, headline, demand, outcome, fault=Fault.PROFILE)


@check(
    "netns-override",
    "With CNI_NETNS_OVERRIDE the namespace may be the plugin's own.",
    RUNTIME_CONFIG,
    feature="netns-override",
)
def netns_override(scene: Scene) -> None:
    attachment = scene.container(ifname="own0")
    attachment.netns = "/proc/1/ns/net"
    conf = scene.conf(attachment)
    outcome = scene.call("ADD", attachment, conf, env={"CNI_NETNS_OVERRIDE": "1"})
    headline = f"netns-override is claimed; ADD in the plugin's own namespace fails: {outcome.message}"
    demand = "libcni's convention, which no plugin must know: CNI_NETNS_OVERRIDE=1 allows it."
    scene.expect(outcome.ok, headline, demand, outcome, fault=Fault.PROFILE)
