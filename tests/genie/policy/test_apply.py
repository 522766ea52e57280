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


@pytest.mark.parametrize(("new", "library"), [(True, True), (True, False), (False, True)])
def test_rules_of_an_earlier_attempt_are_replaced(
    namespace: Callable[[], Namespace], monkeypatch: pytest.MonkeyPatch, new: bool, library: bool
) -> None:
    if not library:
        monkeypatch.setattr(apply, "_library", lambda: None)
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


def test_the_rules_of_a_new_pod_need_no_process(
    namespace: Callable[[], Namespace], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the library refuses, and a large script, is for `nft`, whose error counts."""
    if apply._library() is None:
        pytest.skip(f"{apply.LIBRARY} is not there (Debian's package libnftables1)")
    script = nft.script([Interface(ifname="net1", ingress=())])
    pods = [namespace() for _ in range(3)]
    with monkeypatch.context() as without:
        without.setenv("PATH", "/nowhere")
        apply.replace(pods[0].path, script, new=True)
        for wrong in ('{"add": {"table": {}}}', "{", script + " " * apply.LIBRARY_MAX):
            with pytest.raises(apply.ApplyError, match="nft cannot be run"):
                apply.replace(pods[1].path, wrong, new=True)
    assert apply.listing(pods[0].path) and not apply.listing(pods[1].path)
    with pytest.raises(apply.ApplyError, match="^nft: "):
        apply.replace(pods[2].path, '{"add": {"table": {}}}', new=True)
    assert capfd.readouterr() == ("", "")
