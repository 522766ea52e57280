"""ADD: its result, compared with the kernel."""

from __future__ import annotations

import ipaddress
from collections import Counter

from harness.conformance import machine
from harness.conformance.call import Json
from harness.conformance.checks.base import check
from harness.conformance.checks.life import BATCH, Made, made, settled, tried
from harness.conformance.kernel import Link, Route
from harness.conformance.results import address, destination, parse
from harness.conformance.scene import Broken, Scene
from harness.conformance.spec import ADD, PARAMETERS, PROTOCOL, RESULT
from harness.conformance.wellformed import complaints

_MAIN = 254  # the routing table
_TRUE = ("add-succeeds", "result-well-formed")


@check("add-succeeds", "ADD succeeds and prints a result.", ADD, each=True, after=("profile-holds",), batch=BATCH)
def succeeds(scene: Scene) -> None:
    outcome = tried(scene).outcome
    if "operation not supported" in outcome.message.lower() and not machine.has_kind(kind := scene.subject.type):
        raise Broken(f"this machine's kernel has no interfaces of the kind {kind}: ADD fails: {outcome.message}")
    demand = "A plugin that is given a valid configuration attaches the container and exits with 0."
    if scene.expect(outcome.ok, f"ADD fails: {outcome.message}", demand, outcome):
        printed = isinstance(outcome.answer, dict)
        text = outcome.stdout[:80].decode(errors="replace")
        scene.expect(
            printed,
            f"ADD prints no JSON object: {text!r}",
            "ADD prints a result in JSON on standard output, and nothing else.",
            outcome,
        )


@check(
    "result-well-formed",
    "The result is well-formed for its version, to the letter.",
    RESULT,
    each=True,
    batch=BATCH,
)
def well_formed(scene: Scene) -> None:
    outcome = tried(scene).outcome
    for complaint in complaints(outcome.answer, scene.version) if outcome.ok else ():
        scene.expect(False, complaint, f"The form of a result in version {scene.version}.", outcome)
    result = parse(outcome.object)
    listed = [*(f"{ip.cidr} on interface {ip.interface}" for ip in result.ips if ip.cidr)]
    listed += [f"{each.name} in {each.sandbox or 'no sandbox'}" for each in result.interfaces]
    for item in dict.fromkeys(each for each in listed if listed.count(each) > 1):
        demand = "A result lists each interface and each address of the attachment."
        scene.expect(False, f"the result lists {item} more than once", demand, outcome, should=True)


@check("result-version", "The result has the cniVersion of the configuration.", RESULT, each=True, batch=BATCH)
def version(scene: Scene) -> None:
    outcome = tried(scene).outcome
    found = outcome.object.get("cniVersion")
    demand = "`cniVersion` in a result is the version that was given on input."
    if outcome.ok:
        scene.expect(
            found == scene.version, f"given {scene.version}, the result has cniVersion {found!r}", demand, outcome
        )


@check(
    "add-makes-interface",
    "ADD makes the interface CNI_IFNAME in the container.",
    ADD,
    first=True,
    each=True,
    batch=BATCH,
)
def makes(scene: Scene) -> None:
    it = made(scene)
    names = sorted(link.name for link in it.kernel.links)
    found = it.kernel.link("eth0")
    it.expect(
        found,
        f"after ADD with CNI_IFNAME=eth0 the container has {', '.join(names)}",
        "The interface has the name CNI_IFNAME.",
    )


@check(
    "add-honours-ifname",
    "An interface name other than eth0 is used or refused.",
    PARAMETERS,
    first=True,
    after=("add-makes-interface",),
)
def ifname(scene: Scene) -> None:
    demand = "CNI_IFNAME is the name of the interface; a plugin that cannot use it returns an error."
    for name in ("net-1.x_5", "fifteen-letters"):  # the kernel allows 15 bytes
        attachment = scene.container(ifname=name)
        outcome = scene.add(attachment)
        names = sorted(link.name for link in scene.inside(attachment).links)
        made = f"asked for {name}, ADD made {', '.join(names)}"
        scene.expect(not outcome.ok or name in names, made, demand, outcome)


@check(
    "interface-is-up",
    "The container's interface is up after ADD.",
    PROTOCOL,
    first=True,
    after=("add-makes-interface",),
    batch=BATCH,
)
def is_up(scene: Scene) -> None:
    it = made(scene)
    demand = "An interface plugin makes an interface and ensures that it has connectivity."
    it.expect(it.link.up, "eth0 in the container is down after ADD", demand)


