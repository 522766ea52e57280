"""GC and STATUS."""

from __future__ import annotations

import json
import os

from harness.conformance import leftovers
from harness.conformance.call import Json, Outcome
from harness.conformance.checks.base import check
from harness.conformance.checks.delete import CLEAN, used
from harness.conformance.checks.errors import expect_error
from harness.conformance.checks.life import settled
from harness.conformance.findings import Fault
from harness.conformance.machine import Snapshot
from harness.conformance.results import Result, destination, parse
from harness.conformance.scene import Attachment, Blocked, Scene, Skipped
from harness.conformance.spec import ADD, DELEGATION, GC, PARAMETERS, STATUS, number

_STALE = (
    "GC removes what belongs to attachments that are not in the list of valid ones, such as reservations of addresses."
)
_VALID_KEY = "cni.dev/valid-attachments"
_VALID = "GC leaves alone what belongs to valid attachments."


@check("gc-succeeds", "GC with all attachments valid succeeds, prints nothing, and changes nothing.", GC, since="1.1.0")
def succeeds(scene: Scene) -> None:
    many = 1 if scene.subject.is_exclusive else 2
    attachments = [scene.added(scene.container()) for _ in range(many)]
    before, host = [(scene.inside(each), scene.about(each)) for each in attachments], scene.snapshot()
    outcome = scene.collect(attachments)
    demand = "GC generally completes without an error."
    if not scene.expect(outcome.ok, f"GC fails: {outcome.message}", demand, outcome, should=True):
        return
    text = outcome.stdout.decode(errors="replace").strip()
    scene.expect(not text, f"GC prints {text[:80]!r}", "GC has no output on success.", outcome)
    for each, (inside, files) in zip(attachments, before, strict=True):
        scene.expect(inside == scene.inside(each), "GC changed a container that is valid", _VALID, outcome)
        scene.expect(files <= scene.about(each), "GC removed the files of a container that is valid", _VALID, outcome)
    gone = {link.name for link in host.kernel.links} - {link.name for link in scene.snapshot().kernel.links}
    scene.expect(not gone, f"GC removed {', '.join(sorted(gone))} of a container that is valid", _VALID, outcome)


@check(
    "gc-collects-stale",
    "GC removes what is kept of attachments that are not valid, and nothing else.",
    GC,
    since="1.1.0",
    should=True,
    after=("gc-succeeds", "gc-asks-ipam", "del-leaves-nothing"),
    several=True,
)
def collects(scene: Scene) -> None:
    valid, stale = scene.container(), scene.container()
    valid.container, stale.container = "web-1", "web-10"  # alike, for a GC that looks for beginnings
    scene.added(valid)
    kept, before = scene.about(valid), scene.snapshot()
    scene.added(stale)
    _expect_collected(scene, before, [stale], [valid])
    scene.expect(kept <= scene.about(valid), "GC removed the files of a container that is valid", _VALID)


def _expect_collected(scene: Scene, before: Snapshot, stale: list[Attachment], valid: list[Attachment]) -> None:
    """Remove the namespaces of stale attachments; GC must remove the rest of them."""
    for each in stale:
        scene.reboot(each)
    if not settled(lambda: _outlive(scene, before, stale)):
        raise Skipped("nothing of a container outlives its namespace")
    outcome = scene.collect(valid)
    scene.expect(outcome.ok, f"GC fails: {outcome.message}", "GC completes without an error.", outcome)
    left = _outlive(scene, before, stale)
    stored = scene.left_by_ipam(left, [("GC", None, scene.valid(valid))], lambda: _outlive(scene, before, stale))
    for what in left:
        fault = Fault.IPAM if what in stored else Fault.PLUGIN
        look = "ip link; ip route; ip rule; ls -R /var/lib/cni"
        scene.expect(False, f"{what} of a stale container is left after GC", _STALE, outcome, fault=fault, look=look)


def _outlive(scene: Scene, before: Snapshot, stale: list[Attachment]) -> list[str]:
    """Leftovers of attachments without a namespace, except those that existed before and those of earlier plugins."""
    now = scene.snapshot()
    found = {what: None for each in stale for what in leftovers.left(each.around or before, now, [each.container])}
    return list(found)


