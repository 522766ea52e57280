"""CHECK: it passes for a correct attachment, and detects damage."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

from harness.conformance import machine
from harness.conformance.call import Json
from harness.conformance.checks.base import check
from harness.conformance.checks.errors import expect_error
from harness.conformance.checks.life import BATCH
from harness.conformance.results import parse
from harness.conformance.scene import Attachment, Scene, Skipped
from harness.conformance.spec import CHECK

_FINDS = ("check-succeeds", "check-finds-interface")
_SHOULD = (
    "CHECK returns an error if something that ADD made and that prevResult lists is missing or in an invalid state."
)


@check(
    "check-succeeds",
    "CHECK right after ADD succeeds, and prints nothing.",
    CHECK,
    since="0.4.0",
    each=True,
    batch=BATCH,
)
def succeeds(scene: Scene) -> None:
    attachment = scene.added(scene.container())
    outcome = scene.verify(attachment)
    if scene.expect(
        outcome.ok,
        f"CHECK right after ADD fails: {outcome.message}",
        "CHECK may be called as soon as ADD has returned.",
        outcome,
    ):
        text = outcome.stdout.decode(errors="replace").strip()
        demand = "CHECK returns nothing, or an error."
        scene.expect(not text, f"CHECK prints {text[:80]!r}", demand, outcome, should=True)


def _finds(scene: Scene, what: str, tamper: Callable[[Attachment], Json | None]) -> None:
    """Damage an attachment; CHECK must detect it."""
    attachment = scene.added(scene.container())
    changed = tamper(attachment)
    outcome = scene.verify(attachment, changed)
    if scene.expect(not outcome.ok, f"CHECK succeeds {what}", _SHOULD, outcome):
        expect_error(scene, outcome, f"CHECK {what}")


@check(
    "check-finds-interface",
    "CHECK finds that the interface is gone.",
    CHECK,
    since="0.4.0",
    first=True,
    should=True,
    after=("check-succeeds",),
    batch="check",
)
def finds_interface(scene: Scene) -> None:
    def tamper(attachment: Attachment) -> None:
        scene.netlink(attachment, "link del eth0", lambda netlink: netlink.link("del", ifname="eth0"))

    _finds(scene, "though eth0 is gone", tamper)


@check(
    "check-finds-address",
    "CHECK finds that an address is gone.",
    CHECK,
    since="0.4.0",
    first=True,
    should=True,
    after=_FINDS,
    batch="check",
)
def finds_address(scene: Scene) -> None:
    def tamper(attachment: Attachment) -> None:
        index = _index(scene, attachment)
        scene.netlink(attachment, "addr flush dev eth0", lambda netlink: netlink.flush_addr(index=index))

    _finds(scene, "though eth0 has lost its addresses", tamper)


@check(
    "check-finds-other-address",
    "CHECK holds the interface against the addresses of prevResult.",
    CHECK,
    since="0.4.0",
    first=True,
    after=_FINDS,
    batch="check",
)
def finds_other_address(scene: Scene) -> None:
    def tamper(attachment: Attachment) -> Json:
        changed: Json = deepcopy(attachment.result or {})
        found = [ip for ip in changed.get("ips") or () if isinstance(ip, dict)]
        if not found:
            raise Skipped("the result has no addresses")
        for ip in found:
            ip["address"] = "203.0.113.77/24" if ":" not in str(ip.get("address")) else "2001:db8::77/64"
        return changed

    _finds(scene, "though prevResult has an address that eth0 has not", tamper)


@check(
    "check-finds-route",
    "CHECK finds that a route of the result is gone.",
    CHECK,
    since="0.4.0",
    first=True,
    should=True,
    after=_FINDS,
    batch="check",
)
def finds_route(scene: Scene) -> None:
    def tamper(attachment: Attachment) -> None:
        routes = parse(attachment.result or {}).routes
        if not routes:
            raise Skipped("the result has no routes")
        dst = str(routes[0].get("dst"))
        family = {"family": 10} if ":" in dst else {}
        scene.netlink(attachment, f"route del {dst}", lambda netlink: netlink.route("del", dst=dst, **family))

    _finds(scene, "though a route of the result is gone", tamper)


@check(
    "check-finds-down",
    "CHECK finds that the interface is down.",
    CHECK,
    since="0.4.0",
    first=True,
    should=True,
    after=_FINDS,
    batch="check",
)
def finds_down(scene: Scene) -> None:
    def tamper(attachment: Attachment) -> None:
        index = _index(scene, attachment)
        scene.netlink(attachment, "link set eth0 down", lambda netlink: netlink.link("set", index=index, state="down"))

    _finds(scene, "though eth0 is down", tamper)


@check(
    "check-finds-mac",
    "CHECK finds that the interface has another MAC address than the result.",
    CHECK,
    since="0.4.0",
    first=True,
    should=True,
    after=_FINDS,
    batch="check",
)
def finds_mac(scene: Scene) -> None:
    def tamper(attachment: Attachment) -> None:
        own = [interface for interface in parse(attachment.result or {}).interfaces if interface.name == "eth0"]
        if not own or not own[0].mac:
            raise Skipped("the result has no MAC address")
        index, mac = _index(scene, attachment), "02:00:5e:00:53:01"
        scene.netlink(
            attachment, f"link set eth0 address {mac}", lambda netlink: netlink.link("set", index=index, address=mac)
        )

    _finds(scene, "though eth0 has another MAC address than prevResult", tamper)


@check(
    "check-finds-mtu",
    "CHECK finds that the interface has another MTU than the result.",
    CHECK,
    since="1.1.0",
    first=True,
    should=True,
    after=_FINDS,
    batch="check",
)
def finds_mtu(scene: Scene) -> None:
    def tamper(attachment: Attachment) -> None:
        own = [interface for interface in parse(attachment.result or {}).interfaces if interface.name == "eth0"]
        if not own or not own[0].mtu:
            raise Skipped("the result has no MTU")
        index = _index(scene, attachment)
        scene.netlink(attachment, "link set eth0 mtu 1280", lambda netlink: netlink.link("set", index=index, mtu=1280))

    _finds(scene, "though eth0 has another MTU than prevResult", tamper)


@check(
    "check-finds-sandbox",
    "CHECK finds that prevResult is about another sandbox.",
    CHECK,
    since="0.4.0",
    first=True,
    should=True,
    after=_FINDS,
    batch="check",
)
def finds_sandbox(scene: Scene) -> None:
    def tamper(attachment: Attachment) -> Json:
        changed: Json = deepcopy(attachment.result or {})
        for interface in changed.get("interfaces") or ():
            if isinstance(interface, dict) and interface.get("sandbox"):
                interface["sandbox"] = "/run/netns/another"
        return changed

    _finds(scene, "though prevResult's interface is in another sandbox than CNI_NETNS", tamper)


@check(
    "check-finds-reservation",
    "CHECK finds that the reservation of an address is gone.",
    CHECK,
    since="0.4.0",
    first=True,
    should=True,
    after=("check-succeeds",),
    ipam=True,
)
def finds_reservation(scene: Scene) -> None:  # on its own machine, where nobody needs the store any more
    def tamper(attachment: Attachment) -> None:
        found = sorted(path for path in scene.about(attachment) if path.startswith("/") and path[-1] != "/")
        if not found:
            raise Skipped("no file on the machine mentions the container")
        scene.write("rm -f " + " ".join(found))
        machine.remove(found)

    _finds(scene, "though what was kept of the container on the machine is gone", tamper)


@check(
    "check-allows-more",
    "CHECK accepts a route and an address that a later plugin added.",
    CHECK,
    since="0.4.0",
    first=True,
    after=("check-succeeds",),
    batch="check",
)
def allows_more(scene: Scene) -> None:
    attachment = scene.added(scene.container())
    index = _index(scene, attachment)
    scene.netlink(
        attachment,
        "addr add 198.51.100.7/32 dev eth0",
        lambda netlink: netlink.addr("add", index=index, address="198.51.100.7", prefixlen=32),
    )
    scene.netlink(
        attachment,
        "route add 203.0.113.0/24 dev eth0",
        lambda netlink: netlink.route("add", dst="203.0.113.0/24", oif=index),
    )
    outcome = scene.verify(attachment)
    demand = "A later plugin in the chain may have changed networking resources, such as routes."
    scene.expect(outcome.ok, f"CHECK fails because of a further route and address: {outcome.message}", demand, outcome)


@check(
    "check-changes-nothing",
    "CHECK changes nothing.",
    CHECK,
    since="0.4.0",
    after=("check-succeeds",),
    batch="check",
    should=True,
)
def changes_nothing(scene: Scene) -> None:
    attachment = scene.added(scene.container())
    before, inside = scene.snapshot(), scene.inside(attachment)
    outcome = scene.verify(attachment)
    after, now = scene.snapshot(), scene.inside(attachment)
    changed = sorted(path for path in {*before.files, *after.files} if before.files.get(path) != after.files.get(path))
    found = [f"the file {path}" for path in changed if not path.startswith("/var/log/")]
    found += [f"the process {after.processes[each]!r}" for each in after.processes.keys() - before.processes.keys()]
    found += [f"the firewall rule {rule!r}" for rule in sorted(before.firewall ^ after.firewall)]
    found += ["the host's interfaces, addresses or routes"] if before.kernel != after.kernel else []
    found += ["the container's interfaces, addresses or routes"] if inside != now else []
    demand = "CHECK probes the status of a container."
    scene.expect(not found, f"CHECK changed {', '.join(found)}", demand, outcome)


@check(
    "check-without-prevresult",
    "CHECK without prevResult returns an error.",
    CHECK,
    since="0.4.0",
    first=True,
    after=("check-succeeds",),
    batch="check",
    should=True,
)
def without_prevresult(scene: Scene) -> None:
    attachment = scene.added(scene.container())
    outcome = scene.call("CHECK", attachment)
    demand = "CHECK takes from prevResult what there must be; a runtime has to give it."
    if scene.expect(not outcome.ok, "CHECK without prevResult succeeds", demand, outcome):
        expect_error(scene, outcome, "CHECK without prevResult")


def _index(scene: Scene, attachment: Attachment) -> int:
    link = scene.inside(attachment).link("eth0")
    return link.index if link else 0
