"""ADD: what it answers, and that this is what the kernel has."""

from __future__ import annotations

import ipaddress

from harness.conformance.checks.base import check
from harness.conformance.kernel import Kernel, Link, Route
from harness.conformance.results import Result, destination, parse
from harness.conformance.scene import Blocked, Scene
from harness.conformance.spec import ADD, PARAMETERS, PROTOCOL, RESULT
from harness.conformance.wellformed import complaints

_TRUE = ("add-succeeds", "result-well-formed")


@check("add-succeeds", "ADD succeeds and prints a result.", ADD, each=True, after=())
def succeeds(scene: Scene) -> None:
    outcome = scene.add(scene.container())
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


@check("result-well-formed", "The result is well-formed for its version, to the letter.", RESULT, each=True)
def well_formed(scene: Scene) -> None:
    outcome = scene.add(scene.container())
    for complaint in complaints(outcome.answer, scene.version) if outcome.ok else ():
        scene.expect(False, complaint, f"The form of a result in version {scene.version}.", outcome)


@check("result-version", "The result has the cniVersion of the configuration.", RESULT, each=True)
def version(scene: Scene) -> None:
    outcome = scene.add(scene.container())
    found = outcome.object.get("cniVersion")
    demand = "`cniVersion` in a result is the version that was given on input."
    if outcome.ok:
        scene.expect(
            found == scene.version, f"given {scene.version}, the result has cniVersion {found!r}", demand, outcome
        )


