"""Generated policies on real networks: every connection between nine pods on two networks has the outcome that the
oracle says. `nox -s policies` tries 2,000 policies.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from genie.policy import apply, nft
from tests.rigs import policies as rig
from tests.rigs.policy_networks import Networks

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not there (Debian's package nftables)"),
]
COUNT = int(os.environ.get("GENIE_POLICIES", "20"))
SEED = int(os.environ.get("GENIE_POLICIES_SEED", "1"))
AT_ONCE = 5
ATTEMPTS = 3


@pytest.fixture(scope="module")
def networks() -> Iterator[Networks]:
    try:
        made = Networks()
    except PermissionError:
        pytest.skip("network namespaces: need root, or CAP_SYS_ADMIN in a user namespace")
    yield made
    made.close()


def enforce(networks: Networks, policies: list[rig.Object]) -> None:
    decided = rig.decided(policies)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda one: apply.replace(networks.places[one[0]].path, nft.script(one[1])), decided.items()))


def wrong(networks: Networks, policies: list[rig.Object]) -> list[str]:
    """The connections with another outcome than the oracle's. What did not come through is tried again, since the
    machine may be busy; what came through and must not, is not.
    """
    cells = list(rig.cells())
    allowed = {cell for cell in cells if rig.may(policies, cell)}
    for _ in range(ATTEMPTS):
        found = networks.try_all(cells, allowed.__contains__)
        if not found or not allowed.issuperset(found):
            break
    return [f"{cell}: {'does not come' if cell in allowed else 'comes'} through" for cell in found]


def test_without_policies_all_reach_all(networks: Networks) -> None:
    enforce(networks, [])
    assert wrong(networks, []) == []


def test_every_connection_is_allowed_or_forbidden_as_the_oracle_says(networks: Networks) -> None:
    for seed in range(SEED, SEED + COUNT // AT_ONCE):
        made = rig.generate(seed, AT_ONCE)
        enforce(networks, made)
        assert wrong(networks, made) == [], f"seed {seed}, {AT_ONCE} policies"
        if COUNT > 100 and seed % 20 == 0:
            print(f"seed {seed}: {(seed - SEED + 1) * AT_ONCE} policies", flush=True)
