"""Chains: prevResult is passed on completely; the plugin as first, middle and last, before and after the reference
plugins."""

from __future__ import annotations

import json
from typing import Any

from harness.conformance.call import Json
from harness.conformance.checks.base import check
from harness.conformance.results import parse
from harness.conformance.scene import Attachment, Blocked, Broken, Scene, Skipped
from harness.conformance.spec import CHECK, DEL, RESULT

_PLAIN: dict[str, Json] = {
    "tuning": {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}},
    "portmap": {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
    "bandwidth": {"type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 8_000_000},
}


def _next(scene: Scene, name: str, verb: str, attachment: Attachment, result: Json | None) -> Json:
    """Call one of the reference plugins as the next one in the chain."""
    binary = scene.subject.beside(name)
    if binary is None:
        raise Skipped(f"no {name} beside the plugin")
    return scene.other(binary, _PLAIN[name], verb, attachment, result)


def _chain(scene: Scene, name: str) -> None:
    attachment = scene.added(scene.container())
    result = _next(scene, name, "ADD", attachment, attachment.result)
    if result.get("code") is not None:
        # Its own fault, or this machine's, or that of a result that is not true: which result-… checks are about.
        raise Blocked(f"{name} after the plugin fails: {result.get('msg')}")
    attachment.result = result
    if scene.has("0.4.0"):
        outcome = scene.verify(attachment)
        what = f"CHECK with the result of the whole chain, which ends with {name}, fails: {outcome.message}"
        scene.expect(outcome.ok, what, "CHECK allows for what later plugins changed.", outcome, section=CHECK)
    _next(scene, name, "DEL", attachment, result)
    outcome = scene.delete(attachment)
    what = f"DEL with the result of the whole chain, which ends with {name}, fails: {outcome.message}"
    scene.expect(outcome.ok, what, "DEL is given the result of the whole chain.", outcome, section=DEL)


@check(
    "chain-tuning", "With tuning after it, ADD, CHECK and DEL of the chain succeed.", RESULT, since="0.3.1", ipam=False
)
def tuning(scene: Scene) -> None:
    _chain(scene, "tuning")


@check(
    "chain-portmap",
    "With portmap after it, ADD, CHECK and DEL of the chain succeed.",
    RESULT,
    since="0.3.1",
    ipam=False,
)
def portmap(scene: Scene) -> None:
    _chain(scene, "portmap")


@check(
    "chain-bandwidth",
    "With bandwidth after it, ADD, CHECK and DEL of the chain succeed.",
    RESULT,
    since="0.3.1",
    ipam=False,
)
def bandwidth(scene: Scene) -> None:
    probe = scene.added(scene.container())
    link = scene.inside(probe).link("eth0")
    scene.delete(probe)
    if link is None or link.kind != "veth":
        raise Skipped("bandwidth shapes veth pairs alone")
    _chain(scene, "bandwidth")


@check(
    "chain-passes-result",
    "A plugin that is given prevResult passes it on whole, with its own changes.",
    RESULT,
    since="0.3.0",
    each=True,
)
def passes(scene: Scene) -> None:
    if not scene.subject.position:
        raise Skipped("the plugin is the first of its chain")
    attachment = scene.container()
    outcome = scene.add(attachment)
    if attachment.result is None:
        raise Broken(outcome.message)
    before, after = attachment.before or {}, attachment.result
    demand = "A plugin that is given prevResult prints it as its result, with its own changes made to it."
    for key in ("interfaces", "ips", "routes"):
        lost = [item for item in before.get(key) or () if not _kept(key, item, after)]
        scene.expect(not lost, f"the result lacks {key} of prevResult: {json.dumps(lost)}", demand, outcome)
    dns = parse(before).dns
    scene.expect(
        all(parse(after).dns.get(key) == dns[key] for key in dns), "the result lacks dns of prevResult", demand, outcome
    )


def _kept(key: str, item: Any, result: Json) -> bool:
    """Whether an item of prevResult is in a result, possibly with changes of the plugin."""
    identity = {"interfaces": ("name", "sandbox"), "ips": ("address", "gateway"), "routes": ("dst", "gw")}[key]
    items = [each for each in result.get(key) or () if isinstance(each, dict)]
    for each in items:
        kept = {name for name, value in each.items() if value} >= {name for name, value in item.items() if value}
        if kept and all(each.get(part) == item.get(part) for part in identity):
            return True
    return False
