"""Leftovers of pods on a node, with the wording of every backend."""

from __future__ import annotations

from harness import leftovers


def test_nft_rules_are_told_with_their_chains() -> None:
    text = (
        "table inet plugins {\n\tchain c1 {\n\t\tip saddr 10.0.0.1 accept\n\t}\n}\n"
        "# Warning: table ip nat is managed by iptables-nft, do not touch!\n"
        "table ip nat {\n\tchain CNI-x {\n\t\tcounter accept\n\t}\n}\n"
    )
    assert list(leftovers.nft(text, by_iptables=True)) == [
        "nft inet plugins chain c1",
        "nft inet plugins chain c1: ip saddr 10.0.0.1 accept",
    ]


def test_iptables_rules_leave_out_what_stands_for_all() -> None:
    text = (
        "*nat\n:PREROUTING ACCEPT [0:0]\n:CNI-HOSTPORT-DNAT - [0:0]\n:CNI-DN-abc - [0:0]\n"
        "-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT\n[3:4] -A CNI-DN-abc -j DNAT\n"
        '-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "id: \\"c1\\"" -j CNI-DN-abc\nCOMMIT\n'
    )
    assert list(leftovers.iptables("ip", text)) == [
        "ip nat :CNI-DN-abc -",
        'ip nat -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "id: \\"c1\\"" -j CNI-DN-abc',
    ]
