"""Empty leases in host-local's store, with the real host-local."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from genie.cni.execute import Outcome
from genie.records import Records
from genie.verbs import leases
from tests.rigs.core import CONTAINER, Node, SeenCall, network

pytestmark = pytest.mark.usefixtures("cni_bin")


class Store:
    """host-local, called as a plugin calls it, and its store of the network `net`."""

    def __init__(self, place: Path, cni_bin: str) -> None:
        self.cni_bin, self.directory = cni_bin, place / "net"
        self.ipam = {"type": "host-local", "subnet": "10.9.0.0/29", "dataDir": str(place)}
        self.network = network("net", {"type": "bridge", "ipam": self.ipam})

    def call(self, verb: str, container: str, ifname: str = "eth0") -> dict[str, Any]:
        env = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": ifname,
            "CNI_NETNS": "/n",
            "CNI_PATH": self.cni_bin,
        }
        stdin = json.dumps({"cniVersion": "1.0.0", "name": "net", "type": "bridge", "ipam": self.ipam})
        done = subprocess.run(
            [f"{self.cni_bin}/host-local"], input=stdin.encode(), env=env, capture_output=True, check=False
        )
        seen = json.loads(done.stdout or "{}")
        assert isinstance(seen, dict)
        return seen

    def add(self, container: str) -> str:
        """The address that it gives."""
        address: str = self.call("ADD", container)["ips"][0]["address"]
        return address.partition("/")[0]

    def leases(self) -> dict[str, str]:
        return {path.name: path.read_bytes().decode() for path in self.directory.iterdir() if path.name[0].isdigit()}


@pytest.fixture
def store(tmp_path: Path, cni_bin: str) -> Store:
    return Store(tmp_path / "leases", cni_bin)


def test_an_empty_lease_is_never_freed_by_host_local_and_is_freed_here(store: Store) -> None:
    kept, lost = store.add("alive"), store.add("killed")
    (store.directory / lost).write_text("")
    assert store.call("DEL", "killed") == {}
    assert lost in store.leases(), "else host-local has mended it itself, and leases.py can go"
    (done,) = leases.mend([store.network], [])
    assert done == f"network 'net': the lease of {lost} was empty and without an owner: freed"
    assert set(store.leases()) == {kept} and store.leases()[kept] == "alive\r\neth0"
    assert leases.mend([store.network], []) == []


def test_all_addresses_can_be_had_again(store: Store) -> None:
    given = [store.add(f"c{n}") for n in range(5)]
    assert "no IP addresses available" in store.call("ADD", "more")["msg"]
    for address in given:
        (store.directory / address).write_text("")
        store.call("DEL", f"c{given.index(address)}")
    assert "no IP addresses available" in store.call("ADD", "more")["msg"]
    assert len(leases.mend([store.network], [])) == 5
    assert sorted(store.add(f"d{n}") for n in range(5)) == sorted(given)


def test_an_address_that_a_record_names_is_written_anew_as_host_local_writes_it(store: Store, node: Node) -> None:
    node.write("20-net.conf", {"cniVersion": "1.0.0", "name": "net", "type": "bridge", "ipam": store.ipam})
    node.binary("bridge")
    address = store.add(CONTAINER)
    written = store.leases()

    def act(call: SeenCall) -> Outcome | None:
        ips = [{"address": f"{address}/29"}]
        return Outcome(status=0, stdout=json.dumps({"cniVersion": "1.0.0", "ips": ips}).encode())

    node.executor.act = act
    node.add("net")
    (store.directory / address).write_text("")
    assert leases.mend([store.network], node.records) == [
        f"network 'net': the lease of {address} was empty: it is {CONTAINER}'s"
    ]
    assert store.leases() == written
    store.call("DEL", CONTAINER)
    assert store.leases() == {}


def test_a_store_that_is_in_use_or_not_there_is_left_alone(store: Store, tmp_path: Path) -> None:
    assert leases.mend([store.network, network("calico")], []) == []
    address = store.add("killed")
    (store.directory / address).write_text("")
    handle = os.open(store.directory / "lock", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert leases.mend([store.network], []) == [] and address in store.leases(), "host-local is at work"
    os.close(handle)
    assert len(leases.mend([store.network], Records(str(tmp_path)))) == 1


@pytest.mark.parametrize("verb", ["ADD", "DEL", "GC"])
def test_a_failed_add_its_del_and_gc_mend_what_a_killed_host_local_left(store: Store, node: Node, verb: str) -> None:
    node.write("20-net.conf", {"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": store.ipam})
    node.binary("bridge")
    address = store.add(CONTAINER)

    def act(call: SeenCall) -> Outcome | None:
        if call.verb != "ADD":
            return Outcome(status=1) if call.verb == verb == "DEL" and broken else None
        (store.directory / address).write_text("")
        return Outcome(status=-9, error="no answer within 60 seconds; killed")

    broken = [True]
    node.executor.act = act
    node.kube.annotations = {"cni": "net"}
    if verb == "GC":
        (store.directory / address).write_text("")
        node.conf["cni.dev/valid-attachments"] = []
        node.ok("GC", CNI_NETNS=None)
    else:
        node.fails("ADD")
    if verb == "DEL":
        assert address in store.leases(), "the record stays, and so does the lease"
        broken.clear()
        node.ok("DEL")
    assert store.leases() == {}
