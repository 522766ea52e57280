"""Reading a user's cluster."""

from __future__ import annotations

import pytest

from harness.backends import existing


@pytest.mark.parametrize(
    ("datastore", "only"), [({"datastore_type": "kubernetes"}, True), ({"etcd_endpoints": "e"}, False)]
)
def test_a_clusters_calico_is_a_pods_first_network_only_if_its_datastore_is_kubernetes(
    datastore: dict[str, str], only: bool
) -> None:
    conf = {"plugins": [{"type": "calico", **datastore}, {"type": "portmap"}]}
    assert ("status.podIP" in existing.first_only(conf)) is only
    assert existing.first_only({"type": "bridge", "datastore_type": "kubernetes"}) == ""
