"""What is not the plugin's own: other interfaces, the host, the namespace; and containers as runtimes have them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Set

from harness.conformance import leftovers, machine
from harness.conformance.checks.base import check
from harness.conformance.checks.delete import expect_nothing_left, used
from harness.conformance.checks.life import BATCH, ended, made
from harness.conformance.kernel import queueing
from harness.conformance.machine import REMOVED, Snapshot
from harness.conformance.results import parse
from harness.conformance.scene import Attachment, Blocked, Scene
from harness.conformance.spec import ADD, CONFIGURATION, DEL, LIFECYCLE, PARAMETERS

_DELETED = ("del-succeeds",)
_OTHERS = "ADD makes an interface, or adjusts the one that it is given; DEL undoes that."
#: Sysctls that every plugin that routes needs, and that the kernel changes with them.
_OF_ROUTERS = ("forward", "forwarding", "accept_redirects", "bridge-nf-call-iptables", "bridge-nf-call-ip6tables")
_FORWARD = "net/ipv4/ip_forward"  # on already, by another program
_MAIN, _PERMANENT = 254, 0x80  # the routing table; the state of a neighbour that somebody added
_STATE = ("/run/", "/var/", "/tmp/", "/dev/shm/")  # where programs keep what changes


@check(
    "netns-stays",
    "ADD and DEL leave the container's namespace where it is: the runtime makes and removes it.",
    LIFECYCLE,
    after=_DELETED,
    batch=BATCH,
    should=True,
)
def netns_stays(scene: Scene) -> None:
    attachment, outcome = made(scene).attachment, ended(scene)
    demand = "The runtime makes the namespace before the first ADD, and it lives longer than the last DEL."
    named = attachment.sandbox is not None and attachment.sandbox.is_named
    scene.expect(named, f"{attachment.netns} is no more the container's namespace after DEL", demand, outcome)


@check(
    "add-keeps-others",
    "ADD and DEL leave another interface of the container as it is, with its addresses and routes.",
    ADD,
    first=True,
    after=_DELETED,
    should=True,
)
def keeps_others(scene: Scene) -> None:
    attachment = scene.container()
    other_interface(scene, attachment)
    before = scene.inside(attachment)
    scene.added(attachment)
    look = "ip -n c1 addr; ip -n c1 route"
    for what in leftovers.lacking(before, scene.inside(attachment)):
        scene.expect(False, f"ADD took or changed {what}, which another plugin may have made", _OTHERS, look=look)
    scene.deleted(attachment)
    for what in [] if scene.findings else leftovers.lacking(before, scene.inside(attachment)):
        scene.expect(False, f"DEL took or changed {what}, which another plugin may have made", _OTHERS, look=look)


def other_interface(scene: Scene, attachment: Attachment) -> None:
    """As another plugin makes it: with an address and a route."""
    line = "link add net9 type veth peer far9"
    scene.netlink(attachment, line, lambda it: it.link("add", ifname="net9", kind="veth", peer={"ifname": "far9"}))
    index, far = (link.index for name in ("net9", "far9") if (link := scene.inside(attachment).link(name)))
    scene.netlink(attachment, "link set net9 up", lambda it: it.link("set", index=index, state="up"))
    scene.netlink(attachment, "link set far9 up", lambda it: it.link("set", index=far, state="up"))
    scene.netlink(
        attachment,
        "addr add 198.18.9.2/24 dev net9",
        lambda it: it.addr("add", index=index, address="198.18.9.2", prefixlen=24),
    )
    scene.netlink(
        attachment,
        "route add 203.0.113.0/24 via 198.18.9.1",
        lambda it: it.route("add", dst="203.0.113.0/24", gateway="198.18.9.1"),
    )


@check(
    "add-keeps-host",
    "ADD and DEL leave what others have on the host (interfaces, routes, firewall, settings, files) as it is.",
    ADD,
    after=_DELETED,
    should=True,
)
def keeps_host(scene: Scene) -> None:
    attachment = scene.container()
    scene.prepare(attachment)
    _other_program(scene)
    before, settings, queues = scene.snapshot(), machine.settings(), dict(queueing())
    names = {link.index: link.name for link in before.kernel.links if link.name not in scene.subject.shared}
    demand = f"{_OTHERS} What else it needs of the host, the configuration names."
    for verb, call in (("ADD", scene.added), ("DEL", scene.deleted)):
        call(attachment)
        after = attachment.undone or scene.snapshot()  # before the DEL of the plugins before it
        for index, kind in queueing():
            if index in names and kind not in (queues.get(index), "noqueue"):
                headline = f"{verb} gave the host's {names[index]} the queueing discipline {kind}"
                scene.expect(False, headline, demand, look="tc qdisc")
        for name in _changed(settings, set(names.values())):
            headline = f"{verb} changed the host's {name.replace('/', '.')}"
            scene.expect(False, headline, demand, look=f"cat /proc/sys/{name}")
        for what in [*leftovers.lacking(before.kernel, after.kernel, scene.subject.shared), *_files(before, after)]:
            look = "ip addr; ip route; ip rule; ip neigh"
            scene.expect(False, f"{verb} took or changed {what} on the host", demand, look=look)
        for rule in sorted(before.firewall - after.firewall):
            headline = f"{verb} took or changed the firewall rule {rule!r}, which is another program's"
            scene.expect(False, headline, demand, look="nft list ruleset")
        if scene.findings:
            return


def _other_program(scene: Scene) -> None:
    """As another program has it on the host: forwarding, a routing rule, a neighbour and rules of a firewall."""
    [index] = (link.index for link in scene.snapshot().kernel.links if link.name == machine.UPLINK)
    scene.netlink(
        None,
        "rule add from 203.0.113.7 lookup main priority 3000",
        lambda it: it.rule("add", src="203.0.113.7", src_len=32, table=_MAIN, priority=3000),
    )
    scene.netlink(
        None,
        f"neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev {machine.UPLINK} nud permanent",
        lambda it: it.neigh("add", dst="192.0.2.77", lladdr="02:00:00:00:00:77", ifindex=index, state=_PERMANENT),
    )
    lines = (
        "echo 1 >/proc/sys/net/ipv4/ip_forward",
        "nft 'add table inet others; add chain inet others in; add rule inet others in ip saddr 203.0.113.7 drop'",
        "iptables-nft -w -A FORWARD -s 203.0.113.7 -j DROP",
    )
    scene.notes += [f"without: {line} (status {status})" for line in lines if (status := scene.shell(line))]


def _changed(before: dict[str, str], links: Set[str]) -> Iterator[str]:
    """Sysctls that have changed, of the host or one of its interfaces, except those that turn a router on."""
    now = machine.settings()
    for name, value in before.items():
        of_link = re.fullmatch(r"net/\w+/(?:conf|neigh)/(.+)/\w+", name)
        is_ours = not of_link or of_link[1] in {"all", "default"} | links
        of_router = name.endswith(_OF_ROUTERS) and name != _FORWARD
        if is_ours and now.get(name, value) != value and not of_router:
            yield name


def _files(before: Snapshot, after: Snapshot) -> Iterator[str]:
    for path, content in sorted(after.files.items()):
        is_state = path.startswith(_STATE) or "/__pycache__/" in path or path.endswith("/")
        if content != before.files.get(path) and (content == REMOVED or not is_state):
            yield f"the file {path}"


@check(
    "add-again",
    "After its DEL, a container can be added again.",
    LIFECYCLE,
    after=_DELETED,
)
def again(scene: Scene) -> None:
    attachment = scene.added(scene.container())
    scene.deleted(attachment)
    attachment.before = attachment.result = None
    outcome = scene.add(attachment)
    demand = "A runtime does not call ADD twice without a DEL between them: with one, it may."
    scene.expect(outcome.ok, f"ADD after ADD and DEL of the same container fails: {outcome.message}", demand, outcome)


#: Of each two, one is taken for the other by a plugin that cuts them, looks for a beginning, or for a pattern.
_IDS = (
    *((f"Pod_1.example-{'a' * 48}0", f"Pod_1.example-{'a' * 48}1"), ("web-10", "web-1")),
    *(("db-x-7", "db.x.7"), ("App_1", "app_1")),
)
_LOOK = "ip -n c1 addr; ls -R /run /var/lib"


@check(
    "container-ids",
    "Any container ID is possible, and two that are alike are two containers.",
    PARAMETERS,
    after=_DELETED,
    several=True,
)
def container_ids(scene: Scene) -> None:
    demand = "CNI_CONTAINERID begins with a letter or digit, then letters, digits, '_', '.' and '-' follow."
    for names in _IDS:
        first, second = scene.container(), scene.container()
        kept = set[str]()
        for attachment, name in zip((first, second), names, strict=True):
            attachment.container = name
            outcome = scene.add(attachment)
            if not scene.expect(outcome.ok, f"ADD of {name} fails: {outcome.message}", demand, outcome):
                return
            if attachment.result is None:
                raise Blocked("ADD printed no result")
            kept = kept or scene.about(first)
        before = scene.inside(first)
        outcome = scene.delete(second)
        scene.expect(outcome.ok, f"DEL of {second.container} fails: {outcome.message}", demand, outcome)
        for what in [*leftovers.lacking(before, scene.inside(first)), *sorted(kept - scene.about(first))]:
            headline = f"DEL of {second.container} took or changed {what} of {first.container}"
            scene.expect(False, headline, demand, outcome, look=_LOOK)
        if scene.findings:
            return


@check(
    "two-networks",
    "A container can be in two networks of the plugin, and DEL of one keeps what the other has.",
    LIFECYCLE,
    first=True,
    should=True,
    after=("del-succeeds", "two-interfaces"),
    ipam=True,
    several=True,
)
def two_networks(scene: Scene) -> None:
    first = scene.added(scene.container())
    files = scene.about(first)
    second = scene.added_to_another(
        Attachment(sandbox=first.sandbox, container=first.container, ifname="net1", netns=first.netns)
    )
    before = scene.inside(first)
    outcome = scene.delete(second)
    demand = "A network is known by its name. DEL is about one container, one interface and one network."
    scene.expect(outcome.ok, f"DEL of a second network fails: {outcome.message}", demand, outcome)
    for what in [*leftovers.lacking(before, scene.inside(first), {"net1"}), *sorted(files - scene.about(first))]:
        headline = f"DEL of another network took or changed {what} of the first network"
        scene.expect(False, headline, demand, outcome, look=_LOOK)


@check(
    "del-netns-host",
    "DEL with the host's namespace leaves the host's interface of that name alone.",
    DEL,
    first=True,
    after=_DELETED,
    should=True,
)
def netns_host(scene: Scene) -> None:
    attachment = scene.added(scene.container())
    before = scene.snapshot().kernel
    own = {link.name for link in before.links} - {machine.UPLINK, "lo"}
    attachment.netns = "/proc/1/ns/net"
    outcome = scene.delete(attachment)
    demand = "DEL is about the container's interface. By then, a number in /proc can be that of a process of the host."
    lost = list(leftovers.lacking(before, scene.snapshot().kernel, own))
    headline = f"DEL with the host's namespace took or changed {', '.join(lost)} of the host"
    scene.expect(not lost, headline, demand, outcome, look="ip addr; ip route")


@check(
    "del-keeps-listed",
    "DEL removes no interface of others because prevResult lists it.",
    DEL,
    since="0.4.0",
    first=True,
    after=_DELETED,
    should=True,
)
def keeps_listed(scene: Scene) -> None:
    attachment = scene.container()
    other_interface(scene, attachment)
    before, host = scene.inside(attachment), scene.snapshot().kernel
    result = scene.added(attachment).result or {}
    others = [{"name": machine.UPLINK}, {"name": "net9", "sandbox": attachment.netns}]
    attachment.result = {**result, "interfaces": [*result.get("interfaces", []), *others]}
    outcome = scene.delete(attachment)
    demand = "prevResult is the result of the whole chain: it lists what other plugins made, too."
    lost = [f"{what} in the container" for what in leftovers.lacking(before, scene.inside(attachment))]
    lost += [f"{what} on the host" for what in leftovers.lacking(host, scene.snapshot().kernel, scene.subject.shared)]
    for what in lost:
        headline = f"DEL took or changed {what}, which prevResult lists"
        scene.expect(False, headline, demand, outcome, look="ip link; ip -n c1 link")


@check(
    "network-names",
    "Any valid name of a network is possible, however long, and an invalid one is refused.",
    CONFIGURATION,
    after=_DELETED,
)
def network_names(scene: Scene) -> None:
    demand = "A network's name begins with a letter or digit, then letters, digits, '_', '.' and '-' follow."
    name = f"Conformance.network_1-{'x' * 60}"
    scene.changes = {"name": name}
    attachment = scene.container()
    outcome = scene.add(attachment)
    if scene.expect(outcome.ok, f"ADD to the network {name} fails: {outcome.message}", demand, outcome):
        outcome = scene.delete(attachment)
        scene.expect(outcome.ok, f"DEL from the network {name} fails: {outcome.message}", demand, outcome)
    scene.changes = {"name": "../escape"}
    outcome = scene.add(scene.container())
    scene.expect(not outcome.ok, "ADD to a network of the name ../escape succeeds", demand, outcome, should=True)


#: What a runtime's process may have, and what has nothing to do with a call.
_SURROUNDINGS = {
    "HOME": "/tmp/home",
    "TMPDIR": "/var/tmp",
    "XDG_RUNTIME_DIR": "/tmp/runtime",
    "LC_ALL": "C",
    "TZ": "Pacific/Kiritimati",
}


@check(
    "any-surroundings",
    "ADD and DEL do not depend on the directory, the umask or variables that are no parameters of CNI.",
    PARAMETERS,
    after=("del-leaves-nothing",),
    should=True,
)
def surroundings(scene: Scene) -> None:
    before = used(scene)
    demand = (
        "The parameters of a call are CNI_ variables and the configuration. A runtime may be started anew in between."
    )
    for verbs in (("ADD",), ("CHECK", "DEL")):
        attachment = scene.container()
        for verb, call in (("ADD", scene.add), ("CHECK", scene.verify), ("DEL", scene.delete)):
            if verb == "CHECK" and (not scene.has("0.4.0") or scene.subject.network.get("disableCheck")):
                continue
            scene.surroundings = _SURROUNDINGS if verb in verbs else {}
            outcome = call(attachment)
            scene.surroundings = {}
            where = "in other surroundings" if verb in verbs else f"after {verbs[0]} in other surroundings"
            headline = f"{verb} {where} (directory, umask, HOME, LC_ALL, TZ) fails: {outcome.message}"
            if not scene.expect(outcome.ok, headline, demand, outcome):
                return
        how = f"after ADD and DEL, of which {verbs[-1]} had other surroundings (directory, umask, HOME, LC_ALL, TZ)"
        expect_nothing_left(scene, before, attachment, when=how)


@check(
    "output-closed",
    "When a call has ended, no process holds its output open.",
    PARAMETERS,
    after=_DELETED,
    should=True,
)
def output_closed(scene: Scene) -> None:
    scene.watched = True
    attachment = scene.container()
    demand = "A runtime reads the output to its end. If a process that stays has it open, the call never ends for it."
    for verb, call in (("ADD", scene.add), ("DEL", scene.delete)):
        outcome = call(attachment)
        holders = ", ".join(outcome.holders)
        headline = f"{verb} has ended, and its output is held open by the process {holders}"
        scene.expect(
            not holders,
            headline,
            demand,
            outcome,
            look="ps ax  # with `| cat` behind that call, cat does not end before this process",
        )


@check(
    "netns-by-process",
    "CNI_NETNS can be a path of /proc, and is the sandbox in the result.",
    PARAMETERS,
    after=_DELETED,
)
def by_process(scene: Scene) -> None:
    attachment = scene.container()
    assert attachment.sandbox is not None
    process = attachment.sandbox.inside(subprocess.Popen, ["sleep", "60"], env={"PATH": os.defpath})
    scene.write(
        "# CNI_NETNS below is that of a process in c1, which was `ip netns exec c1 sleep 60`: put its number there"
    )
    try:
        attachment.netns = f"/proc/{process.pid}/ns/net"
        outcome = scene.add(attachment)
        demand = "CNI_NETNS is the path of the namespace; some runtimes have no other name for it than a process's."
        if scene.expect(outcome.ok, f"ADD with CNI_NETNS={attachment.netns} fails: {outcome.message}", demand, outcome):
            found = {each.sandbox for each in parse(attachment.result or {}).interfaces if each.sandbox}
            wrong = found - {attachment.netns}
            headline = f"with CNI_NETNS={attachment.netns} the result has the sandbox {', '.join(sorted(wrong))}"
            scene.expect(not wrong, headline, demand, outcome)
            outcome = scene.delete(attachment)
            scene.expect(outcome.ok, f"DEL with CNI_NETNS={attachment.netns} fails: {outcome.message}", demand, outcome)
    finally:
        process.kill()
        process.wait()