@check(
    "gc-collects-all",
    "GC with no valid attachment removes what is kept of all.",
    GC,
    since="1.1.0",
    should=True,
    after=("gc-collects-stale",),
    several=True,
)
def collects_all(scene: Scene) -> None:
    before = used(scene)
    many = 1 if scene.subject.position else 2  # what plugins before this one keep of the second looks like its own
    _expect_collected(scene, before, [scene.added(scene.container()) for _ in range(many)], [])


@check(
    "gc-by-interface",
    "GC distinguishes a container's interfaces.",
    GC,
    since="1.1.0",
    first=True,
    should=True,
    after=("gc-collects-stale", "two-interfaces"),
    ipam=True,
    several=True,
)
def by_interface(scene: Scene) -> None:
    valid = scene.added(scene.container())
    stale = Attachment(sandbox=valid.sandbox, container=valid.container, ifname="net1", netns=valid.netns)
    scene.added(stale)
    before, inside = scene.about(valid), scene.inside(valid)
    outcome = scene.collect([valid, stale])
    look = "ip -n c1 addr; ip -n c1 route"
    same = inside == scene.inside(valid)
    scene.expect(same, "GC changed a container of which both interfaces are valid", _VALID, outcome, look=look)
    outcome = scene.collect([valid])
    own, now = inside.link("eth0"), scene.inside(valid)
    same = own is None or (now.link("eth0") == own and now.of(own) == inside.of(own))
    scene.expect(same, "GC of net1 changed eth0 of the same container, which is valid", _VALID, outcome, look=look)
    after = scene.about(valid)
    if before:
        scene.expect(
            after,
            "GC removed all of a container of which one interface is valid",
            _VALID,
            outcome,
            look="ls -R /var/lib/cni",
        )
        files = scene.snapshot().files
        mention = [path for path in sorted(after) if b"net1" in files.get(path, b"")]
        scene.expect(
            not mention,
            f"{', '.join(mention)} of a stale interface is left after GC",
            _STALE,
            outcome,
            look="ls -R /var/lib/cni",
        )


@check(
    "gc-keeps-other-networks",
    "GC of one network leaves the attachments of another alone.",
    GC,
    since="1.1.0",
    after=("gc-succeeds",),
    several=True,
)
def keeps_others(scene: Scene) -> None:
    other = scene.added_to_another(scene.container())
    scene.changes = {}
    mine = scene.added(scene.container())
    before, files = scene.inside(other), scene.about(other)
    scene.reboot(mine)
    outcome = scene.collect([])
    demand = "GC is about the attachments to one network."
    scene.expect(before == scene.inside(other), "GC changed a container of another network", demand, outcome)
    kept = files <= scene.about(other)
    scene.expect(kept, "GC removed what is kept of a container of another network", demand, outcome)


@check("status-succeeds", "STATUS of a plugin that can work succeeds and prints nothing.", STATUS, since="1.1.0")
def status(scene: Scene) -> None:
    scene.deleted(scene.added(scene.container()))
    outcome = scene.call("STATUS")
    if scene.expect(
        outcome.ok,
        f"STATUS fails, though ADD works: {outcome.message}",
        "STATUS succeeds if the plugin can serve ADD.",
        outcome,
    ):
        text = outcome.stdout.decode(errors="replace").strip()
        demand = "STATUS has no output on success."
        scene.expect(not text, f"STATUS prints {text[:80]!r}", demand, outcome, should=True)


_ERROR: Json = {"cniVersion": "1.1.0", "code": 50, "msg": "no addresses today", "details": "by the harness"}


@check(
    "status-asks-ipam",
    "STATUS fails if the ipam plugin's STATUS does.",
    STATUS,
    since="1.1.0",
    after=("status-succeeds",),
)
def status_asks(scene: Scene) -> None:
    delegate = scene.delegate()
    scene.write(delegate.answer("STATUS", _ERROR, 1))
    outcome = scene.call("STATUS")
    demand = "A plugin that relies on a delegated plugin calls its STATUS, and returns an error if that does."
    asked = any(call.verb == "STATUS" for call in delegate.calls())
    if not scene.expect(asked, "STATUS does not call the ipam plugin's", demand, outcome):
        return
    if scene.expect(not outcome.ok, "STATUS succeeds though the ipam plugin's fails", demand, outcome, should=True):
        expect_error(scene, outcome, "STATUS with an ipam plugin that is not available")


