"""The rules that nft sets in a namespace."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from genie.policy import apply, nft
from genie.policy.rules import Interface
from genie.policy.world import Allow
from tests.rigs.netns import Namespace

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not there (Debian's package nftables)"),
]


@pytest.mark.parametrize("new", [True, False])
def test_rules_of_an_earlier_attempt_are_replaced(namespace: Callable[[], Namespace], new: bool) -> None:
    pod = namespace().path
    first, second = (
        nft.script([Interface(ifname="net1", ingress=(Allow(protocol="TCP", ports=((port, port),), anyone=True),))])
        for port in (7001, 7002)
    )
    apply.replace(pod, first, new=new)
    assert "7001" in apply.listing(pod)
    apply.replace(pod, second, new=new)
    assert "7001" not in apply.listing(pod) and "7002" in apply.listing(pod)
    apply.replace(pod, "", new=new)
    assert apply.listing(pod) == ""