@check(
    "interface-has-carrier",
    "What the container's interface leads to is up after ADD, too.",
    PROTOCOL,
    first=True,
    after=("interface-is-up",),
    batch=BATCH,
    should=True,
)
def has_carrier(scene: Scene) -> None:
    it = made(scene)

    def left() -> list[str]:
        link = scene.inside(it.attachment).link(it.link.name)
        return [] if link and link.carrier else ["no carrier"]

    demand = "An interface plugin makes an interface and ensures that it has connectivity."
    it.expect(not settled(left), "eth0 is up and has no carrier: its other end, on the host, is down", demand)


@check(
    "result-has-interface",
    "The result lists the container's interface.",
    RESULT,
    since="0.3.0",
    first=True,
    each=True,
    after=(*_TRUE, "add-makes-interface"),
    batch=BATCH,
)
def has_interface(scene: Scene) -> None:
    it = made(scene)
    names = [interface.name for interface in it.result.interfaces]
    demand = "`interfaces` lists all interfaces that the attachment made."
    it.expect("eth0" in names, f"the result's interfaces are {names or 'missing'}; eth0 is not among them", demand)


@check(
    "result-sandbox",
    "The container's interface has CNI_NETNS as its sandbox, host interfaces have none.",
    RESULT,
    since="0.3.0",
    first=True,
    each=True,
    after=(*_TRUE, "result-has-interface"),
    batch=BATCH,
)
def sandbox(scene: Scene) -> None:
    it = made(scene)
    demand = "`sandbox` is the value of CNI_NETNS for interfaces in the container, and empty for those on the host."
    inside = {link.name for link in it.kernel.links} - {link.name for link in it.before.links}
    for interface in it.result.interfaces:
        on_host = it.host.link(interface.name) is not None
        if interface.name == "eth0" and interface.sandbox in ("", it.attachment.netns):
            if [each.name for each in it.result.interfaces].count("eth0") == 1:
                it.expect(interface.sandbox, "the result's eth0 has no sandbox", demand)
        elif interface.name in inside and not (on_host and not interface.sandbox):
            found = interface.sandbox or "empty"
            it.expect(
                interface.sandbox == it.attachment.netns,
                f"{interface.name}'s sandbox is {found}, expected {it.attachment.netns}",
                demand,
            )
        elif on_host:
            it.expect(
                not interface.sandbox,
                f"{interface.name} is on the host, and its sandbox is {interface.sandbox}",
                demand,
            )


def _real(it: Made, at: int) -> Link | None:
    interface = it.result.interfaces[at]
    return (it.kernel if interface.sandbox else it.host).link(interface.name)


@check(
    "result-interfaces-exist",
    "Every interface in the result exists in its sandbox.",
    RESULT,
    since="0.3.0",
    each=True,
    after=(*_TRUE, "result-sandbox"),
    batch=BATCH,
)
def exist(scene: Scene) -> None:
    it = made(scene)
    for at, interface in enumerate(it.result.interfaces):
        where = "in the container" if interface.sandbox else "on the host"
        it.expect(
            _real(it, at),
            f"the result has {interface.name} {where}, where there is none",
            "`interfaces` lists interfaces that were made.",
        )


@check(
    "result-mac-true",
    "MAC addresses in the result are those of the kernel.",
    RESULT,
    since="0.3.0",
    each=True,
    after=(*_TRUE, "result-interfaces-exist"),
    batch=BATCH,
)
def mac(scene: Scene) -> None:
    it = made(scene)
    for at, interface in enumerate(it.result.interfaces):
        if (link := _real(it, at)) and interface.mac:
            it.expect(
                interface.mac == link.mac,
                f"{interface.name} has MAC {link.mac}; the result says {interface.mac}",
                "`mac` is the interface's hardware address.",
            )


@check(
    "result-mac-given",
    "The container's interface has its MAC address in the result.",
    RESULT,
    since="0.3.0",
    first=True,
    each=True,
    after=(*_TRUE, "result-has-interface"),
    batch=BATCH,
)
def mac_given(scene: Scene) -> None:
    it = made(scene)
    if not it.link.mac or it.link.kind in ("ipvlan", "tun", "ipip", "wireguard"):
        return  # a hardware address has no meaning there
    own = [interface for interface in it.result.interfaces if interface.name == "eth0"]
    it.expect(
        any(each.mac for each in own),
        f"eth0 has MAC {it.link.mac}; the result has none",
        "`mac` is there if layer 2 means something to the plugin.",
    )


@check(
    "result-mtu-true",
    "MTUs in the result are those of the kernel.",
    RESULT,
    since="1.1.0",
    each=True,
    after=(*_TRUE, "result-interfaces-exist"),
    batch=BATCH,
)
def mtu(scene: Scene) -> None:
    it = made(scene)
    for at, interface in enumerate(it.result.interfaces):
        if (link := _real(it, at)) and interface.mtu:
            it.expect(
                interface.mtu == link.mtu,
                f"{interface.name} has MTU {link.mtu}; the result says {interface.mtu}",
                "`mtu` is the interface's.",
            )