@check("gc-asks-ipam", "GC calls the ipam plugin's GC.", GC, since="1.1.0", after=("gc-succeeds",))
def gc_asks(scene: Scene) -> None:
    delegate = scene.delegate()
    first = scene.added(scene.container())
    second = Attachment(sandbox=first.sandbox, container="another", ifname="net1", netns=first.netns)
    wanted = scene.valid([first, second])[_VALID_KEY]
    outcome = scene.collect([first, second])
    demand = "A plugin passes GC on to the plugins that it delegates to, with all that it was given."
    asked = any(call.verb == "GC" for call in delegate.calls())
    if scene.expect(asked, "GC does not call the ipam plugin", demand, outcome):
        given = delegate.given("GC").get(_VALID_KEY)
        headline = f"GC of {json.dumps(wanted)} gives the ipam plugin {json.dumps(given)} as the valid attachments"
        scene.expect(given == wanted, headline, demand, outcome)


@check(
    "add-gives-ipam",
    "The ipam plugin gets the variables and the configuration of the call.",
    DELEGATION,
    should=True,
)
def gives_ipam(scene: Scene) -> None:
    delegate = scene.delegate()
    scene.changes = {"args": {"cni": {"labels": [{"key": "app", "value": "x"}]}}}
    attachment = scene.added(scene.container(args="IgnoreUnknown=1;K8S_POD_NAME=web-0"))
    demand = "A delegated plugin is executed with the same environment and configuration."
    wanted, conf = attachment.variables, scene.conf(attachment, attachment.before)
    given, stdin = delegate.variables("ADD"), delegate.given("ADD")
    if not given:
        raise Skipped("ADD does not call the ipam plugin")
    wrong = [f"{name} {given.get(name, 'missing')!r}" for name in wanted if given.get(name) != wanted[name]]
    headline = f"the ipam plugin's ADD has {', '.join(wrong)}, unlike the plugin's"
    scene.expect(not wrong, headline, demand)
    lost = [key for key in conf if stdin.get(key) != conf[key]]
    scene.expect(not lost, f"the ipam plugin's input lacks or changes {', '.join(lost)}", demand)


@check(
    "del-gives-ipam",
    "The ipam plugin's CHECK and DEL get the variables and the configuration of the call.",
    DELEGATION,
    should=True,
    after=("add-gives-ipam", "del-asks-ipam"),
)
def del_gives_ipam(scene: Scene) -> None:
    delegate = scene.delegate()
    attachment = scene.added(scene.container(args="IgnoreUnknown=1;K8S_POD_NAME=web-0"))
    conf = scene.conf(attachment, attachment.result if scene.has("0.4.0") else None)
    demand = "A delegated plugin is executed with the same environment and configuration."
    if scene.has("0.4.0"):
        scene.verify(attachment)
    scene.delete(attachment)
    for verb in ("CHECK", "DEL"):
        given, stdin = delegate.variables(verb), delegate.given(verb)
        if not given:
            continue  # check-asks-ipam and del-asks-ipam are about that
        wrong = [f"{name} {given.get(name, 'missing')!r}" for name, value in attachment.variables.items()
                 if given.get(name) != value]  # fmt: skip
        scene.expect(not wrong, f"the ipam plugin's {verb} has {', '.join(wrong)}, unlike the plugin's", demand)
        lost = [key for key in conf if key != "prevResult" and stdin.get(key) != conf[key]]
        scene.expect(not lost, f"the ipam plugin's input for {verb} lacks or changes {', '.join(lost)}", demand)


@check(
    "result-has-ipam",
    "The result has every address, route and DNS setting that the ipam plugin gave.",
    DELEGATION,
    after=("result-well-formed",),
    should=True,
)
def has_ipam(scene: Scene) -> None:
    delegate = scene.delegate()
    result = parse(scene.added(scene.container()).result or {})
    given = parse(delegate.answered("ADD"))
    lost = [ip.cidr for ip in given.ips if ip.cidr not in {each.cidr for each in result.ips}]
    lost += [f"the route to {dst}" for dst in _destinations(given) if dst not in _destinations(result)]
    lost += [f"dns.{key}" for key, value in given.dns.items() if value and not result.dns.get(key)]
    demand = "An ipam plugin's abbreviated result is what the plugin assigns; what it cannot do it refuses."
    scene.expect(not lost, f"the result lacks {', '.join(lost)} of the ipam plugin's", demand)


