"""Claims of the profile about the plugin: if one is false, the profile is at fault, not the plugin."""

from __future__ import annotations

import ipaddress

from harness.conformance.checks.base import check
from harness.conformance.checks.life import BATCH, made
from harness.conformance.findings import Fault
from harness.conformance.scene import Scene, Skipped
from harness.conformance.spec import CONFIGURATION


@check(
    "profile-holds",
    "The configuration is one that the plugin can be given, and what the profile claims can be asked for.",
    CONFIGURATION,
    each=True,
    after=(),
    repeat=False,
)
def holds(scene: Scene) -> None:
    demand = "A plugin is tested with a configuration that is valid for it: put this right first, then test the plugin."
    for mistake in scene.subject.mistakes:
        scene.expect(False, mistake, demand, fault=Fault.PROFILE)


@check(
    "profile-subnets",
    "Every address that ADD gives is in the subnets that the profile states.",
    CONFIGURATION,
    batch=BATCH,
)
def subnets(scene: Scene) -> None:
    stated, conf = scene.subject.subnets, scene.subject.conf_subnets
    if not stated:
        raise Skipped("no profile states subnets")
    demand = "The profile names the subnets of all the addresses that the plugin gives."
    for ip in made(scene).result.ips:
        if ip.cidr and not _inside(ip.cidr, stated):
            follows = not conf or _inside(ip.cidr, conf)
            words = f"ADD gave {ip.cidr}, which is in none of the profile's subnets ({', '.join(stated)})"
            words += "" if follows else f", and in none of the configuration's ({', '.join(conf)})"
            scene.expect(False, words, demand, fault=Fault.PROFILE if follows else Fault.PLUGIN)


@check(
    "profile-default-route",
    "The plugin sets a default route if the profile states so, and only then.",
    CONFIGURATION,
    first=True,
    batch=BATCH,
)
def default_route(scene: Scene) -> None:
    if (stated := scene.subject.default_route) is None:
        raise Skipped("no profile states `default-route`")
    found = any(route.dst.endswith("/0") for route in made(scene).kernel.routes)
    how = "a default route" if found else "no default route"
    demand = "The profile states whether the plugin sets a default route by itself."
    headline = f"the profile states `default-route: {str(stated).lower()}`, and ADD set {how}"
    scene.expect(found == stated, headline, demand, fault=Fault.PROFILE)


def _inside(cidr: str, listed: tuple[str, ...]) -> bool:
    address = ipaddress.ip_interface(cidr).ip
    return any(address in ipaddress.ip_network(subnet, strict=False) for subnet in listed)
