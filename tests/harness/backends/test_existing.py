"""Reading a user's cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from harness.backends import existing
from harness.contract import RunOptions, Unavailable


@pytest.mark.parametrize(
    ("datastore", "only"), [({"datastore_type": "kubernetes"}, True), ({"etcd_endpoints": "e"}, False)]
)
def test_a_clusters_calico_is_a_pods_first_network_only_if_its_datastore_is_kubernetes(
    datastore: dict[str, str], only: bool
) -> None:
    conf = {"plugins": [{"type": "calico", **datastore}, {"type": "portmap"}]}
    assert ("status.podIP" in existing.first_only(conf)) is only
    assert existing.first_only({"type": "bridge", "datastore_type": "kubernetes"}) == ""


def test_an_api_server_that_is_away_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeconfig = tmp_path / "config"
    here = {"name": "here", "context": {"cluster": "c", "user": ""}}
    cluster = {"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}
    kubeconfig.write_text(json.dumps({"clusters": [cluster], "contexts": [here], "current-context": "here"}))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    with pytest.raises(Unavailable) as caught:
        existing.start(RunOptions(networks=(), why="", console=Console()))
    assert str(caught.value) == (
        "existing: the API server at https://127.0.0.1:1 cannot be reached: [Errno 111] Connection refused"
    )