@check(
    "routes-as-ipam-gave",
    "A route of the ipam plugin has the MTU, the MSS and the priority that it gave, or is refused.",
    DELEGATION,
    since="1.1.0",
    first=True,
    after=("result-has-ipam", "add-ipam-fails"),
    should=True,
)
def as_ipam_gave(scene: Scene) -> None:
    delegate = scene.delegate()
    route: Json = {"dst": "203.0.113.0/24", "gw": "198.18.5.1", "mtu": 1400, "advmss": 1340, "priority": 50}
    given = {"ips": [{"address": "198.18.5.5/24", "gateway": "198.18.5.1"}], "routes": [route]}
    scene.write(delegate.answer("ADD", {"cniVersion": scene.version, **given}))
    attachment = scene.container()
    outcome = scene.add(attachment)
    if not outcome.ok:
        expect_error(scene, outcome, "ADD with a route of an MTU, an MSS and a priority")
        return
    there = [each for each in scene.inside(attachment).routes if each.dst == route["dst"]]
    lost = [key for key in ("mtu", "advmss", "priority") if all(getattr(each, key) != route[key] for each in there)]
    demand = "An ipam plugin's abbreviated result is what the plugin assigns; what it cannot do it refuses."
    headline = f"the ipam plugin gave a route with {', '.join(lost)}; the container's route has no such"
    scene.expect(not lost, headline, demand, outcome, look="ip -n c1 route")


@check(
    "cni-path-list",
    "The ipam plugin is found in any directory of CNI_PATH.",
    PARAMETERS,
)
def path_list(scene: Scene) -> None:
    if not scene.subject.ipam:
        raise Skipped("the plugin has no ipam plugin")
    scene.path = os.pathsep.join(["/opt/one/cni", scene.path, "/opt/other/cni"])
    attachment = scene.container()
    outcome = scene.add(attachment)
    demand = "CNI_PATH is a list of directories, separated as the operating system does it."
    if scene.expect(outcome.ok, f"ADD with CNI_PATH={scene.path} fails: {outcome.message}", demand, outcome):
        outcome = scene.delete(attachment)
        scene.expect(outcome.ok, f"DEL with CNI_PATH={scene.path} fails: {outcome.message}", demand, outcome)


def _destinations(result: Result) -> list[str]:
    return [found for route in result.routes if (found := destination(route.get("dst")))]


@check(
    "check-asks-ipam",
    "CHECK calls the ipam plugin's CHECK and returns its error.",
    DELEGATION,
    since="0.4.0",
    after=("check-succeeds",),
)
def check_asks(scene: Scene) -> None:
    delegate = scene.delegate()
    attachment = scene.added(scene.container())
    scene.write(delegate.answer("CHECK", {**_ERROR, "code": 100, "cniVersion": scene.version}, 1))
    outcome = scene.verify(attachment)
    asked = any(call.verb == "CHECK" for call in delegate.calls())
    demand = "CHECK, DEL and GC call the delegated plugins too, and return their errors."
    if scene.expect(asked, "CHECK does not call the ipam plugin", demand, outcome, should=True):  # section 2 has it so
        scene.expect(not outcome.ok, "CHECK succeeds though the ipam plugin's fails", demand, outcome, should=True)


@check(
    "del-asks-ipam",
    "DEL calls the ipam plugin's DEL, also for a namespace that is gone, and returns its error.",
    DELEGATION,
    after=("del-succeeds",),
)
def del_asks(scene: Scene) -> None:
    delegate = scene.delegate()
    attachment = scene.added(scene.container())
    scene.reboot(attachment)
    outcome = scene.delete(attachment)
    demand = "CHECK, DEL and GC call the delegated plugins too, and return their errors."
    asked = any(call.verb == "DEL" and call.container == attachment.container for call in delegate.calls())
    if scene.expect(asked, "DEL of a namespace that is gone does not call the ipam plugin", demand, outcome):
        attachment = scene.added(scene.container())
        scene.write(delegate.answer("DEL", {**_ERROR, "code": 100, "cniVersion": scene.version}, 1))
        outcome = scene.delete(attachment)
        scene.expect(not outcome.ok, "DEL succeeds though the ipam plugin's fails", demand, outcome, should=True)


