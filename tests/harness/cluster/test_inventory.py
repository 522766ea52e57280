"""The output of a node, and the parts of it that may be leaks."""

from __future__ import annotations

from harness.cluster import inventory

PRINTED = r"""
#### links
[{"ifname":"lo"},{"ifname":"eth0","linkinfo":{"info_kind":"veth"}},{"ifname":"cni0","linkinfo":{"info_kind":"bridge"}},
 {"ifname":"vethd1c2","linkinfo":{"info_kind":"veth"},"master":"cni0"},
 {"ifname":"flannel.1","linkinfo":{"info_kind":"vxlan"}}]

#### routes
default via 172.18.0.1 dev eth0
10.244.1.0/24 dev cni0 proto kernel scope link src 10.244.1.1 linkdown
10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink
10.50.2.7 dev veth77 scope host
local 10.244.1.1 dev cni0 table local proto kernel scope host src 10.244.1.1
fe80::/64 dev vethd1c2 proto kernel metric 256 pref medium
fc00:f853::/64 dev eth0 proto ra metric 1024 expires 1797sec pref medium

#### rules
0:	from all lookup local

#### iptables
iptables *nat
iptables :POSTROUTING ACCEPT [3:180]
iptables :KUBE-SVC-X - [0:0]
iptables :CNI-HOSTPORT-DNAT - [0:0]
iptables :CNI-7a1b - [0:0]
iptables -A WEAVE-NPC-DEFAULT -m set --match-set weave-2):mj dst -j ACCEPT
iptables -A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
iptables -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
iptables -A POSTROUTING -s 10.22.2.7/32 -m comment --comment "name: \"b\" id: \"abc\"" -j CNI-7a1b
iptables COMMIT

#### nft
table ip nat {
	chain POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "eth0" counter masquerade
	}
}
table inet cni_plugins_masquerade {
	chain masq_checks {
		ip saddr == 10.22.2.7 goto x comment "abc"
	}
}

#### ipsets
KUBE-CLUSTER-IP
weave-xyz
cali40xyz

#### namespaces
cni-1
cni-2

#### records
abc@eth0.json

#### host-local
cbr0/10.244.1.7 0123/eth0 eth0
cbr0/last_reserved_ip.0 10.244.1.7
cbr0/lock

#### weave
{"owned":[{"containerid":"weave:expose","addrs":["10.32.128.0/16"]},{"containerid":"0123","addrs":["10.32.128.7/16"]}]}

#### calico-ipam

#### calico-endpoints
"""


def test_inventory() -> None:
    found = inventory.parse(PRINTED, "w1")
    assert found.interfaces == {"eth0", "vethd1c2 (bridge cni0)"}
    assert found.addresses == {
        "cbr0 10.244.1.7 0123/eth0/eth0",
        "weave 10.32.128.0/16 weave:expose",
        "weave 10.32.128.7/16 0123",
    }
    assert found.namespaces == {"cni-1", "cni-2"}
    assert found.records == {"abc@eth0.json"}
    assert found.routes == {
        "default via 172.18.0.1 dev eth0",
        "10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink",
        "10.50.2.7 dev veth77 scope host",
        "fc00:f853::/64 dev eth0 proto ra metric 1024",
        "rule 0: from all lookup local",
    }
    assert found.netfilter == {
        "iptables nat :CNI-7a1b -",
        'iptables nat -A POSTROUTING -s 10.22.2.7/32 -m comment --comment "name: \\"b\\" id: \\"abc\\"" -j CNI-7a1b',
        'nft inet cni_plugins_masquerade chain masq_checks: ip saddr == 10.22.2.7 goto x comment "abc"',
        "ipset cali40xyz",
    }


def test_an_inventory_is_not_beyond_itself() -> None:
    assert inventory.parse(PRINTED, "w1").beyond(inventory.parse(PRINTED, "w1")) == []