class _Made:
    """A fresh attachment with what result and kernel have of it."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.attachment = scene, scene.container()
        self.host_before = scene.snapshot().kernel
        self.before = scene.inside(self.attachment)
        self.outcome = scene.add(self.attachment)
        if not self.outcome.ok or self.attachment.result is None:
            raise Blocked(f"ADD failed: {self.outcome.message}")
        self.result: Result = parse(self.attachment.result)
        self.kernel: Kernel = scene.inside(self.attachment)
        self.host: Kernel = scene.snapshot().kernel

    @property
    def link(self) -> Link:
        """The interface that was asked for."""
        if (found := self.kernel.link(self.attachment.ifname)) is None:
            raise Blocked(f"there is no {self.attachment.ifname} in the container")
        return found

    def expect(self, condition: object, headline: str, demand: str) -> None:
        name = self.attachment.sandbox.name if self.attachment.sandbox else ""
        self.scene.expect(
            condition, headline, demand, self.outcome, look=f"ip -n {name} addr; ip -n {name} route; ip link"
        )


@check(
    "add-makes-interface",
    "ADD makes the interface CNI_IFNAME in the container.",
    ADD,
    first=True,
    each=True,
    batch="result",
)
def makes(scene: Scene) -> None:
    made = _made(scene)
    names = sorted(link.name for link in made.kernel.links)
    found = made.kernel.link("eth0")
    made.expect(
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
    attachment = scene.container(ifname="net-1.x_5")
    outcome = scene.add(attachment)
    names = sorted(link.name for link in scene.inside(attachment).links)
    demand = "CNI_IFNAME is the name of the interface; a plugin that cannot use it returns an error."
    scene.expect(
        not outcome.ok or attachment.ifname in names,
        f"asked for {attachment.ifname}, ADD made {', '.join(names)}",
        demand,
        outcome,
    )


@check(
    "interface-is-up",
    "The container's interface is up after ADD.",
    PROTOCOL,
    first=True,
    after=("add-makes-interface",),
    batch="result",
)
def is_up(scene: Scene) -> None:
    made = _made(scene)
    demand = "An interface plugin makes an interface and ensures that it has connectivity."
    made.expect(made.link.up, "eth0 in the container is down after ADD", demand)


@check(
    "result-has-interface",
    "The result lists the container's interface.",
    RESULT,
    since="0.3.0",
    first=True,
    each=True,
    after=(*_TRUE, "add-makes-interface"),
    batch="result",
)
def has_interface(scene: Scene) -> None:
    made = _made(scene)
    names = [interface.name for interface in made.result.interfaces]
    demand = "`interfaces` lists all interfaces that the attachment made."
    made.expect("eth0" in names, f"the result's interfaces are {names or 'missing'}; eth0 is not among them", demand)


@check(
    "result-sandbox",
    "The container's interface has CNI_NETNS as its sandbox, host interfaces have none.",
    RESULT,
    since="0.3.0",
    first=True,
    each=True,
    after=(*_TRUE, "result-has-interface"),
    batch="result",
)
def sandbox(scene: Scene) -> None:
    made = _made(scene)
    demand = "`sandbox` is the value of CNI_NETNS for interfaces in the container, and empty for those on the host."
    inside = {link.name for link in made.kernel.links} - {link.name for link in made.before.links}
    for interface in made.result.interfaces:
        on_host = made.host.link(interface.name) is not None
        if interface.name == "eth0" and interface.sandbox in ("", made.attachment.netns):
            if [each.name for each in made.result.interfaces].count("eth0") == 1:
                made.expect(interface.sandbox, "the result's eth0 has no sandbox", demand)
        elif interface.name in inside and not (on_host and not interface.sandbox):
            found = interface.sandbox or "empty"
            made.expect(
                interface.sandbox == made.attachment.netns,
                f"{interface.name}'s sandbox is {found}, expected {made.attachment.netns}",
                demand,
            )
        elif on_host:
            made.expect(
                not interface.sandbox,
                f"{interface.name} is on the host, and its sandbox is {interface.sandbox}",
                demand,
            )


def _real(made: _Made, at: int) -> Link | None:
    interface = made.result.interfaces[at]
    return (made.kernel if interface.sandbox else made.host).link(interface.name)


@check(
    "result-interfaces-exist",
    "Every interface in the result exists where it says.",
    RESULT,
    since="0.3.0",
    each=True,
    after=(*_TRUE, "result-sandbox"),
    batch="result",
)
def exist(scene: Scene) -> None:
    made = _made(scene)
    for at, interface in enumerate(made.result.interfaces):
        where = "in the container" if interface.sandbox else "on the host"
        made.expect(
            _real(made, at),
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
    batch="result",
)
def mac(scene: Scene) -> None:
    made = _made(scene)
    for at, interface in enumerate(made.result.interfaces):
        if (link := _real(made, at)) and interface.mac:
            made.expect(
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
    batch="result",
)
def mac_given(scene: Scene) -> None:
    made = _made(scene)
    if not made.link.mac or made.link.kind in ("ipvlan", "tun", "ipip", "wireguard"):
        return  # a hardware address means nothing there
    own = [interface for interface in made.result.interfaces if interface.name == "eth0"]
    made.expect(
        any(each.mac for each in own),
        f"eth0 has MAC {made.link.mac}; the result has none",
        "`mac` is there if layer 2 means something to the plugin.",
    )


@check(
    "result-mtu-true",
    "MTUs in the result are those of the kernel.",
    RESULT,
    since="1.1.0",
    each=True,
    after=(*_TRUE, "result-interfaces-exist"),
    batch="result",
)
def mtu(scene: Scene) -> None:
    made = _made(scene)
    for at, interface in enumerate(made.result.interfaces):
        if (link := _real(made, at)) and interface.mtu:
            made.expect(
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
    batch="result",
)
def complete(scene: Scene) -> None:
    made = _made(scene)
    listed = {interface.name for interface in made.result.interfaces}
    for where, before, after in (("container", made.before, made.kernel), ("host", made.host_before, made.host)):
        for link in after.links:
            if link.name not in {each.name for each in before.links}:
                made.expect(
                    link.name in listed,
                    f"ADD made {link.name} on the {where}; the result does not list it",
                    "`interfaces` lists all interfaces that the attachment made, those on the host too.",
                )


@check(
    "result-address-true",
    "Every address in the result is on the interface that it says.",
    RESULT,
    each=True,
    after=(*_TRUE, "add-makes-interface", "result-sandbox"),
    batch="result",
)
def addresses(scene: Scene) -> None:
    made = _made(scene)
    for ip in made.result.ips:
        if scene.has("0.3.0"):
            if ip.interface is None or ip.interface >= len(made.result.interfaces):
                continue
            link, name = _real(made, ip.interface), made.result.interfaces[ip.interface].name
            kernel = made.kernel if made.result.interfaces[ip.interface].sandbox else made.host
        else:
            link, name, kernel = made.link, "eth0", made.kernel
        if link:
            found = kernel.of(link)
            made.expect(
                ip.cidr in found,
                f"the result has {ip.cidr} on {name}; the kernel has {', '.join(found) or 'no address'}",
                "`ips` are the addresses that the attachment assigned.",
            )


@check(
    "result-address-index",
    "Every address of the container's interface says which interface it is on.",
    RESULT,
    since="0.3.0",
    first=True,
    each=True,
    after=(*_TRUE, "result-has-interface"),
    batch="result",
)
def index(scene: Scene) -> None:
    made = _made(scene)
    own = made.kernel.of(made.link)
    for ip in made.result.ips:
        if ip.cidr in own:
            name = (
                made.result.interfaces[ip.interface].name
                if ip.interface is not None and ip.interface < len(made.result.interfaces)
                else ""
            )
            made.expect(
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
    batch="result",
)
def nothing_more(scene: Scene) -> None:
    made = _made(scene)
    listed = {ip.cidr for ip in made.result.ips}
    for cidr in made.kernel.of(made.link):
        if scene.has("0.3.0") or len(made.kernel.of(made.link)) <= 2:  # the old form has one of each family
            made.expect(
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
    batch="result",
)
def gateway(scene: Scene) -> None:
    made = _made(scene)
    for ip in made.result.ips:
        if ip.gateway and ip.cidr:
            interface = ipaddress.ip_interface(ip.cidr)
            made.expect(
                ip.gateway != str(interface.ip),
                f"the gateway of {ip.cidr} is the address itself",
                "`gateway` is the default gateway of the subnet.",
            )
            near = ipaddress.ip_address(ip.gateway)
            alone = interface.network.num_addresses == 1 or near.is_link_local  # a gateway that is next by a route
            made.expect(
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
    batch="result",
)
def routes(scene: Scene) -> None:
    made = _made(scene)
    for route in made.result.routes:
        dst = destination(route.get("dst"))
        same = [each for each in made.kernel.routes if each.dst == dst]
        wanted = {key: route[key] for key in ("gw", "mtu", "advmss", "priority", "table", "scope") if route.get(key)}
        if not scene.has("1.1.0"):
            wanted = {key: value for key, value in wanted.items() if key == "gw"}
        if not same:
            made.expect(
                False,
                f"the result has a route to {dst}; the container has none",
                "`routes` are routes that the attachment made.",
            )
        elif not any(_matches(each, wanted) for each in same):
            has = "; ".join(", ".join(f"{key} {getattr(each, key) or 'none'}" for key in wanted) for each in same)
            says = ", ".join(f"{key} {value}" for key, value in wanted.items())
            made.expect(
                False,
                f"the result has a route to {dst} with {says}; the kernel's has {has}",
                "`routes` are routes that the attachment made.",
            )


def _made(scene: Scene) -> _Made:
    if "made" not in scene.cache:
        scene.cache["made"] = _Made(scene)
    made: _Made = scene.cache["made"]
    return made


def _matches(route: Route, wanted: dict[str, object]) -> bool:
    return all(getattr(route, key) == value for key, value in wanted.items())


@check(
    "result-routes-complete",
    "Every route of the container's interface is in the result, but for those to its own subnets.",
    RESULT,
    first=True,
    each=True,
    after=(*_TRUE, "add-makes-interface"),
    batch="result",
)
def routes_complete(scene: Scene) -> None:
    made = _made(scene)
    listed = {destination(route.get("dst")) for route in made.result.routes}
    own = [ipaddress.ip_interface(ip.cidr).network for ip in made.result.ips if ip.cidr]
    gateways = {ip.gateway for ip in made.result.ips} | {str(route.get("gw")) for route in made.result.routes}
    for route in made.kernel.routes:
        target = ipaddress.ip_network(route.dst)
        near = any(target.version == net.version and target.subnet_of(net) for net in own)  # type: ignore[arg-type]
        if (
            route.link == made.link.index
            and not route.by_kernel
            and not near
            and str(target.network_address) not in gateways
        ):
            made.expect(
                route.dst in listed,
                f"ADD made a route to {route.dst}; the result does not list it",
                "`routes` are the routes that the attachment made.",
            )


@check(
    "result-dns",
    "DNS settings of the configuration are in the result.",
    RESULT,
    feature="dns",
    each=True,
    after=_TRUE,
    batch="result",
)
def dns(scene: Scene) -> None:
    made = _made(scene)
    for key, value in (scene.subject.conf.get("dns") or {}).items():
        found = made.result.dns.get(key)
        made.expect(
            found == value,
            f"the configuration has dns.{key} {value}; the result has {found}",
            "A plugin that uses `dns` of its configuration returns it.",
        )


@check("add-prints-nothing-else", "ADD prints its result on standard output and nothing beside it.", RESULT, each=True)
def clean_output(scene: Scene) -> None:
    outcome = scene.add(scene.container())
    if outcome.ok:
        scene.expect(
            outcome.answer is not None,
            "standard output is not one JSON value",
            "Standard output has the result in JSON; logs go to standard error.",
            outcome,
        )
