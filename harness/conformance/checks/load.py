"""Many calls at once, a full pool, and the same result every time."""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Any

from harness.conformance import leftovers
from harness.conformance.call import Json, Outcome
from harness.conformance.checks.base import check
from harness.conformance.checks.delete import CLEAN, expect_nothing_left, used
from harness.conformance.checks.errors import expect_error
from harness.conformance.findings import Fault
from harness.conformance.machine import Snapshot
from harness.conformance.results import parse
from harness.conformance.scene import Attachment, Scene, Skipped
from harness.conformance.spec import ADD, CHECK, DEL, LIFECYCLE
from harness.values import subnets

MANY = 50
_A_LINE = 4  # bytes that a file grows by at least if each round leaves something in it
ROUNDS = 200  # of ADD and DEL; a run sets it
_SMALL_POOL = 29  # prefix length: six addresses, of which a gateway may be one


@check(
    "concurrent-add",
    "50 ADDs of 50 containers at once succeed, and no address is given twice.",
    LIFECYCLE,
    after=("add-succeeds", "del-leaves-nothing"),
    batch="many",
    several=True,
)
def concurrent_add(scene: Scene) -> None:
    _, attachments, outcomes = _many(scene)
    _expect_all(scene, outcomes, "ADD", _AT_ONCE)
    given = ({ip.cidr for ip in parse(each.result or {}).ips if _inside(each, ip)} for each in attachments)
    holders = Counter(cidr for each in given for cidr in each)
    for cidr, count in holders.items():
        if ipaddress.ip_interface(cidr).is_loopback or scene.subject.has_address(cidr):
            continue  # each container has its own, or the configuration gives the same to all
        scene.expect(count == 1, f"{cidr} was given to {count} of {MANY} containers", _AT_ONCE)


_AT_ONCE = "Plugins handle being run at the same time for different containers, with locks where something is shared."


def _many(scene: Scene) -> tuple[Snapshot, list[Attachment], list[Outcome]]:
    """The machine before, containers that were added at the same time, and the outcomes."""
    if _room(scene.subject.conf) < MANY:
        raise Skipped(f"the configuration has fewer than {MANY} addresses")
    if "many" not in scene.cache:
        before, attachments = used(scene), [scene.container() for _ in range(MANY)]
        scene.cache["many"] = before, attachments, scene.at_once(scene.add, attachments)
    found: tuple[Snapshot, list[Attachment], list[Outcome]] = scene.cache["many"]
    return found


def _inside(attachment: Attachment, ip: Any) -> bool:
    """Whether an address belongs to the container, and not to the host."""
    interfaces = parse(attachment.result or {}).interfaces
    return ip.interface is None or ip.interface >= len(interfaces) or bool(interfaces[ip.interface].sandbox)


def _expect_all(scene: Scene, outcomes: list[Outcome], verb: str, demand: str) -> None:
    failed = [outcome for outcome in outcomes if not outcome.ok]
    if failed:
        headline = f"{len(failed)} of {len(outcomes)} {verb}s at once fail: {failed[0].message}"
        scene.expect(False, headline, demand, failed[0])


@check(
    "concurrent-del",
    "50 DELs of 50 containers at once succeed and leave nothing.",
    LIFECYCLE,
    after=("concurrent-add",),
    batch="many",
    several=True,
)
def concurrent_del(scene: Scene) -> None:
    before, attachments, _ = _many(scene)
    _expect_all(scene, scene.at_once(scene.delete, attachments), "DEL", _AT_ONCE)
    for attachment in attachments:
        there = scene.inside(attachment).link("eth0") if not scene.subject.adjusts else None
        scene.expect(not there, f"eth0 is in container {attachment.netns} after its DEL", CLEAN)
    attachments[0].around = None  # of one moment of many, when others came and went
    expect_nothing_left(scene, before, attachments[0], when=f"after {MANY} DELs at once")


def _subnets(conf: Json) -> list[str]:
    """Every IPv4 subnet that a configuration has addresses from."""
    return [subnet for subnet in subnets(conf) if "." in subnet]


def _room(conf: Json) -> int:
    """The number of containers that the pool can hold; a large number if unknown."""
    if conf.get("ipam", {}).get("type") == "static":
        return 1
    return min((_size(subnet) for subnet in _subnets(conf)), default=1 << 16)


def _size(subnet: str) -> int:
    try:
        return ipaddress.ip_network(subnet, strict=False).num_addresses - 3
    except ValueError:
        return 1 << 16


