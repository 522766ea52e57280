"""How the kubelet handles a pod."""

from __future__ import annotations

import pytest

from harness.embedded import kubelet


def test_capabilities_are_what_the_pod_has() -> None:
    pod = {
        "metadata": {"uid": "u-1", "annotations": {"kubernetes.io/ingress-bandwidth": "10M"}},
        "spec": {
            "containers": [{"ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}],
            "dnsConfig": {"nameservers": ["10.0.0.1"]},
        },
    }
    offered = kubelet.capabilities(pod)
    assert offered["portMappings"] == [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}]
    assert offered["bandwidth"] == {"ingressRate": 10_000_000, "ingressBurst": 2**31 - 1}
    assert offered["dns"] == {"servers": ["10.0.0.1"], "searches": []}


def test_a_runtime_is_given_annotations_and_cgroup_of_every_pod() -> None:
    assert kubelet.capabilities({"metadata": {"uid": "u-1", "annotations": {"cni": "x"}}, "spec": {}}) == {
        "io.kubernetes.cri.pod-annotations": {"kubernetes.io/config.source": "api", "cni": "x"},
        "cgroupPath": "/kubepods/besteffort/podu-1",
    }
    notes = {"kubernetes.io/config.source": "file", "kubernetes.io/config.hash": "u-2"}
    static = {"metadata": {"uid": "u-2", "annotations": notes}, "spec": {}}
    assert kubelet.capabilities(static)["io.kubernetes.cri.pod-annotations"] == notes


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ([], []),
        (["10.0.0.1", "10.0.0.2"], ["10.0.0.1"]),
        (["fd00::1", "10.0.0.2", "fd00::2"], ["fd00::1", "10.0.0.2"]),
    ],
)
def test_pod_ips_are_one_a_family(addresses: list[str], expected: list[str]) -> None:
    assert kubelet._one_a_family(addresses) == expected
