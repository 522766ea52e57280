"""The checks by verb, in the order of reports.

base         what a check is
life         one attachment that many checks look at
profile      what the profile states
version      VERSION
add          ADD: its result, and that the kernel has the same
effect       what ADD comes to: packets that arrive, addresses that can be used, the host's routes
errors       calls that must fail
delete       DEL
others       what is not the plugin's own, and containers as runtimes have them
verify       CHECK
chain        plugins before and after
capability   runtimeConfig
interrupted  calls that are killed on the way
load         many at once, a full pool, many rounds
collect      GC and STATUS, and what is passed on to an ipam plugin
"""

from __future__ import annotations

from types import ModuleType

from harness.conformance.checks import (
    add,
    capability,
    chain,
    collect,
    delete,
    effect,
    errors,
    interrupted,
    load,
    others,
    profile,
    verify,
    version,
)
from harness.conformance.checks.base import Check


def _of(module: ModuleType) -> list[Check]:
    return [value for value in vars(module).values() if isinstance(value, Check)]


CHECKS: tuple[Check, ...] = tuple(
    check
    for module in (
        profile,
        version,
        add,
        effect,
        errors,
        delete,
        others,
        verify,
        collect,
        chain,
        capability,
        interrupted,
        load,
    )
    for check in _of(module)
)
#: Extended features: what a profile can claim.
FEATURES = tuple(sorted({check.feature for check in CHECKS if check.feature}))