def _narrowed(value: Any) -> Any:
    """A configuration with very small IPv4 subnets, which are soon full."""
    if isinstance(value, list):
        return [_narrowed(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    narrow = {key: _narrowed(inner) for key, inner in value.items()}
    subnet = value.get("subnet")
    if isinstance(subnet, str) and "." in subnet:
        address = ipaddress.ip_network(subnet, strict=False).network_address
        narrow["subnet"] = f"{address}/{_SMALL_POOL}"
        for key in ("rangeStart", "rangeEnd", "gateway"):
            narrow.pop(key, None)
    return narrow


@check(
    "pool-full",
    "With no address left ADD returns an error, and one DEL makes room for one ADD.",
    ADD,
    feature="pool",
    after=("error-object", "del-leaves-nothing"),
    several=True,
)
def pool_full(scene: Scene) -> None:
    conf = scene.subject.conf
    if not _subnets(conf):
        raise Skipped("the configuration has no `subnet`")
    scene.changes = {key: value for key, value in _narrowed(conf).items() if value != conf.get(key)}
    attachments: list[Attachment] = []
    demand = "An ADD that cannot be served fails, and a DEL releases what its container had."
    for _ in range((1 << (32 - _SMALL_POOL)) + 1):
        attachment, before = scene.container(), scene.snapshot()
        if not (outcome := scene.add(attachment)).ok:
            break
        attachments.append(attachment)
    else:
        scene.expect(False, f"{len(attachments)} ADDs succeed with a /{_SMALL_POOL}", demand, outcome)
        return
    if not attachments:
        raise Skipped(f"no ADD succeeds with a /{_SMALL_POOL}: {outcome.message}")
    expect_error(scene, outcome, "ADD with no address left")
    scene.delete(attachment)
    what = "after an ADD that found no address, and its DEL"
    there = scene.inside(attachment).link("eth0") if not scene.subject.adjusts else None
    scene.expect(not there, f"eth0 is in the container {what}", CLEAN, outcome)
    expect_nothing_left(scene, before, attachment, when=what)
    scene.deleted(attachments[len(attachments) // 2])
    outcome = scene.add(scene.container())
    scene.expect(outcome.ok, f"with no address left, after one DEL, ADD fails: {outcome.message}", demand, outcome)


@check(
    "deterministic",
    "Many rounds of ADD, CHECK and DEL (200 unless fewer are asked for) have the same outcome, and leave nothing.",
    ADD,
    after=("add-succeeds", "del-leaves-nothing"),
    repeat=False,
)
def deterministic(scene: Scene) -> None:
    before = used(scene)
    rounds = _rounds(scene)
    demand = "The same call, with nothing different around it, has the same outcome."
    for verb, section in (("ADD", ADD), ("CHECK", CHECK), ("DEL", DEL)):
        outcomes = [each for _, calls in rounds if (each := calls.get(verb)) and not each.ok]
        if outcomes and (verb != "CHECK" or len(outcomes) < len(rounds)):  # check-succeeds has one that always fails
            rate = f"{len(outcomes)} of {len(rounds)} {verb}s fail ({100 * len(outcomes) / len(rounds):.3g} %)"
            scene.expect(False, f"{rate}: {outcomes[0].message}", demand, outcomes[0], section=section)
    results = [parse(attachment.result) for attachment, _ in rounds if attachment.result]
    shapes = Counter((len(each.interfaces), len(each.ips), len(each.routes)) for each in results)
    if len(shapes) > 1:
        kinds = "; ".join(f"{count} with {', '.join(map(str, shape))}" for shape, count in shapes.most_common())
        scene.expect(False, f"results differ in their numbers of interfaces, addresses and routes: {kinds}", demand)
    if all(outcome.ok for _, calls in rounds for outcome in calls.values()):
        attachments = [attachment for attachment, _ in rounds]
        expect_nothing_left(scene, before, *attachments, when=f"after {len(rounds)} rounds of ADD and DEL")
        _expect_none_grown(scene, before, len(rounds))


def _expect_none_grown(scene: Scene, before: Snapshot, rounds: int) -> None:
    """Report files that have more in them after each round, whatever it is that they have."""
    for path in [] if scene.findings else leftovers.grown(before, scene.snapshot(), rounds * _A_LINE):
        fault = Fault.IPAM if scene.is_stored_by_ipam(f"the file {path}") else Fault.PLUGIN
        headline = f"the file {path} has grown with each of {rounds} rounds of ADD and DEL"
        scene.expect(False, headline, CLEAN, fault=fault, should=True, look=f"cat {path}")


def _rounds(scene: Scene) -> list[tuple[Attachment, dict[str, Outcome]]]:
    """Attachments that were made and removed, one after the other, with the outcomes by verb."""
    found: list[tuple[Attachment, dict[str, Outcome]]] = []
    while len(found) < ROUNDS:
        if scene.is_late:
            scene.notes.append(f"{len(found)} rounds, not {ROUNDS}: they took too long")
            break
        attachment = scene.container()
        calls = {"ADD": scene.add(attachment)}
        if attachment.result is not None and scene.has("0.4.0") and not scene.subject.network.get("disableCheck"):
            calls["CHECK"] = scene.verify(attachment)
        calls["DEL"] = scene.delete(attachment)
        scene.reboot(attachment)
        found.append((attachment, calls))
        if len(found) > ROUNDS // 4 and not any(each["ADD"].ok for _, each in found):
            break  # all failed: more rounds show nothing new
    return found
