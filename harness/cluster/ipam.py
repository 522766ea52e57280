"""Reads the addresses that a node's IPAM has reserved: of host-local, of weave, of calico with either datastore.

host-local stores them in files, weave in its daemon, calico in blocks of addresses in etcd or in Kubernetes objects.
SCRIPT prints the stores that can be read on the node, and needs only bash there; this module parses them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from harness import leftovers

Block = Mapping[str, Any]  # calico's AllocationBlock, the same in etcd as in an IPAMBlock's spec

#: Prints the stores of a node in sections; the caller defines `section`. A store that does not answer is an error,
#: because the harness could not see leaks. $1 and $2 are requests to etcd: see `arguments`. (It does not read an etcd
#: behind TLS, which test clusters do not have.)
SCRIPT = r"""
http() {  # HOST PORT METHOD PATH BODY: the body of the answer, without curl, which nodes need not have
  for _ in 1 2 3; do
    if said=$(timeout 10 bash -c 'exec 3<>"/dev/tcp/$1/$2" &&
        printf "%s %s HTTP/1.0\r\nContent-Length: ${#5}\r\n\r\n%s" "$3" "$4" "$5" >&3 && cat <&3' http "$@"); then
      printf '%s\n' "$said" | sed '1,/^\r*$/d'; return; fi
    sleep 1; done
  echo "$1:$2 $4, where addresses are kept, does not answer" >&2; exit 1
}
confs() { grep -ls "\"type\": *\"$1\"" /etc/cni/net.d/*; }
section host-local; cd /var/lib/cni/networks 2>/dev/null && for f in */*; do
                      [ -f "$f" ] && printf '%s %s\n' "$f" "$(tr '\r\n' '  ' <"$f")"; done
section weave;      [ -n "$(confs weave-net)" ] && http 127.0.0.1 6784 GET /ip ''
etcd=$(sed -n 's|.*"etcd_endpoints": *"http://\([^":/,]*\):\([0-9]*\)[,"].*|\1 \2|p' $(confs calico) /dev/null)
section calico-ipam;      [ -n "$etcd" ] && http $etcd POST /v3/kv/range "$1"
section calico-endpoints; [ -n "$etcd" ] && http $etcd POST /v3/kv/range "$2"
"""


def arguments() -> tuple[str, str]:
    """SCRIPT's arguments: requests to etcd for all of calico's IPAM and for all workload endpoints."""
    return _range("/calico/ipam/v2/"), _range("/calico/resources/v3/projectcalico.org/workloadendpoints/")


def _range(prefix: str) -> str:
    """A request to etcd's gRPC gateway for all keys with a prefix."""
    after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return json.dumps({"key": _base64(prefix), "range_end": _base64(after)})


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def printed(sections: Mapping[str, str], node: str) -> Iterator[str]:
    """Parse the output of SCRIPT, one address per line; calico has one store for all nodes, so select this node's
    part."""
    yield from _host_local(sections.get("host-local", ""))
    yield from _weave(sections.get("weave", ""))
    stored = _stored(sections.get("calico-ipam", ""))
    blocks = [value for key, value in stored.items() if "/assignment/" in key]
    yield from calico(blocks, (key.rpartition("/")[2] for key in stored if "/v2/handle/" in key), node)
    for endpoint in _stored(sections.get("calico-endpoints", "")).values():
        about, spec = endpoint["metadata"], endpoint["spec"]
        if spec["node"] == node:
            yield f"calico endpoint {about['namespace']}/{about['name']} {spec.get('containerID', '')}"


def calico(blocks: Iterable[Block], handles: Iterable[str], node: str) -> Iterator[str]:
    """Addresses of calico's IPAM that a node's pods have, and handles without an address."""
    owned: set[str] = set()
    for block in blocks:
        first = ip_network(block["cidr"]).network_address
        for offset, index in enumerate(block["allocations"]):
            if index is None:
                continue
            attribute = block["attributes"][index]
            handle, about = str(attribute.get("handle_id")), attribute.get("secondary") or {}
            owned.add(handle)
            if about.get("node") == node and "type" not in about:  # only handles of tunnels have a type
                yield f"calico {first + offset} {handle}"
    yield from (f"calico handle {handle}, without an address" for handle in handles if handle not in owned)


def _stored(text: str) -> dict[str, Any]:
    """etcd's answer: keys to values."""
    pairs = (json.loads(text) if text else {}).get("kvs") or []
    return {_text(pair["key"]): json.loads(_text(pair["value"])) for pair in pairs}


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()


def _host_local(text: str) -> Iterator[str]:
    for line in text.splitlines():
        path, _, owner = line.partition(" ")
        network, _, address = path.partition("/")
        if entry := leftovers.host_local(network, address, owner):
            yield entry


def _weave(text: str) -> Iterator[str]:
    """The answer to GET /ip, of weave's ipam/http.go."""
    for entry in (json.loads(text) if text else {}).get("owned") or []:
        yield from (f"weave {address} {entry['containerid']}" for address in entry["addrs"])