@check(
    "result-interfaces-complete",
    "Every interface that ADD made is in the result.",
    RESULT,
    since="0.3.0",
    first=True,
    each=True,
    after=(*_TRUE, "result-has-interface"),
    batch=BATCH,
)
def complete(scene: Scene) -> None:
    it = made(scene)
    listed = {interface.name for interface in it.result.interfaces}
    for where, before, after in (("container", it.before, it.kernel), ("host", it.host_before, it.host)):
        for link in after.links:
            if link.name not in {each.name for each in before.links}:
                it.expect(
                    link.name in listed,
                    f"ADD made {link.name} on the {where}; the result does not list it",
                    "`interfaces` lists all interfaces that the attachment made, those on the host too.",
                )


@check(
    "result-address-true",
    "Every address in the result is on its interface.",
    RESULT,
    each=True,
    after=(*_TRUE, "add-makes-interface", "result-sandbox"),
    batch=BATCH,
    ipam=False,
)
def addresses(scene: Scene) -> None:
    it = made(scene)
    for ip in it.result.ips:
        if scene.has("0.3.0"):
            if ip.interface is None or ip.interface >= len(it.result.interfaces):
                continue
            link, name = _real(it, ip.interface), it.result.interfaces[ip.interface].name
            kernel = it.kernel if it.result.interfaces[ip.interface].sandbox else it.host
        else:
            link, name, kernel = it.link, "eth0", it.kernel
        if link:
            found = kernel.of(link)
            it.expect(
                ip.cidr in found,
                f"the result has {ip.cidr} on {name}; the kernel has {', '.join(found) or 'no address'}",
                "`ips` are the addresses that the attachment assigned.",
            )


@check(
    "result-address-index",
    "Every address of the container's interface has the index of its interface.",
    RESULT,
    since="0.3.0",
    first=True,
    each=True,
    after=(*_TRUE, "result-has-interface"),
    batch=BATCH,
)
def index(scene: Scene) -> None:
    it = made(scene)
    own = it.kernel.of(it.link)
    for ip in it.result.ips:
        if ip.cidr in own:
            name = (
                it.result.interfaces[ip.interface].name
                if ip.interface is not None and ip.interface < len(it.result.interfaces)
                else ""
            )
            it.expect(
                name == "eth0",
                f"{ip.cidr} is on eth0; the result says it is on {name or 'no interface'}",
                "`interface` in `ips` is the index of the interface that has the address.",
            )


@check(
    "result-addresses-complete",
    "Every address of the container's interface is in the result.",
    RESULT,
    first=True,
    each=True,
    after=(*_TRUE, "add-makes-interface"),
    batch=BATCH,
)
def nothing_more(scene: Scene) -> None:
    it = made(scene)
    listed = {ip.cidr for ip in it.result.ips}
    for cidr in it.kernel.of(it.link):
        if scene.has("0.3.0") or len(it.kernel.of(it.link)) <= 2:  # the old form has one address of each family
            it.expect(
                cidr in listed,
                f"eth0 has {cidr}; the result has {', '.join(sorted(listed)) or 'no address'}",
                "`ips` are the addresses that the attachment assigned.",
            )


@check(
    "result-gateway-sane",
    "A gateway in the result is in its address's subnet and is not the address.",
    RESULT,
    each=True,
    after=_TRUE,
    batch=BATCH,
)
def gateway(scene: Scene) -> None:
    it = made(scene)
    for ip in it.result.ips:
        if ip.gateway and ip.cidr:
            interface = ipaddress.ip_interface(ip.cidr)
            it.expect(
                ip.gateway != str(interface.ip),
                f"the gateway of {ip.cidr} is the address itself",
                "`gateway` is the default gateway of the subnet.",
            )
            near = ipaddress.ip_address(ip.gateway)
            alone = interface.network.num_addresses == 1 or near.is_link_local  # a route leads to the gateway
            it.expect(
                alone or near in interface.network,
                f"the gateway {ip.gateway} is not in the subnet of {ip.cidr}",
                "`gateway` is the default gateway of the subnet.",
            )


@check(
    "result-routes-true",
    "Every route in the result exists in the container, with its next hop and attributes.",
    RESULT,
    each=True,
    after=(*_TRUE, "add-makes-interface"),
    batch=BATCH,
    ipam=False,
)
def routes(scene: Scene) -> None:
    it = made(scene)
    for route in it.result.routes:
        dst = destination(route.get("dst"))
        same = [each for each in it.kernel.routes if each.dst == dst]
        wanted = _attributes(route) if scene.has("1.1.0") else {}
        if route.get("gw"):
            wanted["gw"] = address(route["gw"])
        if not same:
            it.expect(
                False,
                f"the result has a route to {dst}; the container has none",
                "`routes` are routes that the attachment made.",
            )
        elif not _is_own(it, same):
            it.expect(
                False,
                f"the result has a route to {dst}; the kernel's is by an interface that ADD did not make",
                "`routes` are routes that the attachment made.",
            )
        elif not any(_matches(each, wanted) for each in same):
            has = "; ".join(", ".join(f"{key} {getattr(each, key) or 'none'}" for key in wanted) for each in same)
            says = ", ".join(f"{key} {value}" for key, value in wanted.items())
            it.expect(
                False,
                f"the result has a route to {dst} with {says}; the kernel's has {has}",
                "`routes` are routes that the attachment made.",
            )