@check(
    "add-ipam-fails",
    "ADD fails if the ipam plugin's does, and after its DEL nothing that it had made is there.",
    DELEGATION,
)
def ipam_fails(scene: Scene) -> None:
    delegate = scene.delegate()
    scene.write(delegate.answer("ADD", {**_ERROR, "code": 100, "cniVersion": scene.version}, 1))
    attachment, outcome = _failed(scene, "with an ipam plugin that fails")
    expect_error(scene, outcome, "ADD with an ipam plugin that fails")
    scene.delete(attachment)
    _expect_no_interface(scene, attachment, outcome)


@check(
    "add-ipam-fails-releases",
    "If the ipam plugin's ADD fails, its DEL is called before ADD returns.",
    DELEGATION,
    should=True,
    after=("add-ipam-fails",),
)
def ipam_releases(scene: Scene) -> None:
    delegate = scene.delegate()
    scene.write(delegate.answer("ADD", {**_ERROR, "code": 100, "cniVersion": scene.version}, 1))
    _, outcome = _failed(scene, "with an ipam plugin that fails")
    verbs = [call.verb for call in delegate.calls()]
    demand = "If a delegated plugin fails on ADD, it is called again with DEL before the failure is returned."
    scene.expect("DEL" in verbs, f"the ipam plugin was called with {', '.join(verbs)}", demand, outcome)


@check(
    "add-fails-late",
    "An ADD that fails after addresses were assigned leaves nothing once DEL was called.",
    ADD,
    first=True,
    after=("add-ipam-fails", "del-leaves-nothing"),
)
def fails_late(scene: Scene) -> None:
    delegate = scene.delegate()
    scene.write(delegate.answer("ADD", _impossible(scene.version)))
    attachment, outcome = _failed(scene, "with a route that the kernel refuses")
    expect_error(scene, outcome, "ADD with a route that the kernel refuses")
    scene.delete(attachment)
    _expect_no_interface(scene, attachment, outcome)


def _impossible(version: str) -> Json:
    """A result of an ipam plugin, with an unreachable next hop."""
    ip: Json = {"address": "198.18.5.5/24", "gateway": "198.18.5.1"}
    if number(version) < number("0.3.0"):
        routes = [{"dst": "203.0.113.0/24", "gw": "192.168.77.1"}]
        return {"cniVersion": version, "ip4": {"ip": ip["address"], "gateway": ip["gateway"], "routes": routes}}
    if number(version) < number("1.0.0"):
        ip["version"] = "4"
    return {"cniVersion": version, "ips": [ip], "routes": [{"dst": "203.0.113.0/24", "gw": "192.168.77.1"}]}


def _failed(scene: Scene, how: str) -> tuple[Attachment, Outcome]:
    """An ADD that must fail."""
    attachment = scene.container()
    scene.cache["host"] = {link.name for link in scene.snapshot().kernel.links}
    outcome = scene.add(attachment)
    demand = "If a delegated plugin fails, or what it answers cannot be done, the plugin fails."
    if not scene.expect(not outcome.ok, f"ADD {how} succeeds", demand, outcome):
        raise Blocked("it did not fail")
    return attachment, outcome


def _expect_no_interface(scene: Scene, attachment: Attachment, outcome: Outcome) -> None:
    known = scene.cache["host"] | scene.subject.shared

    def left() -> list[str]:
        found = [link.name for link in scene.snapshot().kernel.links if link.name not in known]
        inside = scene.inside(attachment).link("eth0")
        return [*found, *(["eth0 in the container"] if inside and not scene.subject.adjusts else [])]

    found = settled(left)
    scene.expect(not found, f"{', '.join(found)} is left after an ADD that failed and its DEL", CLEAN, outcome)
