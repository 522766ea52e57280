"""What ADD comes to, beside its result: packets that arrive, addresses that can be used, the host's routes."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

from harness.conformance.checks.base import check
from harness.conformance.checks.life import BATCH, Made, made, settled
from harness.conformance.checks.others import other_interface
from harness.conformance.results import Ip, parse
from harness.conformance.scene import Scene, Skipped
from harness.conformance.spec import ADD, PROTOCOL, RESULT

_MAIN = 254  # the routing table
_WAIT = 0.3  # seconds for a packet
_WHOLE = {4: (10, 2), 6: (23, 2)}  # IP_MTU_DISCOVER and IPV6_MTU_DISCOVER: packets are never split
_HEADERS = {4: 28, 6: 48}  # bytes of IP and UDP
_CONNECTS = "An interface plugin makes an interface and ensures that it has connectivity."
_NO_MAC = ("ipvlan", "tun", "ipip", "wireguard")


@check(
    "result-address-ready",
    "Addresses in the result can be used when ADD returns.",
    RESULT,
    first=True,
    after=("result-address-true",),
    batch=BATCH,
    should=True,
)
def ready(scene: Scene) -> None:
    it = made(scene)
    listed = {ip.cidr for ip in it.result.ips}
    for address in it.kernel.addresses:
        if address.cidr in listed and not address.usable:
            headline = f"{address.cidr} is tentative when ADD returns: no program can use it yet"
            demand = "ADD returns when the container is attached: after duplicate address detection, or without it."
            it.expect(False, headline, demand)


@check(
    "add-reaches-gateway",
    "A packet from the container reaches its gateway, if that is on the host, and is answered.",
    PROTOCOL,
    first=True,
    after=("result-address-true", "interface-has-carrier"),
    batch=BATCH,
    should=True,
)
def reaches(scene: Scene) -> None:
    for ip in _near(made(scene)):
        _expect_arrival(scene, ip, 64, "a packet")


@check(
    "add-full-packets",
    "A packet as large as the MTU of the container's interface reaches its gateway, if that is on the host.",
    PROTOCOL,
    first=True,
    after=("add-reaches-gateway",),
    batch=BATCH,
    should=True,
)
def full(scene: Scene) -> None:
    it = made(scene)
    for ip in _near(it):
        size = min(it.link.mtu, 65535)
        _expect_arrival(scene, ip, size, f"a packet of {size} bytes, the MTU of {it.link.name},")


def _near(it: Made) -> list[Ip]:
    """The container's addresses with a gateway on the host."""
    host = {address.cidr.partition("/")[0] for address in it.host.addresses}
    own = it.kernel.of(it.link)
    if found := [ip for ip in it.result.ips if ip.gateway in host and ip.cidr in own]:
        return found
    raise Skipped("the host has none of the result's gateways")


def _expect_arrival(scene: Scene, ip: Ip, size: int, what: str) -> None:
    it = made(scene)

    def left() -> list[str]:
        return [] if _arrives(it, ip, size) else ["no answer"]

    source = ip.cidr.partition("/")[0]
    headline = f"{what} from {source} to its gateway {ip.gateway}, which is on the host, is not answered"
    name = it.attachment.sandbox.name if it.attachment.sandbox else ""
    length = size - _HEADERS[ipaddress.ip_interface(ip.cidr).version]
    look = f"ip route; ip link; ip netns exec {name} ping -c 1 -W 1 -M do -s {length} {ip.gateway}"
    scene.expect(not settled(left), headline, _CONNECTS, it.outcome, look=look)


def _arrives(it: Made, ip: Ip, size: int) -> bool:
    """Whether a packet of UDP reaches the gateway, and a short answer comes back."""
    address = ipaddress.ip_interface(ip.cidr)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    assert it.attachment.sandbox is not None
    inside = it.attachment.sandbox.inside(socket.socket, family, socket.SOCK_DGRAM)
    with socket.socket(family, socket.SOCK_DGRAM) as host, inside:
        level = socket.IPPROTO_IP if address.version == 4 else socket.IPPROTO_IPV6
        inside.setsockopt(level, *_WHOLE[address.version])
        try:
            host.settimeout(_WAIT)
            inside.settimeout(_WAIT)
            host.bind((ip.gateway, 0))
            inside.bind((str(address.ip), 0))
            inside.sendto(bytes(size - _HEADERS[address.version]), host.getsockname())
            host.sendto(b"answer", host.recvfrom(1 << 16)[1])
            return inside.recv(16) == b"answer"
        except OSError:
            return False


@check(
    "add-routes-own",
    "The routes that ADD makes on the host lead to the network's own addresses alone.",
    ADD,
    first=True,
    after=("result-well-formed",),
    batch=BATCH,
    should=True,
)
def routes_own(scene: Scene) -> None:
    it = made(scene)
    own = [ipaddress.ip_interface(ip.cidr).network for ip in it.result.ips if ip.cidr]
    own += [ipaddress.ip_network(subnet, strict=False) for subnet in _subnets(scene)]
    gateways = {ip.gateway for ip in it.result.ips}
    for route in it.host.routes:
        target = ipaddress.ip_network(route.dst)
        fits = any(target.version == net.version and target.subnet_of(net) for net in own)  # type: ignore[arg-type]
        if route.table == _MAIN and route not in it.host_before.routes and not fits:
            ok = target.is_link_local or str(target.network_address) in gateways
            demand = "ADD changes what belongs to its attachment. Other addresses of the host's are not the network's."
            it.expect(ok, f"ADD made a route to {route.dst} on the host; the network has {_words(own)}", demand)


def _subnets(scene: Scene) -> Iterator[str]:
    yield from (*scene.subject.conf_subnets, *scene.subject.subnets)


def _words(nets: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> str:
    return ", ".join(dict.fromkeys(map(str, nets))) or "no addresses"


@check(
    "add-macs-differ",
    "The interfaces of two containers have different MAC addresses.",
    ADD,
    first=True,
    after=("del-succeeds",),
    several=True,
    should=True,
)
def macs(scene: Scene) -> None:
    one, other = (scene.inside(scene.added(scene.container())).link(scene.subject.ifname) for _ in range(2))
    if not one or not other or not one.mac or one.kind in _NO_MAC:
        raise Skipped("an interface of this kind has no MAC address of its own")
    demand = "Two interfaces with one address cannot be told apart on a common link, as a bridge is."
    scene.expect(one.mac != other.mac, f"eth0 has MAC {one.mac} in both of two containers", demand)


@check(
    "add-keeps-default-route",
    "ADD leaves a default route that the container has by another interface.",
    ADD,
    first=True,
    after=("add-keeps-others",),
    should=True,
)
def keeps_default(scene: Scene) -> None:
    attachment = scene.container()
    other_interface(scene, attachment)
    scene.netlink(
        attachment,
        "route add default via 198.18.9.1",
        lambda it: it.route("add", dst="default", gateway="198.18.9.1"),
    )
    [before] = [each for each in scene.inside(attachment).routes if each.dst == "0.0.0.0/0"]
    if not (outcome := scene.add(attachment)).ok:
        raise Skipped(f"ADD to a container with a default route fails: {outcome.message}")
    demand = "A container's interfaces come from several plugins. What another one made is not to be changed."
    headline = "ADD replaced the container's default route, which is by net9, another plugin's interface"
    there = before in scene.inside(attachment).routes
    result = parse(attachment.result or {})
    listed = ", ".join(str(route.get("dst")) for route in result.routes) or "no route"
    scene.expect(there, f"{headline}; its result has {listed}", demand, outcome, look="ip -n c1 route")