def _attributes(route: Json) -> dict[str, object]:
    """What a result has of a route beside its next hop. Scope 0 is a scope; other zeros are nothing."""
    found = {key: route[key] for key in ("mtu", "advmss", "priority", "table") if route.get(key)}
    is_scoped = route.get("scope") is not None and ":" not in str(route.get("dst"))  # IPv6 has no scopes
    return {**found, **({"scope": route["scope"]} if is_scoped else {})}


def _is_own(it: Made, routes: list[Route]) -> bool:
    """Whether one of the routes is by an interface that the plugin made, or by none; not known if it adjusts others."""
    others = {link.index for link in it.before.links}
    return it.scene.subject.adjusts or any(route.link not in others for route in routes)


def _matches(route: Route, wanted: dict[str, object]) -> bool:
    return all(getattr(route, key) == value for key, value in wanted.items())


@check(
    "result-routes-complete",
    "Every route of the container's interface is in the result, but for those to its own subnets.",
    RESULT,
    first=True,
    each=True,
    after=(*_TRUE, "add-makes-interface"),
    batch=BATCH,
)
def routes_complete(scene: Scene) -> None:
    it = made(scene)
    listed = Counter(destination(route.get("dst")) for route in it.result.routes)
    own = [ipaddress.ip_interface(ip.cidr).network for ip in it.result.ips if ip.cidr]
    gateways = {ip.gateway for ip in it.result.ips} | {address(route.get("gw")) for route in it.result.routes}
    for route in it.kernel.routes:
        target = ipaddress.ip_network(route.dst)
        near = any(target.version == net.version and target.subnet_of(net) for net in own)  # type: ignore[arg-type]
        if (
            route.link == it.link.index
            and not route.by_kernel
            and not near
            and str(target.network_address) not in gateways
        ):
            it.expect(
                route.dst in listed,
                f"ADD made a route to {route.dst}; the result does not list it",
                "`routes` are the routes that the attachment made.",
            )
    there = Counter(each.dst for each in it.kernel.routes if each.link == it.link.index and each.table == _MAIN)
    for dst, count in there.items():
        headline = f"ADD made {count} routes to {dst}; the result lists {listed[dst]}"
        demand = "`routes` are the routes that the attachment made."
        scene.expect(not listed[dst] or count <= listed[dst], headline, demand, it.outcome, should=True)
    for route in it.kernel.routes if scene.has("1.1.0") else ():
        same = [each for each in it.result.routes if destination(each.get("dst")) == route.dst]
        lost = [
            key for key, value in _unlike_default(route).items() if not any(each.get(key) == value for each in same)
        ]
        if same and lost and route.link == it.link.index:
            values = ", ".join(f"{key} {getattr(route, key)}" for key in lost)
            headline = f"the route to {route.dst} has {values}; the result does not say so"
            it.expect(False, headline, "`routes` have these fields since 1.1.0.", should=True)


def _unlike_default(route: Route) -> dict[str, int]:
    """The attributes of a route that are not those of a route that was made without any."""
    default = 1024 if ":" in route.dst else 0
    priority = {"priority": route.priority} if route.priority != default else {}
    return {**priority, **{key: value for key in ("mtu", "advmss") if (value := getattr(route, key))}}


@check(
    "result-dns",
    "DNS settings of the configuration are in the result.",
    RESULT,
    feature="dns",
    each=True,
    after=_TRUE,
    batch=BATCH,
    should=True,
)
def dns(scene: Scene) -> None:
    it = made(scene)
    for key, value in (scene.subject.conf.get("dns") or {}).items():
        found = it.result.dns.get(key)
        it.expect(
            found == value,
            f"the configuration has dns.{key} {value}; the result has {found}",
            "A plugin that uses `dns` of its configuration returns it.",
        )


@check(
    "add-prints-nothing-else",
    "ADD prints its result on standard output and nothing beside it.",
    RESULT,
    each=True,
    batch=BATCH,
)
def clean_output(scene: Scene) -> None:
    outcome = tried(scene).outcome
    if outcome.ok:
        scene.expect(
            outcome.answer is not None,
            "standard output is not one JSON value",
            "Standard output has the result in JSON; logs go to standard error.",
            outcome,
        )
