"""The addresses of calico's pools: counted from its objects on a real API server, and what that costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import genie
from genie import kube
from genie.agent.calico import FEW, CalicoPools, used_and_total
from genie.agent.sieve import pages
from genie.config import Conf, Credentials
from genie.kube import Client
from genie.records import Record
from genie.select import least_loaded, spent
from tests.rigs.core import network
from tests.rigs.real_api import Cluster, create, post, started

API = "/apis/crd.projectcalico.org/v1"


def pool(name: str, cidr: str, **spec: Any) -> dict[str, Any]:
    return {"kind": "IPPool", "metadata": {"name": name}, "spec": {"cidr": cidr, **spec}}


def block(cidr: str, used: int, size: int = 64) -> dict[str, Any]:
    name = cidr.translate(str.maketrans("./:", "---"))
    spec = {"cidr": cidr, "allocations": [0] * used + [None] * (size - used), "affinity": "host:one"}
    return {"kind": "IPAMBlock", "metadata": {"name": name}, "spec": spec}


CALICO: dict[str, Any] = {"type": "calico-ipam"}
TWO = [pool("small", "10.1.0.0/26"), pool("large", "10.2.0.0/24")]


@pytest.mark.parametrize(
    ("ipam", "pools", "blocks", "found"),
    [
        ({}, TWO, [], (0, 320)),
        ({}, TWO, [block("10.1.0.0/26", 64), block("10.2.0.64/26", 3), block("10.9.0.0/26", 9)], (67, 320)),
        ({"ipv4_pools": ["small"]}, TWO, [block("10.1.0.0/26", 64), block("10.2.0.64/26", 3)], (64, 64)),
        ({"ipv4_pools": ["10.2.0.0/24"]}, TWO, [block("10.2.0.64/26", 3)], (3, 256)),
        ({"ipv4_pools": ["none"]}, TWO, [], None),
        ({}, [pool("off", "10.1.0.0/26", disabled=True), TWO[1]], [block("10.1.0.0/26", 64)], (0, 256)),
        ({}, [pool("tunnel", "10.1.0.0/26", allowedUses=["Tunnel"]), TWO[1]], [], (0, 256)),
        ({}, [], [], None),
        ({}, [pool("broken", "x")], [], None),
        ({"assign_ipv6": "true"}, TWO, [], None),
        ({"assign_ipv6": "true"}, [*TWO, pool("six", "fd00::/122")], [block("fd00::/122", 64)], (64, 64)),
        ({"assign_ipv4": "false", "assign_ipv6": "true"}, [pool("six", "fd00::/48")], [], (0, 1 << 80)),
    ],
)
def test_the_addresses_of_its_pools(ipam: dict[str, Any], pools: Any, blocks: Any, found: Any) -> None:
    assert used_and_total({**CALICO, **ipam}, pools, blocks) == found


JUNK = st.none() | st.integers() | st.text(max_size=4) | st.lists(st.none() | st.integers(), max_size=3)
OBJECT = st.fixed_dictionaries(
    {}, optional={"spec": st.none() | st.dictionaries(st.sampled_from(["cidr", "allocations"]), JUNK)}
)


@given(st.lists(OBJECT, max_size=3), st.lists(OBJECT, max_size=3))
def test_objects_of_any_form_are_counted_or_not_known(pools: list[Any], blocks: list[Any]) -> None:
    found = used_and_total(CALICO, [*pools, *TWO], blocks)
    assert found is not None and found[0] >= 0 and found[1] >= 320


# --- on a real API server -------------------------------------------------------------------------------------------


def definition(kind: str) -> dict[str, Any]:
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.crd.projectcalico.org"},
        "spec": {"group": "crd.projectcalico.org", "scope": "Cluster", "names": names, "versions": [version]},
    }


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Client]]:
    """An API server with calico's resources, and a client with the rights of genie's account."""
    place = tmp_path_factory.mktemp("api")
    with started(place) as cluster:
        for kind in ("IPPool", "IPAMBlock"):
            create(cluster, definition(kind))
        manifest = (Path(genie.__file__).parent / "deploy" / "rbac.yaml").read_text()
        for thing in yaml.safe_load_all(manifest):
            create(cluster, thing)
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        account = "/api/v1/namespaces/kube-system/serviceaccounts/genie"
        status, answer = cluster.ask("POST", f"{account}/token", body)
        assert status == 201, answer
        kubeconfig = cluster.running.admin.kubeconfig()
        kubeconfig["users"][0]["user"] = {"token": answer["status"]["token"]}
        (place / "kubeconfig").write_text(json.dumps(kubeconfig))
        yield cluster, Client(kube.server(Credentials(kubeconfig=str(place / "kubeconfig"))))


def add(cluster: Cluster, *things: dict[str, Any]) -> None:
    for thing in things:
        post(cluster, f"{API}/{thing['kind'].lower()}s", {"apiVersion": "crd.projectcalico.org/v1", **thing})


def test_a_full_pool_is_out_of_the_candidates(api: tuple[Cluster, Client]) -> None:
    cluster, client = api
    add(cluster, pool("default", "10.1.0.0/25"), block("10.1.0.0/26", 64), block("10.1.0.64/26", 63))
    calico, other = network("calico", {"type": "calico", "ipam": CALICO}), network("other")

    def known() -> dict[str, tuple[int, int]]:
        return dict(cluster.within.run(lambda: CalicoPools(lambda _: client).of([calico, other])))

    def chosen() -> str:
        pools = known()
        busy = Record(container_id="c", ifname="eth0", netns="/n")
        last = spent.reasons([calico, other], pools, "/none")
        loads = least_loaded.loads(["calico", "other"], [busy], None, last, pools)
        return least_loaded.least_loaded(loads, Conf(name="k8s", cni_version="1.0.0")).why

    assert known() == {"calico": (127, 128)}
    assert chosen().startswith("calico (calico 0 B/s received")
    path = f"{API}/ipamblocks/10-1-0-64-26"
    assert cluster.ask("PATCH", path, {"spec": {"allocations": [0] * 64}})[0] == 200
    assert known() == {"calico": (128, 128)}
    assert chosen().startswith("other (") and "128 of 128 addresses, goes last: no free address" in chosen()


def test_many_blocks_are_read_only_if_a_pool_may_be_full(
    api: tuple[Cluster, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, client = api
    for path in ("ippools/default", "ipamblocks/10-1-0-0-26", "ipamblocks/10-1-0-64-26"):
        cluster.ask("DELETE", f"{API}/{path}")
    monkeypatch.setattr("genie.agent.calico.FEW", 4)
    add(cluster, *(block(f"10.3.0.{16 * number}/28", 16, 16) for number in range(12)))
    calico = network("calico", {"type": "calico", "ipam": CALICO})
    asked: list[str] = []

    def counted(client: Client, path: str, *rest: Any, **more: Any) -> Any:
        for page in pages(client, path, *rest, **more):
            asked.append(path)
            yield page

    monkeypatch.setattr("genie.agent.calico.pages", counted)
    for cidr, found, lists in (("10.3.0.0/23", {}, 1), ("10.3.0.0/25", {"calico": (128, 128)}, 3)):
        add(cluster, pool("default", cidr))
        pools = CalicoPools(lambda _: client)
        assert cluster.within.run(lambda: pools.of([calico])) == found  # noqa: B023
        assert asked.count(f"{API}/ipamblocks") == lists
        assert cluster.within.run(lambda: pools.of([calico])) == found, "not asked again"  # noqa: B023
        asked.clear()
        cluster.ask("DELETE", f"{API}/ippools/default")
    assert FEW == 100


def test_without_calico_or_its_objects_nothing_is_asked_or_known(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_: float) -> Client:
        return Client(kube.ApiServer(url="http://127.0.0.1:1"))

    assert CalicoPools(refuse).of([network("other")]) == {} and not caplog.messages
    pools = CalicoPools(refuse)
    assert pools.of([network("calico", {"type": "calico", "ipam": CALICO})]) == {}
    assert caplog.messages == ["calico's pools could not be read"]
