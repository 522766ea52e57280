"""What is not the plugin's own: other interfaces, the host, the namespace; and containers as runtimes have them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Set
from dataclasses import replace

from harness.conformance import machine
from harness.conformance.checks.base import check
from harness.conformance.checks.life import BATCH, ended, made
from harness.conformance.kernel import Kernel, queueing
from harness.conformance.machine import REMOVED, Snapshot
from harness.conformance.results import parse
from harness.conformance.scene import Attachment, Blocked, Scene
from harness.conformance.spec import ADD, LIFECYCLE, PARAMETERS

_DELETED = ("del-succeeds",)
_OTHERS = "ADD makes an interface, or adjusts the one that it is given; DEL undoes that."
#: Sysctls that every plugin that routes needs, and that the kernel changes with them.
_OF_ROUTERS = ("forward", "forwarding", "accept_redirects", "bridge-nf-call-iptables", "bridge-nf-call-ip6tables")
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


def _lacking(before: Kernel, now: Kernel, but: Set[str] = frozenset()) -> Iterator[str]:
    """What there was and is no more as it was, except of some interfaces."""
    names = {link.index: link.name for link in before.links}
    for link in before.links:
        found = now.link(link.name)
        if link.name not in but and (found is None or replace(found, master=link.master) != link):
            yield f"the interface {link.name}" + ("" if found is None else f" ({_difference(link, found)})")
    for address in before.addresses:
        if names.get(address.link) not in but and address not in now.addresses:
            yield f"the address {address.cidr} of {names.get(address.link)}"
    for route in before.routes:
        if names.get(route.link) not in but and route not in now.routes:
            yield f"the route to {route.dst} by {names.get(route.link)}"


def _difference(old: object, new: object) -> str:
    pairs = ((key, value, vars(new)[key]) for key, value in vars(old).items())
    return ", ".join(f"{key} {one}, now {other}" for key, one, other in pairs if one != other and key != "carrier")


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
    _other_interface(scene, attachment)
    before = scene.inside(attachment)
    scene.added(attachment)
    look = "ip -n c1 addr; ip -n c1 route"
    for what in _lacking(before, scene.inside(attachment)):
        scene.expect(False, f"ADD took or changed {what}, which another plugin may have made", _OTHERS, look=look)
    scene.deleted(attachment)
    for what in [] if scene.findings else _lacking(before, scene.inside(attachment)):
        scene.expect(False, f"DEL took or changed {what}, which another plugin may have made", _OTHERS, look=look)


def _other_interface(scene: Scene, attachment: Attachment) -> None:
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
    "ADD leaves the host's interfaces, addresses, routes, settings and files as they are, unless they are configured.",
    ADD,
    after=_DELETED,
    should=True,
)
def keeps_host(scene: Scene) -> None:
    attachment = scene.container()
    scene.prepare(attachment)
    before, settings, queues = scene.snapshot(), machine.settings(), dict(queueing())
    scene.added(attachment)
    demand = f"{_OTHERS} What else it needs of the host, the configuration names."
    after = scene.snapshot()
    names = {link.index: link.name for link in before.kernel.links if link.name not in scene.subject.shared}
    for index, kind in queueing():
        if index in names and kind not in (queues.get(index), "noqueue"):
            headline = f"ADD gave the host's {names[index]} the queueing discipline {kind}"
            scene.expect(False, headline, demand, look="tc qdisc")
    for name in _changed(settings, set(names.values())):
        scene.expect(False, f"ADD changed the host's {name.replace('/', '.')}", demand, look=f"cat /proc/sys/{name}")
    for what in [*_lacking(before.kernel, after.kernel, scene.subject.shared), *_files(before, after)]:
        scene.expect(False, f"ADD took or changed {what} on the host", demand, look="ip addr; ip route")


def _changed(before: dict[str, str], links: Set[str]) -> Iterator[str]:
    """Sysctls that have changed, of the host or one of its interfaces, except those that turn a router on."""
    now = machine.settings()
    for name, value in before.items():
        of_link = re.fullmatch(r"net/\w+/(?:conf|neigh)/(.+)/\w+", name)
        is_ours = not of_link or of_link[1] in {"all", "default"} | links
        if is_ours and now.get(name, value) != value and not name.endswith(_OF_ROUTERS):
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


@check(
    "container-ids",
    "Any container ID is possible, and two that differ at their end alone are two containers.",
    PARAMETERS,
    after=_DELETED,
    several=True,
)
def container_ids(scene: Scene) -> None:
    demand = "CNI_CONTAINERID begins with a letter or digit, then letters, digits, '_', '.' and '-' follow."
    first, second = scene.container(), scene.container()
    for number, attachment in enumerate((first, second)):
        attachment.container = f"Pod_1.example-{'a' * 48}{number}"
        outcome = scene.add(attachment)
        if not scene.expect(outcome.ok, f"ADD of {attachment.container} fails: {outcome.message}", demand, outcome):
            return
        if attachment.result is None:
            raise Blocked("ADD printed no result")
    before = scene.inside(first)
    outcome = scene.delete(second)
    scene.expect(outcome.ok, f"DEL of {second.container} fails: {outcome.message}", demand, outcome)
    for what in _lacking(before, scene.inside(first)):
        headline = f"DEL of {second.container} took or changed {what} of {first.container}"
        scene.expect(False, headline, demand, outcome, look="ip -n c1 addr")


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
